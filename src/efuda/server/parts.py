"""What routes work with: the collection, the tagger, the door, and whatever runs beside them.

parts = parts_of(request)
parts.needed_collection().count("glasses")
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import HTTPConnection

from efuda.collection import Collection
from efuda.server.access import Door
from efuda.server.batching import Batcher
from efuda.server.explaining import Whys
from efuda.server.jobs import Jobs
from efuda.server.measuring import Measures
from efuda.server.refusals import Refusal, busy
from efuda.server.security import Life
from efuda.server.settings import Settings
from efuda.server.uploads import Shelf
from efuda.tagging import Tagger

__all__ = ["Parts", "parts_of"]


@dataclass
class Parts:
    """Everything that a server consists of beside its routes; one for each app."""

    settings: Settings
    door: Door
    collection: Collection | None
    tagger: Tagger | None
    life: Life = field(default_factory=Life)
    measures: Measures = field(default_factory=Measures)

    def __post_init__(self) -> None:
        limits = self.settings.limits
        self.shelf = Shelf(limits)
        self.whys = Whys(self.tagger)
        self.jobs = Jobs(self.collection, self.tagger, self.life)
        self.batcher: Batcher | None = None
        if self.tagger is not None:
            workers = self.settings.workers
            self.batcher = Batcher(self.tagger, limits, workers=workers, seen=self.measures.inferred)
            waiting = self.batcher
            self.measures.gauge("efuda_waiting_pictures", "Pictures that wait.", lambda: waiting.waiting)
        if self.collection is not None:
            art = self.collection
            self.measures.gauge("efuda_collection_revision", "Changes of the collection.", lambda: art.revision)
        self.streams = 0
        self._counts: tuple[int, dict[str, int]] = (-1, {})
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start what runs beside the routes."""
        self._stack.callback(self.shelf.close)
        if self.batcher is not None:
            self._stack.enter_context(self.batcher)
        self._stack.callback(self.jobs.close)
        self.life.started = True

    def close(self) -> None:
        """Let what runs finish, jobs at their next batch."""
        self.life.stopping = True
        self._stack.close()

    def needed_collection(self) -> Collection:
        """Raises a 404 where the server has none."""
        if self.collection is None:
            raise Refusal(404, "no_collection", "This server only tags: it was started without a collection.")
        return self.collection

    def tag_counts(self) -> dict[str, int]:
        """How many pictures carry each tag; counted again when the collection has changed."""
        collection = self.needed_collection()
        revision = collection.revision
        if self._counts[0] != revision:
            self._counts = revision, {name: count for name, _, count in collection.tags()}
        return self._counts[1]

    def needed_tagger(self) -> Tagger:
        """Raises a 503 where the server has none."""
        if self.tagger is None:
            raise busy("This server has no tagger: it was started without --model.", seconds=3600, error="no_tagger")
        return self.tagger


def parts_of(connection: HTTPConnection) -> Parts:
    """Those of the app that a request came to."""
    return cast(Parts, connection.app.state.parts)
