"""What is pushed of a picture, and what came of it: plain values between a collection and the programs it is pushed to.

    item = Item(7, Path("a.jpg"), sha256, tags=(("1girl", Category.GENERAL),), rating="general", rating_by_person=True)
    target.push([item], dry_run=False)      # [Outcome(7, "pushed", added=("1girl", "rating:general"))]

Tags bear efuda's names here; each target spells them in its own way. A rating is `rating:general` among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from efuda.vocabulary import RATINGS, Category

__all__ = ["RATING_NAMES", "Item", "Outcome", "State", "Target", "wanted"]

RATING_NAMES: Final = frozenset(f"rating:{name}" for name in RATINGS)
Named = tuple[str, Category]
State = Literal["pushed", "unchanged", "absent", "failed"]


@dataclass(frozen=True, slots=True)
class Item:
    """One picture.

    Attributes:
        id: its number in the collection.
        path: where its file lies.
        tags: decided to be on it; ratings left out.
        refused: decided by a person not to be on it.
        rating: "general" …, or None.
        rating_by_person: whether a person chose it.
        pushed: names that were pushed to this target before, and not taken back since.
        there: what the target called the picture then.
    """

    id: int
    path: Path
    sha256: bytes
    tags: tuple[Named, ...] = ()
    refused: tuple[Named, ...] = ()
    rating: str | None = None
    rating_by_person: bool = False
    pushed: frozenset[str] = frozenset()
    there: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one picture.

    Attributes:
        state: "pushed" where something changed there (or would, in a dry run), "unchanged", "absent" where the target
            does not have the picture, or "failed".
        added: names that are there now and were not before.
        removed: names that a person had refused and efuda had pushed before, taken away.
        left: names that were not added, since someone had taken them away there.
        there: what the target calls the picture.
        reason: of a failure; a short phrase.
    """

    id: int
    state: State
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    there: str = ""
    reason: str = ""


class Target(Protocol):
    """A program that tags are pushed to; entering it connects.

    Attributes:
        identity: the same for as long as it is the same place: what was pushed is remembered by it.
        batch: so many pictures are pushed at once.
    """

    identity: str
    batch: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def push(self, batch: Sequence[Item], *, dry_run: bool) -> list[Outcome]:
        """Push these pictures' tags; one outcome each, in order.

        Raises:
            OutputError: it cannot be reached, or refuses everything.
        """

    def notes(self) -> list[str]:
        """What a person should know at the end, in sentences."""


def wanted(item: Item) -> tuple[list[Named], list[Named]]:
    """What should be there, and what should not: tags, and the rating as a tag of its own.

    A person's rating refuses the other ratings. A model's is said only where no other was pushed before, since taking
    that away again would be nobody's decision.
    """
    tags, refused = list(item.tags), list(item.refused)
    if item.rating is not None:
        name = f"rating:{item.rating}"
        others = [(other, Category.RATING) for other in sorted(RATING_NAMES - {name})]
        if item.rating_by_person:
            refused += others
        if item.rating_by_person or not item.pushed.intersection(other for other, _ in others):
            tags.append((name, Category.RATING))
    return tags, refused
