"""The collection itself: adding what a tagger says about pictures, and searching it.

with Collection.open(Path("art.efuda"), create=True) as collection:
    added = collection.add(tag(tagger, collection.untagged(pictures, tagger.identity)), tagger)
    found = collection.search("glasses -hat", limit=50)

Every picture is written wholly or not at all, at most 200 of them or two seconds' worth at a time, so a job killed at
any moment loses at most that much, and running it again goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from efuda.collection.adding import Added, Writer, untagged
from efuda.collection.backups import backup, restore
from efuda.collection.checking import check
from efuda.collection.complete import Completion, complete
from efuda.collection.counting import status
from efuda.collection.duplicates import Group, merge
from efuda.collection.editing import edit, remove
from efuda.collection.engine import Card, Engine, Facets, Resemblance, cards_of
from efuda.collection.exporting import record_lines
from efuda.collection.history import Operation, history, redo, redoable, undo, undoable
from efuda.collection.importing import Imported, import_tags
from efuda.collection.likeness import Likeness
from efuda.collection.pictures import Picture, TagOn, path_of, pictures_of
from efuda.collection.previews import Previewed, Previews
from efuda.collection.query import parse
from efuda.collection.record import Record
from efuda.collection.relations import Related, read_relations, relate
from efuda.collection.scanning import Folder, Scanned, folders_of, remember_folders, scan
from efuda.collection.watching import watch
from efuda.progress import Progress, silent
from efuda.tagging import Failed, Tagged, Tagger
from efuda.vocabulary import Category

__all__ = ["Added", "Collection", "Found", "Operation", "Picture", "TagOn"]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search: how many pictures match in all, exactly, and those on this page."""

    total: int
    pictures: list[Picture]


class Collection:
    """An open collection. Any thread may use it, and several processes may have the same file open."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.previews = Previews(record)
        self.likeness = Likeness(record)
        asked = Resemblance(self.likeness.nearest, self.likeness.duplicates)
        self._engine = Engine(record, asked)

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Open a collection, or with `create` make one where there is none.

        Raises:
            CollectionError: it is missing, is something else, or was made by a newer efuda.
            OutputError: it cannot be created.
        """
        return cls(Record.open(path, create=create))

    @property
    def path(self) -> Path:
        """The collection's file."""
        return self.record.path

    @property
    def revision(self) -> int:
        """How many changes there have been, other processes' included."""
        return self.record.revision

    def close(self) -> None:
        """Let go of the file, once the search engine's snapshot is written where that is due."""
        self.previews.close()
        self._engine.close()
        self.record.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def untagged(self, paths: Iterable[Path], model: str, *, vectors: bool = False) -> Iterator[Path]:
        """Those of `paths` that this model has yet to see, as they come.

        A file that was tagged and has the same size and time is passed over. So is one whose contents were tagged
        under another path or time: it was moved, copied or touched, which is noted here without asking the model.

        Args:
            paths: files.
            model: `Tagger.identity`.
            vectors: also those whose tagging left no vector to compare pictures by: with `Tagger.embeds`, those tagged
                by an earlier efuda, or by a pipeline that was not asked for embeddings.
        """
        return untagged(self.record, paths, model, vectors=vectors)

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
        writer = Writer(self.record, tagger)
        try:
            for done, result in enumerate(results, start=1):
                writer.take(result)
                if writer.is_due():
                    writer.flush()
                failed = len(writer.sum.failed)
                progress("pictures", done, unit="pictures", note=f"{failed} failed" if failed else "")
        except BaseException:
            if not writer.broken:
                writer.flush()
            raise
        writer.flush()
        return writer.sum

    def search(self, query: str = "", *, limit: int = 50, offset: int = 0) -> Found:
        """Find pictures, the newest first unless the query orders them otherwise (docs/query.md).

        Args:
            query: empty finds everything; `limit:` in it takes precedence over the argument.
            limit: pictures on the page.
            offset: how many to pass over before it.

        Raises:
            QueryError: the query cannot be understood, with the position in it.
        """
        total, ids = self.find(query, limit=limit, offset=offset)
        with self.record.read() as db:
            return Found(total, pictures_of(db, ids))

    def find(self, query: str = "", *, limit: int = 50, offset: int = 0) -> tuple[int, list[int]]:
        """As `search`, but how many match and the ids of a page alone, which takes a fraction of the time."""
        assert limit >= 0 and offset >= 0
        return self._engine.current().find(parse(query), limit=limit, offset=offset)

    def cards(self, numbers: Sequence[int]) -> list[Card]:
        """What a grid shows of these pictures, in this order; those that are not there are left out."""
        return cards_of(self._engine.current(), numbers)

    def ids(self, query: str = "") -> NDArray[np.uint32]:
        """The ids of all pictures that match, in order; as many of them as a `limit:` in the query says."""
        return self._engine.current().ids(parse(query))

    def paths(self, query: str = "") -> Iterator[Path]:
        """Where the pictures that match lie, in order; a picture without any file has no path and is left out."""
        for number in self.ids(query).tolist():
            with self.record.read() as db:
                path = path_of(db, number)
            if path != Path():
                yield path

    def count(self, query: str = "") -> int:
        """How many pictures match."""
        return len(self._engine.current().bitmap_of(parse(query)))

    def complete(self, text: str, at: int | None = None, *, limit: int = 20) -> Completion:
        """What the word at the cursor may become, with the exact count of what the search would then find.

        Args:
            text: the whole search.
            at: how many characters stand before the cursor; the end of the text if left out.
            limit: how many suggestions, at most.
        """
        index = self._engine.current()
        return complete(index, index.tags.lexicon, text, at, limit=limit, sources=index.sources)

    def facets(self, query: str = "", *, limit: int = 40) -> Facets:
        """The tags that the pictures of a search carry, the most common first, `limit` of each category; exact."""
        index = self._engine.current()
        return index.facets(index.bitmap_of(parse(query)), limit)

    def picture(self, number: int) -> Picture:
        """One picture, whether or not a search would find it.

        Raises:
            CollectionError: it is not there.
        """
        with self.record.read() as db:
            return pictures_of(db, [number])[0]

    # What persons decide

    def edit(
        self,
        pictures: Sequence[int] | str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        forget: Sequence[str] = (),
        rating: str | None = None,
        by: str = "me",
        dry_run: bool = False,
    ) -> Operation:
        """Say of pictures, as one operation, what they show and what not; no model changes that.

        Args:
            pictures: their numbers, or a query: all that it finds.
            add: tags that a person sees; one that is new to the collection is made, and named in the operation.
            remove: tags that are wrong and are not to come back.
            forget: tags of which persons are to have said nothing, so that models count again.
            rating: one of the four, or its first letter.
            by: the person.
            dry_run: change nothing, and say what would be done.

        Raises:
            CollectionError: a picture is not there, or a tag cannot be one.
            QueryError: the query cannot be understood.
        """
        wish = {"add": add, "remove": remove, "forget": forget}
        return edit(self.record, self._numbers(pictures), **wish, rating=rating, by=by, dry_run=dry_run)

    def remove(
        self, pictures: Sequence[int] | str, *, back: bool = False, by: str = "me", dry_run: bool = False
    ) -> Operation:
        """Take pictures out of the collection, or bring them `back`; their files are not touched."""
        return remove(self.record, self._numbers(pictures), back=back, by=by, dry_run=dry_run)

    def undo(self, operation: int | None = None, *, by: str = "me", dry_run: bool = False) -> Operation:
        """Undo an operation, or the latest; what has moved on since is left alone and counted as skipped.

        Raises:
            CollectionError: there is nothing to undo, or that operation cannot be.
        """
        return undo(self.record, operation, by=by, dry_run=dry_run)

    def redo(self, *, by: str = "me", dry_run: bool = False) -> Operation:
        """Take back the latest undo, as long as nothing else was done since.

        Raises:
            CollectionError: there is nothing to redo.
        """
        return redo(self.record, by=by, dry_run=dry_run)

    def history(self, *, limit: int = 50, before: int | None = None) -> list[Operation]:
        """What was done, the latest first, or what came `before` an operation."""
        with self.record.read() as db:
            return history(db, limit=limit, before=before)

    def undoable(self) -> Operation | None:
        """What `undo` would undo."""
        with self.record.read() as db:
            return undoable(db)

    def redoable(self) -> Operation | None:
        """The undo that `redo` would take back."""
        with self.record.read() as db:
            return redoable(db)

    # What others know

    def import_tags(
        self,
        paths: Sequence[Path] = (),
        *,
        name: str = "sidecars",
        dry_run: bool = False,
        progress: Progress = silent,
    ) -> Imported:
        """Take in tags from files beside the pictures of these folders, or of all; one operation of that name."""
        return import_tags(self.record, paths, name=name, dry_run=dry_run, progress=progress)

    def relate(self, files: Sequence[Path], *, everything: bool = False, dry_run: bool = False) -> Related:
        """Take in aliases, implications and categories of tags from files.

        Raises:
            InputError: a file cannot be read, or is of no known kind.
        """
        return relate(self.record, read_relations(files), everything=everything, dry_run=dry_run)

    def _numbers(self, pictures: Sequence[int] | str) -> Sequence[int]:
        return self.ids(pictures).tolist() if isinstance(pictures, str) else pictures

    # How pictures look

    def thumbnail(self, picture: int) -> bytes:
        """A WebP of at most 320 pixels a side, from the file of thumbnails, or made now in a limited process.

        Raises:
            CollectionError: there is no such picture.
            ImageError: none can be made of it, with the reason.
            Busy: too many are waiting already.
        """
        return self.previews.thumbnail(picture)

    def preview(self, picture: int, side: int = 1600) -> bytes:
        """A WebP of at most so many pixels a side, made now; raises as `thumbnail`."""
        return self.previews.preview(picture, side)

    def make_previews(self, *, progress: Progress = silent) -> Previewed:
        """Make the thumbnails, and the hashes by which duplicates are found, of all pictures that have none yet."""
        return self.previews.make(progress)

    # Keeping it

    def scan(
        self, folders: Sequence[Path] = (), *, dry_run: bool = False, trust: bool = False, progress: Progress = silent
    ) -> Scanned:
        """Look through folders, all that are known by default, and note what is new, moved, changed, gone or back.

        Args:
            folders: these; they are remembered.
            dry_run: only say what would be noted.
            trust: mark what is gone also where a whole folder is.

        Raises:
            CollectionError: no folder is known.
        """
        return scan(self.record, folders, dry_run=dry_run, trust=trust, progress=progress)

    def watch(
        self, folders: Sequence[Path] = (), *, every: float = 600.0, stop: threading.Event | None = None
    ) -> Iterator[Scanned]:
        """Scan, and then note what happens in the folders, as it happens, until the iterator is closed."""
        return watch(self.record, folders, every=every, stop=stop)

    def folders(self) -> list[Folder]:
        """The folders that are looked through."""
        return folders_of(self.record)

    def remember(self, folders: Iterable[Path]) -> None:
        """Look through these folders, too."""
        remember_folders(self.record, folders)

    def backup(self, to: Path, *, keep: int | None = None, progress: Progress = silent) -> Path:
        """Copy the collection, as it is at this moment, into a folder, or to a file; `efuda.collection.backups`."""
        return backup(self.path, to, keep=keep, progress=progress)

    @staticmethod
    def restore(path: Path, copy: Path, *, progress: Progress = silent) -> Path | None:
        """Put a backup in a collection's place; where the former one is kept.

        Raises:
            CollectionError: the backup is damaged or none, or someone has the collection open.
        """
        return restore(copy, path, progress=progress)

    def check(self, *, files: bool = False, progress: Progress = silent) -> list[str]:
        """What is wrong, a sentence each; with `files` every file is read, too."""
        return check(self.record, files=files, progress=progress)

    def export(self) -> Iterator[dict[str, Any]]:
        """The whole record, a JSON object each: tags, pictures with all that was said of them, the log."""
        return record_lines(self.record)

    # What is like what

    def similar(self, picture: int, *, limit: int = 60, query: str = "") -> list[tuple[int, float]]:
        """The most similar pictures, the nearest first, each with how alike it is, 0 to 1.

        Args:
            query: only among what it finds.

        Raises:
            CollectionError: there is no such picture, or it was tagged by no model that says what it saw.
            QueryError: the query cannot be understood.
        """
        within = self._engine.current().bitmap_of(parse(query)) if query.strip() else None
        return self.likeness.nearest(picture, count=limit, within=within)

    def build_likeness(self, *, progress: Progress = silent) -> int:
        """Make similar pictures quick to find in a large collection; how many were new to it."""
        return self.likeness.build(progress)

    def duplicates(
        self, kind: Literal["pixels", "near"] = "pixels", *, offset: int = 0, limit: int = 50
    ) -> tuple[int, list[Group]]:
        """How many groups of pictures there are that are alike, and some of them, those with the newest first.

        Args:
            kind: "pixels" for the very same pixels; "near" for groups in which not all are the same.
        """
        return self.likeness.groups(kind, offset=offset, limit=limit)

    def merge(self, keep: int, drop: Sequence[int], *, by: str = "me") -> Operation:
        """Keep one of several pictures, with what persons and imports said of the others, which are found no more.

        Raises:
            CollectionError: a picture is not there, or is to be kept and dropped.
        """
        return merge(self.record, keep, drop, by=by)

    # What there is

    def tags(self) -> list[tuple[str, Category, int]]:
        """(name, category, pictures that carry it) by falling count, as the search sees them; ratings left out."""
        return self._engine.current().listed()

    def status(self) -> dict[str, Any]:
        """Counts for people: pictures, files, tags, postings, models, bytes on disk, schema version."""
        with self.record.read() as db:
            return status(db, self.path)
