"""Tag lists with their counts, and tags drawn for many posts at once with the shares that the counts say."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

__all__ = ["CATEGORIES", "MOST_TAGS", "Drawer", "Drawn", "Ints", "TagList", "draw_tags"]

CATEGORIES = {0: "general", 1: "artist", 3: "copyright", 4: "character", 5: "meta"}
COMMONEST = 0.73  # share of the posts of the site that have its commonest tag, 1girl
MOST_TAGS = 80
# Chances of 0, 1, 2, … tags of a category; the others follow from the counts of their tags.
AMOUNTS = {1: (0.08, 0.88, 0.04), 3: (0.06, 0.80, 0.11, 0.03), 4: (0.30, 0.44, 0.14, 0.06, 0.03, 0.03)}
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagList:
    """Tags in alphabetical order, as they stand in a post."""

    names: list[str]
    categories: Ints
    counts: Ints

    @classmethod
    def read(cls, path: Path) -> TagList:
        """Read a tag list CSV."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = sorted((row[0], int(row[1]), int(row[2])) for row in csv.reader(file) if int(row[1]) in CATEGORIES)
        return cls([row[0] for row in rows], *(np.array([row[i] for row in rows]) for i in (1, 2)))

    @classmethod
    def zipf(cls, size: int = 130_000) -> TagList:
        """Invented names whose counts fall as 1 / (rank + 8), to at least 25."""
        ranks = np.arange(size)
        counts = np.maximum(6_000_000 / (1 + ranks / 8), 25).astype(np.int64)
        categories = np.random.default_rng(1).choice(list(CATEGORIES), size, p=(0.20, 0.433, 0.067, 0.295, 0.005))
        categories[:3] = 0
        return cls([f"tag_{rank:06d}" for rank in ranks], categories, counts)

    def with_rare(self, amount: int) -> TagList:
        """And so many invented names of 1 to 24 posts, the fewer posts the more names; half of them artists."""
        rng = np.random.default_rng(2)
        chances = 1 / np.arange(1, 25)
        counts = rng.choice(np.arange(1, 25), amount, p=chances / chances.sum())
        categories = rng.choice((1, 4, 3, 0), amount, p=(0.5, 0.35, 0.1, 0.05))
        names = [f"{CATEGORIES[int(category)]}_{number:06d}" for number, category in enumerate(categories)]
        columns = (self.categories.tolist() + categories.tolist(), self.counts.tolist() + counts.tolist())
        rows = sorted(zip(self.names + names, *columns, strict=True))
        return TagList([row[0] for row in rows], *(np.array([row[i] for row in rows]) for i in (1, 2)))

    @cached_property
    def escaped(self) -> Any:
        """The names as they stand within a JSON string."""
        return arrow.array([json.dumps(name, ensure_ascii=False)[1:-1] for name in self.names])

    @cached_property
    def objects(self) -> Any:
        """The tags as objects of the old schema; their ids are invented."""
        columns = zip(self.escaped.to_pylist(), self.categories.tolist(), strict=True)
        return arrow.array(
            [
                f'{{"id":"{(number * 7919) % 1_900_000 + 11}","name":"{name}","category":"{category}"}}'
                for number, (name, category) in enumerate(columns)
            ]
        )


class Drawer:
    """Draws tags of one category by their counts, by the alias method: one look-up a draw."""

    def __init__(self, tags: TagList, category: int) -> None:
        self.codes = np.flatnonzero(tags.categories == category)
        share = np.minimum(tags.counts[self.codes] / (tags.counts.max() / COMMONEST), COMMONEST)
        rates = -np.log1p(-share)  # so that a tag drawn at least once has its share, repeats being dropped
        self.mean = float(rates.sum())
        self.chance, self.other = _alias_table(rates / max(self.mean, 1e-12))

    def draw(self, amount: int, rng: np.random.Generator) -> Ints:
        if not len(self.codes):
            return np.zeros(0, np.int64)
        slots = rng.integers(0, len(self.codes), amount)
        own = rng.random(amount, np.float32) < self.chance[slots]
        return self.codes[np.where(own, slots, self.other[slots])]


def _alias_table(shares: NDArray[np.float64]) -> tuple[NDArray[np.float32], Ints]:
    chance, other = shares * len(shares), np.arange(len(shares))
    small, large = (list(np.flatnonzero(which)) for which in (chance < 1, chance >= 1))
    while small and large:
        little, much = small.pop(), large[-1]
        other[little] = much
        chance[much] -= 1 - chance[little]
        if chance[much] < 1:
            small.append(large.pop())
    chance[[*small, *large]] = 1
    return chance.astype(np.float32), other


@dataclass(frozen=True)
class Drawn:
    """The tags of a block: starts [rows + 1] and codes, of each post sorted and without repeats."""

    starts: Ints
    codes: Ints

    def join(self, words: Any, separator: str) -> Any:
        """The tags of each post as one string."""
        taken = words.take(arrow.array(self.codes))
        lists = arrow.ListArray.from_arrays(arrow.array(self.starts, arrow.int32()), taken)
        return compute.binary_join(lists, separator)

    @property
    def amounts(self) -> Ints:
        return np.diff(self.starts)

    def only(self, chosen: NDArray[np.bool_]) -> Drawn:
        """The tags where `chosen`."""
        before = np.concatenate([[0], np.cumsum(chosen)])
        return Drawn(before[self.starts], self.codes[chosen])


def draw_tags(rows: int, drawers: dict[int, Drawer], rng: np.random.Generator) -> Drawn:
    richness = rng.gamma(4.5, 1 / 4.5, rows)
    keys = []
    for category, drawer in drawers.items():
        if category in AMOUNTS:
            amounts = rng.choice(len(AMOUNTS[category]), rows, p=AMOUNTS[category])
        else:
            amounts = rng.poisson(richness * drawer.mean if category == 0 else drawer.mean, rows)
        if category == 0:
            amounts = np.clip(amounts, 5, MOST_TAGS - 12)
        amounts = np.minimum(amounts, MOST_TAGS)
        codes = drawer.draw(int(amounts.sum()), rng)
        if len(codes):
            keys.append((np.repeat(np.arange(rows), amounts) << 32) | codes)
    key = np.concatenate(keys)
    key.sort()
    key = key[np.concatenate([[True], np.diff(key) > 0])]
    return Drawn(np.searchsorted(key, np.arange(rows + 1) << 32), key & 0xFFFFFFFF)
