"""Pictures that come with a request: straight into files of our own, counted as they come, gone when it is answered.

    async with taken(request, shelf) as form:
        form.fields["threshold"], form.files[0].name, form.files[0].path

A file's name is only ever said back: where it lies is ours to choose.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from efuda.server.refusals import Refusal, busy
from efuda.server.settings import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["Form", "Shelf", "Upload", "taken"]

_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that was sent: what the client calls it, and where it lies."""

    name: str
    path: Path


@dataclass(slots=True)
class Form:
    """What a form holds; of fields given twice the last counts."""

    files: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Shelf:
    """A private folder, and how many bytes may lie on it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="efuda-", ignore_cleanup_errors=True)
        self._bytes = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove it."""
        self._folder.cleanup()

    def new(self) -> Path:
        """A place for one picture."""
        return Path(self._folder.name) / secrets.token_hex(16)

    def take(self, count: int) -> None:
        """So many more bytes; raises a 503 where that would be too many."""
        with self._lock:
            if self._bytes + count > self.limits.waiting_bytes:
                raise busy("Too many pictures wait already. Send them again in a moment.", seconds=5)
            self._bytes += count

    def give_back(self, count: int) -> None:
        """They are gone."""
        with self._lock:
            self._bytes -= count

    @contextmanager
    def holding(self, data: bytes) -> Iterator[Path]:
        """A file with these bytes, for as long as the statement lasts."""
        self.take(len(data))
        path = self.new()
        try:
            path.write_bytes(data)
            yield path
        finally:
            path.unlink(missing_ok=True)
            self.give_back(len(data))


@asynccontextmanager
async def taken(request: Request, shelf: Shelf) -> AsyncIterator[Form]:
    """Read a form to its end.

    Raises:
        Refusal: it is none, is damaged, or larger than the limits.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Refusal(400, "request", "The form has no boundary. Send it as multipart/form-data.")
    reader = _Reader(shelf)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        try:
            async for chunk in request.stream():
                parser.write(chunk)
            parser.finalize()
        except ValueError as error:
            raise Refusal(400, "request", "The form is damaged.") from error
        if not reader.ended:
            raise Refusal(400, "request", "The form is cut off.")
        yield reader.form
    finally:
        reader.clear()


class _Reader:
    """Takes a form part by part."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.limits, self.form = shelf, shelf.limits, Form()
        self.ended = False
        self._taken = 0
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._file: IO[bytes] | None = None
        self._bytes = 0
        self._text = b""
        self._parts = 0

    def callbacks(self) -> MultipartCallbacks:
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._more_header,
            "on_header_value": self._more_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def clear(self) -> None:
        """Whatever came is gone."""
        if self._file is not None:
            self._file.close()
        for upload in self.form.files:
            upload.path.unlink(missing_ok=True)
        self.shelf.give_back(self._taken)
        self._taken = 0

    def _begin(self) -> None:
        self._headers, self._header, self._value, self._text, self._bytes = {}, b"", b"", b"", 0
        self._parts += 1
        if self._parts > self.limits.files + self.limits.fields:
            raise Refusal(413, "too_large", f"A form here has at most {self.limits.files} files.")

    def _more_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _more_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            return
        if len(self.form.files) >= self.limits.files:
            raise Refusal(413, "too_large", f"A form here has at most {self.limits.files} files.")
        name = options[b"filename"].decode("utf-8", "replace")[:_NAME]
        upload = Upload(name, self.shelf.new())
        self._file = open(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: PTH123, SIM115
        self.form.files.append(upload)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._bytes += end - start
        if self._file is None:
            if self._bytes > self.limits.field_bytes:
                raise Refusal(413, "too_large", f"A field here has at most {self.limits.field_bytes:,} bytes.")
            self._text += data[start:end]
            return
        if self._bytes > self.limits.picture_bytes:
            raise Refusal(413, "too_large", f"A picture here has at most {self.limits.picture_bytes / 1e6:,.0f} MB.")
        self.shelf.take(end - start)
        self._taken += end - start
        self._file.write(memoryview(data)[start:end])

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        if len(self.form.fields) >= self.limits.fields:
            raise Refusal(413, "too_large", f"A form here has at most {self.limits.fields} fields.")
        self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True
