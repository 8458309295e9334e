"""Preprocess: how a picture becomes a model's input, as data that ships with the model.

Training, export, tagging and the server all go through `Preprocess`; nothing else resizes or normalises a picture.

    preprocess = Preprocess(size=448)                 # what the WD family expects
    preprocess.square(picture)                        # uint8 [448, 448, 3], RGB: what training sees
    preprocess.array(picture)                         # float32 [448, 448, 3], BGR 0–255: what model.onnx is fed

Every family of taggers is a value of this one class (docs/models.md lists them).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Crop", "Letterbox", "Preprocess", "Resize", "Shorter", "Step"]

Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Side = Annotated[int, Field(ge=1, le=8192)]
_STRIP = 1 << 18  # pixels padded at a time
_NARROW = 4  # so many times as high as wide is a strip: a webtoon, or bad will
Filter = Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Letterbox(_Step):
    """Shrink or grow to fit within [width, height], then pad to it, the picture in the middle."""

    kind: Literal["letterbox"] = "letterbox"
    width: Side
    height: Side
    interpolation: Filter = "bilinear"
    colour: Colour = (255, 255, 255)
    rounding: Literal["round", "floor"] = "round"

    def apply(self, picture: Image.Image) -> Image.Image:
        """An RGB picture → one of [width, height]."""
        width, height = self._within(picture)
        left, top = (self.width - width) // 2, (self.height - height) // 2
        canvas = Image.new("RGB", (self.width, self.height), self.colour)
        canvas.paste(_resized(picture, width, height, self.interpolation), (left, top))
        return canvas

    def _within(self, picture: Image.Image) -> tuple[int, int]:
        if self.rounding == "round":
            scale = min(self.width / picture.width, self.height / picture.height)
            return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        aspect = picture.width / picture.height
        if aspect > self.width / self.height:
            return self.width, max(1, int(self.width / aspect))
        return max(1, int(self.height * aspect)), self.height


class Resize(_Step):
    """Stretch to [width, height]."""

    kind: Literal["resize"] = "resize"
    width: Side
    height: Side
    interpolation: Filter = "bilinear"

    def apply(self, picture: Image.Image) -> Image.Image:
        """An RGB picture → one of [width, height]."""
        return _resized(picture, self.width, self.height, self.interpolation)


class Shorter(_Step):
    """Make the shorter side `size`, but the longer at most `limit`; the other side follows, rounded down."""

    kind: Literal["shorter"] = "shorter"
    size: Side
    limit: Side | None = None
    interpolation: Filter = "bilinear"

    def apply(self, picture: Image.Image) -> Image.Image:
        """An RGB picture → one of the same shape."""
        short, long = sorted(picture.size)
        new_short, new_long = self.size, int(self.size * long / short)
        if self.limit is not None and new_long > self.limit:
            new_short, new_long = max(1, int(self.limit * new_short / new_long)), self.limit
        wide = picture.width > picture.height
        width, height = (new_long, new_short) if wide else (new_short, new_long)
        return _resized(picture, width, height, self.interpolation)


class Crop(_Step):
    """Cut [width, height] from the middle; what the picture lacks is black."""

    kind: Literal["crop"] = "crop"
    width: Side
    height: Side

    def apply(self, picture: Image.Image) -> Image.Image:
        """An RGB picture → one of [width, height]."""
        if picture.width < self.width or picture.height < self.height:
            wide, high = max(picture.width, self.width), max(picture.height, self.height)
            black = Image.new("RGB", (wide, high))
            black.paste(picture, ((wide - picture.width) // 2, (high - picture.height) // 2))
            picture = black
        left, top = (picture.width - self.width) // 2, (picture.height - self.height) // 2
        return picture.crop((left, top, left + self.width, top + self.height))


Step = Annotated[Letterbox | Resize | Shorter | Crop, Field(discriminator="kind")]


class Preprocess(BaseModel):
    """Geometry, channel order and scale. The defaults are those of WD v1.4–v3 (FORMATS: model directories)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(448, ge=16, le=4096, description="side of the square input, in pixels")
    fit: Literal["pad", "squash", "letterbox", "area", "steps"] = Field(
        "pad",
        description="pad to a square, then resize; stretch; resize, then pad; the same by exact areas, the edge's "
        "pixels repeated (DeepDanbooru); or the steps below",
    )
    interpolation: Filter = "bicubic"
    pad: Colour = Field((255, 255, 255), description="what surrounds a picture that is not square")
    steps: tuple[Step, ...] = Field((), description="what fit = steps does, in order")
    channels: Literal["bgr", "rgb"] = "bgr"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="subtracted, in units of 0–1")
    std: tuple[float, float, float] | None = Field(None, description="divided by; None keeps 0–255")

    @model_validator(mode="after")
    def _steps_end_in_the_square(self) -> Self:
        if (self.fit == "steps") != bool(self.steps):
            raise ValueError("steps go with fit = steps, and only with it")
        if self.steps:
            last = self.steps[-1]
            if isinstance(last, Shorter) or (last.width, last.height) != (self.size, self.size):
                raise ValueError(f"the last step must give {self.size}×{self.size} pixels")
        if self.std is not None and not all(np.isfinite(value) and value > 0 for value in self.std):
            raise ValueError("std must be positive")
        return self

    def square(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture → uint8 [size, size, 3], RGB."""
        size, how = self.size, self.interpolation
        match self.fit:
            case "area":
                return _by_areas(picture, size)
            case "steps":
                for step in self.steps:
                    picture = step.apply(picture)
            case "letterbox":
                box = Letterbox(width=size, height=size, interpolation=how, colour=self.pad, rounding="floor")
                picture = box.apply(picture)
            case "pad":
                picture = _padded_and_resized(picture, size, how, self.pad)
            case "squash":
                picture = _resized(picture, size, size, how)
        return np.asarray(picture, dtype=np.uint8)

    def array(self, picture: Image.Image) -> NDArray[np.float32]:
        """An RGB picture → float32 input of the model, without the batch axis."""
        return self.scale(self.square(picture))

    def scale(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB [..., size, size, 3] → float32 in the model's channel order, scale and layout."""
        values = pixels[..., ::-1] if self.channels == "bgr" else pixels
        scaled = np.ascontiguousarray(values, dtype=np.float32)
        if self.std is not None:
            mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
            scaled = ((scaled / np.float32(255.0) - mean) / std).astype(np.float32, copy=False)
        return scaled if self.layout == "nhwc" else np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def _resized(picture: Image.Image, width: int, height: int, interpolation: Filter) -> Image.Image:
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling[interpolation.upper()])


def _padded_and_resized(picture: Image.Image, size: int, interpolation: Filter, colour: Colour) -> Image.Image:
    """Pad to a square, the picture in the middle, then resize: the same pixels, but the square is never made.

    That of a strip of 1,000×40,000 has 1.6 billion pixels. Pillow resizes rows, then columns, and so do we: a few
    padded rows at a time, then the columns of the whole, which are padded only now.
    """
    side = max(picture.size)
    left, top = (side - picture.width) // 2, (side - picture.height) // 2
    (first, last), (start, end) = _touched(left, picture.width, side, size)
    box = (first * side / size - start, last * side / size - start)
    narrow = Image.new("RGB", (size, side), colour)
    step = max(1, _STRIP // (end - start))
    for row in range(0, picture.height, step):
        strip = picture.crop((0, row, picture.width, min(row + step, picture.height)))
        if picture.width < side:
            padded = Image.new("RGB", (end - start, strip.height), colour)
            padded.paste(strip, (left - start, 0))
            strip = padded
        filter = Image.Resampling[interpolation.upper()]
        resized = strip.resize((last - first, strip.height), filter, (box[0], 0, box[1], strip.height))
        narrow.paste(resized, (first, top + row))
    return _resized(narrow, size, size, interpolation)


def _touched(left: int, width: int, side: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The columns of the result that a picture in the middle of its padding has a part in, and the columns these need.

    All, but for narrow strips, of which most would be padding; there a pixel may differ by 1, since Pillow rounds.
    """
    if width * _NARROW > side or side < size:
        return (0, size), (0, side)
    scale = side / size
    reach = 3 * scale + 1  # of the widest filter
    first, last = max(0, int((left - reach) / scale) - 1), min(size, int((left + width + reach) / scale) + 2)
    return (first, last), (max(0, int(first * scale - reach)), min(side, int(last * scale + reach) + 1))


def _by_areas(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Fit within the square, each new pixel the mean of the area it covers; repeat the edge's pixels around it.

    Where the space left over is odd, the picture stands half a pixel off, each pixel the mean of two neighbours.
    """
    scale = min(size / picture.width, size / picture.height)
    pixels: NDArray[Any] = np.asarray(picture)
    for side in (round(picture.height * scale), round(picture.width * scale)):
        pixels = _centred(_area_means(pixels, max(1, side)), size).swapaxes(0, 1)  # rows, then columns
    found: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return found


def _area_means(rows: NDArray[Any], count: int) -> NDArray[np.float32]:
    """[n, m, 3] → float32 [count, m, 3]: row i is the mean of the rows from i·n/count to (i+1)·n/count."""
    if len(rows) == count:
        return rows.astype(np.float32)
    edges = np.arange(count + 1) * (len(rows) / count)
    means = np.empty((count, *rows.shape[1:]), dtype=np.float32)
    for row, (start, end) in enumerate(pairwise(edges)):
        first, last = int(start), min(len(rows), int(np.ceil(end)))
        inside = np.arange(first, last)
        weights = np.minimum(inside + 1, end) - np.maximum(inside, start)
        means[row] = np.tensordot((weights / weights.sum()).astype(np.float32), rows[first:last], axes=1)
    return means


def _centred(rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """float32 [n, …] → [size, …], the first and last row repeated."""
    before, odd = divmod(size - len(rows), 2)
    places = np.arange(size) - before
    at = rows[np.clip(places, 0, len(rows) - 1)]
    return (at + rows[np.clip(places - 1, 0, len(rows) - 1)]) * np.float32(0.5) if odd else at
