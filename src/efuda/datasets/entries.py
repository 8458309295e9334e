"""The one shape that every source gives: a table of entries, and the lines that could not be read.

A source (`datasets.sources`) cuts its files into jobs. A job runs anywhere, reads its part and returns `Parsed`; the
rest of the stage never knows which format it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

__all__ = ["CATEGORIES", "ENTRY", "BadLine", "Brief", "BriefJob", "Job", "Parsed", "entry_table", "split_words"]

CATEGORIES: Final = ("general", "artist", "copyright", "character", "meta")

# `id` is null where the entry has none; `parent_id` is null, never 0; `rating` is g, s, q or e; `ext` has no dot and is
# in lower case; `path` is set only where the metadata lies beside its picture: then it is that picture's full path.
ENTRY: Final[Any] = arrow.schema(
    [
        ("id", arrow.int64()),
        ("parent_id", arrow.int64()),
        ("rating", arrow.string()),
        ("deleted", arrow.bool_()),
        ("banned", arrow.bool_()),
        ("md5", arrow.string()),
        ("ext", arrow.string()),
        ("score", arrow.int64()),
        ("created", arrow.string()),  # as written: ISO 8601, or the old "2008-06-10 03:08:07.34205 UTC"
        ("updated", arrow.string()),
        ("path", arrow.string()),
        *((category, arrow.list_(arrow.string())) for category in CATEGORIES),
    ]
)


@dataclass(frozen=True, slots=True)
class BadLine:
    """Something that is no entry: a line of `file` (counted from 1 within the job), or all of it (`line` 0)."""

    file: str
    line: int
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a job read: `table` has the schema `ENTRY`, in file order; `lines` is how many lines the job spans."""

    table: Any
    bad: tuple[BadLine, ...] = ()
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Brief:
    """What sampling and grouping ask of every entry: int64 [n], 0 where it has none.

    `lined` says that every line of the job is an entry, so that a sample can be read by counting lines.
    """

    ids: NDArray[np.int64]
    parents: NDArray[np.int64]
    lined: bool = False

    @classmethod
    def of(cls, table: Any) -> Self:
        """Of a table `ENTRY`."""
        return cls(*(np.maximum(table[name].fill_null(0).to_numpy(), 0) for name in ("id", "parent_id")))


class Job(Protocol):
    """A part of a source, small enough to be read at once (about 64 MB); it is pickled to where it runs."""

    @property
    def file(self) -> str:
        """The file, or the folder, that it is a part of: for progress and errors."""

    @property
    def key(self) -> str:
        """Changes when what `read` would return does: path, place, size and time of the file."""

    def read(self) -> Parsed:
        """Read it; raises MetadataError where the file as a whole cannot be read."""
        ...


@runtime_checkable
class BriefJob(Job, Protocol):
    """A job that can be read twice: first for little, then only the entries that are sampled."""

    @property
    def data(self) -> bytes | None:
        """The job's contents, where it carries them: then it is not worth a second way to a worker."""

    def brief(self) -> Brief:
        """Ids and parents of what `read` would return; raises MetadataError as that does."""
        ...

    def read(self, wanted: NDArray[np.bool_] | None = None) -> Parsed:
        """Read it, or only these of its entries, where each of its lines is one."""
        ...


def entry_table(rows: int, columns: dict[str, Any]) -> Any:
    """A table of `ENTRY` from some of its columns (arrays of `rows`); the others are null."""
    arrays = []
    for field in ENTRY:
        column = columns.get(field.name)
        arrays.append(arrow.nulls(rows, field.type) if column is None else column)
    return arrow.Table.from_arrays(arrays, schema=ENTRY)


def split_words(strings: Any) -> Any:
    """A list of words for each string of an Arrow array; a null gives a null. Doubled spaces give empty words."""
    return compute.split_pattern(strings, " ")
