"""What is said of pictures: one as a `Chosen`, many as `Choices`, a sequence of those that is kept in columns.

    choices = chooser.choose(batch)
    choices[0].tags                     # [("1girl", 0.99, Category.GENERAL), …], made when asked for
    choices.tags.words                  # int64, the words of all pictures, one picture after another

A word is a number in `Lexicon`, a score a number of ten-thousandths, so that what writes thousands of pictures looks
texts up instead of making them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from efuda.tagging.tagged import as_path
from efuda.vocabulary import Category

__all__ = ["DIGITS", "Choices", "Chosen", "Lexicon", "Said"]

DIGITS: Final = 10_000
_SCORES: Final = np.array([score / DIGITS for score in range(DIGITS + 1)], dtype=object)  # floats made once for all


class Chosen(NamedTuple):
    """What is said of one picture.

    Attributes:
        path: the file, or `archive.cbz/page.png`.
        size: (width, height) in pixels, upright.
        tags: (name, score, category) as they are to be written, best first; scores in four digits.
        ratings: rating → score, empty for a model that does not rate.
        rating: the likeliest, or None.
    """

    path: Path
    size: tuple[int, int]
    tags: Sequence[tuple[str, float, Category]]
    ratings: Mapping[str, float]
    rating: str | None


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Every word that may be said, by number; the same text may stand there in two categories."""

    names: Sequence[str]
    categories: Sequence[Category]

    def __len__(self) -> int:
        return len(self.names)


class Said(NamedTuple):
    """Words of several pictures, one picture after another.

    Attributes:
        counts: int64 [pictures], how many words each has.
        words: int64 [said], numbers of a lexicon.
        scores: int64 [said], in ten-thousandths.
    """

    counts: NDArray[np.int64]
    words: NDArray[np.int64]
    scores: NDArray[np.int64]

    def ends(self) -> NDArray[np.int64]:
        """int64 [pictures], where each picture's words end."""
        return np.cumsum(self.counts)

    def last(self) -> NDArray[np.bool_]:
        """bool [said], whether a word is its picture's last."""
        found = np.zeros(len(self.words), dtype=np.bool_)
        found[self.ends()[self.counts > 0] - 1] = True
        return found

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each picture's words start and end."""
        ends = self.ends().tolist()
        return zip([0, *ends], ends, strict=False)


@dataclass(frozen=True, eq=False)
class Choices(Sequence[Chosen]):
    """What is said of many pictures, `best` being their likeliest ratings."""

    paths: Sequence[Path | str]
    sizes: Sequence[tuple[int, int]]
    lexicon: Lexicon
    tags: Said
    ratings: Said
    best: Sequence[str | None]

    @classmethod
    def of(cls, chosen: Sequence[Chosen]) -> Choices:
        """Those very choices, or single ones in columns; scores are rounded to four digits."""
        if isinstance(chosen, Choices):
            return chosen
        numbers: dict[tuple[str, Category], int] = {}

        def said(lists: Sequence[Sequence[tuple[str, float, Category]]]) -> Said:
            flat = [one for words in lists for one in words]
            words = [numbers.setdefault((name, category), len(numbers)) for name, _, category in flat]
            scores = [round(score * DIGITS) for _, score, _ in flat]
            return Said(*(np.array(column, dtype=np.int64) for column in ([len(one) for one in lists], words, scores)))

        tags = said([one.tags for one in chosen])
        ratings = said([[(name, score, Category.RATING) for name, score in one.ratings.items()] for one in chosen])
        lexicon = Lexicon([name for name, _ in numbers], [category for _, category in numbers])
        paths, sizes = [one.path for one in chosen], [one.size for one in chosen]
        return cls(paths, sizes, lexicon, tags, ratings, [one.rating for one in chosen])

    def names(self) -> list[list[str]]:
        """Of each picture the names of its tags."""
        names = self.lexicon.names
        flat = [names[word] for word in self.tags.words.tolist()]
        return [flat[start:end] for start, end in self.tags.spans()]

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> Chosen: ...
    @overload
    def __getitem__(self, at: slice) -> list[Chosen]: ...
    def __getitem__(self, at: int | slice) -> Chosen | list[Chosen]:
        return list(self)[at]

    def __iter__(self) -> Iterator[Chosen]:
        tags, ratings = self._tuples(self.tags), self._tuples(self.ratings)
        spans = zip(self.tags.spans(), self.ratings.spans(), strict=True)
        for path, size, best, (mine, rated) in zip(self.paths, self.sizes, self.best, spans, strict=True):
            scores = {name: score for name, score, _ in ratings[slice(*rated)]}
            yield Chosen(as_path(path), size, tags[slice(*mine)], scores, best)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _tuples(self, said: Said) -> list[tuple[str, float, Category]]:
        names, categories = self.lexicon.names, self.lexicon.categories
        scores: list[Any] = _SCORES.take(said.scores).tolist()
        words = zip(said.words.tolist(), scores, strict=True)
        return [(names[word], score, categories[word]) for word, score in words]
