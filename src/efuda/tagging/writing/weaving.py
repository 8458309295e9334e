"""Text of thousands of pictures at once: pieces are looked up by number, laid out in columns and joined in one go.

names = Texts(lambda word: f" {lexicon.names[word]}")
woven(2, ["a:", "b:"], Ragged(counts, names.take(words)), "\\n")       # "a: 1girl hat\\nb: solo\\n"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ragged", "Texts", "paired", "woven"]


class Texts:
    """Texts by number, from 0; each is made when it is first asked for."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._texts: NDArray[Any] = np.empty(0, dtype=object)
        self._known = np.empty(0, dtype=np.bool_)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """object [n], the texts of these numbers."""
        if len(numbers) and (most := int(numbers.max()) + 1) > len(self._known):
            self._texts = np.concatenate([self._texts, np.empty(most - len(self._texts), dtype=object)])
            self._known = np.concatenate([self._known, np.zeros(most - len(self._known), dtype=np.bool_)])
        known = self._known.take(numbers)
        if not known.all():
            for number in np.unique(numbers[~known]).tolist():
                self._texts[number] = self._make(number)
                self._known[number] = True
        found: NDArray[Any] = self._texts.take(numbers)
        return found


class Ragged(NamedTuple):
    """Pieces of several pictures, one after another: int64 [pictures], how many each has, and object [pieces]."""

    counts: NDArray[np.int64]
    pieces: NDArray[Any]


def paired(counts: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any]) -> Ragged:
    """Pieces that take turns: a first one, its second, the next first one."""
    pieces = np.empty(2 * len(first), dtype=object)
    pieces[0::2], pieces[1::2] = first, second
    return Ragged(2 * counts, pieces)


def woven(pictures: int, *parts: Ragged | Sequence[str] | NDArray[Any] | str) -> str:
    """The text of all pictures, each with all parts in turn: its own pieces, its own text, or one for all."""
    alone = sum(not isinstance(part, Ragged) for part in parts)
    widths = sum((part.counts for part in parts if isinstance(part, Ragged)), np.full(pictures, alone))
    ends = np.cumsum(widths)
    at = ends - widths
    pieces = np.empty(int(ends[-1]) if pictures else 0, dtype=object)
    for part in parts:
        if isinstance(part, Ragged):
            before = np.cumsum(part.counts) - part.counts
            pieces[np.repeat(at - before, part.counts) + np.arange(len(part.pieces))] = part.pieces
            at = at + part.counts
        else:
            pieces[at] = part
            at = at + 1
    return "".join(pieces.tolist())
