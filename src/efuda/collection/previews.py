"""Thumbnails of a collection's pictures, made where a decoder's crash hurts nobody, and kept in a file beside it.

    with Previews(record) as previews:
        done = previews.make()                  # of all that have none yet; a job that is killed goes on from there
        previews.thumbnail(7)                   # WebP of at most 320 pixels a side; made now, where there is none
        previews.preview(7, side=1600)          # the same, larger, and not kept

The decode that makes a thumbnail also gives the hashes by which duplicates are found and the time that a video takes;
these go into the record. Thumbnails stand in `art.efuda.thumbs`, an SQLite file that may be deleted at any time. A
picture of which none can be made has its reason there, and is asked for again only once its file has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import apsw

from efuda.collection.adding import real_path
from efuda.collection.record import Record, rows
from efuda.errors import CollectionError, ImageError, OutputError
from efuda.images.previewing import CHANGED, Looked, Wanted, look_at, preview_of
from efuda.progress import Progress, silent
from efuda.tagging import Failed
from efuda.tagging.limited import STOPPED, LimitedWorkers, Refused
from efuda.workers import cores

__all__ = ["SIDE", "Busy", "Previewed", "Previews", "previews"]

SIDE: Final = 320
_BATCH: Final = 64
_SECONDS: Final = 2.0
_WAITING: Final = 32  # that may wait for a decoder at a time, each with a thread
_PASSING: Final = frozenset({"missing", "no permission to read it", CHANGED, STOPPED})  # may be otherwise next time
R = TypeVar("R")


class Busy(OutputError):
    """So many pictures are being decoded for others that this one would wait too long: ask again in a second."""


@dataclass(slots=True)
class Previewed:
    """What `make` did: thumbnails made, and pictures of which none could be."""

    made: int = 0
    failed: list[Failed] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Picture:
    """One to be looked at.

    Attributes:
        path: `Path()` where no file of it is there.
        stamp: the time of its file's change, which says whether a refusal still holds.
    """

    id: int
    path: Path
    sha256: bytes
    stamp: int


def previews(record: Record, progress: Progress = silent, *, workers: int | None = None) -> Previewed:
    """Make what is missing; see `Previews.make`."""
    with Previews(record, workers=workers) as opened:
        return opened.make(progress)


class Previews:
    """Thumbnails of one collection; any thread may ask for them."""

    def __init__(self, record: Record, *, workers: int | None = None, seconds: float = 60.0) -> None:
        """`workers`: decoding processes, one a core by default, started when first needed; `seconds`: a picture may
        take."""
        self._record = record
        self._thumbs = _Thumbs(record.path.with_name(record.path.name + ".thumbs"))
        self._workers = LimitedWorkers(workers or cores(), seconds=seconds)
        self._places = threading.BoundedSemaphore(_WAITING)

    def close(self) -> None:
        """End the decoding processes and let go of the file."""
        self._workers.close()
        self._thumbs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make(self, progress: Progress = silent, only: Iterable[int] | None = None) -> Previewed:
        """Look at every picture that is there and has not been looked at.

        Args:
            only: of these pictures alone.

        Raises:
            OutputError: the disk is full, or the decoding processes cannot be started.
        """
        done = Previewed()
        todo = self._todo(None if only is None else set(only))
        waiting: list[tuple[_Picture, Looked | Refused]] = []
        last = time.monotonic()
        results = self._workers.map(look_at, (Wanted(one.path, one.sha256, SIDE) for one in todo))
        try:
            for number, (picture, seen) in enumerate(zip(todo, results, strict=True), start=1):
                waiting.append((picture, seen))
                if len(waiting) >= _BATCH or time.monotonic() - last > _SECONDS:
                    self._keep(waiting, done)
                    waiting, last = [], time.monotonic()
                progress("thumbnails", number, len(todo), unit="pictures")
        finally:
            results.close()  # type: ignore[attr-defined]
            self._keep(waiting, done)
        return done

    def thumbnail(self, picture: int) -> bytes:
        """A WebP of at most `SIDE` pixels a side.

        Raises:
            CollectionError: there is no such picture.
            ImageError: none can be made of it, with the reason.
            Busy: too many are waiting already.
        """
        wanted = self._picture(picture)
        kept = self._thumbs.get(wanted)
        if kept is None:
            wanted = _there(wanted)
            seen = self._decode(look_at, wanted, SIDE)
            self._keep([(wanted, seen)], Previewed())
            kept = seen if isinstance(seen, Refused) else seen.thumbnail
        if isinstance(kept, Refused):
            raise ImageError(kept.reason, str(wanted.path))
        return kept

    def preview(self, picture: int, side: int = 1600) -> bytes:
        """A WebP of at most so many pixels a side, which is not kept; raises as `thumbnail`."""
        wanted = _there(self._picture(picture))
        made = self._decode(preview_of, wanted, side)
        if isinstance(made, Refused):
            raise ImageError(made.reason, str(wanted.path))
        return made

    def _decode(self, function: Callable[[Wanted], R], wanted: _Picture, side: int) -> R | Refused:
        if not self._places.acquire(blocking=False):
            raise Busy("Many pictures are being decoded at this moment. Ask again in a second.")
        try:
            return self._workers.do(function, Wanted(wanted.path, wanted.sha256, side))
        finally:
            self._places.release()

    def _picture(self, number: int) -> _Picture:
        with self._record.read() as db:
            row = db.execute(f"{_PICTURES} WHERE pictures.id = ? {_FIRST_FILE}", (number,)).fetchone()
        if row is None:
            raise CollectionError(f"There is no picture {number} in the collection. Search for those that are there.")
        number, path, sha256, stamp, _ = row
        return _Picture(number, Path() if path is None else real_path(path), sha256, stamp or 0)

    def _todo(self, only: set[int] | None) -> list[_Picture]:
        """Those that are there and lack a thumbnail or hashes, and were not refused as they are now."""
        kept = self._thumbs.known()
        with self._record.read() as db:
            found = rows(db, f"{_PICTURES} WHERE NOT removed AND path IS NOT NULL {_FIRST_FILE} ORDER BY pictures.id")
        return [
            _Picture(number, real_path(path), sha256, stamp)
            for number, path, sha256, stamp, looked in found
            if (only is None or number in only) and not kept.covers(number, sha256, stamp, bool(looked))
        ]

    def _keep(self, seen: list[tuple[_Picture, Looked | Refused]], done: Previewed) -> None:
        """The thumbnails first: should it end between, the hashes are looked for again."""
        if not seen:
            return
        self._thumbs.put(seen)
        looked = [(picture.id, one) for picture, one in seen if isinstance(one, Looked)]
        if looked:
            with self._record.write(durable=False) as writing:
                writing.db.executemany(
                    _LOOKED, ((one.pixels, one.phash, one.duration_ms, number) for number, one in looked)
                )
                writing.touch(number for number, _ in looked)
        done.made += len(looked)
        done.failed += [Failed(picture.path, one.reason) for picture, one in seen if isinstance(one, Refused)]


_PICTURES: Final = """
SELECT pictures.id, path, sha256, mtime_ns, pixels IS NOT NULL FROM pictures
LEFT JOIN files ON files.picture = pictures.id AND missing IS NULL
"""
_FIRST_FILE: Final = """
AND (path IS NULL OR path = (SELECT min(path) FROM files WHERE picture = pictures.id AND missing IS NULL))
"""
_LOOKED: Final = "UPDATE pictures SET pixels = ?, phash = ?, duration_ms = ? WHERE id = ?"


def _there(picture: _Picture) -> _Picture:
    if picture.path == Path():
        raise ImageError("missing", f"picture {picture.id}")
    return picture


@dataclass(frozen=True, slots=True)
class _Known:
    """What the file of thumbnails holds: picture → the first bytes of its hash, and of a refused one the stamp."""

    made: dict[int, bytes]
    refused: dict[int, tuple[bytes, int]]

    def covers(self, number: int, sha256: bytes, stamp: int, looked: bool) -> bool:
        """Whether nothing is to be done for a picture; `looked`: whether the record has its hashes."""
        return (looked and self.made.get(number) == sha256[:8]) or self.refused.get(number) == (sha256[:8], stamp)


class _Thumbs:
    """The file of thumbnails. One that is damaged is begun anew: it only saves work."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._db: apsw.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def get(self, picture: _Picture) -> bytes | Refused | None:
        """The thumbnail, or why there is none; None where that is not known."""
        statement = "SELECT sha8, stamp, webp, reason FROM thumbs WHERE picture = ?"
        row = self._use(lambda db: db.execute(statement, (picture.id,)).fetchone())
        if row is None or row[0] != picture.sha256[:8]:
            return None
        if row[2] is not None:
            return bytes(row[2])
        return Refused(row[3]) if row[1] == picture.stamp else None

    def known(self) -> _Known:
        made = self._use(lambda db: rows(db, "SELECT picture, sha8 FROM thumbs WHERE webp IS NOT NULL"))
        refused = self._use(lambda db: rows(db, "SELECT picture, sha8, stamp FROM thumbs WHERE webp IS NULL"))
        return _Known(dict(made), {number: (sha8, stamp) for number, sha8, stamp in refused})

    def put(self, seen: list[tuple[_Picture, Looked | Refused]]) -> None:
        values = [
            (one.id, one.sha256[:8], one.stamp, None, what.reason)
            if isinstance(what, Refused)
            else (one.id, one.sha256[:8], one.stamp, what.thumbnail, None)
            for one, what in seen
            if not (isinstance(what, Refused) and what.reason in _PASSING)
        ]

        def write(db: apsw.Connection) -> None:
            with db:
                db.executemany("INSERT OR REPLACE INTO thumbs VALUES (?, ?, ?, ?, ?)", values)

        self._use(write)

    def _use(self, what: Callable[[apsw.Connection], R]) -> R:
        """Do something with the file; where it turns out to be damaged, with a new one."""
        with self._lock:
            try:
                try:
                    return what(self._opened())
                except (apsw.NotADBError, apsw.CorruptError, LookupError):
                    self._begin_anew()
                    return what(self._opened())
            except apsw.FullError as error:
                raise OutputError(f"{self.path}: the disk is full. Free space and run again.") from error
            except apsw.Error as error:
                raise OutputError(f"{self.path} cannot be used ({error}). Check the disk and its folder.") from error

    def _opened(self) -> apsw.Connection:
        if self._db is None:
            self._db = _connected(self.path)
        return self._db

    def _begin_anew(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE thumbs (
    picture INTEGER PRIMARY KEY,
    sha8    BLOB    NOT NULL,   -- the SHA-256's beginning: another collection may have had this name
    stamp   INTEGER NOT NULL,   -- when the file had changed last, in ns
    webp    BLOB,
    reason  TEXT                -- why there is none
) STRICT;
"""


def _connected(path: Path) -> apsw.Connection:
    """LookupError where it is of another version."""
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(10_000)
        db.transaction_mode = "IMMEDIATE"
        db.pragma("page_size", 8192)
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", 1)  # a power cut may lose the last thumbnails, never the file
        with db:
            if db.pragma("user_version") == 0 and db.execute("SELECT count(*) FROM sqlite_schema").get == 0:
                db.execute(_SCHEMA)
                db.pragma("user_version", _VERSION)
        if db.pragma("user_version") != _VERSION:
            raise LookupError(path)
    except BaseException:
        db.close()
        raise
    return db
