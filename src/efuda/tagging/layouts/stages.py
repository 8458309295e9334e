"""animetimm's `preprocess.json`, a list of named stages, as a `Preprocess`.

    {"test": [{"type": "pad_to_size", "size": [512, 512], "background_color": "white", "interpolation": "bilinear"},
              {"type": "resize", "size": 448, "interpolation": "bicubic"}, {"type": "center_crop", "size": [448, 448]},
              {"type": "maybe_to_tensor"}, {"type": "normalize", "mean": […], "std": […]}], "val": […]}

A stage that efuda does not know is refused: leaving it out would give wrong tags in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from PIL import ImageColor
from pydantic import ValidationError

from efuda.errors import ArtifactError
from efuda.preprocess import Crop, Letterbox, Preprocess, Resize, Shorter, Step
from efuda.tagging.layouts.taglists import read_json

__all__ = ["read_stages"]

_FILTERS: Final = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))  # Pillow's numbers
# What efuda does anyway, for every picture.
_NOTHING: Final = {"maybe_to_tensor", "to_tensor", "convert_rgb"}


def read_stages(path: Path) -> Preprocess:
    """The stages of "test" (imgutils uses these), of "val", or the only ones there are.

    Raises:
        ArtifactError: they are not there, unknown, or do not end in a square of one size.
    """
    loaded = read_json(path)
    stages = next((loaded[key] for key in ("test", "val", "stages") if key in loaded), None) if _table(loaded) else None
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ArtifactError(f"{path} lists no stages under test, val or stages. Fetch or copy the model again.")
    steps: list[Step] = []
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    try:
        for stage in stages:
            if stage.get("type") == "normalize":
                mean, std = _three(stage["mean"]), _three(stage["std"])
            elif stage.get("type") not in _NOTHING:
                steps.append(_step(stage))
        if not steps or isinstance(steps[-1], Shorter):
            raise ValueError("they do not end in a square of one size")
        size = steps[-1].width
        return Preprocess(size=size, fit="steps", steps=tuple(steps), channels="rgb", layout="nchw", mean=mean, std=std)
    except (ValidationError, ValueError, TypeError, KeyError, IndexError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{path}: the stages make no sense to efuda ({why}).") from error


def _step(stage: dict[str, Any]) -> Step:
    size = stage.get("size")
    how = stage.get("interpolation", "bilinear")
    interpolation = _FILTERS[how] if isinstance(how, int) else how
    match stage.get("type"):
        case "pad_to_size":
            width, height = size if isinstance(size, list) else (size, size)
            colour = stage.get("background_color", "white")
            rgb = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else tuple(colour)[:3]
            return Letterbox(width=width, height=height, interpolation=interpolation, colour=rgb)
        case "resize" if isinstance(size, int) or len(size) == 1:  # type: ignore[arg-type]
            shorter = size if isinstance(size, int) else size[0]  # type: ignore[index]
            return Shorter(size=shorter, limit=stage.get("max_size"), interpolation=interpolation)
        case "resize":
            return Resize(height=size[0], width=size[1], interpolation=interpolation)  # type: ignore[index]
        case "center_crop":
            height, width = (size * 2)[:2] if isinstance(size, list) else (size, size)
            return Crop(width=width, height=height)
        case other:
            raise ValueError(f"the stage {other!r} is not known")


def _three(values: Any) -> tuple[float, float, float]:
    listed = [float(value) for value in values] if isinstance(values, list) else [float(values)]
    red, green, blue = listed if len(listed) == 3 else listed * 3
    return red, green, blue


def _table(value: Any) -> bool:
    return isinstance(value, dict)
