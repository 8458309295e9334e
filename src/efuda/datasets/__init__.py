"""Datasets: a Danbooru-style dump and a folder of pictures in, a dataset directory out (docs/formats.md).

dataset = prepare([Path("metadata")], Path("512px"), Path("dataset"), load_recipe("reference"))
dataset.funnel          # {"entries": 2963928, "sampled": 740982, "unique_tags": 206412, "kept_tags": 8266, …}
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Marker, has_marker
from efuda.datasets.packing import Located, Packed, locate, pack
from efuda.datasets.selection import choose_vocabulary, find_groups, sample, split_posts, tag_posts
from efuda.datasets.sources import BadLine, Connection, connect, find_metadata, read_aliases, read_entries
from efuda.errors import InputError, OutputError
from efuda.files import make_folder, replacing, sha256, write_json
from efuda.progress import Progress, silent
from efuda.recipes import Recipe
from efuda.vocabulary import Vocabulary

__all__ = ["Dataset", "prepare"]


def prepare(
    metadata: Sequence[Path],
    images: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Make a dataset.

    Args:
        metadata: files, or folders that hold `posts*.json`.
        images: the folder of buckets.
        out: the dataset; a finished one made from the same inputs is returned at once.
        recipe: its sections `posts`, `vocabulary`, `images` and `split`.
        overwrite: make a finished dataset of other inputs anew; pictures that did not change are not decoded again.
        workers: processes that decode, one a core by default.

    Raises:
        MetadataError: no metadata, or too many bad lines.
        InputError: no pictures, or no tag left after the cut.
        OutputError: `out` cannot be written, or holds a dataset of other inputs.
    """
    files = find_metadata(metadata)
    make_folder(out)
    inputs = {"images": str(images.resolve()), **{str(file): _stamp(file) for file in files}}
    if has_marker(out) and not overwrite:
        return _unchanged(out, inputs, recipe)
    (out / "efuda.json").unlink(missing_ok=True)
    work = make_folder(out / ".work")
    connection = connect(work / "metadata.duckdb")
    try:
        funnel, vocabulary = _make(connection, files, images, out, recipe, workers, progress)
    finally:
        connection.close()
        shutil.rmtree(work, ignore_errors=True)
    _finish(out, inputs, recipe, images, funnel, vocabulary)
    return Dataset.open(out)


def _make(
    connection: Connection,
    files: Sequence[Path],
    images: Path,
    out: Path,
    recipe: Recipe,
    workers: int | None,
    progress: Progress,
) -> tuple[dict[str, int], Vocabulary]:
    bad_lines, bad = read_entries(connection, files, max_bad_lines=recipe.posts.max_bad_lines, progress=progress)
    funnel = sample(connection, recipe)
    progress("tags", 0, None, unit="tags")
    vocabulary, aliases, unique = choose_vocabulary(connection, recipe, read_aliases(files))
    tag_posts(connection, vocabulary)
    progress("tags", len(vocabulary), len(vocabulary), unit="tags")
    found, missing = _locate(connection, images, progress)
    packed = pack(images, found, out, recipe.images, workers=workers, progress=progress)
    accepted = [one for one in packed if not one.reason]
    if not accepted:
        reasons = Counter(one.reason for one in packed).most_common(1)
        raise InputError(
            f"None of {len(packed):,} pictures can be used: {reasons[0][0]}. See --set images.exact_size=none"
        )
    _reject(connection, bad, missing, packed)
    splits = _write_posts(connection, out, accepted, vocabulary, recipe)
    _write_tags(connection, out, vocabulary, aliases)
    _copy(connection, "SELECT * FROM rejected", out / "rejected.parquet")
    counts = Counter(splits)
    order = ("train", "validation", "test", *(("unseen",) if recipe.split.hold_out else ()))
    return {
        "entries": funnel["entries"],
        "bad_lines": bad_lines,
        "sampled": funnel["sampled"],
        "unique_tags": unique,
        "kept_tags": len(vocabulary),
        "posts": funnel["posts"],
        "images_found": len(found),
        "images_verified": len(accepted),
        **{name: counts[name] for name in order},
    }, vocabulary


def _locate(connection: Connection, images: Path, progress: Progress) -> tuple[list[Located], list[int]]:
    rows = connection.execute("SELECT id, ext FROM posts ORDER BY entry").fetchall()
    both = list(locate(images, [row[0] for row in rows], [row[1] for row in rows], progress=progress))
    found = [one for one in both if isinstance(one, Located)]
    if not found:
        raise InputError(
            f"--images {images} holds none of the {len(rows):,} posts' pictures; looked for names such as "
            f"{rows[0][0] % 1000:04d}/{rows[0][0]}.jpg"
            if rows
            else "The metadata holds no posts with an id."
        )
    return found, [one for one in both if not isinstance(one, Located)]


def _reject(connection: Connection, bad: Sequence[BadLine], missing: Sequence[int], packed: Sequence[Packed]) -> None:
    rows: list[tuple[int | None, str, str, str | None]] = [
        (None, "metadata", "not a JSON object", f"{line.file}:{line.line}") for line in bad
    ]
    rows += [(post, "images", "missing", None) for post in missing]
    rows += [(one.id, "images", one.reason, one.path) for one in packed if one.reason]
    if rows:
        connection.executemany("INSERT INTO rejected VALUES (?, ?, ?, ?)", rows)


def _write_posts(
    connection: Connection, out: Path, accepted: Sequence[Packed], vocabulary: Vocabulary, recipe: Recipe
) -> list[str]:
    import pyarrow

    groups = find_groups(connection)
    ids = np.array([one.id for one in accepted], dtype=np.int64)
    group = np.array([groups.get(one.id, one.id) for one in accepted], dtype=np.int64)
    splits = split_posts(ids, group, _held_out(connection, ids, recipe), recipe.split)
    verified = pyarrow.table(
        {
            "id": ids,
            "group": group,
            "split": splits,
            **{name: [getattr(one, name) for one in accepted] for name in ("width", "height", "path", "md5")},
            "shard": pyarrow.array([one.shard for one in accepted], pyarrow.int32()),
            **{name: [getattr(one, name) for one in accepted] for name in ("offset", "length")},
        }
    )
    connection.register("verified", verified)
    connection.execute("CREATE OR REPLACE TABLE verified_posts AS SELECT * FROM verified")
    connection.unregister("verified")
    _copy(
        connection,
        'SELECT id, split, "group", rating, width, height, path, v.md5, shard, "offset", length, '
        "coalesce(tags, []::INTEGER[]) AS tags FROM posts JOIN verified_posts v USING (id) "
        "LEFT JOIN labels USING (entry) ORDER BY entry",
        out / "posts.parquet",
    )
    return splits


def _held_out(connection: Connection, ids: NDArray[np.int64], recipe: Recipe) -> NDArray[np.bool_]:
    held = {row[0] for row in connection.execute("SELECT id FROM posts JOIN held_out USING (entry)").fetchall()}
    if recipe.split.hold_out and not held:
        raise InputError(
            f"split.hold_out: no post carries any of {', '.join(recipe.split.hold_out)}. Check the spelling."
        )
    return np.array([post in held for post in ids.tolist()], dtype=bool)


def _write_tags(connection: Connection, out: Path, vocabulary: Vocabulary, aliases: Mapping[str, list[str]]) -> None:
    import pyarrow

    table = pyarrow.table(
        {
            "index": pyarrow.array(range(len(vocabulary)), pyarrow.int32()),
            "name": list(vocabulary.names),
            "category": pyarrow.array([int(tag.category) for tag in vocabulary], pyarrow.int32()),
            "count": [tag.count for tag in vocabulary],
            "aliases": pyarrow.array(
                [aliases.get(name, []) for name in vocabulary.names], pyarrow.list_(pyarrow.string())
            ),
        }
    )
    connection.register("names", table)
    posts = str(out / "posts.parquet").replace("'", "''")
    splits = ("train", "validation", "test", "unseen")
    counts = ", ".join(f"count(*) FILTER (split = '{split}') AS {split}" for split in splits)
    columns = ", ".join(f"coalesce({split}, 0) AS {split}" for split in splits)
    _copy(
        connection,
        f"""SELECT names.index, name, category, "count", {columns}, aliases FROM names LEFT JOIN (
            SELECT tag, {counts} FROM (SELECT split, unnest(tags) AS tag FROM read_parquet('{posts}')) GROUP BY tag
        ) AS counted ON tag = names.index ORDER BY names.index""",
        out / "tags.parquet",
    )
    connection.unregister("names")


def _copy(connection: Connection, query: str, path: Path) -> None:
    with replacing(path) as beside:
        target = str(beside).replace("'", "''")
        connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def _finish(
    out: Path,
    inputs: Mapping[str, str],
    recipe: Recipe,
    images: Path,
    funnel: Mapping[str, int],
    vocabulary: Vocabulary,
) -> None:
    write_json(out / "funnel.json", funnel)
    splits = {name: funnel[name] for name in ("train", "validation", "test", "unseen") if name in funnel}
    Marker(
        kind="dataset",
        efuda=version("efuda"),
        inputs=dict(inputs),
        recipe=recipe.data(),
        counts={
            "posts": funnel["images_verified"],
            "tags": len(vocabulary),
            "splits": splits,
            "images": str(images.resolve()),
            "vocabulary": vocabulary.digest,
            "digest": sha256(out / "posts.parquet"),
        },
    ).write(out)


def _unchanged(out: Path, inputs: Mapping[str, str], recipe: Recipe) -> Dataset:
    dataset = Dataset.open(out)
    if dataset.marker.recipe != recipe.data():
        changed = "with another recipe"
    elif dict(dataset.marker.inputs) != dict(inputs):
        changed = "from other metadata or images"
    else:
        return dataset
    raise OutputError(
        f"{out} is a finished dataset, made {changed}. Choose another --out, or make it anew with --overwrite"
    )


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} bytes, modified {stat.st_mtime_ns}"
