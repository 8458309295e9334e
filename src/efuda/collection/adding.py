"""How pictures enter the collection: what a file is, and results written in whole batches.

writer = Writer(record, tagger)
for result in results:
    writer.take(result)
    if writer.is_due():
        writer.flush()
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from efuda.collection.record import Record, Writing, number
from efuda.collection.taggings import packed_scores, put_tagging
from efuda.collection.vectors import Vectors, put_vector
from efuda.tagging import Failed, Tagged, Tagger, rounded
from efuda.vocabulary import Category

__all__ = [
    "RATING_PREFIX",
    "Added",
    "File",
    "Writer",
    "is_gone",
    "link",
    "new_picture",
    "real_path",
    "stored_path",
    "untagged",
]

Rows = NDArray[np.intp]
Scores = NDArray[np.float32]
Bools = NDArray[np.bool_]

RATING_PREFIX: Final = "rating:"
_BLOCK: Final = 1 << 18
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
_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "heic"),
}


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
    md5: bytes
    bytes: int
    mtime_ns: int
    filetype: str

    @classmethod
    def read(cls, path: Path) -> Self:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            sha256, md5, head = hashlib.sha256(), hashlib.md5(usedforsecurity=False), b""
            while block := file.read(_BLOCK):
                head = head or block[:12]
                sha256.update(block)
                md5.update(block)
        return cls(path, sha256.digest(), md5.digest(), stat.st_size, stat.st_mtime_ns, _filetype(head))


class Writer:
    """Gathers a tagger's results and writes them, a batch a transaction.

    A run is at most two operations, made when they have something in them: "add" for pictures that are new, "tag" for
    those that were known. Undoing one withdraws its taggings and brings back those that they replaced.
    """

    def __init__(self, record: Record, tagger: Tagger) -> None:
        self.record, self.tagger, self.sum = record, tagger, Added()
        self.batch: list[tuple[File, Tagged]] = []
        self.last = time.monotonic()
        self.broken = False  # whether the database refused the batch
        self.operations: dict[str, int] = {}
        self.thresholds = rounded(tagger.thresholds)
        self.vectors = Vectors(tagger)
        self.ratings = np.array(tagger.vocabulary.rows(Category.RATING), dtype=np.intp)
        self.is_rating = np.zeros(len(tagger.vocabulary), dtype=np.bool_)
        self.is_rating[self.ratings] = True
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
            before = self.sum.added, self.sum.updated, self.tag_ids.copy(), self.operations.copy()
            try:
                with self.record.write(durable=False) as writing:
                    source = writing.source("model", self.tagger.identity, self.tagger.name)
                    for file, tagged in self.batch:
                        self._write(writing, source, file, tagged)
            except BaseException as error:
                self.sum.added, self.sum.updated, self.tag_ids, self.operations = before
                self.broken = isinstance(error.__cause__, apsw.Error)
                raise
        self.batch = []
        self.last = time.monotonic()

    def _write(self, writing: Writing, source: int, file: File, tagged: Tagged) -> None:
        picture = writing.db.execute("SELECT id FROM pictures WHERE sha256 = ?", (file.sha256,)).get
        if isinstance(picture, int):
            self.sum.updated += 1
            operation = self._operation(writing, "tag", source)
        else:
            self.sum.added += 1
            picture = new_picture(writing, file, tagged.size)
            operation = self._operation(writing, "add", source)
        link(writing, file, picture)
        put_tagging(writing, operation, picture, source, self._scores(writing, tagged))
        if (vector := self.vectors.of(tagged)) is not None:
            put_vector(writing, picture, source, vector)

    def _operation(self, writing: Writing, kind: str, source: int) -> int:
        if kind not in self.operations:
            words = "added with" if kind == "add" else "tagged by"
            self.operations[kind] = writing.operation(kind, source, f"{words} {self.tagger.name}")
        return self.operations[kind]

    def _scores(self, writing: Writing, tagged: Tagged) -> bytes:
        """What is kept of a model's scores, as a tagging keeps it."""
        scores, rows = tagged.scores, tagged.rows.astype(np.intp)
        present = scores >= self.thresholds[rows]
        kept = present | (scores >= _FLOOR)
        if len(self.ratings):
            rows, scores, present, kept = self._with_ratings(tagged, present, kept)
        rows, scores, present = rows[kept], scores[kept], present[kept]
        self._learn(writing, rows[self.tag_ids[rows] == 0])
        return packed_scores(self.tag_ids[rows], np.rint(np.clip(scores, 0, 1) * 255).astype(np.int64), present)

    def _with_ratings(self, tagged: Tagged, present: Bools, kept: Bools) -> tuple[Rows, Scores, Bools, Bools]:
        """With every rating kept, and the best one, however low, alone present."""
        ratings = np.zeros(len(self.ratings), dtype=np.float32)
        is_rating = self.is_rating[tagged.rows]
        ratings[np.searchsorted(self.ratings, tagged.rows[is_rating])] = tagged.scores[is_rating]
        best = np.zeros(len(self.ratings), dtype=np.bool_)
        best[np.argmax(ratings)] = True
        others = ~is_rating
        return (
            np.concatenate([tagged.rows[others].astype(np.intp), self.ratings]),
            np.concatenate([tagged.scores[others], ratings]),
            np.concatenate([present[others], best]),
            np.concatenate([kept[others], np.ones_like(best)]),
        )

    def _learn(self, writing: Writing, rows: Rows) -> None:
        """Find or make the tags of these outputs; a tag's category is what the latest model says."""
        for row in rows.tolist():
            tag = self.tagger.vocabulary[row]
            rating = tag.category is Category.RATING
            name = RATING_PREFIX + tag.name.removeprefix(RATING_PREFIX) if rating else tag.name
            self.tag_ids[row] = writing.tag(name, tag.category)


def untagged(record: Record, paths: Iterable[Path], model: str, *, vectors: bool = False) -> Iterator[Path]:
    """Those of `paths` that this model has yet to see, as they come (`Collection.untagged`)."""
    for path in paths:
        if not _is_known(record, path, (model, vectors)):
            yield path


def _is_known(record: Record, path: Path, by: tuple[str, bool]) -> bool:
    place = stored_path(path)
    try:
        stat = path.stat()
        with record.read() as db:
            if db.execute(_SAME_FILE, (place, stat.st_mtime_ns, stat.st_size, *by)).get is not None:
                return True
            if db.execute(_SAME_SIZE, (stat.st_size, *by)).get is None:
                return False
        file = File.read(path)
    except OSError:
        return False  # the tagger will say what is wrong with it
    with record.read() as db:
        picture = db.execute(_SAME_CONTENT, (file.sha256, *by)).get
    if not isinstance(picture, int):
        return False
    with record.write(durable=False) as writing:
        link(writing, file, picture)
    return True


# A picture that a person removed needs no model; a tagging that was withdrawn does not count, nor, if it is asked for,
# one without a vector.
_SEEN: Final = """
(removed OR EXISTS (SELECT 1 FROM taggings JOIN sources ON sources.id = taggings.source
 WHERE picture = pictures.id AND NOT withdrawn AND kind = 'model' AND identity = ?
 AND (NOT ? OR EXISTS (SELECT 1 FROM embeddings AS one WHERE one.picture = pictures.id AND one.source = sources.id))))
"""
_SAME_FILE: Final = f"""
SELECT 1 FROM files JOIN pictures ON pictures.id = files.picture
WHERE path = ? AND mtime_ns = ? AND missing IS NULL AND bytes = ? AND {_SEEN}
"""
_SAME_SIZE: Final = f"SELECT 1 FROM pictures WHERE bytes = ? AND {_SEEN} LIMIT 1"
_SAME_CONTENT: Final = f"SELECT id FROM pictures WHERE sha256 = ? AND {_SEEN}"


def new_picture(writing: Writing, file: File, size: tuple[int, int]) -> int:
    """A row for contents that the record lacks; its number."""
    date = datetime.fromtimestamp(file.mtime_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
    values = (file.sha256, file.md5, file.bytes, file.filetype, *size, writing.at, date, writing.revision)
    return number(
        writing.db,
        "INSERT INTO pictures (sha256, md5, bytes, filetype, width, height, added, date, revision) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        values,
    )


def link(writing: Writing, file: File, picture: int) -> None:
    """Note that a file holds a picture, and forget the picture's other files that are gone."""
    db, place = writing.db, stored_path(file.path)
    before = db.execute("SELECT picture FROM files WHERE path = ?", (place,)).get
    if isinstance(before, int) and before != picture:
        writing.touch([before])
    db.execute(
        "INSERT INTO files (path, picture, mtime_ns) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
        "picture = excluded.picture, mtime_ns = excluded.mtime_ns, missing = NULL",
        (place, picture, file.mtime_ns),
    )
    others = db.execute("SELECT path FROM files WHERE picture = ? AND path != ?", (picture, place)).fetchall()
    for (other,) in others:
        if is_gone(real_path(other)):
            db.execute("DELETE FROM files WHERE path = ?", (other,))
    writing.touch([picture])


def is_gone(path: Path) -> bool:
    """Whether there is no such file; not so of one that cannot be seen just now."""
    try:
        path.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


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
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "jxl"
    return _BRANDS.get(head[8:12], "other") if head[4:8] == b"ftyp" else "other"
