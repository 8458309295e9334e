"""Read every source into chunks on disk: entries as columns, their tags as sorted numbers into one list of names.

A worker reads a job, replaces aliases, adds implied tags, and numbers the names it met. The parent writes the chunk and
joins its names to the list of all. What a later stage needs of a million entries is then arrays, not strings; chunks
are mapped into memory, so that it does not grow with the dump. A killed stage reads again only what has no chunk.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

from efuda.datasets.entries import CATEGORIES, ENTRY, BadLine, Job, Parsed
from efuda.datasets.relations import Relations
from efuda.datasets.rows import arrange, sort_rows, unpack_strings
from efuda.errors import MetadataError
from efuda.files import replacing
from efuda.progress import Progress, silent
from efuda.workers import Workers

__all__ = ["Chunk", "Entries", "encode", "read_entries"]

LAYOUT: Final = "1"  # of a chunk; a chunk of another layout is read again
SCALARS: Final = tuple(name for name in ENTRY.names if name not in CATEGORIES)
_MAX_KEPT_BAD: Final = 100
_MAX_TAG_LENGTH: Final = 170


@dataclass(frozen=True)
class Chunk:
    """Some entries in file order: `first` is the number of the first of them, from 0.

    `codes` says for each name of this chunk which of all names it is.
    """

    path: Path
    first: int
    rows: int
    codes: NDArray[np.int32]

    def open(self) -> Any:
        """The columns `SCALARS` and `tags` (list of chunk codes, sorted, each once), mapped into memory."""
        return arrow.ipc.open_file(arrow.memory_map(str(self.path))).read_all()


@dataclass
class Entries:
    """All chunks, all names, and what could not be read."""

    chunks: list[Chunk] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    category_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, len(CATEGORIES)), np.int64))
    bad_count: int = 0
    bad: list[BadLine] = field(default_factory=list)
    bad_names: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.chunks[-1].first + self.chunks[-1].rows if self.chunks else 0

    @cached_property
    def categories(self) -> NDArray[np.int64]:
        """For each name the column of `CATEGORIES` it is written in most often (the first, where equal)."""
        return np.asarray(self.category_counts.argmax(axis=1)) if self.names else np.zeros(0, np.int64)


def read_entries(
    jobs: Iterable[Job],
    folder: Path,
    relations: Relations,
    *,
    workers: Workers,
    max_bad_lines: float,
    progress: Progress = silent,
) -> Entries:
    """Read all jobs into chunks in `folder`; a chunk that is there already is not read again.

    Raises:
        MetadataError: more than `max_bad_lines` of all lines are bad, or there is no entry at all.
    """
    collector = _Collector(Entries())
    waiting: list[tuple[Job, Path, str]] = []

    def fresh() -> Iterator[Job]:
        for number, job in enumerate(jobs):
            path, key = folder / f"{number:06d}.arrow", _key(job, relations)
            waiting.append((job, path, key))
            if _stored_key(path) != key:
                yield job

    results = workers.map(partial(read_job, relations=relations), fresh())
    exhausted = object()
    ahead: Any = next(results, exhausted)
    lines_before: dict[str, int] = {}
    while waiting or ahead is not exhausted:
        job, path, key = waiting.pop(0)
        if _stored_key(path) != key:
            _store(path, key, *ahead)
            ahead = next(results, exhausted)
        lines = collector.add(path, lines_before.get(job.file, 0))
        lines_before[job.file] = lines_before.get(job.file, 0) + lines
        progress("metadata", len(collector.entries), None, unit="entries", note=Path(job.file).name)
    entries = collector.finish()
    progress("metadata", len(entries), len(entries), unit="entries", note=f"{len(entries.names):,} tags")
    _check_bad(entries, max_bad_lines)
    return entries


def read_job(job: Job, relations: Relations) -> tuple[bytes, bytes]:
    """Done in a worker: the chunk's table and its names, as two Arrow files."""
    parsed = job.read()
    table, names, counts, bad_names = encode(parsed, relations)
    bad = [[one.file, str(one.line), one.reason, one.text] for one in parsed.bad[:_MAX_KEPT_BAD]]
    about = arrow.table(
        {
            "bad": arrow.array([bad], arrow.list_(arrow.list_(arrow.string()))),
            "bad_count": [len(parsed.bad)],
            "lines": [parsed.lines],
            "bad_names": arrow.array([list(bad_names.items())], arrow.map_(arrow.string(), arrow.int64())),
            "names": arrow.array([names], arrow.list_(arrow.string())),
            "counts": arrow.array([counts.ravel()], arrow.list_(arrow.int64())),
        }
    )
    return _ipc(table), _ipc(about)


def encode(parsed: Parsed, relations: Relations) -> tuple[Any, list[str], NDArray[np.int64], dict[str, int]]:
    """Number the tags of one job.

    Returns:
        The table (`SCALARS` and `tags`), the names in the order of their codes, how often each is written in each of
        `CATEGORIES` [names, 5] (an alias counts as its tag; implied tags are not written), and bad names → occurrences.
    """
    table = parsed.table.combine_chunks()
    numbering = _Numbering(relations)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []
    for category in CATEGORIES:
        starts, values = unpack_strings(table[category])
        parts.append((np.diff(starts), numbering.codes(values.fill_null("").dictionary_encode())))
    starts, codes = arrange(parts)
    implied = numbering.implied()
    if implied is not None:
        starts, codes = _add_implied(starts, codes, *implied)
    starts, codes = sort_rows(starts, codes)
    tags = arrow.ListArray.from_arrays(arrow.array(starts.astype(np.int32)), arrow.array(codes))
    columns = {name: table[name] for name in SCALARS}
    return (
        arrow.table({**columns, "tags": tags}),
        numbering.names,
        numbering.counts(),
        numbering.bad_names,
    )


class _Numbering:
    """Names → codes of one chunk; −1 for what is no name: empty, or with a comma, a space or a control character."""

    def __init__(self, relations: Relations) -> None:
        self.bad_names: dict[str, int] = {}
        self._relations = relations
        self._code: dict[str, int] = {}
        self._counted: list[NDArray[np.int64]] = []

    def codes(self, written: Any) -> NDArray[np.int32]:
        """The codes of the names of one category, an Arrow dictionary array; how often each is written is noted."""
        names, indices = written.dictionary.to_pylist(), written.indices.to_numpy(zero_copy_only=False)
        if not names:
            return np.zeros(0, np.int32)
        often = np.bincount(indices, minlength=len(names))
        bad = _not_names(written.dictionary)
        for place in np.flatnonzero(bad).tolist():
            if names[place]:  # an empty one is only a doubled space
                self.bad_names[names[place]] = self.bad_names.get(names[place], 0) + int(often[place])
        local = np.full(len(names), -1, dtype=np.int32)
        good = [names[place] for place in np.flatnonzero(~bad).tolist()] if bad.any() else names
        if aliases := self._relations.aliases:
            good = [aliases.get(name, name) for name in good]
        local[~bad] = self._number(good)
        counted = np.zeros(len(self._code), np.int64)
        np.add.at(counted, local[~bad], often[~bad])
        self._counted.append(counted)
        return np.asarray(local[indices])

    @property
    def names(self) -> list[str]:
        """In the order of their codes."""
        return list(self._code)

    def implied(self) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """Starts [names + 1] and codes that each name implies; None where nothing does."""
        names = self.names
        lists = [self._relations.implications.get(name, ()) for name in names]
        if not any(lists):
            return None
        codes = self._number(name for implied in lists for name in implied)
        lengths = [len(implied) for implied in lists] + [0] * (len(self._code) - len(lists))
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), codes

    def counts(self) -> NDArray[np.int64]:
        table = np.zeros((len(self.names), len(CATEGORIES)), np.int64)
        for column, counted in enumerate(self._counted):
            table[: len(counted), column] += counted
        return table

    def _number(self, names: Iterable[str]) -> NDArray[np.int32]:
        code = self._code
        return np.array([code.setdefault(name, len(code)) for name in names], dtype=np.int32)


class _Collector:
    """Joins the names of chunks, one after the other, to the list of all."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self._code: dict[str, int] = {}
        self._counts: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []

    def add(self, path: Path, lines_before: int) -> int:
        """Take a stored chunk in; returns how many lines it spans."""
        entries, code = self.entries, self._code
        stored = arrow.ipc.open_file(arrow.memory_map(str(_about(path)))).read_all()
        names = compute.list_flatten(stored["names"]).to_pylist()
        counts = compute.list_flatten(stored["counts"]).to_numpy()
        codes = np.array([code.setdefault(name, len(code)) for name in names], dtype=np.int32)
        rows = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all().num_rows
        entries.chunks.append(Chunk(path, len(entries), rows, codes))
        self._counts.append((codes, counts.reshape(-1, len(CATEGORIES))))
        about = stored.drop_columns(["names", "counts"]).to_pylist()[0]
        entries.bad_count += about["bad_count"]
        for file, line, reason, text in about["bad"]:
            entries.bad.append(BadLine(file, int(line) + lines_before if int(line) else 0, reason, text))
        for name, count in about["bad_names"]:
            entries.bad_names[name] = entries.bad_names.get(name, 0) + count
        return int(about["lines"])

    def finish(self) -> Entries:
        self.entries.names = list(self._code)
        self.entries.category_counts = np.zeros((len(self._code), len(CATEGORIES)), np.int64)
        for codes, counts in self._counts:
            self.entries.category_counts[codes] += counts
        return self.entries


def _add_implied(
    starts: NDArray[np.int64], codes: NDArray[np.int32], at: NDArray[np.int64], implied: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Every row with what its tags imply behind them; a code of −1 implies nothing."""
    many = np.where(codes >= 0, np.diff(at)[codes], 0)
    total = int(many.sum())
    ends = np.concatenate([[0], np.cumsum(many)])
    source = np.repeat(at[:-1][codes] - ends[:-1], many) + np.arange(total)
    per_row = ends[starts[1:]] - ends[starts[:-1]]
    return arrange([(np.diff(starts), codes), (per_row, implied[source])])


def _not_names(names: Any) -> NDArray[np.bool_]:
    """Empty, too long, or with a comma, a space or a control character in it."""
    length = compute.utf8_length(names).to_numpy(zero_copy_only=False)
    odd = compute.match_substring_regex(names, r"[,\pZ\pC]").to_numpy(zero_copy_only=False)
    return np.asarray(odd | (length == 0) | (length > _MAX_TAG_LENGTH))


def _key(job: Job, relations: Relations) -> str:
    return hashlib.sha256("\n".join([LAYOUT, job.file, job.key, relations.digest]).encode()).hexdigest()


def _about(path: Path) -> Path:
    return path.with_suffix(".about.arrow")


def _store(path: Path, key: str, table: bytes, about: bytes) -> None:
    """The table first, then what is said about it, then the key that makes both count."""
    for target, data in ((path, table), (_about(path), about), (path.with_suffix(".key"), key.encode())):
        with replacing(target, durable=False) as beside:
            beside.write_bytes(data)


def _stored_key(path: Path) -> str:
    try:
        return path.with_suffix(".key").read_text(encoding="utf-8")
    except OSError:
        return ""


def _ipc(table: Any) -> bytes:
    sink = io.BytesIO()
    with arrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _check_bad(entries: Entries, max_bad_lines: float) -> None:
    total = len(entries) + entries.bad_count
    if entries.bad_count > max_bad_lines * total:
        shown = "; ".join(
            f"{Path(one.file).name}, line {one.line}: {one.reason} {one.text!r}" for one in entries.bad[:3]
        )
        raise MetadataError(
            f"{entries.bad_count:,} of {total:,} lines cannot be used, more than {max_bad_lines:.1%}: {shown}. "
            "Mend the files, or allow more with --set posts.max_bad_lines=0.5"
        )
    if not len(entries):
        raise MetadataError("The metadata files hold no posts.")
