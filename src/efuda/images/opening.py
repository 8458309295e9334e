"""Open pictures safely: any file in, an upright opaque RGB picture or one `ImageError` with a short reason out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from efuda.errors import ImageError
from efuda.images.archives import read_member
from efuda.images.colours import on_white
from efuda.images.plugins import open_with_plugin
from efuda.images.reasons import named, one_reason, where_is

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "check_size",
    "finished",
    "full_size",
    "opened",
    "orientation_of",
    "read_rgb",
    "read_size",
    "with_full_size",
]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # HEIC and JPEG XL are brought by `plugins`

# Danbooru's own limits (40,000 px a side, 21,000² in all): real art reaches them, Pillow's default refuses it.
MAX_PIXELS: Final = 21_000 * 21_000
MAX_SIDE: Final = 40_000
_ORIENTATION: Final = 0x0112
_FULL: Final = "efuda_full_size"
# Ours, above, is checked before a pixel is decoded. Pillow's own, which refuses twice this number, sees what grows
# while it is opened: a frame of a GIF may be larger than the picture.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def read_rgb(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, reduce_to: int | None = None) -> Image.Image:
    """Decode one picture completely, its first frame if it is animated.

    Args:
        source: a file, a member of an archive (`comic.cbz/003.png`), or the bytes of one.
        max_pixels: refuse a larger picture before decoding it.
        reduce_to: a JPEG may come out at a half, a quarter or an eighth of its size, its longer side not below this:
            several times as fast. `full_size` says what it was.

    Returns:
        An RGB picture, upright, transparency laid on white, in sRGB.

    Raises:
        ImageError: with a reason such as "not a picture", "truncated" or "too large".
    """
    with opened(source, max_pixels) as picture:
        return finished(picture, reduce_to)


@contextmanager
def opened(source: Path | bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header was read and whose size is right; what is raised within becomes an ImageError."""
    with one_reason(source), _open(source, max_pixels) as picture:
        check_size(picture.size, max_pixels, where_is(source))
        yield picture


def finished(picture: Image.Image, reduce_to: int | None) -> Image.Image:
    """Decode the frame that an open picture is at: upright, RGB, on white, a JPEG reduced if that is wanted."""
    stored = picture.size
    longer = max(stored)
    if reduce_to is not None and longer >= 2 * reduce_to and picture.format in ("JPEG", "MPO"):
        picture.draft(None, tuple(-(-side * reduce_to // longer) for side in picture.size))  # type: ignore[arg-type]
    picture.load()
    orientation = orientation_of(picture)
    upright = ImageOps.exif_transpose(picture) if orientation != 1 else picture
    white = on_white(upright)
    plain = white._new(white.im) if white is picture else white  # no file and no second set of pixels behind it
    return with_full_size(plain, stored if orientation < 5 else (stored[1], stored[0]))


def read_size(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an upright picture, from its header: nothing is decoded, so it may be damaged further on.

    Raises:
        ImageError: with a reason such as "not a picture" or "too large".
    """
    with opened(source, max_pixels) as picture:
        width, height = picture.size
        plain = picture.format == "PNG" and "exif" not in picture.info  # Pillow would decode all of it to be sure
        return (width, height) if plain or orientation_of(picture) < 5 else (height, width)


def full_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the upright original of a picture that was read, which `reduce_to` may have made smaller."""
    size: tuple[int, int] = picture.info.get(_FULL, picture.size)
    return size


def with_full_size(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Nothing else of the file is kept: its profile, for one, no longer is that of the pixels."""
    picture.info = {_FULL: size}
    return picture


def orientation_of(picture: Image.Image) -> int:
    """By its EXIF or XMP; 1, upright, where these are absent or make no sense."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def check_size(size: tuple[int, int], max_pixels: int, where: str = "") -> None:
    """Raises ImageError where a picture of this size is not to be decoded."""
    width, height = size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageError(f"too large ({width}×{height})", where)
    if width * height == 0:
        raise ImageError("empty picture", where)


def _open(source: Path | bytes, max_pixels: int) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError:
        where = where_is(source)
        other = open_with_plugin(source, lambda size: check_size(size, max_pixels, where))
        if other is None:
            raise
        return other
    except (NotADirectoryError, FileNotFoundError):
        assert isinstance(source, Path)
        member = read_member(source)
        if member is None:
            raise
        with named(str(source)), one_reason(member):
            return _open(member, max_pixels)
