"""JSON values that are not one a line, as lines: an array, an object that holds one, objects printed over many lines.

Records are told apart by their brackets and strings alone, piece by piece, so that a file of any size passes through.
One that is broken is a line too, which nobody can read; what follows it is found by the next `}, {`.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Final

import msgspec

from efuda.datasets.sources.unpacking import Readable, read_some

__all__ = ["LinedRecords", "records_start"]

_STRING: Final = rb'"(?:[^"\\\n]++|\\.)*+"'
_FLAT: Final = rb'\{(?:[^"{}\[\]]++|' + _STRING + rb")*+\}"
_TOKEN: Final = re.compile(_FLAT + rb"|" + _STRING + rb'|[{}\[\]"]')
_NEXT: Final = re.compile(rb"\}\s*,?\s*(?=\{)")
_HOLDERS: Final = (b'"post"', b'"posts"')  # of an object that holds the array
_HELD: Final = re.compile(rb"\s*:\s*\[")
_STEP: Final = 1 << 20
_TAIL: Final = 1 << 17  # where the end of the last whole record is looked for,
_TRIES: Final = 64  # among so many places that look like one
_RECORDS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OVERLAP: Final = 4096  # longer than the white space between two records
_BESIDE: Final = b", \t\r\n"


def records_start(head: bytes) -> tuple[int, bool] | None:
    """Where the records begin and whether they are in an array; None where they are one a line.

    Args:
        head: the beginning of the file, without a byte order mark.
    """
    start = len(head) - len(head.lstrip())
    lines = list(islice(head[start:].split(b"\n"), 50))
    if head[start : start + 1] == b"[" and not (lines[0].rstrip()[-1:] == b"]" and any(map(_is_record, lines[1:]))):
        return start + 1, True
    if any(map(_is_record, lines)):
        return None
    if head[start : start + 1] != b"{":
        return None
    held = _held(head)
    if held:
        return held, True
    return (start, False) if b"\n" in head[start:].rstrip() else None


def _held(head: bytes) -> int:
    """The place after `"post": [` right in the first object; 0 where that is none."""
    depth = 0
    for match in _TOKEN.finditer(head):
        token = match[0]
        if len(token) == 1:
            depth += 1 if token in b"{[" else -1 if token in b"}]" else 0
        elif depth == 1 and token in _HOLDERS and (held := _HELD.match(head, match.end())):
            return held.end()
        if depth <= 0:
            return 0
    return 0


class LinedRecords:
    """A stream of JSON records that are not one a line, read as if they were.

    Reading raises EOFError, after all records, where the array has no end.
    """

    def __init__(self, stream: Readable, array: bool, longest: int) -> None:
        self._stream, self._longest = stream, longest
        self._array, self._closed = array, False
        self._buffer = b""
        self._start = -1  # of the record that is open, in the buffer
        self._place = 0  # up to where the buffer is understood
        self._depth = 0
        self._lost = False  # within a broken record
        self._lines = memoryview(b"")
        self._ended = False
        self._error: Exception | None = None

    def read(self, size: int) -> bytes:
        """Some bytes of lines, at most so many; none at the end."""
        while not self._lines and not self._ended:
            if self._error is not None:
                raise self._error
            data, self._error = read_some(self._stream, max(_STEP, len(self._buffer)))
            last = not data and self._error is None
            self._lines = memoryview(self._feed(data, last))
            self._ended = last or self._closed
        if not self._lines and self._array and not self._closed:
            raise EOFError("its JSON array has no end")
        some, self._lines = self._lines[:size], self._lines[size:]
        return bytes(some)

    def _feed(self, data: bytes, last: bool) -> bytes:
        self._buffer += data
        lines: list[bytes] = []
        done = 0 if self._depth or self._lost else self._take_sound(lines)
        if done and not last:  # the rest is the beginning of a record
            self._drop(done)
            return _joined(lines)
        while not self._closed:
            if self._lost:
                if not self._find_next(lines):
                    break
                done = self._place
            match = _TOKEN.search(self._buffer, self._place)
            if match is None:
                self._place = len(self._buffer) if self._start >= 0 or last else self._place
                break
            if match[0] == b'"' and not last and self._buffer.find(b"\n", match.start()) < 0:
                self._place = match.start()  # a string that goes on in what was not read yet
                break
            if self._take(match, done, lines):
                done = self._place
        if last and self._start >= 0:
            lines.append(self._buffer[self._start :])
        elif last and not self._closed:
            lines.append(self._buffer[done:].strip(_BESIDE))
        elif len(self._buffer) - max(done, self._start) > self._longest:
            self._start = max(done, self._start)
            return _joined(lines) + self._give_up()
        self._drop(done if self._start < 0 else self._start)
        return _joined(lines)

    def _give_up(self) -> bytes:
        """A record that is too long: a broken one that took others in, or what goes on as one line without end."""
        lines: list[bytes] = []
        self._lost, self._place = True, self._start + 1
        if self._find_next(lines):
            self._drop(self._place)
            return _joined(lines) + self._feed(b"", False)
        part = self._buffer[self._start : -_OVERLAP].replace(b"\n", b" ")
        self._buffer, self._start, self._place = self._buffer[-_OVERLAP:], 0, 0
        return part

    def _take_sound(self, lines: list[bytes]) -> int:
        """Take all whole records of an array in at once, where nothing is broken; the place after them."""
        ends = [found.start() + 1 for found in _NEXT.finditer(self._buffer, max(0, len(self._buffer) - _TAIL))]
        begin = len(self._buffer) - len(self._buffer.lstrip(_BESIDE))
        for end in reversed(ends[-_TRIES:]):
            try:
                records = _RECORDS.decode(b"[" + self._buffer[begin:end] + b"]")
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                continue
            found = [bytes(record) for record in records]
            if any(record[:1] != b"{" for record in found):
                break
            lines += found
            self._place = end
            return end
        return 0

    def _take(self, match: re.Match[bytes], done: int, lines: list[bytes]) -> bool:
        """Take a token in; whether a record ended with it."""
        token, begin, self._place = match[0], match.start(), match.end()
        if self._depth == 0 and token[:1] in (b"{", b"[", b"]") and (beside := self._buffer[done:begin].strip(_BESIDE)):
            lines.append(beside)
        if token == b'"':
            self._start = begin if self._start < 0 else self._start
            self._lost = True
            return False
        if token in (b"{", b"["):
            self._start = begin if self._depth == 0 else self._start
            self._depth += 1
            return False
        if token in (b"}", b"]"):
            if self._depth == 0:
                self._closed = self._array and token == b"]"
                return True
            self._depth -= 1
        elif token[:1] != b"{":
            return False
        if self._depth:
            return False
        lines.append(self._buffer[begin if self._start < 0 else self._start : self._place])
        self._start = -1
        return True

    def _find_next(self, lines: list[bytes]) -> bool:
        """Leave a broken record behind."""
        found = _NEXT.search(self._buffer, self._place)
        if not found:
            self._place = max(self._place, len(self._buffer) - _OVERLAP)
            return False
        lines.append(self._buffer[self._start : found.end()])
        self._lost, self._start, self._depth, self._place = False, -1, 0, found.end()
        return True

    def _drop(self, done: int) -> None:
        self._buffer = self._buffer[done:]
        self._place = max(0, self._place - done)
        self._start = max(-1, self._start - done) if self._start >= 0 else -1


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines if line)


def _is_record(line: bytes) -> bool:
    if line[:1] != b"{":
        return False
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value) and not _held(line)
