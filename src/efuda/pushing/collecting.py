"""From a collection to what is pushed of it, and back into its memory.

    source = Source(collection, target.identity, models=False)
    done = push(source.items(pictures), target, remember=source.remember)

Pushed is what persons and imports say, and what that implies; models' tags above their thresholds on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from efuda.collection import Collection, Picture
from efuda.collection.exporting import decided, read_pictures
from efuda.collection.pushes import Before, Pushes
from efuda.pushing.items import Item, Outcome
from efuda.vocabulary import Category

__all__ = ["Source"]

_AT_ONCE: Final = 256


class Source:
    """A collection's decided tags.

    Args:
        identity: of the target, for the memory of what was pushed there.
        models: whether models' tags go along.
        again: also pictures that have not changed since they were pushed.
    """

    def __init__(self, collection: Collection, identity: str, *, models: bool = False, again: bool = False) -> None:
        self._collection, self._models, self._again = collection, models, again
        self._memory = Pushes(collection.record, identity)
        self._revisions: dict[int, int] = {}
        self._before: dict[int, Before] = {}

    def todo(self, pictures: Sequence[int]) -> list[int]:
        """Those of these that have changed since they were pushed."""
        return list(pictures) if self._again else self._memory.unpushed(pictures, models=self._models)

    def items(self, pictures: Iterable[int]) -> Iterator[Item]:
        """What is to be pushed, read some pictures at a time, shortly before that."""
        todo = iter(pictures)
        while some := list(islice(todo, _AT_ONCE)):
            before = self._memory.before(some)
            for picture, revision in read_pictures(self._collection.record, some):
                self._revisions[picture.id] = revision
                self._before[picture.id] = before.get(picture.id, Before())
                yield self._item(picture, self._before[picture.id])

    def remember(self, outcomes: Sequence[Outcome]) -> None:
        """Keep what the target has confirmed; what failed or is absent there is tried again next time."""
        kept = []
        for done in outcomes:
            revision, before = self._revisions.pop(done.id), self._before.pop(done.id)
            if done.state in ("pushed", "unchanged"):
                kept.append((done.id, revision, (before.tags | set(done.added)) - set(done.removed), done.there))
        if kept:
            self._memory.note(kept, models=self._models)

    def _item(self, picture: Picture, before: Before) -> Item:
        tags = tuple((tag.name, tag.category) for tag in decided(picture, models=self._models))
        refused = tuple((tag.name, tag.category) for tag in picture.refused if tag.category is not Category.RATING)
        rated = picture.rating if self._models or picture.rating_by != "model" else None
        return Item(
            id=picture.id,
            path=picture.path,
            sha256=bytes.fromhex(picture.sha256),
            tags=tags,
            refused=refused,
            rating=rated,
            rating_by_person=picture.rating_by == "person",
            pushed=before.tags,
            there=before.there,
        )
