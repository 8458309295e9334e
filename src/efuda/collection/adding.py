"""How pictures enter the collection: what a file is, and results written in whole batches.

writer = Writer(db, tagger)
for result in results:
    writer.take(result)
    if writer.is_due():
        writer.flush()
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from efuda.collection.index import RATING_PREFIX
from efuda.collection.schema import transaction
from efuda.tagging import Failed, Tagged, Tagger, rounded
from efuda.vocabulary import Category

__all__ = ["Added", "File", "Writer", "link", "real_path", "stored_path"]

_BATCH: Final = 200
_SECONDS: Final = 2.0
_FLOOR: Final = 0.05  # lower scores are kept only where a threshold is lower still; every rating's is kept
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


@dataclass(slots=True)
class Added:
    """What an `add` did: new pictures, pictures known before and tagged again, and files that could not be read."""

    added: int = 0
    updated: int = 0
    failed: list[Failed] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class File:
    """What a file is, read once."""

    path: Path
    sha256: bytes
    bytes: int
    mtime_ns: int
    filetype: str

    @classmethod
    def read(cls, path: Path) -> Self:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            head = file.read(12)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
        return cls(path, digest, stat.st_size, stat.st_mtime_ns, _filetype(head))


class Writer:
    """Gathers a tagger's results and writes them, a batch a transaction."""

    def __init__(self, db: apsw.Connection, tagger: Tagger) -> None:
        self.db, self.tagger, self.sum = db, tagger, Added()
        self.batch: list[tuple[File, Tagged]] = []
        self.last = time.monotonic()
        self.broken = False  # whether the database refused the batch
        self.ratings = np.array(tagger.vocabulary.rows(Category.RATING), dtype=np.intp)
        self.tag_ids = np.zeros(len(tagger.vocabulary), dtype=np.int64)  # 0 where not known yet

    def take(self, result: Tagged | Failed) -> None:
        if isinstance(result, Failed):
            self.sum.failed.append(result)
            return
        try:
            self.batch.append((File.read(result.path), result))
        except OSError as error:
            self.sum.failed.append(Failed(result.path, error.strerror or "cannot be read"))

    def is_due(self) -> bool:
        return len(self.batch) >= _BATCH or (bool(self.batch) and time.monotonic() - self.last > _SECONDS)

    def flush(self) -> None:
        """Write the batch; on any failure nothing of it is written and it stays the batch."""
        if self.batch:
            before = self.sum.added, self.sum.updated, self.tag_ids.copy()
            try:
                with transaction(self.db):
                    model = self._model()
                    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                    for file, tagged in self.batch:
                        picture = self._picture(file, tagged, at)
                        link(self.db, file, picture)
                        self._predict(picture, model, tagged.dense(len(self.tagger.vocabulary)), at)
            except BaseException as error:
                self.sum.added, self.sum.updated, self.tag_ids = before
                self.broken = isinstance(error, apsw.Error)
                raise
        self.batch = []
        self.last = time.monotonic()

    def _model(self) -> int:
        return _number(
            self.db,
            "INSERT INTO models (identity, name) VALUES (?, ?) ON CONFLICT (identity) DO UPDATE SET name = "
            "excluded.name RETURNING id",
            (self.tagger.identity, self.tagger.name),
        )

    def _picture(self, file: File, tagged: Tagged, at: str) -> int:
        known = self.db.execute("SELECT id FROM pictures WHERE sha256 = ?", (file.sha256,)).get
        if isinstance(known, int):
            self.sum.updated += 1
            return known
        self.sum.added += 1
        return _number(
            self.db,
            "INSERT INTO pictures (sha256, bytes, filetype, width, height, added) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING id",
            (file.sha256, file.bytes, file.filetype, *tagged.size, at),
        )

    def _predict(self, picture: int, model: int, scores: NDArray[np.float32], at: str) -> None:
        self.db.execute("DELETE FROM taggings WHERE picture = ? AND model = ?", (picture, model))
        tagging = _number(
            self.db,
            "INSERT INTO taggings (picture, model, at) VALUES (?, ?, ?) RETURNING id",
            (picture, model, at),
        )
        rows, quantised, present = self._kept(scores)
        self._learn(rows[self.tag_ids[rows] == 0])
        self.db.executemany(
            "INSERT INTO predictions (tagging, tag, score, present) VALUES (?, ?, ?, ?)",
            zip([tagging] * len(rows), self.tag_ids[rows].tolist(), quantised.tolist(), present.tolist(), strict=True),
        )

    def _kept(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.int64]]:
        """The outputs worth keeping, their scores × 255, and 1 where the tag is present."""
        scores = np.nan_to_num(scores)
        present = (scores > 0) & (scores >= rounded(self.tagger.thresholds))
        kept = present | (scores >= _FLOOR)
        if len(self.ratings):
            kept[self.ratings] = True
            present[self.ratings] = False
            present[self.ratings[np.argmax(scores[self.ratings])]] = True
        rows = np.flatnonzero(kept)
        return rows, np.rint(np.clip(scores[rows], 0, 1) * 255).astype(np.uint8), present[rows].astype(np.int64)

    def _learn(self, rows: NDArray[np.intp]) -> None:
        """Find or make the tags of these outputs; a tag's category is what the latest model says."""
        for row in rows.tolist():
            tag = self.tagger.vocabulary[row]
            rating = tag.category is Category.RATING
            name = RATING_PREFIX + tag.name.removeprefix(RATING_PREFIX) if rating else tag.name
            self.tag_ids[row] = _number(
                self.db,
                "INSERT INTO tags (name, category) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET category = "
                "excluded.category RETURNING id",
                (name, int(tag.category)),
            )


def link(db: apsw.Connection, file: File, picture: int) -> None:
    """Note that a file holds a picture, and forget the picture's other files that are gone."""
    place = stored_path(file.path)
    db.execute(
        "INSERT INTO files (path, picture, mtime_ns) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
        "picture = excluded.picture, mtime_ns = excluded.mtime_ns",
        (place, picture, file.mtime_ns),
    )
    others = db.execute("SELECT path FROM files WHERE picture = ? AND path != ?", (picture, place)).fetchall()
    for (other,) in others:
        if not real_path(other).exists():
            db.execute("DELETE FROM files WHERE path = ?", (other,))


def _number(db: apsw.Connection, statement: str, values: tuple[Any, ...]) -> int:
    number = db.execute(statement, values).get
    assert isinstance(number, int)
    return number


def stored_path(path: Path) -> str | bytes:
    """A path as the table keeps it: absolute, text if it is valid UTF-8, else its bytes."""
    absolute = os.path.abspath(path)  # noqa: PTH100  (resolve() would follow links, absolute() keeps "..")
    try:
        absolute.encode()
    except UnicodeEncodeError:
        return os.fsencode(absolute)
    return absolute


def real_path(stored: Any) -> Path:
    """The path that `stored_path` stored."""
    return Path(os.fsdecode(stored))


def _filetype(head: bytes) -> str:
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return "avif" if head[4:12] in (b"ftypavif", b"ftypavis") else "other"
