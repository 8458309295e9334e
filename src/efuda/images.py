"""Open pictures safely: any file in, an upright opaque RGB picture or one `ImageError` with a short reason out.

    picture = read_rgb(Path("miku.png"))          # PIL image, mode RGB, EXIF orientation applied, alpha on white
    width, height = picture.size

Only the formats in `FORMATS` are ever decoded, whatever the file's name says, and never more than `MAX_PIXELS`.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from efuda.errors import ImageError, InputError

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_SIDE", "SUFFIXES", "find_pictures", "read_rgb", "thumbnail"]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

# Danbooru's own limits (40,000 px a side, 21,000² in all): real art reaches them, Pillow's default refuses it.
MAX_PIXELS: Final = 21_000 * 21_000
MAX_SIDE: Final = 40_000
Image.MAX_IMAGE_PIXELS = None  # ours, above, is checked before a pixel is decoded


def read_rgb(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one picture completely, its first frame if it is animated.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refuse a larger picture before decoding it.

    Returns:
        An RGB picture, upright, transparency laid on white.

    Raises:
        ImageError: with a reason such as "not a picture", "truncated" or "too large".
    """
    where = "" if isinstance(source, bytes) else str(source)
    try:
        with (
            warnings.catch_warnings(),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture,
        ):
            warnings.simplefilter("ignore")  # Pillow warns about odd EXIF and palettes: the pixels are what counts
            _check_size(picture, max_pixels, where)
            picture.load()
            return _on_white(ImageOps.exif_transpose(picture))
    except ImageError:
        raise
    except (UnidentifiedImageError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageError(_reason(error), where) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, TypeError) as error:
        raise ImageError("truncated" if "truncated" in str(error).lower() else "cannot be decoded", where) from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory", where) from error


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """A copy whose longer side is at most `side` pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


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


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a picture"
    return "no permission to read it"
