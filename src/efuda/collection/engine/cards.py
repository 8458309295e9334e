"""What a grid shows of pictures, by the thousand: from the columns, without a look into the tables.

cards_of(version, [7, 3])        # [Card(id=7, width=1200, …), Card(id=3, …)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from efuda.collection.adding import RATING_PREFIX
from efuda.collection.engine.version import Version
from efuda.collection.metatags import FILETYPES

__all__ = ["Card", "cards_of"]


@dataclass(frozen=True, slots=True)
class Card:
    """A picture in a grid.

    Attributes:
        rating: "general" and so on; None where no one has rated it.
        duration: seconds, of what moves.
    """

    id: int
    width: int
    height: int
    bytes: int
    filetype: str
    duration: float | None
    rating: str | None


def cards_of(version: Version, numbers: Sequence[int]) -> list[Card]:
    """These pictures, in this order; those that are not there are left out."""
    known = [number for number in numbers if number in version.everything]
    ids = np.array(sorted(set(known)), dtype=np.uint32)
    columns = [version.values(name, ids).tolist() for name in ("width", "height", "filesize", "filetype", "duration")]
    ratings = {version.names[tag].removeprefix(RATING_PREFIX): version.carrying(tag) for tag in version.tags.ratings}
    cards = {}
    for number, width, height, size, kind, duration in zip(ids.tolist(), *columns, strict=True):
        rating = next((name for name, carrying in ratings.items() if number in carrying), None)
        filetype = FILETYPES[kind] if kind < len(FILETYPES) else "other"
        cards[number] = Card(number, width, height, size, filetype, duration / 1000 if duration else None, rating)
    return [cards[number] for number in known]
