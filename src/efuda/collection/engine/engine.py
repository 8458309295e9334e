"""The newest version of a collection's index, for any number of threads, and its snapshot on the disk.

engine = Engine(record)
engine.current().find(parse("glasses"), limit=60)       # sees whatever was written before this line
engine.close()                                          # writes the snapshot if much has changed since the last
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from efuda.collection.engine.index import Index
from efuda.collection.engine.snapshot import write_snapshot
from efuda.collection.engine.version import Resemblance
from efuda.collection.record import Record, number
from efuda.errors import EfudaError

__all__ = ["Engine"]

_SMALL: Final = 2_000  # so few pictures are read from the tables in no time: they need no snapshot
_PART: Final = 50  # a snapshot is written when one picture in so many has changed since the last
_NO_RESEMBLANCE: Final = Resemblance()


class Engine:
    """Makes versions as they are asked for, one thread at a time; searching a version needs no lock."""

    def __init__(self, record: Record, likeness: Resemblance = _NO_RESEMBLANCE) -> None:
        self._record, self._likeness = record, likeness
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._saved = -1  # the revision of the snapshot; -1: there is none that holds

    def current(self) -> Index:
        """The version of now.

        Raises:
            CollectionError: the collection cannot be read.
        """
        index = self._index
        if index is not None and index.revision >= self._record.revision:
            return index
        with self._lock:
            if self._index is None:
                self._index = Index.load(self._record, self._likeness)
                self._saved = self._index.saved
                self._save_if_due(self._index)
                return self._index
            before, self._index = self._index, self._index.refreshed(self._record)
            if self._index.segments[:1] != before.segments[:1]:  # it has grown by half, so the snapshot is old
                self._save_if_due(self._index)
            return self._index

    def close(self) -> None:
        """Write the snapshot if much has changed since the last."""
        with self._lock, suppress(EfudaError):
            if self._index is not None:
                self._save_if_due(self._index)

    def _save_if_due(self, index: Index) -> None:
        pictures = len(index.everything)
        if pictures < _SMALL or index.revision == self._saved:
            return
        with self._record.read() as db:
            changed = number(db, "SELECT count(*) FROM pictures WHERE revision > ?", (self._saved,))
        if changed * _PART >= pictures and write_snapshot(self._record.path, index):
            self._saved = index.revision
