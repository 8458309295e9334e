"""What the files of a dataset hold, counted in one pass and little memory, for its report."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from efuda.datasets.splitting import SPLITS
from efuda.errors import EfudaError
from efuda.images import read_rgb
from efuda.places import join, read_bytes
from efuda.vocabulary import Category

__all__ = ["Contents", "Pictures", "Reason", "Rows", "positives", "read_posts", "read_rejected"]

_RATINGS: Final = ("g", "s", "q", "e", "")  # "": not said; the code after the last: anything else
_EXAMPLES: Final = 3
_AT_ONCE: Final = 500_000  # rejected rows; fewer, larger batches meet each reason less often
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_GAP: Final = "\0"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What one pass over `posts.parquet` tells.

    Attributes:
        ratings: int8 [n], places in g, s, q, e, "" (not said); 5 for anything else.
        lengths: [longest + 1], how many posts have so many tags.
        top: the outputs that most posts carry, without ratings.
        both: [top, top], posts that carry one and the other.
        groups: int64 [n]; hashes: uint64 [n], or None in a dataset that has none.
    """

    ratings: NDArray[np.int8]
    lengths: NDArray[np.int64]
    top: Rows
    both: NDArray[np.float64]
    groups: NDArray[np.int64]
    hashes: NDArray[np.uint64] | None

    def rated(self, *letters: str) -> Rows:
        """The posts with one of these ratings."""
        return np.flatnonzero(np.isin(self.ratings, [_RATINGS.index(letter) for letter in letters]))

    def has(self, letter: str) -> bool:
        """Whether any post has this rating."""
        return bool(len(self.rated(letter)))


def read_posts(posts: Any, tags: Any, top_size: int) -> Contents:
    """Read what the report needs of `posts.parquet` [an open ParquetFile], batch by batch.

    Args:
        tags: the table `tags.parquet`.
        top_size: so many tags are counted pair by pair.
    """
    learned = np.flatnonzero(tags["category"].to_numpy() != int(Category.RATING))
    top = learned[np.argsort(-positives(tags)[learned], kind="stable")][:top_size]
    place = np.full(len(tags), len(top))
    place[top] = np.arange(len(top))
    both = np.zeros((len(top), len(top)))
    lengths = np.zeros(1, np.int64)
    letters = arrow.array(_RATINGS)
    ratings, groups, hashes = [np.zeros(0, np.int8)], [np.zeros(0, np.int64)], []
    hashed = ["phash"] if "phash" in posts.schema_arrow.names else []
    for batch in posts.iter_batches(columns=["rating", "group", "tags", *hashed]):
        lists = batch.column("tags")
        size = compute.list_value_length(lists).to_numpy(zero_copy_only=False)
        more = np.bincount(size, minlength=len(lengths))
        more[: len(lengths)] += lengths
        lengths = more
        dense = np.zeros((len(lists), len(top) + 1), dtype=np.float32)  # the last column takes all other tags
        dense[np.repeat(np.arange(len(lists)), size), place[compute.list_flatten(lists).to_numpy()]] = 1
        both += dense[:, :-1].T @ dense[:, :-1]
        rating = compute.index_in(batch.column("rating").fill_null(""), value_set=letters).fill_null(len(_RATINGS))
        ratings.append(rating.to_numpy().astype(np.int8))
        groups.append(batch.column("group").to_numpy())
        hashes += [batch.column(name).to_numpy() for name in hashed]
    return Contents(
        np.concatenate(ratings), lengths, top, both, np.concatenate(groups), np.concatenate(hashes) if hashes else None
    )


def positives(tags: Any) -> NDArray[np.int64]:
    """How many posts of the dataset carry each tag."""
    return np.asarray(sum(tags[name].to_numpy() for name in SPLITS))


@dataclass
class Reason:
    """Why something was left out; reasons that differ in numbers only are one."""

    stage: str
    template: str
    count: int = 0
    numbers: list[str] | None = None
    examples: list[str] = field(default_factory=list)

    def text(self) -> str:
        """With N for the numbers that differ."""
        numbers = iter(self.numbers or [])
        return re.sub(_GAP, lambda _: next(numbers), self.template)

    def is_rating_general(self) -> bool:
        """Whether it says that the dump has the rating "general"."""
        return self.stage == "posts" and self.template == "rating g"

    def add(self, reason: str, count: int) -> None:
        """Count one of its kind."""
        self.count += count
        here = _NUMBER.findall(reason)
        self.numbers = [old if old == new else "N" for old, new in zip(self.numbers or here, here, strict=True)]


def read_rejected(path: Path) -> list[Reason]:
    """Every kind of reason in `rejected.parquet`, the commonest first, with a few examples."""
    kinds: dict[tuple[str, str], Reason] = {}
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_AT_ONCE):
            for stage, reason, count, rows in _reasons(batch):
                template = _NUMBER.sub(_GAP, reason)
                kind = kinds.setdefault((stage, template), Reason(stage, template))
                kind.add(reason, count)
                if len(kind.examples) < _EXAMPLES:
                    told = [_example(row) for row in batch.take(rows).to_pylist()]
                    kind.examples = list(dict.fromkeys([*kind.examples, *told]))[:_EXAMPLES]
    return sorted(kinds.values(), key=lambda kind: (-kind.count, kind.stage, kind.template))


def _reasons(batch: Any) -> Iterator[tuple[str, str, int, Any]]:
    """Stage, reason, how many, and the first rows, for each reason of a batch."""
    stages, reasons = (batch.column(name).dictionary_encode() for name in ("stage", "reason"))
    stage_names, reason_names = stages.dictionary.to_pylist(), reasons.dictionary.to_pylist()
    code = stages.indices.to_numpy().astype(np.int64) * len(reason_names) + reasons.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    unique, first, counts = np.unique(code[order], return_index=True, return_counts=True)
    for one, start, count in zip(unique.tolist(), first.tolist(), counts.tolist(), strict=True):
        stage, reason = divmod(one, len(reason_names))
        yield stage_names[stage], reason_names[reason], count, arrow.array(order[start : start + min(count, _EXAMPLES)])


def _example(row: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in (row["id"], row["path"]) if part is not None) or "–"


@dataclass(frozen=True)
class Pictures:
    """The posts of an open `posts.parquet` one by one, with their pictures.

    Attributes:
        root: the dataset; images: the first images folder.
        read: row → the picture's bytes, where they lie neither in a shard nor at their path.
    """

    posts: Any
    root: Path
    images: str
    read: Callable[[int], bytes] | None = None

    def post(self, row: int) -> dict[str, Any]:
        """Its id, split and tags."""
        return self._columns(row, "id", "split", "tags")

    def picture(self, row: int) -> Image.Image | None:
        """None where it cannot be read."""
        try:
            return read_rgb(self.read(row) if self.read else self._bytes(row))
        except (OSError, EfudaError):
            return None

    def _bytes(self, row: int) -> bytes:
        post = self._columns(row, "path", "shard", "offset", "length")
        if post["shard"] < 0:
            return read_bytes(join(self.images, post["path"]))
        with (self.root / "shards" / f"{post['shard']:06d}.tar").open("rb") as shard:
            return os.pread(shard.fileno(), post["length"], post["offset"])

    def _columns(self, row: int, *columns: str) -> dict[str, Any]:
        for number in range(self.posts.num_row_groups):
            size = self.posts.metadata.row_group(number).num_rows
            if row < size:
                found: dict[str, Any] = self.posts.read_row_group(number, columns=columns).slice(row, 1).to_pylist()[0]
                return found
            row -= size
        raise IndexError(row)
