"""How a stage says what it is doing, without printing: it calls a `Progress` with what is done so far.

    def stage(items, *, progress: Progress = silent) -> None:
        for done, item in enumerate(items, start=1):
            progress("images", done, len(items), unit="images", note="3 rejected")

The command line turns the calls into one bar with rate and remaining time; tests collect them in a list.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called often (it must be cheap); `total` is None where it is not known beforehand."""

    def __call__(self, step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None: ...


def silent(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
    """Say nothing."""
