"""Where a run's numbers go besides `log.jsonl`: TensorBoard, wandb or trackio, through accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from efuda.errors import MissingExtra

__all__ = ["Trackers"]

_PACKAGES: Final = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


class Trackers:
    """Those that the recipe names; none of them by default.

    Raises:
        MissingExtra: one is not installed.
    """

    def __init__(self, names: Sequence[str], out: Path, settings: Mapping[str, Any]) -> None:
        self._open: list[Any] = []
        for name in names:
            if importlib.util.find_spec(_PACKAGES[name]) is None or importlib.util.find_spec("accelerate") is None:
                raise MissingExtra(f"train.trackers = {name!r}", "track", _PACKAGES[name])
        if names:
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS

            for name in names:
                kind: Any = LOGGER_TYPE_TO_CLASS[name]
                place = {"logging_dir": out / "tensorboard"} if kind.requires_logging_directory else {}
                tracker = kind(out.resolve().name, **place)
                if hasattr(tracker, "start"):
                    tracker.start()
                tracker.store_init_configuration(_flat(settings))
                self._open.append(tracker)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Numbers at a step; nested ones are named `outer/inner`."""
        for tracker in self._open:
            tracker.log(_flat(values), step=step)

    def close(self) -> None:
        """Write out what is waiting."""
        for tracker in self._open:
            tracker.finish()


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}/")
        else:
            flat[f"{before}{name}"] = value if isinstance(value, int | float | str) else str(value)
    return flat
