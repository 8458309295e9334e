"""How many pictures fit on a device at once: tried, before training begins, so that running out costs seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from efuda.errors import InputError

__all__ = ["find_micro_batch", "is_out_of_memory"]

_SAID: Final = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def find_micro_batch(attempt: Callable[[int], None], most: int) -> int:
    """The largest of `most`, `most`/2, … (rounded up to even numbers) for which `attempt(pictures)` does not run out.

    Raises:
        InputError: not even two pictures fit.
    """
    pictures = most
    while True:
        try:
            attempt(pictures)
            return pictures
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if pictures <= 2:
            raise InputError("Not even two pictures fit into memory: use a smaller model.size or another backbone.")
        pictures = max(2, -(-pictures // 4) * 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is what PyTorch says when a device or the machine is full."""
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return full or any(words in str(error) for words in _SAID)
