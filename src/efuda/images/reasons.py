"""What a file is by its first bytes, and one short reason for whatever a decoder raises."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from efuda.errors import ImageError
from efuda.images.limits import is_limited

__all__ = ["HEAD", "VIDEO_KINDS", "kind_of", "named", "one_reason", "reason_of", "where_is"]

HEAD: Final = 32  # bytes that `kind_of` looks at
_STARTS: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"PK\x03\x04", "archive"),
    (b"PK\x05\x06", "archive"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"FLV\x01", "flv"),
    (b"\0\0\x01\xba", "mpeg"),
    (b"0&\xb2u\x8ef\xcf\x11", "asf"),
)
_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "heic"),
}
VIDEO_KINDS: Final = frozenset({"mov", "matroska", "ogg", "flv", "mpeg", "asf", "avi"})


def kind_of(head: bytes) -> str:
    """The format that a file claims by its first bytes; "" where it is none of ours. BMP is left to its decoder."""
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF"):
        return {b"WEBP": "webp", b"AVI ": "avi"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "mov")
    return "mov" if head[4:8] in (b"moov", b"mdat") else ""


def where_is(source: Path | bytes) -> str:
    """What an error says of the place: nothing for bytes."""
    return "" if isinstance(source, bytes) else str(source)


@contextmanager
def one_reason(source: Path | bytes) -> Iterator[None]:
    """Whatever is raised while decoding becomes an ImageError with a short reason.

    Everything, since decoders of many hands meet bytes of bad will here: KeyError and AssertionError have been seen.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd EXIF and palettes: the pixels are what counts
            yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(reason_of(error, source), where_is(source)) from error


@contextmanager
def named(where: str) -> Iterator[None]:
    """The ImageErrors of bytes say where the bytes came from."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, where) from error


def reason_of(error: Exception, source: Path | bytes) -> str:
    """A short phrase that groups well in a report."""
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(source)
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, NotADirectoryError):
        return "missing"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a picture"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    told = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"[0-9]+", told)
        return f"too large ({int(pixels[0]) / 1e6:,.0f} MP)" if pixels else "too large"
    if "security limit" in told:  # libheif's own
        return "too large"
    if isinstance(error, MemoryError) or "memory" in told:
        return "too large for the memory limit" if is_limited() else "too large for this machine's memory"
    if isinstance(error, OSError) and error.errno is not None:  # the disk's word, not a decoder's
        return (os.strerror(error.errno) or "cannot be read").lower()
    return "truncated" if "truncated" in told else "cannot be decoded"


def _unidentified(source: Path | bytes) -> str:
    """Something whose header makes no sense to any decoder: was it a picture once?"""
    head = None
    if isinstance(source, bytes):
        head = source[:HEAD]
    else:
        with suppress(OSError), source.open("rb") as file:
            head = file.read(HEAD)
    if not head:
        return "not a picture" if head is None else "an empty file"
    kind = kind_of(head)
    if kind in VIDEO_KINDS:
        return "a video, not a picture"
    if kind == "archive":
        return "an archive, not a picture"
    return "cannot be decoded" if kind else "not a picture"
