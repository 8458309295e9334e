"""What the pictures of a result have in common: how many of them carry each tag, exactly.

    facets_of(version, found, limit=40)     # Facets(total=231, exact=True, tags=[("1girl", Category.GENERAL, 180), …])

Of few pictures the tags are counted one by one. Of many, tags are taken from the most common in the collection down,
each counted by one intersection of bitmaps, until the next cannot be among the first any more.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.adding import RATING_PREFIX
from efuda.collection.engine.version import Version
from efuda.vocabulary import Category

__all__ = ["Facets", "facets_of"]

_FEW: Final = 20_000  # pictures, each with some thirty tags, are counted in about 10 ms


@dataclass(frozen=True, slots=True)
class Facets:
    """The tags of a result.

    Attributes:
        total: pictures in it.
        exact: whether the counts are; they always are at present.
        tags: (name, category, pictures of the result that carry it), the most common first; of each category at most
            as many as were asked for.
        ratings: how many have each rating, "general" and so on; those without any are left out.
    """

    total: int
    exact: bool
    tags: list[tuple[str, Category, int]]
    ratings: dict[str, int]


def facets_of(version: Version, found: BitMap, limit: int) -> Facets:
    """The most common tags of these pictures, `limit` of each category."""
    few = len(found) <= _FEW or not found.issubset(version.found)  # counts by tag leave out what is hidden
    counts = _counted(version, found) if few else _intersected(version, found, limit)
    tags: list[tuple[str, Category, int]] = []
    left = dict.fromkeys(Category, limit)
    for tag in version.tags.ranked(counts):
        category = version.categories[tag]
        if left[category]:
            left[category] -= 1
            tags.append((version.names[tag], category, int(counts[tag])))
        elif not any(left.values()):
            break
    ratings = {
        version.names[tag].removeprefix(RATING_PREFIX): version.carrying(tag).intersection_cardinality(found)
        for tag in version.tags.ratings
    }
    return Facets(len(found), True, tags, {name: count for name, count in ratings.items() if count})


def _counted(version: Version, found: BitMap) -> NDArray[np.int64]:
    """How many have each tag, by number."""
    return np.bincount(version.tags_of(found), minlength=len(version.names))


def _intersected(version: Version, found: BitMap, limit: int) -> NDArray[np.int64]:
    """The same of enough tags of each category that the first `limit` are among them; 0 of the others."""
    held = version.counts.tolist()
    counts = np.zeros(len(version.names), dtype=np.int64)
    for tags in version.ranked_by_category.values():
        best: list[int] = []  # the largest counts so far, as a heap
        for tag in tags:
            if len(best) == limit and held[tag] < best[0]:
                break  # no tag from here on can have more
            counts[tag] = count = version.carrying(tag).intersection_cardinality(found)
            (heapq.heappushpop if len(best) == limit else heapq.heappush)(best, count)
    return counts
