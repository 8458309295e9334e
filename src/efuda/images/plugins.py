"""Formats that Pillow does not read itself, brought in when the first file of the kind is met: HEIC and JPEG XL."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image

from efuda.errors import ImageError
from efuda.images.reasons import HEAD, kind_of, where_is

__all__ = ["jxl_size", "open_with_plugin", "use_threads"]

_threads = 4
_JXL_LEAST: Final = 1 << 20  # of a file, in which its header must be


def use_threads(count: int) -> None:
    """How many threads a decoder of these may use; of effect before the first such file."""
    global _threads
    _threads = count


def open_with_plugin(source: Path | bytes, check: Callable[[tuple[int, int]], None]) -> Image.Image | None:
    """Open what Pillow alone does not know; None where it is not one of these formats either.

    Args:
        check: raises where a size is too much; JPEG XL is decoded as it is opened, so its header is read first.
    """
    head = source[:HEAD] if isinstance(source, bytes) else _head(source)
    kind = kind_of(head)
    if kind not in ("heic", "jxl"):
        return None
    data = source if isinstance(source, bytes) else source.read_bytes()
    if kind == "heic":
        _bring_heic()
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    check(jxl_size(data))
    try:
        _bring_jxl()
    except ImportError as error:
        raise ImageError('JPEG XL needs pip install "efuda[formats]"', where_is(source)) from error
    try:
        return Image.open(io.BytesIO(data), formats=("JXL",))
    except Exception:
        raise
    except BaseException as error:  # a panic in Rust is not an Exception
        if type(error).__name__ == "PanicException":
            raise ImageError("cannot be decoded", where_is(source)) from error
        raise


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of a JPEG XL file, in a container or not (ISO/IEC 18181).

    Raises:
        ImageError: there is no header.
    """
    stream = data[:64] if data.startswith(b"\xff\x0a") else _codestream(data[:_JXL_LEAST])
    if not stream.startswith(b"\xff\x0a"):
        raise ImageError("truncated")
    bits = int.from_bytes(stream[2:26], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(small: bool) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = bool(take(1))
    height = side(small)
    ratio = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return (height * ratio[0] // ratio[1] if ratio[0] else side(small)), height


def _codestream(data: bytes) -> bytes:
    """The first bytes of the picture itself among the boxes of a container."""
    place = 0
    while place + 8 <= len(data):
        size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        start = place + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if name in (b"jxlc", b"jxlp"):
            return data[start + (4 if name == b"jxlp" else 0) :][:64]
        if size < start - place:
            break
        place += size
    return b""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


@cache
def _bring_heic() -> None:
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=_threads)


@cache
def _bring_jxl() -> None:
    from pillow_jxl import JpegXLImagePlugin

    settings: Any = JpegXLImagePlugin
    settings.DECODE_THREADS = 0 if _threads == 1 else _threads
