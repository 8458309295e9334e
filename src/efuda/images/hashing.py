"""What is to know of a picture that stays where it is: its size, its perceptual hash, whether it is one colour."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image

from efuda.errors import ImageError
from efuda.images.opening import MAX_PIXELS, check_size, orientation_of, read_rgb
from efuda.images.reasons import one_reason

__all__ = ["Examined", "examine", "is_single_colour", "is_small_jpeg", "phash", "thumbnail"]


@dataclass(frozen=True, slots=True)
class Examined:
    """What is to know of a picture that stays where it is; `width` and `height` are those of the upright one."""

    width: int
    height: int
    phash: int
    single_colour: bool


def examine(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Examined:
    """Decode one picture to its last byte, for what can be said of it and not for its pixels.

    A JPEG is decoded to the mean grey of its 8×8 blocks: every bit of it is read, but no pixel is computed, which takes
    two thirds of the time. The hash then differs in few bits, mostly none, from that of all pixels.

    Raises:
        ImageError: where `read_rgb` does, with the same reason.
    """
    if (quick := _examine_jpeg(data, max_pixels)) is not None:
        return quick
    picture = read_rgb(data, max_pixels=max_pixels)
    return Examined(*picture.size, phash(picture), is_single_colour(picture))


def is_small_jpeg(data: bytes, side: int) -> bool:
    """Whether, by its header, it is an upright RGB or grey JPEG of at most `side` pixels: no smaller copy is needed."""
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    with suppress(ImageError), one_reason(data), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return _is_plain_jpeg(picture) and max(picture.size) <= side
    return False


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """A copy whose longer side is at most `side` pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def phash(picture: Image.Image) -> int:
    """A 64-bit perceptual hash: copies that were resized, recompressed or brightened differ in few bits.

    The lowest 8×8 frequencies of a cosine transform of the picture in 32×32 greys, each above the median or not; the
    very lowest, the brightness, decides nothing (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions").
    """
    return _hash(picture, None)


def is_single_colour(picture: Image.Image) -> bool:
    """Whether every pixel is the same; a few are looked at before all."""
    first = picture.getpixel((0, 0))
    width, height = picture.size
    some = (
        (width // 2, height // 2),
        (width // 3, height // 4),
        (width - 1, height - 1),
        (width // 4, 2 * height // 3),
    )
    if any(picture.getpixel(place) != first for place in some):
        return False
    extrema = picture.getextrema()
    return all(low == high for low, high in (extrema if isinstance(extrema[0], tuple) else [extrema]))


def _is_plain_jpeg(picture: Image.Image) -> bool:
    return picture.format == "JPEG" and picture.mode in ("RGB", "L") and orientation_of(picture) == 1


def _examine_jpeg(data: bytes, max_pixels: int) -> Examined | None:
    """None where only the whole picture can tell: no plain JPEG, turned, or with so little contrast that it may be one
    colour (greys whose brightest and darkest are this far apart never stand for the same colour)."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    with one_reason(data), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        check_size(picture.size, max_pixels)
        if not _is_plain_jpeg(picture):
            return None
        width, height = picture.size
        drafted = picture.draft("L", (64, 64))
        if drafted is None:
            return None
        picture.load()
        low, high = picture.getextrema()
        assert isinstance(low, int) and isinstance(high, int)
        return Examined(width, height, _hash(picture, drafted[1]), False) if high - low >= 64 else None


def _hash(picture: Image.Image, box: tuple[float, float, float, float] | None) -> int:
    """Of what lies within `box`; averaging whole blocks first (`reducing_gap`) is much faster than one long filter."""
    import numpy as np

    small = picture.resize((32, 32), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0).convert("L")
    waves = _waves()
    low = (waves @ np.asarray(small, dtype=np.float64) @ waves.T).ravel()
    bits = low > np.sort(low[1:])[31]  # the median of the 63
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _waves() -> Any:
    """The 8 lowest rows of the cosine transform of 32 samples, times 2¹⁴."""
    import numpy as np

    rows, samples = np.arange(8)[:, None], np.arange(32)[None, :]
    return np.rint(2**14 * np.cos(np.pi * rows * (2 * samples + 1) / 64)).astype(np.int64)
