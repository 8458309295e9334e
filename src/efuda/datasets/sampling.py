"""Which entries are sampled: every k-th in file order, as the reference run did, or by a hash of their id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["EVERY_ENTRY", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """One of `every` entries.

    Attributes:
        by: "order" counts the entries of all files, from 0; "hash" mixes the id, or that number where there is none.
        always: int64 [n], ids that are sampled in any case: the posts of the dataset that is extended.
    """

    every: int = 1
    by: Literal["order", "hash"] = "order"
    always: NDArray[np.int64] | None = None

    @property
    def digest(self) -> str:
        """Changes when what is chosen may change; empty where every entry is."""
        if self.every == 1:
            return ""
        always = b"" if self.always is None else self.always.tobytes()
        return hashlib.sha256(f"{self.every} {self.by}\n".encode() + always).hexdigest()

    def chosen(self, ids: NDArray[np.int64], first: int) -> NDArray[np.bool_]:
        """A mask for entries that follow each other.

        Args:
            ids: [n], 0 where an entry has none.
            first: the number of the first of them.
        """
        numbers = np.arange(first, first + len(ids), dtype=np.uint64)
        if self.by == "hash":
            numbers = _mixed(np.where(ids > 0, ids.astype(np.uint64), numbers))
        mask = np.asarray(numbers % np.uint64(self.every) == 0)
        return mask if self.always is None else mask | np.isin(ids, self.always)


EVERY_ENTRY = Sampling()


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring ids become unrelated."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
