"""Files as they lie there: opened, unpacked by their ending (.gz, .xz, .zst), read as far as they are sound."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Final, Protocol, cast

import pyarrow as arrow

from efuda.errors import MetadataError
from efuda.places import open_binary, stat

__all__ = ["BOM", "BROKEN", "PACKINGS", "Readable", "is_packed", "open_unpacked", "opened", "read_some", "stamp"]

PACKINGS: Final = (".gz", ".xz", ".zst")
BOM: Final = b"\xef\xbb\xbf"
BROKEN: Final = (EOFError, OSError, lzma.LZMAError, zlib.error, arrow.ArrowException)


class Readable(Protocol):
    """What can be read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


def is_packed(file: str) -> bool:
    """Whether it is compressed, by its name."""
    return file.lower().endswith(PACKINGS)


def stamp(file: str) -> str:
    """What tells one state of a file from another.

    Raises:
        MetadataError: it is not there any more.
    """
    try:
        told = stat(file)
    except OSError as error:
        raise _unreadable(file, error) from error
    return f"{file} {told.size} {told.stamp}"


@contextmanager
def open_unpacked(file: str) -> Iterator[BinaryIO]:
    """Open for reading, unpacked.

    Raises:
        MetadataError: it cannot be opened.
    """
    ending = file.lower()
    with ExitStack() as stack:
        raw = stack.enter_context(opened(file))
        if ending.endswith(".gz"):
            yield stack.enter_context(_gunzip(raw))
        elif ending.endswith(".xz"):
            yield cast(BinaryIO, stack.enter_context(lzma.LZMAFile(raw)))
        elif ending.endswith(".zst"):
            unpacked = arrow.CompressedInputStream(arrow.PythonFile(raw, mode="r"), "zstd")
            yield cast(BinaryIO, stack.enter_context(unpacked))
        else:
            yield raw


def opened(file: str) -> BinaryIO:
    """Open for reading as it is.

    Raises:
        MetadataError: it cannot be opened.
    """
    try:
        return open_binary(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def read_some(stream: Readable, size: int) -> tuple[bytes, Exception | None]:
    """Up to so many bytes, in small steps, so that of a file that breaks off little is lost; and the break."""
    parts: list[bytes] = []
    have = 0
    try:
        while have < size and (data := stream.read(min(size - have, 1 << 16))):
            parts.append(bytes(data))
            have += len(data)
    except BROKEN as error:
        return b"".join(parts), error
    return b"".join(parts), None


def _gunzip(raw: BinaryIO) -> Any:
    try:
        from isal import igzip  # three times as fast
    except ModuleNotFoundError:
        return gzip.GzipFile(fileobj=raw)
    return igzip.GzipFile(fileobj=raw)  # type: ignore[no-untyped-call]


def _unreadable(file: str, error: OSError) -> MetadataError:
    return MetadataError(f"{file} cannot be opened ({error.strerror or error}). Check the path and its permissions.")
