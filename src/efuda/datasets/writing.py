"""From labelled posts and their pictures to the files of a dataset; `efuda.json` last."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from efuda.artifacts import Marker
from efuda.datasets.extending import Base
from efuda.datasets.locating import locate
from efuda.datasets.neighbours import find_neighbours
from efuda.datasets.packing import pack
from efuda.datasets.report import Change, Findings, write_report
from efuda.datasets.rows import take_rows, unpack
from efuda.datasets.selection import REJECTED
from efuda.datasets.sources import Found
from efuda.datasets.splitting import SPLITS, Splits, group_posts, split_posts
from efuda.errors import InputError
from efuda.files import replacing, sha256, write_json
from efuda.places import stat
from efuda.progress import Progress
from efuda.recipes import Recipe
from efuda.vocabulary import Vocabulary
from efuda.workers import Workers

if TYPE_CHECKING:
    from efuda.datasets import Metadata

__all__ = ["finish", "inputs_of", "source_lines", "write_dataset"]

_POSTS: Final[Any] = arrow.schema(
    [
        ("id", arrow.int64()),
        ("split", arrow.string()),
        ("group", arrow.int64()),
        ("rating", arrow.string()),
        ("width", arrow.int32()),
        ("height", arrow.int32()),
        ("path", arrow.string()),
        ("md5", arrow.string()),
        ("phash", arrow.uint64()),
        ("shard", arrow.int32()),
        ("offset", arrow.int64()),
        ("length", arrow.int64()),
        ("tags", arrow.list_(arrow.int32())),
    ]
)
_BATCH: Final = 50_000


@dataclass(frozen=True)
class Accepted:
    """The posts whose pictures can be used: `rows` [n] of the labelled posts, and `pictures`, a row each."""

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    pictures: Any
    groups: NDArray[np.int64]
    splits: Splits


def write_dataset(
    read: Metadata,
    images: Sequence[str],
    out: Path,
    recipe: Recipe,
    *,
    base: Base | None,
    workers: Workers,
    progress: Progress,
) -> Mapping[str, int]:
    """Find and pack the pictures, split the posts, and write everything but the marker; returns the whole funnel.

    Raises:
        InputError: no picture can be used.
    """
    ids = read.posts["id"].to_numpy()
    found, mask = locate(images, read.posts.select(["id", "ext", "md5", "path"]), progress=progress)
    if not len(found):
        raise InputError(_nothing_found(images, ids))
    packed = pack(
        images, found, out, recipe.images, workers=workers, known=base.known() if base else None, progress=progress
    )
    usable = compute.equal(packed["reason"], "").to_numpy()
    if not usable.any():
        reason, _ = Counter(packed["reason"].to_pylist()).most_common(1)[0]
        raise InputError(f"None of {len(packed):,} pictures can be used: {reason}. See --set images.exact_size=none")
    progress("split", 0, None, unit="posts")
    accepted = _split(read, np.flatnonzero(mask)[usable], packed.filter(usable), recipe, base)
    progress("split", len(accepted.rows), len(accepted.rows), unit="posts")
    counts = _write_posts(read.posts, accepted, len(read.vocabulary), out / "posts.parquet")
    _write_tags(read, counts, out / "tags.parquet")
    _write_rejected(read, ids[~mask], packed, accepted, out / "rejected.parquet")
    sizes = Counter(accepted.splits.names[~accepted.splits.left_out].tolist())
    named = [name for name in SPLITS if name != "unseen" or recipe.split.hold_out or sizes["unseen"]]
    funnel = {
        **read.funnel,
        "images_found": len(found),
        "images_verified": len(accepted.rows),
        **{name: sizes[name] for name in named},
    }
    write_json(out / "funnel.json", funnel)
    progress("report", 0, 1, unit="report")
    write_report(out, recipe, _findings(read, accepted, sizes, base), images[0] if images else "")
    progress("report", 1, 1, unit="report")
    return funnel


def finish(
    out: Path,
    inputs: Mapping[str, str],
    recipe: Recipe,
    sources: Sequence[str],
    metadata: Sequence[str],
    images: Sequence[str],
    funnel: Mapping[str, int],
    vocabulary: Vocabulary,
    base: Base | None,
) -> None:
    """Declare the dataset complete."""
    splits = {name: funnel[name] for name in SPLITS if name in funnel}
    Marker(
        kind="dataset",
        efuda=version("efuda"),
        inputs=dict(inputs),
        recipe=recipe.data(),
        counts={
            "posts": sum(splits.values()),
            "tags": len(vocabulary),
            "splits": splits,
            "metadata": list(metadata),
            "images": list(images),
            "sources": list(sources),
            "extends": str(base.root.resolve()) if base else None,
            "vocabulary": vocabulary.digest,
            "digest": sha256(out / "posts.parquet"),
        },
    ).write(out)


def inputs_of(
    found: Sequence[Found], relation_files: Sequence[str], images: Sequence[str], base: Base | None
) -> dict[str, str]:
    """What the dataset is made from, with what tells a changed file: a line a source, one for the pictures."""
    inputs = {"images": " ".join(images)}
    for one in found:
        stamps = [_stamp(file) for file in one.files]
        alone = list(one.files) == [one.place]
        inputs[one.place] = stamps[0] if alone else _digest(list(map(" ".join, zip(one.files, stamps, strict=True))))
    inputs.update({file: _stamp(file) for file in relation_files})
    if base:
        inputs["extends"] = base.digest
    return inputs


def _split(read: Metadata, rows: NDArray[np.int64], pictures: Any, recipe: Recipe, base: Base | None) -> Accepted:
    ids = pictures["id"].to_numpy()
    links = [read.entries.parents]
    if recipe.split.near_duplicates is not None:
        pairs = find_neighbours(pictures["phash"].to_numpy(), recipe.split.near_duplicates)
        links.append(ids[pairs])
    groups = group_posts(ids, np.concatenate(links))
    starts, tags = take_rows(*unpack(read.posts["tags"]), rows)
    splits = split_posts(
        ids,
        groups,
        recipe.split,
        held_out=read.posts["held_out"].to_numpy()[rows],
        created=read.posts["created"].to_numpy()[rows],
        starts=starts,
        tags=tags,
        tag_count=len(read.vocabulary),
        pinned=base.pinned(ids) if base else None,
    )
    return Accepted(rows, ids, pictures, groups, splits)


def _write_posts(posts: Any, accepted: Accepted, tag_count: int, path: Path) -> dict[str, NDArray[np.int64]]:
    """Write in batches, so that memory stays small; returns split → how many of its posts carry each tag."""
    counts = {name: np.zeros(tag_count, np.int64) for name in SPLITS}
    kept = np.flatnonzero(~accepted.splits.left_out)
    with replacing(path) as beside, parquet.ParquetWriter(beside, _POSTS, compression="zstd") as writer:
        for first in range(0, len(kept), _BATCH):
            some = kept[first : first + _BATCH]
            pictures = accepted.pictures.take(arrow.array(some))
            labelled = posts.take(arrow.array(accepted.rows[some]))
            split = accepted.splits.names[some]
            columns = {name: pictures[name] for name in ("width", "height", "path", "md5", "phash")}
            columns |= {name: pictures[name] for name in ("shard", "offset", "length")}
            columns |= {"id": accepted.ids[some], "group": accepted.groups[some]}
            columns |= {"split": arrow.array(split.tolist(), arrow.string())}
            columns |= {"rating": labelled["rating"], "tags": labelled["tags"]}
            writer.write_table(arrow.table({field.name: columns[field.name] for field in _POSTS}, schema=_POSTS))
            starts, tags = unpack(labelled["tags"])
            for name in set(split.tolist()):
                carried = take_rows(starts, tags, np.flatnonzero(split == name))[1]
                counts[name] += np.bincount(carried, minlength=tag_count)
    return counts


def _write_tags(read: Metadata, counts: Mapping[str, NDArray[np.int64]], path: Path) -> None:
    vocabulary = read.vocabulary
    aliases: dict[str, list[str]] = {name: [] for name in vocabulary.names}
    for alias, tag in sorted(read.relations.aliases.items()):
        if tag in aliases:
            aliases[tag].append(alias)
    table = arrow.table(
        {
            "index": arrow.array(range(len(vocabulary)), arrow.int32()),
            "name": list(vocabulary.names),
            "category": arrow.array([int(tag.category) for tag in vocabulary], arrow.int32()),
            "count": arrow.array([tag.count for tag in vocabulary], arrow.int64()),
            **{name: counts[name] for name in SPLITS},
            "aliases": arrow.array(list(aliases.values()), arrow.list_(arrow.string())),
        }
    )
    with replacing(path) as beside:
        parquet.write_table(table, beside, compression="zstd")


def _write_rejected(read: Metadata, missing: NDArray[np.int64], packed: Any, accepted: Accepted, path: Path) -> None:
    refused = packed.filter(compute.not_equal(packed["reason"], ""))
    left_out = np.flatnonzero(accepted.splits.left_out)
    entries = read.entries
    bad_names = [repr(name) for name in entries.bad_names]
    tables = [
        _rejections("metadata", [line.reason for line in entries.bad], paths=[_where(line) for line in entries.bad]),
        _rejections("tags", ["not a tag name"] * len(bad_names), paths=bad_names),
        read.selection.rejected,
        _rejections("images", ["missing"] * len(missing), ids=missing),
        _rejections("images", refused["reason"], ids=refused["id"], paths=refused["path"]),
        _rejections(
            "split",
            ["its relatives stand in other splits of the dataset that is extended"] * len(left_out),
            ids=accepted.ids[left_out],
            paths=accepted.pictures["path"].take(arrow.array(left_out)),
        ),
    ]
    with replacing(path) as beside:
        parquet.write_table(arrow.concat_tables(tables), beside, compression="zstd")


def _rejections(stage: str, reasons: Any, *, ids: Any = None, paths: Any = None) -> Any:
    rows = len(reasons)
    none = arrow.nulls(rows, arrow.int64()), arrow.nulls(rows, arrow.string())
    return arrow.table(
        {
            "id": none[0] if ids is None else ids,
            "stage": arrow.array([stage] * rows, arrow.string()),
            "reason": reasons if isinstance(reasons, arrow.ChunkedArray) else arrow.array(reasons, arrow.string()),
            "path": none[1] if paths is None else paths,
        },
        schema=REJECTED,
    )


def _findings(read: Metadata, accepted: Accepted, sizes: Mapping[str, int], base: Base | None) -> Findings:
    names, change = read.vocabulary.names, None
    if base:
        before, after = set(base.vocabulary.names), set(names)
        change = Change(
            base=str(base.root),
            posts_before=dict(base.counts),
            posts_after={name: sizes[name] for name in SPLITS if sizes[name]},
            tags_added=[name for name in names if name not in before],
            tags_gone=sorted(before - after),
            left_out=int(accepted.splits.left_out.sum()),
        )
    return Findings(
        sources=source_lines(read.found),
        uncovered={names[tag]: splits for tag, splits in accepted.splits.uncovered.items()},
        moved=accepted.splits.moved,
        crossing=accepted.splits.crossing,
        counts_before_cut=read.counts_before_cut,
        change=change,
    )


def _nothing_found(images: Sequence[str], ids: NDArray[np.int64]) -> str:
    if not images:
        return "No folder of pictures was named. Name it with --images, for example --images 512px"
    return (
        f"--images {' '.join(images)} holds none of the {len(ids):,} posts' pictures; looked for names such as "
        f"{ids[0] % 1000:04d}/{ids[0]}.jpg"
    )


def _where(line: Any) -> str:
    return f"{line.file}:{line.line}" if line.line else line.file


def source_lines(found: Sequence[Found]) -> list[str]:
    """The sources in words."""
    return [f"{one.name}: {_how_many(len(one.files), 'file')} at {one.place}" for one in found]


def _how_many(count: int, unit: str) -> str:
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def _stamp(file: str) -> str:
    told = stat(file)
    return f"{told.size} bytes, modified {told.stamp}"


def _digest(lines: Sequence[str]) -> str:
    return f"{len(lines)} files, {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
