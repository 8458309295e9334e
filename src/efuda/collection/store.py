"""The collection itself: adding what a tagger says about pictures, and searching it.

with Collection.open(Path("art.efuda"), create=True) as collection:
    added = collection.add(tag(tagger, collection.untagged(pictures, tagger.identity)), tagger)
    found = collection.search("glasses -hat", limit=50)

Every picture is written wholly or not at all, at most 200 of them or two seconds' worth at a time, so a job killed at
any moment loses at most that much, and running it again goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import apsw

from efuda.collection.adding import Added, File, Writer, link, real_path, stored_path
from efuda.collection.index import RATING_PREFIX, Index
from efuda.collection.query import parse
from efuda.collection.schema import VERSION, open_database, reading, speaking, transaction
from efuda.progress import Progress, silent
from efuda.tagging import Failed, Tagged, Tagger
from efuda.vocabulary import Category

__all__ = ["Added", "Collection", "Found", "Picture"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, as the latest model to look at it sees it.

    Attributes:
        id: rises in the order in which pictures came; never given to another.
        path: absolute; where the same content lies at several paths, the first by name.
        width: in pixels, upright, as is height.
        tags: (name, category, score from 0 to 1) of those present, best first; scores are kept in steps of 1/255.
        rating: name → score, best first; empty for a model that does not rate.
        added: ISO 8601, UTC.
        model: the name of the model.
    """

    id: int
    path: Path
    width: int
    height: int
    tags: list[tuple[str, Category, float]]
    rating: dict[str, float]
    added: str
    model: str


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search: how many pictures match in all, exactly, and those on this page."""

    total: int
    pictures: list[Picture]


class Collection:
    """An open collection. Use it from one thread at a time; several processes may have the same file open."""

    def __init__(self, path: Path, db: apsw.Connection) -> None:
        self.path, self._db = path, db
        self._index: Index | None = None
        self._index_version = -1

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Open a collection, or with `create` make one where there is none.

        Raises:
            CollectionError: it is missing, is something else, or was made by a newer efuda.
            OutputError: it cannot be created.
        """
        return cls(path, open_database(path, create=create))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def untagged(self, paths: Iterable[Path], model: str) -> Iterator[Path]:
        """Those of `paths` that this model has yet to see, as they come.

        A file that was tagged and has the same size and time is passed over. So is one whose contents were tagged
        under another path or time: it was moved, copied or touched, which is noted here without asking the model.

        Args:
            paths: files.
            model: `Tagger.identity`.
        """
        for path in paths:
            with speaking(self.path):
                known = self._knows(path, model)
            if not known:
                yield path

    def _knows(self, path: Path, model: str) -> bool:
        place = stored_path(path)
        try:
            stat = path.stat()
            same = self._db.execute(_SAME_FILE, (place, stat.st_mtime_ns, stat.st_size, model)).get
            if same is not None:
                return True
            if self._db.execute(_SAME_SIZE, (stat.st_size, model)).get is None:
                return False
            file = File.read(path)
        except OSError:
            return False  # the tagger will say what is wrong with it
        picture = self._db.execute(_SAME_CONTENT, (file.sha256, model)).get
        if not isinstance(picture, int):
            return False
        with transaction(self._db):
            link(self._db, file, picture)
        self._index = None
        return True

    def add(self, results: Iterable[Tagged | Failed], tagger: Tagger, *, progress: Progress = silent) -> Added:
        """Keep what a tagger says, replacing what the same model said before.

        Whatever ends it, also Ctrl-C or an error of the iterable, the results received until then are kept.

        Args:
            results: as `efuda.tagging.tag` yields them.
            tagger: the model they come from; its thresholds decide which tags are present.
            progress: told of every picture.

        Raises:
            OutputError: the disk is full or cannot be written.
            CollectionError: the file is in use or damaged.
        """
        writer = Writer(self._db, tagger)
        try:
            for done, result in enumerate(results, start=1):
                writer.take(result)
                if writer.is_due():
                    self._flush(writer)
                failed = len(writer.sum.failed)
                progress("pictures", done, unit="pictures", note=f"{failed} failed" if failed else "")
        except BaseException:
            if not writer.broken:
                self._flush(writer)
            raise
        self._flush(writer)
        return writer.sum

    def _flush(self, writer: Writer) -> None:
        self._index = None
        with speaking(self.path):
            writer.flush()

    def search(self, query: str = "", *, limit: int = 50, offset: int = 0) -> Found:
        """Find pictures, the newest first unless the query orders them otherwise (docs/query.md).

        Args:
            query: empty finds everything; `limit:` in it takes precedence over the argument.
            limit: pictures on the page.
            offset: how many to pass over before it.

        Raises:
            QueryError: the query cannot be understood, with the position in it.
        """
        assert limit >= 0 and offset >= 0
        parsed = parse(query)
        with reading(self._db, self.path):
            total, ids = self._current_index().find(parsed, limit=limit, offset=offset)
            return Found(total, [self._picture(number) for number in ids])

    def tags(self) -> list[tuple[str, Category, int]]:
        """(name, category, pictures that carry it) by falling count, as the search sees them; ratings left out."""
        with reading(self._db, self.path):
            return self._current_index().tags()

    def status(self) -> dict[str, Any]:
        """Counts for people: pictures, files, tags, postings, models, bytes on disk, schema version."""
        with reading(self._db, self.path):
            models = self._db.execute(_MODELS).fetchall()
            return {
                "pictures": self._db.execute("SELECT count(DISTINCT picture) FROM files").get,
                "files": self._db.execute("SELECT count(*) FROM files").get,
                "tags": self._db.execute("SELECT count(*) FROM tags WHERE category != ?", (Category.RATING,)).get,
                "postings": self._db.execute("SELECT count(*) FROM predictions").get,
                "models": [{"name": name, "identity": identity, "pictures": n} for name, identity, n in models],
                "bytes": sum(one.stat().st_size for one in (self.path, _wal(self.path)) if one.exists()),
                "schema": VERSION,
            }

    def _current_index(self) -> Index:
        version = self._db.pragma("data_version")  # rises when another process commits
        if self._index is None or version != self._index_version:
            self._index, self._index_version = Index.read(self._db), version
        return self._index

    def _picture(self, number: int) -> Picture:
        row = self._db.execute(_PICTURE, (number,)).fetchone()
        assert row is not None, "the index and the tables are read in one transaction"
        path, width, height, added, tagging, model = row
        tags: list[tuple[str, Category, float]] = []
        rating: dict[str, float] = {}
        for name, category, score, present in self._db.execute(_PREDICTIONS, (tagging,)):
            if category == Category.RATING:
                rating[str(name).removeprefix(RATING_PREFIX)] = int(score) / 255
            elif present:
                tags.append((str(name), Category(int(category)), int(score) / 255))
        return Picture(number, real_path(path), width, height, tags, rating, added, model or "")


_SAME_FILE: Final = """
SELECT 1 FROM files JOIN pictures ON pictures.id = files.picture JOIN taggings USING (picture)
JOIN models ON models.id = taggings.model WHERE path = ? AND mtime_ns = ? AND bytes = ? AND identity = ?
"""
_SAME_SIZE: Final = """
SELECT 1 FROM pictures JOIN taggings ON taggings.picture = pictures.id JOIN models ON models.id = taggings.model
WHERE bytes = ? AND identity = ? LIMIT 1
"""
_SAME_CONTENT: Final = """
SELECT pictures.id FROM pictures JOIN taggings ON taggings.picture = pictures.id
JOIN models ON models.id = taggings.model WHERE sha256 = ? AND identity = ?
"""
_MODELS: Final = """
SELECT name, identity, count(taggings.id) FROM models LEFT JOIN taggings ON taggings.model = models.id
GROUP BY models.id ORDER BY models.id
"""
_PICTURE: Final = """
SELECT (SELECT min(path) FROM files WHERE picture = pictures.id), width, height, added, taggings.id, models.name
FROM pictures LEFT JOIN taggings ON taggings.picture = pictures.id LEFT JOIN models ON models.id = taggings.model
WHERE pictures.id = ? ORDER BY taggings.id DESC LIMIT 1
"""
_PREDICTIONS: Final = """
SELECT name, category, score, present FROM predictions JOIN tags ON tags.id = predictions.tag
WHERE tagging = ? ORDER BY score DESC, category = 9 AND present DESC, name
"""


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
