"""Open pictures safely: any file in, an upright opaque RGB picture or one `ImageError` with a short reason out.

    picture = read_rgb(Path("miku.png"))          # PIL image, mode RGB, EXIF orientation applied, alpha on white
    width, height = picture.size
    about = examine(data)                         # its size, perceptual hash and whether it is one colour, faster

Only the formats in `FORMATS` are ever decoded, whatever the file's name says, and never more than `MAX_PIXELS`.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageOps, UnidentifiedImageError

from efuda.errors import ImageError, InputError

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "SUFFIXES",
    "Examined",
    "examine",
    "find_pictures",
    "is_single_colour",
    "is_small_jpeg",
    "phash",
    "read_rgb",
    "thumbnail",
]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

# Danbooru's own limits (40,000 px a side, 21,000² in all): real art reaches them, Pillow's default refuses it.
MAX_PIXELS: Final = 21_000 * 21_000
MAX_SIDE: Final = 40_000
_ORIENTATION: Final = 0x0112
Image.MAX_IMAGE_PIXELS = None  # ours, above, is checked before a pixel is decoded


def read_rgb(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, reduce_to: int | None = None) -> Image.Image:
    """Decode one picture completely, its first frame if it is animated.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refuse a larger picture before decoding it.
        reduce_to: a JPEG may come out at a half, a quarter or an eighth of its size, its longer side not below this:
            several times as fast.

    Returns:
        An RGB picture, upright, transparency laid on white.

    Raises:
        ImageError: with a reason such as "not a picture", "truncated" or "too large".
    """
    where = "" if isinstance(source, bytes) else str(source)
    with (
        _one_reason(source),
        Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture,
    ):
        _check_size(picture, max_pixels, where)
        if reduce_to is not None and picture.format == "JPEG" and (longer := max(picture.size)) >= 2 * reduce_to:
            picture.draft(None, tuple(-(-side * reduce_to // longer) for side in picture.size))  # type: ignore[arg-type]
        picture.load()
        return _on_white(ImageOps.exif_transpose(picture))


def read_frames(
    source: Path | bytes, *, count: int = 1, max_pixels: int = MAX_PIXELS, reduce_to: int | None = None
) -> list[Image.Image]:
    """The first frame."""
    return [read_rgb(source, max_pixels=max_pixels, reduce_to=reduce_to)]


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises ImageError."""
    with _one_reason(path):
        return path.read_bytes()


def limit_this_process(memory: int) -> None:
    """Limit."""


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
    with suppress(ImageError), _one_reason(data), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
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


def find_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file named like a picture at or beneath `paths`, in a stable order, each once.

    A file named outright is yielded whatever its suffix: the person meant it. Links to folders are not followed, so
    a loop of links cannot trap the walk, and hidden folders are left out.

    Raises:
        InputError: a path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist. Name pictures or folders of pictures.")
        for found in _walk(path) if path.is_dir() else (path,):
            if found not in seen:
                seen.add(found)
                yield found


@contextmanager
def _one_reason(source: Path | bytes) -> Iterator[None]:
    """Whatever a decoder raises becomes an ImageError with a short reason."""
    where = "" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd EXIF and palettes: the pixels are what counts
            yield
    except ImageError:
        raise
    except (UnidentifiedImageError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageError(_reason(error, source), where) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, TypeError) as error:
        raise ImageError("truncated" if "truncated" in str(error).lower() else "cannot be decoded", where) from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory", where) from error


def _is_plain_jpeg(picture: Image.Image) -> bool:
    return picture.format == "JPEG" and picture.mode in ("RGB", "L") and picture.getexif().get(_ORIENTATION, 1) == 1


def _examine_jpeg(data: bytes, max_pixels: int) -> Examined | None:
    """None where only the whole picture can tell: no plain JPEG, turned, or with so little contrast that it may be one
    colour (greys whose brightest and darkest are this far apart never stand for the same colour)."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    with _one_reason(data), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        _check_size(picture, max_pixels, "")
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


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(here, name)


def _check_size(picture: Image.Image, max_pixels: int, where: str) -> None:
    width, height = picture.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageError(f"too large ({width}×{height})", where)
    if width * height == 0:
        raise ImageError("empty picture", where)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return _eight_bits(picture).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greys, which `convert` would clip to white, scaled to 0–255 and rounded."""
    wide = picture.convert("F")
    top = 65535.0 if picture.mode.startswith("I;16") else _top(wide)
    return wide.point(lambda value: value * (255.0 / top) + 0.5).convert("L")


def _top(wide: Image.Image) -> float:
    """What white is in a mode that does not say: judged by the brightest pixel."""
    _, high = wide.getextrema()
    assert isinstance(high, float)
    return 65535.0 if high > 255 else 255.0 if high > 1 else 1.0


def _reason(error: Exception, source: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "cannot be decoded" if _begins_as_a_picture(source) else "not a picture"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a picture"
    return "no permission to read it"


def _begins_as_a_picture(source: Path | bytes) -> bool:
    """Whether it claims to be in one of our formats, though its header makes no sense to the decoder."""
    if isinstance(source, bytes):
        start = source[:12]
    else:
        with source.open("rb") as file:
            start = file.read(12)
    known = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    return start.startswith(known) or start[8:] == b"WEBP" or start[4:] in (b"ftypavif", b"ftypavis")
