"""Colours as they are meant: any mode to RGB on white, and a profile's colours to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final

from PIL import Image

__all__ = ["on_white"]

_STRIP: Final = (
    1 << 18
)  # pixels converted at a time: a picture of 441 MP is not held thrice, and a strip stays in the cache
_SAME: Final = 2  # of 255: a profile that changes no colour by more is sRGB under some name
_SPACES: Final = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def on_white(picture: Image.Image) -> Image.Image:
    """An RGB picture of the same size, transparency laid on white, in sRGB if an embedded profile says what it was."""
    profile = picture.info.get("icc_profile")
    if picture.mode == "RGB" and profile is None and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return _in_strips(picture, partial(_eight_bits, top=_top(picture)))
    transform = _transform(profile, _profiled(picture)) if profile else None
    if picture.mode == "RGB" and transform is None and "transparency" not in picture.info:
        return picture
    return _in_strips(picture, partial(_rgb, transform=transform))


def _in_strips(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Apply what makes an RGB picture of any; of a large one strip by strip, so that it is not held several times."""
    if picture.width * picture.height <= _STRIP:
        return convert(picture)
    whole = Image.new("RGB", picture.size)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        whole.paste(convert(strip), (0, top))
    return whole


def _rgb(picture: Image.Image, transform: Any) -> Image.Image:
    """Of a picture or a strip of one."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        colours = _applied(rgba.convert("RGB"), transform)
        white = Image.new("RGB", rgba.size, "white")
        white.paste(colours, mask=rgba.getchannel("A"))
        return white
    if picture.mode == "LAB":
        return _applied(picture, _from_lab())
    if picture.mode == "CMYK" and transform is not None:
        return _applied(picture, transform)
    if transform is not None and _profiled(picture) == "L":
        return _applied(picture.convert("L"), transform)
    return _applied(picture.convert("RGB"), transform)


def _applied(picture: Image.Image, transform: Any) -> Image.Image:
    if transform is None:
        return picture
    if picture.mode != transform.input_mode:  # a grey one with transparency
        picture = picture.convert(transform.input_mode)
    done: Image.Image = transform.apply(picture)
    return done


def _profiled(picture: Image.Image) -> str:
    """The mode that an embedded profile of this picture speaks of."""
    if picture.mode == "CMYK":
        return "CMYK"
    return "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """To sRGB; None where it is sRGB already, or broken, or of another kind of colours than the picture."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode != "CMYK" and _changes_little(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_little(transform: Any, mode: str) -> bool:
    steps = range(0, 256, 51)
    if mode == "L":
        sample = Image.new("L", (256, 1))
        sample.putdata(range(256))
    else:
        sample = Image.new("RGB", (len(steps) ** 3, 1))
        sample.putdata([(red, green, blue) for red in steps for green in steps for blue in steps])
    before, after = sample.convert("RGB").tobytes(), transform.apply(sample).tobytes()
    return all(abs(one - other) <= _SAME for one, other in zip(before, after, strict=True))


@lru_cache(maxsize=1)
def _from_lab() -> Any:
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _eight_bits(picture: Image.Image, top: float) -> Image.Image:
    """16-bit, 32-bit and float greys, which `convert` would clip to white, scaled to 0–255 and rounded."""
    return picture.convert("F").point(lambda value: value * (255.0 / top) + 0.5).convert("L").convert("RGB")


def _top(picture: Image.Image) -> float:
    """What white is; in a mode that does not say it is judged by the brightest pixel."""
    if picture.mode.startswith("I;16"):
        return 65535.0
    _, high = picture.getextrema()
    assert isinstance(high, (int, float))
    return 65535.0 if high > 255 else 255.0 if high > 1 else 1.0
