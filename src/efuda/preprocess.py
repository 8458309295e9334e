"""Preprocess: how a picture becomes a model's input, as data that ships with the model.

Training, export, tagging and the server all go through `Preprocess`; nothing else resizes or normalises a picture.

    preprocess = Preprocess(size=448)                 # what the WD family expects
    preprocess.square(picture)                        # uint8 [448, 448, 3], RGB: what training sees
    preprocess.array(picture)                         # float32 [448, 448, 3], BGR 0–255: what model.onnx is fed
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Preprocess"]


class Preprocess(BaseModel):
    """Geometry, channel order and scale. The defaults are those of WD v1.4–v3 (FORMATS: model directories)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(448, ge=16, le=4096, description="side of the square input, in pixels")
    fit: Literal["pad", "squash"] = Field("pad", description="pad to a white square first, or stretch")
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest"] = "bicubic"
    channels: Literal["bgr", "rgb"] = "bgr"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="subtracted, in units of 0–1")
    std: tuple[float, float, float] | None = Field(None, description="divided by; None keeps 0–255")

    def square(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture → uint8 [size, size, 3], RGB."""
        if self.fit == "pad" and picture.width != picture.height:
            side = max(picture.size)
            white = Image.new("RGB", (side, side), "white")
            white.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            picture = white
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling[self.interpolation.upper()])
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
