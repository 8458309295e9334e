"""Scores that were computed once are kept: a second look at a picture, whatever its name is now, needs no model.

    with ScoreStore.open(folder, key) as store:       # one file for each model and way of looking
        store.find([Path("a.png")], [stamp])          # [Seen(…)], or [None] where it was never seen or has changed
        store.keep([Looked(path, stamp, content, pixels, tagged)])

A file is known by its path, size and time of change; a moved, renamed or copied one by its bytes; one whose metadata
alone was rewritten by its pixels. Embeddings are kept beside the scores; a picture that has none, from an older efuda,
counts as unknown to whoever wants it, and to nobody else. The file is SQLite: several runs may share it, and what
was kept survives a kill.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import OutputError
from efuda.tagging.tagged import STEPS, Handful, Tagged

__all__ = ["Looked", "ScoreStore", "Seen", "Stamp", "default_folder", "handful", "stamp_of"]

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE pictures (
    id      INTEGER PRIMARY KEY,
    pixels  BLOB UNIQUE,            -- XXH3-128 of what the model was shown
    width   INTEGER NOT NULL,
    height  INTEGER NOT NULL,
    scores  BLOB NOT NULL           -- uint32 outputs, then as many uint16 scores in steps of 1/65,535
);
CREATE TABLE contents (  -- a file's bytes, as XXH3-128
    content BLOB PRIMARY KEY,
    picture INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE files (
    path     BLOB PRIMARY KEY,
    bytes    INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    picture  INTEGER NOT NULL
) WITHOUT ROWID;
"""
_EMBEDDINGS: Final = """
CREATE TABLE IF NOT EXISTS embeddings (
    picture INTEGER PRIMARY KEY,
    vector  BLOB NOT NULL           -- float16, little-endian, of length 1
);
"""  # a table of its own: files of before have none, and whoever wants scores alone reads past nothing
_BY_CONTENT: Final = "contents JOIN pictures ON pictures.id = picture WHERE content = ?"
_BY_PIXELS: Final = "pictures WHERE pixels = ?"
_FIND: Final = (
    "SELECT path, bytes, mtime_ns, width, height, scores, {} FROM files JOIN pictures ON pictures.id = picture "
    "WHERE path IN ({})"
)
_VECTOR: Final = "(SELECT vector FROM embeddings WHERE picture = pictures.id)"
_PATIENCE: Final = 30  # seconds for another job to have written
_TOGETHER: Final = 256  # files that one statement asks for

Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Looked:
    """What is to be kept of one file: its stamp, the hashes of its bytes and of the pixels, and what the model said.

    Attributes:
        pixels: None where the picture was known by its bytes, and no pixel was decoded.
    """

    stamp: Stamp | None
    content: bytes
    pixels: bytes | None
    tagged: Tagged


class Seen(NamedTuple):
    """A picture's size, the scores as they are stored, and so the embedding if it was asked for."""

    size: tuple[int, int]
    scores: bytes
    embedding: bytes | None = None

    def tagged(self, path: Path) -> Tagged:
        """As a result for this path."""
        return handful([path], [self])[0]


def handful(paths: Sequence[Path | str], seen: Sequence[Seen]) -> Handful:
    """What is known of some files as results; they are converted together, since slices of long arrays are cheap."""
    stored = [one.scores for one in seen]
    halves = [len(one) // 6 * 4 for one in stored]
    parts = list(zip(stored, halves, strict=True))
    rows = np.frombuffer(b"".join([one[:half] for one, half in parts]), np.uint32)
    steps = np.frombuffer(b"".join([one[half:] for one, half in parts]), np.uint16)
    counts = np.array(halves, dtype=np.int64) // 4
    scores = steps.astype(np.float32) / np.float32(STEPS)
    embeddings = [_vector(one.embedding) for one in seen]
    return Handful(paths, [one.size for one in seen], counts, rows, scores, embeddings)


class ScoreStore:
    """One file of scores; every method may be called from one thread at a time."""

    def __init__(self, path: Path, db: Any, embeddings: bool = False) -> None:
        self.path, self._db, self._embeddings = path, db, embeddings
        self._wanted = _VECTOR if embeddings else "NULL"

    @classmethod
    def open(cls, folder: Path, key: str, *, read_only: bool = False, embeddings: bool = False) -> Self:
        """Open or make the file for `key`: whatever else the scores depend on, such as model and preprocessing.

        A file that is damaged or of another version is set aside and a new one begun: it only saves work.

        Args:
            embeddings: a picture is known only if its embedding is, too.

        Raises:
            OutputError: the folder cannot be written.
        """
        label = re.sub(r"[^\w.@-]+", "_", key.partition("\n")[0])[:80]
        path = folder / f"{label}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.db"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(path, _connect(path, read_only=read_only), embeddings)
        except OSError as error:
            raise OutputError(
                f"Scores cannot be kept in {folder} ({error.strerror}). Name another place with --scores, or use "
                "--no-scores."
            ) from error

    def find(self, paths: Sequence[Path | str], stamps: Sequence[Stamp | None]) -> list[Seen | None]:
        """What is known of these files, for `handful` to make results of; None where they are new or have changed."""
        found: list[Seen | None] = [None] * len(paths)
        keys = [os.fsencode(path) for path in paths]
        places = dict(zip(keys, range(len(keys)), strict=True))
        for first in range(0, len(keys), _TOGETHER):
            asked = keys[first : first + _TOGETHER]
            rows = self._db.execute(_FIND.format(self._wanted, ",".join("?" * len(asked))), asked).fetchall()
            for path, size, mtime_ns, width, height, scores, embedding in rows:
                if stamps[at := places[path]] == (size, mtime_ns) and self._suffices(embedding):
                    found[at] = Seen((width, height), scores, embedding)
        return found

    def by_content(self, content: bytes) -> Seen | None:
        """What is known of a file with these bytes."""
        return self._seen(_BY_CONTENT, content)

    def by_pixels(self, pixels: bytes) -> Seen | None:
        """What is known of a picture that looks the same to the model."""
        return self._seen(_BY_PIXELS, pixels)

    def keep(self, looked: Iterable[Looked]) -> None:
        """Keep them all, in one transaction, on the disk when this returns.

        Raises:
            OutputError: no space is left, or the file cannot be written.
        """
        import apsw

        try:
            with self._db:
                for one in looked:
                    self._keep(one)
        except apsw.Error as error:
            raise OutputError(
                f"Scores are no longer kept: {self.path} cannot be written ({error}). Free some space there, or name "
                "another place with --scores."
            ) from error

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM pictures").get)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seen(self, where: str, key: bytes) -> Seen | None:
        row = self._db.execute(f"SELECT width, height, scores, {self._wanted} FROM {where}", (key,)).fetchone()
        return None if row is None or not self._suffices(row[3]) else Seen((row[0], row[1]), row[2], row[3])

    def _suffices(self, embedding: bytes | None) -> bool:
        return embedding is not None or not self._embeddings

    def _keep(self, one: Looked) -> None:
        execute = self._db.execute
        if one.pixels is None:
            picture = execute("SELECT picture FROM contents WHERE content = ?", (one.content,)).get
            if picture is None:
                return
        else:
            tagged = one.tagged
            steps = np.rint(tagged.scores * np.float32(STEPS)).astype(np.uint16)
            execute(
                "INSERT OR IGNORE INTO pictures (pixels, width, height, scores) VALUES (?, ?, ?, ?)",
                (one.pixels, *tagged.size, tagged.rows.astype(np.uint32).tobytes() + steps.tobytes()),
            )
            picture = execute("SELECT id FROM pictures WHERE pixels = ?", (one.pixels,)).get
            execute("INSERT OR REPLACE INTO contents (content, picture) VALUES (?, ?)", (one.content, picture))
            if tagged.embedding is not None:
                vector = tagged.embedding.astype("<f2").tobytes()
                execute("INSERT OR REPLACE INTO embeddings (picture, vector) VALUES (?, ?)", (picture, vector))
        if one.stamp is not None:
            execute(
                "INSERT OR REPLACE INTO files (path, bytes, mtime_ns, picture) VALUES (?, ?, ?, ?)",
                (os.fsencode(one.tagged.path), *one.stamp, picture),
            )


def stamp_of(path: str | os.PathLike[str]) -> Stamp | None:
    """(bytes, time of change in ns) of a file, of the whole archive for a page of one; None where it is gone."""
    here = os.fspath(path)
    while True:
        try:
            stat = os.stat(here)  # noqa: PTH116  (a million of them)
        except NotADirectoryError:
            here = os.path.dirname(here)  # noqa: PTH120
            continue
        except (OSError, ValueError):
            return None
        return stat.st_size, stat.st_mtime_ns


def default_folder() -> Path:
    """Where scores are kept unless told otherwise: `EFUDA_CACHE`, else the system's place for caches."""
    if named := os.environ.get("EFUDA_CACHE"):
        return Path(named) / "scores"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "efuda" / "scores"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "efuda" / "scores"


def _vector(stored: bytes | None) -> NDArray[np.float16] | None:
    return None if stored is None else np.frombuffer(stored, "<f2").astype(np.float16, copy=False)


def _connect(path: Path, *, read_only: bool) -> Any:
    import apsw

    patience, aside = time.monotonic() + _PATIENCE, 0
    while aside < 2:
        try:
            return _prepared(path, read_only=read_only)
        except apsw.BusyError as error:  # another job makes it at this moment: then SQLite does not wait by itself
            if time.monotonic() > patience:
                raise OSError(0, str(error)) from error
            time.sleep(0.02)
        except (apsw.NotADBError, apsw.CorruptError, LookupError):
            if read_only:
                raise OSError(0, "it is damaged") from None
            _set_aside(path)
            aside += 1
        except apsw.Error as error:
            raise OSError(0, str(error)) from error
    raise OSError(0, "it is damaged and cannot be set aside")


def _prepared(path: Path, *, read_only: bool) -> Any:
    """A connection; LookupError where the file is of another version."""
    import apsw

    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(os.fspath(path), flags=flags)
    db.set_busy_timeout(1000 * _PATIENCE)
    db.transaction_mode = "IMMEDIATE"  # who reads first and then writes would not wait for another that writes
    if not read_only:
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", 1)  # a power cut may lose the last pictures, never the file
        with db:
            if db.pragma("user_version") == 0 and db.execute("SELECT count(*) FROM sqlite_schema").get == 0:
                db.execute(_SCHEMA)
                db.pragma("user_version", VERSION)
            if db.pragma("user_version") == VERSION:
                db.execute(_EMBEDDINGS)
    if db.pragma("user_version") != VERSION:
        db.close()
        raise LookupError
    return db


def _set_aside(path: Path) -> None:
    os.replace(path, path.with_name(f"{path.name}.damaged"))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
