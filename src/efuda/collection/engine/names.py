"""What tags are called and how they relate: names, categories, aliases, implications.

names = Names.read(db)
names.number("glasses")             # 7, also by an alias; None where there is no such tag
names.names[7], names.categories[7]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from efuda.collection.engine.texts import Texts
from efuda.collection.lexicon import Lexicon
from efuda.collection.record import rows
from efuda.vocabulary import Category

__all__ = ["Names"]

_NONE: Final = 255  # the category of a number that no tag has


@dataclass(frozen=True, eq=False)
class Names:
    """Every tag of a collection by its number; never changed, `grown` makes another.

    Attributes:
        names: by number; empty for a number that no tag has.
        categories: by number.
        numbers: name → number.
        aliases: other name → number.
        implications: [n, 2]: the number of a tag and of one that it implies, ascending.
    """

    names: list[str]
    categories: list[Category]
    numbers: dict[str, int]
    aliases: dict[str, int] = field(default_factory=dict)
    implications: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @classmethod
    def read(cls, db: apsw.Connection) -> Self:
        """Read all of it."""
        aliases = dict(rows(db, "SELECT name, tag FROM tag_aliases"))
        implications = np.array(rows(db, "SELECT tag, implied FROM implications ORDER BY tag, implied"), np.int64)
        return cls([""], [Category.GENERAL], {}, aliases, implications.reshape(-1, 2)).grown(db)

    def grown(self, db: apsw.Connection) -> Self:
        """With the tags that have come since; itself where none has. (That relations changed is `state.relations`.)"""
        new = rows(db, "SELECT id, name, category FROM tags WHERE id >= ? ORDER BY id", (len(self.names),))
        if not new:
            return self
        more = int(new[-1][0]) + 1 - len(self.names)
        names, categories = self.names + [""] * more, self.categories + [Category.GENERAL] * more
        for number, name, category in new:
            names[number], categories[number] = name, Category(category)
        numbers = self.numbers | {name: number for number, name, _ in new}
        grown = type(self)(names, categories, numbers, self.aliases, self.implications)
        if (lexicon := self.__dict__.get("lexicon")) and (more_words := lexicon.grown(names)):
            grown.__dict__["lexicon"] = more_words  # it takes a while to make
        return grown

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int | None:
        """The number of a tag, also by an alias."""
        number = self.numbers.get(name)
        return self.aliases.get(name) if number is None else number

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """The category by number, as an array; 255 where no tag has the number."""
        pairs = zip(self.names, self.categories, strict=True)
        return np.array([category if name else _NONE for name, category in pairs], dtype=np.uint8)

    @cached_property
    def ratings(self) -> Sequence[int]:
        """The tags that are ratings, by name."""
        return sorted(np.flatnonzero(self.kinds == Category.RATING).tolist(), key=self.names.__getitem__)

    @cached_property
    def rating_places(self) -> NDArray[np.int64]:
        """A rating's place in `ratings`, by number; 0 for what is none."""
        places = np.zeros(len(self), dtype=np.int64)
        places[list(self.ratings)] = np.arange(len(self.ratings))
        return places

    def ranked(self, counts: NDArray[np.int64]) -> list[int]:
        """The tags, ratings left out, that have a count, the largest first; of equal ones by name."""
        tags = np.flatnonzero((counts > 0) & (self.kinds[: len(counts)] != Category.RATING))
        ranked: list[int] = tags[np.lexsort((self._alphabetical[tags], -counts[tags]))].tolist()
        return ranked

    @cached_property
    def _alphabetical(self) -> NDArray[np.int64]:
        """A tag's place among all names in their order, by number."""
        places = np.empty(len(self), dtype=np.int64)
        places[sorted(range(len(self)), key=self.names.__getitem__)] = np.arange(len(self))
        return places

    def matching(self, pattern: str) -> list[int]:
        """The tags, ratings left out, that a pattern with `*` in it matches."""
        found: list[int] = self._texts.matching(pattern).tolist()
        return [tag for tag in found if self.categories[tag] is not Category.RATING]

    @cached_property
    def lexicon(self) -> Lexicon:
        """The names as completion looks them up."""
        return Lexicon.of(self.names, self.aliases)

    @cached_property
    def _texts(self) -> Texts:
        return Texts.of(list(self.numbers.values()), list(self.numbers), fold=False)

    def implied_by(self, tags: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What these tags imply directly: for every pair, the place in `tags` and the implied tag."""
        low = np.searchsorted(self.implications[:, 0], tags, side="left")
        sizes = np.searchsorted(self.implications[:, 0], tags, side="right") - low
        places = np.repeat(np.arange(len(tags)), sizes)
        steps = np.arange(len(places)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return places, self.implications[low[places] + steps, 1]
