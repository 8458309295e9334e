"""Read every source into chunks on disk: entries as columns, their tags as sorted numbers into one list of names.

A worker reads what is sampled of a job, replaces aliases, adds implied tags, and numbers the names it met. The parent
writes the chunk and joins its names to the list of all. What a later stage needs of a million entries is then arrays,
not strings; chunks are mapped into memory, so that it does not grow with the dump. A killed stage reads again only what
has no chunk.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

from efuda.datasets.entries import CATEGORIES, ENTRY, BadLine, Brief, BriefJob, Job, Parsed
from efuda.datasets.relations import Relations
from efuda.datasets.rows import arrange, sort_rows, unpack_strings
from efuda.datasets.sampling import EVERY_ENTRY, Sampling
from efuda.errors import MetadataError
from efuda.files import replacing
from efuda.progress import Progress, silent
from efuda.workers import Workers

__all__ = ["Chunk", "Entries", "encode", "read_entries"]

LAYOUT: Final = "2"  # of a chunk; a chunk of another layout is read again
SCALARS: Final = tuple(name for name in ENTRY.names if name not in CATEGORIES)
_MAX_KEPT_BAD: Final = 100
_MAX_TAG_LENGTH: Final = 170


@dataclass(frozen=True)
class Chunk:
    """Some sampled entries in file order: `first` is the number of the first of them, from 0.

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
    """All chunks, all names, and what could not be read; `total` entries stand in the files, `sampled` in chunks."""

    total: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    category_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, len(CATEGORIES)), np.int64))
    links: list[NDArray[np.int64]] = field(default_factory=list)
    bad_count: int = 0
    bad: list[BadLine] = field(default_factory=list)
    bad_names: dict[str, int] = field(default_factory=dict)

    @property
    def sampled(self) -> int:
        return self.chunks[-1].first + self.chunks[-1].rows if self.chunks else 0

    @property
    def parents(self) -> NDArray[np.int64]:
        """All pairs (post, parent) [m, 2], of every entry, sampled or not."""
        return np.concatenate([np.zeros((0, 2), np.int64), *self.links])

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
    sampling: Sampling = EVERY_ENTRY,
    progress: Progress = silent,
) -> Entries:
    """Read the sampled entries of all jobs into chunks in `folder`; a chunk that is there already is not read again.

    Raises:
        MetadataError: more than `max_bad_lines` of all lines are bad, or there is no entry at all.
    """
    collector = _Collector(Entries(), progress)
    reading = _Reading(jobs, folder, relations, sampling, collector)
    ask = partial(do_task, relations=relations)
    for answer in workers.map(ask, reading.tasks()):
        reading.take(answer)
    for answer in workers.map(ask, reading.surveyed()):
        reading.take(answer)
    reading.collect()
    entries = collector.finish()
    progress("metadata", entries.total, entries.total, unit="entries", note=f"{len(entries.names):,} tags")
    _check_bad(entries, max_bad_lines)
    return entries


@dataclass(frozen=True)
class Task:
    """What a worker is asked for: what is sampled of a job, or, where `wanted` is to be found first, a survey of it.

    Attributes:
        wanted: a mask [entries of the job]; None is all.
        brief, parsed: what the survey found.
    """

    number: int
    job: Job
    survey: bool
    wanted: NDArray[np.bool_] | None = None
    brief: Brief | None = None
    parsed: Parsed | None = None

    @property
    def file(self) -> str:
        """For an error."""
        return self.job.file


def do_task(task: Task, relations: Relations) -> tuple[Brief, Parsed | None] | tuple[bytes, bytes]:
    """Done in a worker: a survey, or the chunk's table and what is said about it, as two Arrow files."""
    return _survey(task.job) if task.survey else _read_job(task, relations)


def _survey(job: Job) -> tuple[Brief, Parsed | None]:
    """What sampling must know of a job, and its contents where they should not be read twice."""
    if isinstance(job, BriefJob) and job.data is None:
        return job.brief(), None
    parsed = job.read()
    return Brief.of(parsed.table), parsed


def _read_job(task: Task, relations: Relations) -> tuple[bytes, bytes]:
    wanted, brief = task.wanted, task.brief
    if isinstance(task.job, BriefJob) and brief is not None and brief.lined:
        parsed, wanted = task.job.read(wanted), None
    else:
        parsed = task.parsed or task.job.read()
    brief = brief or Brief.of(parsed.table)
    chosen = parsed.table if wanted is None else parsed.table.filter(arrow.array(wanted))
    if task.wanted is not None and len(chosen) != task.wanted.sum():
        raise MetadataError(f"{task.job.file} changed while it was read. Let it come to rest, and run again.")
    table, names, counts, bad_names = encode(chosen, relations)
    bad = [[one.file, str(one.line), one.reason, one.text] for one in parsed.bad[:_MAX_KEPT_BAD]]
    linked = (brief.ids > 0) & (brief.parents > 0)
    about = arrow.table(
        {
            "bad": arrow.array([bad], arrow.list_(arrow.list_(arrow.string()))),
            "bad_count": [len(parsed.bad)],
            "entries": [len(brief.ids)],
            "lines": [len(brief.ids) if brief.lined else parsed.lines],
            "bad_names": arrow.array([list(bad_names.items())], arrow.map_(arrow.string(), arrow.int64())),
            "links": arrow.array(
                [np.stack([brief.ids[linked], brief.parents[linked]], axis=1).ravel()], arrow.list_(arrow.int64())
            ),
            "names": arrow.array([names], arrow.list_(arrow.string())),
            "counts": arrow.array([counts.ravel()], arrow.list_(arrow.int64())),
        }
    )
    return _ipc(table), _ipc(about)


class _Reading:
    """Who is asked for what, and when.

    Every job is read in one go where every entry is wanted. A sample takes two: a survey first, since which lines are
    sampled depends on how many entries came before; then, soon after, while the disk cache still holds it, the job.
    """

    def __init__(
        self, jobs: Iterable[Job], folder: Path, relations: Relations, sampling: Sampling, collector: _Collector
    ) -> None:
        self._jobs, self._folder, self._relations, self._sampling = jobs, folder, relations, sampling
        self._collector = collector
        self._asked: deque[Task] = deque()  # in the order of the answers
        self._surveyed: deque[Task] = deque()
        self._chunks: deque[tuple[Job, Path, str]] = deque()  # not yet collected
        self._entries: dict[int, int] = {}  # of each job that is stored or surveyed
        self._before = (0, 0)  # a job, and the entries before it

    def tasks(self) -> Iterator[Task]:
        """What there is to do for all jobs; some of those that are surveyed may be left over."""
        key = self._sampling.digest
        for number, job in enumerate(self._jobs):
            path = self._folder / f"{number:06d}.arrow"
            key = _key(job, self._relations, key if self._sampling.digest else "")
            self._chunks.append((job, path, key))
            if _stored_key(path) == key:
                self._entries[number] = _stored_entries(path)
                continue
            yield from self._ask(Task(number, job, survey=bool(self._sampling.digest)))
            yield from self.surveyed()

    def surveyed(self) -> Iterator[Task]:
        """What is to be read of the jobs whose survey is in."""
        while self._surveyed:
            yield from self._ask(self._surveyed.popleft())

    def _ask(self, task: Task) -> Iterator[Task]:
        self._asked.append(task)
        yield task

    def take(self, answer: Any) -> None:
        """Take in what a worker answered."""
        task = self._asked.popleft()
        if not task.survey:
            path = self._folder / f"{task.number:06d}.arrow"
            _store(path, next(key for _, its, key in self._chunks if its == path), *answer)
            self.collect()
            return
        brief, parsed = answer
        self._entries[task.number] = len(brief.ids)
        job, before = self._before
        before += sum(self._entries[earlier] for earlier in range(job, task.number))
        self._before = (task.number, before)
        wanted = self._sampling.chosen(brief.ids, before)
        self._surveyed.append(Task(task.number, task.job, False, wanted, brief, parsed))

    def collect(self) -> None:
        """Take in the chunks that are there, as far as no earlier one is missing."""
        while self._chunks and _stored_key(self._chunks[0][1]) == self._chunks[0][2]:
            job, path, _ = self._chunks.popleft()
            self._collector.add(job, path)


def encode(entries: Any, relations: Relations) -> tuple[Any, list[str], NDArray[np.int64], dict[str, int]]:
    """Number the tags of a table `ENTRY`.

    Returns:
        The table (`SCALARS` and `tags`), the names in the order of their codes, how often each is written in each of
        `CATEGORIES` [names, 5] (an alias counts as its tag; implied tags are not written), and bad names → occurrences.
    """
    table = entries.combine_chunks()
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

    def __init__(self, entries: Entries, progress: Progress) -> None:
        self._entries, self._progress = entries, progress
        self._names: Any = arrow.array([], arrow.string())
        self._lines: dict[str, int] = {}  # of each file, so far
        self._counts: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []

    def add(self, job: Job, path: Path) -> None:
        """Take a stored chunk in."""
        entries = self._entries
        stored = arrow.ipc.open_file(arrow.memory_map(str(_about(path)))).read_all()
        codes = self._join(compute.list_flatten(stored["names"]).combine_chunks())
        counts = compute.list_flatten(stored["counts"]).to_numpy()
        rows = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all().num_rows
        entries.chunks.append(Chunk(path, entries.sampled, rows, codes))
        entries.links.append(compute.list_flatten(stored["links"]).to_numpy().reshape(-1, 2))
        self._counts.append((codes, counts.reshape(-1, len(CATEGORIES))))
        about = stored.drop_columns(["names", "counts", "links"]).to_pylist()[0]
        entries.total += about["entries"]
        entries.bad_count += about["bad_count"]
        lines_before = self._lines.get(job.file, 0)
        self._lines[job.file] = lines_before + about["lines"]
        for file, line, reason, text in about["bad"]:
            entries.bad.append(BadLine(file, int(line) + lines_before if int(line) else 0, reason, text))
        for name, count in about["bad_names"]:
            entries.bad_names[name] = entries.bad_names.get(name, 0) + count
        self._progress("metadata", entries.total, None, unit="entries", note=Path(job.file).name)

    def finish(self) -> Entries:
        self._entries.names = self._names.to_pylist()
        self._entries.category_counts = np.zeros((len(self._names), len(CATEGORIES)), np.int64)
        for codes, counts in self._counts:
            self._entries.category_counts[codes] += counts
        return self._entries

    def _join(self, names: Any) -> NDArray[np.int32]:
        """Which of all names these are; new ones, and each stands here once, are put behind the others."""
        known = compute.index_in(names, value_set=self._names)
        codes = compute.fill_null(known, -1).to_numpy().astype(np.int32)
        new = codes < 0
        codes[new] = len(self._names) + np.arange(int(new.sum()))
        self._names = arrow.concat_arrays([self._names, names.filter(arrow.array(new))])
        return np.asarray(codes)


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


def _key(job: Job, relations: Relations, before: str) -> str:
    """`before` is what the chunk depends on besides: the sample, and the jobs before it."""
    return hashlib.sha256("\n".join([LAYOUT, job.file, job.key, relations.digest, before]).encode()).hexdigest()


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


def _stored_entries(path: Path) -> int:
    """How many entries the job of a stored chunk has, sampled or not."""
    return int(arrow.ipc.open_file(arrow.memory_map(str(_about(path)))).read_all()["entries"][0].as_py())


def _ipc(table: Any) -> bytes:
    sink = io.BytesIO()
    with arrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _check_bad(entries: Entries, max_bad_lines: float) -> None:
    total = entries.total + entries.bad_count
    if entries.bad_count > max_bad_lines * total:
        shown = "; ".join(
            f"{Path(one.file).name}, line {one.line}: {one.reason} {one.text!r}" for one in entries.bad[:3]
        )
        raise MetadataError(
            f"{entries.bad_count:,} of {total:,} lines cannot be used, more than {max_bad_lines:.1%}: {shown}. "
            "Mend the files, or allow more with --set posts.max_bad_lines=0.5"
        )
    if not entries.total:
        raise MetadataError("The metadata files hold no posts.")
