"""JSON files of posts: a record a line, an array, or one object; plain or compressed; cut into jobs of up to 128 MB.

A plain file is cut at newlines without being read. A compressed one is unpacked here, and its jobs carry their bytes.
No line longer than `LONGEST` ever stands in memory whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as arrow
from numpy.typing import NDArray

from efuda.datasets.entries import BadLine, Brief, Job, Parsed
from efuda.datasets.sources.arrays import LinedRecords, records_start
from efuda.datasets.sources.records import KINDS, Kind, kind_of
from efuda.datasets.sources.unpacking import BOM, Readable, is_packed, open_unpacked, opened, read_some, stamp
from efuda.errors import MetadataError
from efuda.places import stat

__all__ = ["BLOCK", "LONGEST", "BrokenJob", "Contents", "LinesJob", "json_jobs", "look_into"]

BLOCK: Final = 128 << 20  # large, since every block has its own list of names, and they have to be joined
LONGEST: Final = 64 << 20
_SMALL_BLOCK: Final = 8 << 20
_CARRIED_BLOCK: Final = 32 << 20  # carried to the worker, so a few stand in memory
_WINDOW: Final = 1 << 20  # decoded at once: small enough for the processor's cache
_NEWLINE: Final = ord("\n")
_HEAD: Final = 4 << 20
_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError, RecursionError)
_NOT_A_POST: Final = "a JSON object without any field of a post"


@dataclass(frozen=True)
class LinesJob:
    """Lines of one file: a range of it, or the bytes themselves where it is compressed."""

    file: str
    key: str
    kind: str
    offset: int
    length: int
    data: bytes | None = field(default=None, repr=False)

    def read(self, wanted: NDArray[np.bool_] | None = None) -> Parsed:
        """Decode the lines: all, or those of a mask [lines]."""
        reader = _Lines(self.file, KINDS[self.kind])
        if wanted is None:
            for window, ends in self._windows():
                reader.window(window, len(ends))
        else:
            for window, lines in _gather(self._windows(), wanted):
                reader.window(window, lines)
        return reader.parsed()

    def brief(self) -> Brief:
        """Ids and parents; everything else of a line is skipped, unless one is not as it should be."""
        kind = KINDS[self.kind]
        briefs = [kind.brief(window, len(ends)) for window, ends in self._windows()]
        if None in briefs:
            return Brief.of(self.read().table)
        ids, parents = zip(*briefs, strict=True) if briefs else ((), ())
        none = np.zeros(0, np.int64)
        return Brief(np.concatenate([none, *ids]), np.concatenate([none, *parents]), lined=True)

    def _windows(self) -> Iterator[tuple[memoryview, NDArray[np.int64]]]:
        """Whole lines and where each ends, some megabytes at a time, without the mark that may begin the file."""
        first = self.offset == 0
        try:
            with io.BytesIO(self.data) if self.data is not None else opened(self.file) as file:
                if self.data is None:
                    file.seek(self.offset)
                for window, ends in _windows(file, self.length if self.data is None else len(self.data)):
                    marked = len(BOM) if first and bytes(window[: len(BOM)]) == BOM else 0
                    yield window[marked:], ends - marked
                    first = False
        except OSError as error:
            raise MetadataError(f"{self.file} cannot be read ({error.strerror or error}). Check the disk.") from error


@dataclass(frozen=True)
class BrokenJob:
    """A place in a file that cannot be used: the end of a truncated one, or a line that is far too long."""

    file: str
    key: str
    reason: str
    lines: int = 0

    def read(self) -> Parsed:
        """One bad line."""
        return Parsed(
            KINDS["Danbooru 2021"].table([]), (BadLine(self.file, self.lines and 1, self.reason),), self.lines
        )


def json_jobs(file: str, kind: Kind, *, block: int = BLOCK, longest: int = LONGEST) -> Iterator[Job]:
    """The jobs of one JSON file, whose records are of this kind."""
    told = stamp(file)
    with open_unpacked(file) as stream:
        head, _ = read_some(stream, _HEAD)
    if records_start(head.removeprefix(BOM)) or is_packed(file):
        yield from _streamed_jobs(file, kind, told, min(block, _CARRIED_BLOCK), longest)
    else:
        block = min(block, max(_SMALL_BLOCK, stat(file).size // 16))  # something for every core
        for offset, length, fits in _ranges(file, block, longest):
            key = f"{told} {offset}+{length}"
            yield (
                LinesJob(file, key, kind.name, offset, length)
                if fits
                else BrokenJob(file, key, _too_long(length, longest), 1)
            )


@dataclass(frozen=True)
class Contents:
    """What a JSON file holds, by its beginning; `kind` is None where that has no posts."""

    kind: Kind | None
    lines: bool
    media: bool = False
    trouble: str = ""


def look_into(file: str) -> Contents:
    """Judge a JSON file by its first readable records."""
    with open_unpacked(file) as stream:
        head, error = read_some(stream, _HEAD)
    head = head.removeprefix(BOM)
    start = records_start(head)
    if start is not None:
        head, _ = read_some(LinedRecords(io.BytesIO(head[start[0] :]), start[1], LONGEST), 2 * _HEAD)
    for line in islice(head.split(b"\n"), 1000):
        record = _value(line)
        if isinstance(record, dict) and (kind := kind_of(record)):
            return Contents(kind, start is None, "media_asset" in record)
    return Contents(None, start is None, trouble=str(error or ""))


class _Lines:
    """Collects rows, window by window."""

    def __init__(self, file: str, kind: Kind) -> None:
        self.lines = 0
        self._file, self._kind, self._kind_of_rows = file, kind, kind
        self._decoder = msgspec.json.Decoder(kind.struct, strict=False)
        self._tables: list[Any] = []
        self._rows: list[Any] = []
        self.bad: list[BadLine] = []

    def window(self, text: memoryview, lines: int) -> None:
        """Take whole lines in: all at once where they are sound."""
        try:
            table = self._kind.table(self._decoder.decode_lines(text))
        except _FAULTS:
            table = None
        if table is not None and not table["general"].null_count:  # one without tags may be of another kind, or no post
            self._tables.append(table)
            self.lines += lines
            return
        for line in bytes(text).removesuffix(b"\n").split(b"\n"):
            self.lines += 1
            if line.strip():
                self.one(line, self.lines)
        self._flush()

    def one(self, record: bytes, number: int) -> None:
        """Take one record in."""
        kind = self._kind
        try:
            row = self._decoder.decode(record)
        except _FAULTS:
            row = None
        if row is None or not kind.has_tags(row) or not kind.sound(row):
            kind, row = self._lenient(record, number)
        if row is not None:
            if kind is not self._kind_of_rows:
                self._flush()
                self._kind_of_rows = kind
            self._rows.append(row)

    def parsed(self) -> Parsed:
        self._flush()
        tables = self._tables or [self._kind.table([])]
        return Parsed(arrow.concat_tables(tables), tuple(self.bad), self.lines)

    def _lenient(self, record: bytes, number: int) -> tuple[Kind, Any | None]:
        """A row of a record that is faulty, has no tags, or is of another kind than most of its file."""
        kind, row = self._kind, None
        try:
            value = json.loads(record.decode("utf-8"), parse_int=_number)
            if isinstance(value, dict):
                kind = kind_of(value) or kind
                row = kind.lenient(value)
            reason = _NOT_A_POST if isinstance(value, dict) else "not a JSON object"
        except UnicodeDecodeError:
            reason = "not valid UTF-8"
        except RecursionError:
            reason = "nested too deeply"
        except ValueError:
            reason = "not a JSON object"
        if row is None:
            shown = record.strip()[:60].decode("utf-8", errors="replace")
            self.bad.append(BadLine(self._file, number, reason, shown))
        return kind, row

    def _flush(self) -> None:
        if self._rows:
            self._tables.append(self._kind_of_rows.table(self._rows))
            self._rows = []


def _ranges(file: str, block: int, longest: int) -> Iterator[tuple[int, int, bool]]:
    """(offset, length, fits): ranges that end at a newline; one that does not fit is a single line that is too long."""
    size = stat(file).size
    with opened(file) as stream:
        offset = 0
        while offset < size:
            end = min(offset + block, size)
            if end < size:
                end = _newline_before(stream, offset, end) or _newline_after(stream, end, size)
            yield offset, end - offset, end - offset <= max(block, longest)
            offset = end


def _newline_before(stream: BinaryIO, start: int, end: int, step: int = 1 << 16) -> int:
    """The place after the last newline in this range, 0 where there is none."""
    while end > start:
        begin = max(start, end - step)
        stream.seek(begin)
        found = stream.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _newline_after(stream: BinaryIO, start: int, size: int, step: int = 1 << 20) -> int:
    stream.seek(start)
    while data := stream.read(step):
        found = data.find(b"\n")
        if found >= 0:
            return start + found + 1
        start += len(data)
    return size


def _windows(stream: Any, length: int) -> Iterator[tuple[memoryview, NDArray[np.int64]]]:
    """Whole lines and where each ends, some megabytes at a time, in one buffer: each is gone when the next comes."""
    buffer: Any = np.zeros(2 * _WINDOW, np.uint8)
    held = 0
    marks = np.empty(len(buffer) + 8, np.bool_)
    while length > 0:
        if held + _WINDOW > len(buffer):  # a long line
            buffer = np.concatenate([buffer, np.zeros_like(buffer)])
            marks = np.empty(len(buffer) + 8, np.bool_)
        got = stream.readinto(memoryview(buffer)[held : held + min(_WINDOW, length)])
        if not got:
            break
        length, full = length - got, held + got
        np.equal(buffer[:full], _NEWLINE, out=marks[:full])
        marks[full : full + 8] = False
        ends = _places(marks[: -(-full // 8) * 8]) + 1
        end = int(ends[-1]) if len(ends) else 0
        if end:
            yield memoryview(buffer)[:end], ends
            buffer[: full - end] = buffer[end:full].copy()
        held = full - end
    if held:
        yield memoryview(buffer)[:held], np.array([held])


def _places(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where marks stand, which are few among many: eight are looked at at a time, and their number is a multiple."""
    hit = np.flatnonzero(marks.view(np.uint64) != 0)
    at, within = np.nonzero(marks.reshape(-1, 8)[hit])
    return np.asarray(hit[at] * 8 + within)


def _gather(
    windows: Iterable[tuple[memoryview, NDArray[np.int64]]], wanted: NDArray[np.bool_]
) -> Iterator[tuple[memoryview, int]]:
    """The wanted lines and their number, as many at a time as make a window."""
    at, size, lines = 0, 0, list[bytes]()
    for window, ends in windows:
        some = np.flatnonzero(wanted[at : at + len(ends)])
        starts = np.concatenate([[0], ends])[some]
        lines += [bytes(window[start:end]) for start, end in zip(starts.tolist(), ends[some].tolist(), strict=True)]
        size += int((ends[some] - starts).sum())
        at += len(ends)
        if size >= _WINDOW:
            yield memoryview(b"".join(lines)), len(lines)
            size, lines = 0, []
    if lines:
        yield memoryview(b"".join(lines)), len(lines)


def _streamed_jobs(file: str, kind: Kind, told: str, block: int, longest: int) -> Iterator[Job]:
    """Jobs that carry their lines, unpacked and one a line."""
    number, carry, skipped, error = 0, b"", 0, None
    with open_unpacked(file) as unpacked:
        stream = _lined(unpacked, longest)
        while error is None:
            data, error = read_some(stream, block)
            if not data:
                break
            end = data.find(b"\n") + 1
            if len(carry) + skipped + (end or len(data)) > longest:  # within a line that is too long
                skipped, carry = skipped + len(carry) + (end or len(data)), b""
                if not end:
                    continue
                yield BrokenJob(file, f"{told} {number}", _too_long(skipped, longest), 1)
                number, skipped, data = number + 1, 0, data[end:]
            end = data.rfind(b"\n") + 1
            if end:
                yield LinesJob(file, f"{told} {number}", kind.name, number, 0, carry + data[:end])
                number, carry = number + 1, data[end:]
            else:
                carry += data
    if skipped:
        yield BrokenJob(file, f"{told} {number}", _too_long(skipped, longest), 1)
    elif carry and error is None:
        yield LinesJob(file, f"{told} {number}", kind.name, number, 0, carry)
    if error is not None:
        yield BrokenJob(file, f"{told} end", f"the file ends early or is damaged ({error}); what came before is used")


def _lined(stream: BinaryIO, longest: int) -> Readable:
    """The stream of one record a line, whatever the file is like."""
    head, error = read_some(stream, _HEAD)
    rest = _After(head, error, stream)
    start = records_start(head.removeprefix(BOM))
    if start is None:
        return rest
    rest.read(start[0] + (len(BOM) if head.startswith(BOM) else 0))
    return LinedRecords(rest, start[1], longest)


class _After:
    """A stream of which the head was read already."""

    def __init__(self, head: bytes, error: Exception | None, stream: BinaryIO) -> None:
        self._head, self._error, self._stream = memoryview(head), error, stream

    def read(self, size: int, /) -> bytes:
        if self._head:
            some, self._head = self._head[:size], self._head[size:]
            return bytes(some)
        if self._error is not None:
            raise self._error
        return self._stream.read(size)


def _too_long(length: int, longest: int) -> str:
    return f"a line of {length:,} bytes, longer than {longest:,}"


def _number(digits: str) -> int | None:
    """An integer; one that no field could hold is nothing (Python refuses to read thousands of digits)."""
    return int(digits) if len(digits) < 100 else None


def _value(text: bytes) -> Any:
    try:
        return json.loads(text.removeprefix(BOM))
    except (ValueError, RecursionError):
        return None
