"""The tables of a collection's file, as numbered migrations; docs/schema.md says what each column means.

    for number in range(db.pragma("user_version"), len(MIGRATIONS)):
        MIGRATIONS[number](db)

A migration is a plain function that brings a file from one version to the next; `PRAGMA user_version` counts those
applied, so a file of any earlier efuda opens in this one. Migrations that have been released are never edited. They run
in one transaction and before foreign keys are enforced.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

import apsw
import numpy as np

__all__ = ["MIGRATIONS"]


def m001_pictures_and_predictions(db: apsw.Connection) -> None:
    """Pictures are contents, files are the paths where they lie; a tagging is one model's look at one picture.

    * A picture is known by its SHA-256, so moving or renaming its file changes one row of `files` and nothing else. A
      picture whose last file is gone keeps its row, and with it its id, in case the file comes back.
    * A path is text where it is valid UTF-8 and a blob of its bytes where it is not (old archives have such names).
    * `taggings.id` rises, so a picture's latest tagging is its largest, whatever the clock says; and predictions are
      stored in that order, so adding only ever appends, and the newest model's postings are one linear scan.
    * `score` is the probability × 255, rounded; `present` says whether it met the tagger's threshold at the time, and
      for ratings (tags of category 9, named `rating:…`) whether it was the best.
    """
    for statement in (
        """CREATE TABLE pictures (
            id       INTEGER PRIMARY KEY,
            sha256   BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
            bytes    INTEGER NOT NULL,
            filetype TEXT    NOT NULL,
            width    INTEGER NOT NULL,
            height   INTEGER NOT NULL,
            added    TEXT    NOT NULL
        ) STRICT""",
        "CREATE INDEX pictures_bytes ON pictures (bytes)",
        """CREATE TABLE files (
            path     ANY     NOT NULL PRIMARY KEY,
            picture  INTEGER NOT NULL REFERENCES pictures (id),
            mtime_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX files_picture ON files (picture)",
        """CREATE TABLE tags (
            id       INTEGER PRIMARY KEY,
            name     TEXT    NOT NULL UNIQUE,
            category INTEGER NOT NULL
        ) STRICT""",
        """CREATE TABLE models (
            id       INTEGER PRIMARY KEY,
            identity TEXT    NOT NULL UNIQUE,
            name     TEXT    NOT NULL
        ) STRICT""",
        """CREATE TABLE taggings (
            id      INTEGER PRIMARY KEY,
            picture INTEGER NOT NULL REFERENCES pictures (id),
            model   INTEGER NOT NULL REFERENCES models (id),
            at      TEXT    NOT NULL,
            UNIQUE (picture, model)
        ) STRICT""",
        """CREATE TABLE predictions (
            tagging INTEGER NOT NULL REFERENCES taggings (id) ON DELETE CASCADE,
            tag     INTEGER NOT NULL REFERENCES tags (id),
            score   INTEGER NOT NULL CHECK (score BETWEEN 0 AND 255),
            present INTEGER NOT NULL CHECK (present IN (0, 1)),
            PRIMARY KEY (tagging, tag)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


def m002_operations_words_and_imports(db: apsw.Connection) -> None:
    """Every change is an operation in an append-only log; what a person says stands apart from what models say.

    * `sources` are persons, models and imports alike. A tagging, of a model or an import, is one row with its scores in
      one blob: little-endian uint32 each, tag << 9 | present << 8 | score, ascending. Adding a picture writes one row
      instead of forty, and an engine reads a million pictures without touching an index.
    * `words` are what persons decided: 1 yes, -1 no. No tagging ever changes them.
    * `operations` and `changes` are the log; triggers refuse to alter it. Undoing appends.
    * Every write raises `state.revision` and stamps it on the pictures it touched, so "what changed since" is
      one query.
    """
    v1 = db.execute("SELECT count(*) FROM pictures").get
    for statement in _TO_VERSION_2:
        db.execute(statement)
    _predictions_to_scores(db)
    for table in ("predictions", "old_taggings", "old_files", "old_pictures", "models"):
        db.execute(f"DROP TABLE {table}")
    db.execute("CREATE INDEX files_picture ON files (picture)")
    db.execute("""INSERT INTO changes (operation, n, picture, what, tag)
        SELECT operation, row_number() OVER (PARTITION BY operation ORDER BY id), picture, 'tagging', source
        FROM taggings""")
    db.execute("UPDATE state SET value = ? WHERE key = 'revision'", (1 if v1 else 0,))


_TO_VERSION_2: Final = (
    "DROP INDEX pictures_bytes",
    "ALTER TABLE pictures RENAME TO old_pictures",
    "ALTER TABLE files RENAME TO old_files",
    "ALTER TABLE taggings RENAME TO old_taggings",
    "CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
    "INSERT INTO state VALUES ('revision', 0), ('relations', 0)",
    """CREATE TABLE sources (
        id       INTEGER PRIMARY KEY,
        kind     TEXT    NOT NULL CHECK (kind IN ('person', 'model', 'import')),
        identity TEXT    NOT NULL,
        name     TEXT    NOT NULL,
        UNIQUE (kind, identity)
    ) STRICT""",
    """CREATE TABLE operations (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        at      TEXT    NOT NULL,
        source  INTEGER NOT NULL REFERENCES sources (id),
        kind    TEXT    NOT NULL,
        summary TEXT    NOT NULL,
        undoes  INTEGER REFERENCES operations (id)
    ) STRICT""",
    "CREATE INDEX operations_undoes ON operations (undoes) WHERE undoes IS NOT NULL",
    """CREATE TABLE changes (
        operation INTEGER NOT NULL REFERENCES operations (id),
        n         INTEGER NOT NULL,
        picture   INTEGER NOT NULL REFERENCES pictures (id),
        what      TEXT    NOT NULL,
        tag       INTEGER,
        before    ANY,
        after     ANY,
        PRIMARY KEY (operation, n)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX changes_picture ON changes (picture)",
    *(
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} BEGIN "
        f"SELECT RAISE (ABORT, '{table} is append-only'); END"
        for table in ("operations", "changes")
        for verb in ("UPDATE", "DELETE")
    ),
    """CREATE TABLE pictures (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        sha256      BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
        md5         BLOB    CHECK (length(md5) = 16),
        bytes       INTEGER NOT NULL,
        filetype    TEXT    NOT NULL,
        width       INTEGER NOT NULL,
        height      INTEGER NOT NULL,
        added       TEXT    NOT NULL,
        date        TEXT    NOT NULL,
        duration_ms INTEGER,
        pixels      BLOB,
        phash       INTEGER,
        source      TEXT,
        parent      INTEGER REFERENCES pictures (id),
        removed     INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
        revision    INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX pictures_bytes ON pictures (bytes)",
    "CREATE INDEX pictures_revision ON pictures (revision)",
    "CREATE INDEX pictures_md5 ON pictures (md5) WHERE md5 IS NOT NULL",
    "CREATE INDEX pictures_pixels ON pictures (pixels) WHERE pixels IS NOT NULL",
    "CREATE INDEX pictures_phash ON pictures (phash) WHERE phash IS NOT NULL",
    "CREATE INDEX pictures_parent ON pictures (parent) WHERE parent IS NOT NULL",
    """CREATE TABLE files (
        path     ANY     NOT NULL PRIMARY KEY,
        picture  INTEGER NOT NULL REFERENCES pictures (id),
        mtime_ns INTEGER NOT NULL,
        missing  TEXT
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE folders (
        id        INTEGER PRIMARY KEY,
        path      ANY     NOT NULL UNIQUE,
        added     TEXT    NOT NULL,
        recursive INTEGER NOT NULL DEFAULT 1 CHECK (recursive IN (0, 1))
    ) STRICT""",
    """CREATE TABLE tag_aliases (
        name TEXT    NOT NULL PRIMARY KEY,
        tag  INTEGER NOT NULL REFERENCES tags (id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX tag_aliases_tag ON tag_aliases (tag)",
    """CREATE TABLE implications (
        tag     INTEGER NOT NULL REFERENCES tags (id),
        implied INTEGER NOT NULL REFERENCES tags (id),
        PRIMARY KEY (tag, implied)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE taggings (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        picture   INTEGER NOT NULL REFERENCES pictures (id),
        source    INTEGER NOT NULL REFERENCES sources (id),
        at        TEXT    NOT NULL,
        operation INTEGER NOT NULL REFERENCES operations (id),
        withdrawn INTEGER NOT NULL DEFAULT 0 CHECK (withdrawn IN (0, 1)),
        scores    BLOB    NOT NULL CHECK (length(scores) % 4 = 0),
        UNIQUE (picture, source)
    ) STRICT""",
    "CREATE INDEX taggings_operation ON taggings (operation)",
    """CREATE TABLE words (
        picture   INTEGER NOT NULL REFERENCES pictures (id),
        tag       INTEGER NOT NULL REFERENCES tags (id),
        verdict   INTEGER NOT NULL CHECK (verdict IN (-1, 1)),
        source    INTEGER NOT NULL REFERENCES sources (id),
        at        TEXT    NOT NULL,
        operation INTEGER NOT NULL REFERENCES operations (id),
        PRIMARY KEY (picture, tag)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX words_tag ON words (tag)",
    """CREATE TABLE embeddings (
        picture INTEGER NOT NULL REFERENCES pictures (id),
        source  INTEGER NOT NULL REFERENCES sources (id),
        vector  BLOB    NOT NULL,
        UNIQUE (picture, source)
    ) STRICT""",
    "INSERT INTO sources SELECT id, 'model', identity, name FROM models",
    """INSERT INTO operations (at, source, kind, summary)
        SELECT min(at), model, 'add', 'added with ' || models.name || ' before there was a log'
        FROM old_taggings JOIN models ON models.id = model GROUP BY model""",
    """INSERT INTO pictures (id, sha256, bytes, filetype, width, height, added, date, revision)
        SELECT id, sha256, bytes, filetype, width, height, added, coalesce((
            SELECT strftime('%Y-%m-%dT%H:%M:%SZ', min(mtime_ns) / 1000000000, 'unixepoch')
            FROM old_files WHERE picture = old_pictures.id), added), 1
        FROM old_pictures ORDER BY id""",
    "INSERT INTO files SELECT path, picture, mtime_ns, NULL FROM old_files ORDER BY path",
)
_TAGGINGS_AT_ONCE: Final = 50_000


def _predictions_to_scores(db: apsw.Connection) -> None:
    """Each tagging's rows of `predictions` become its blob; about a million rows a second."""
    operations: dict[Any, Any] = dict(db.execute("SELECT source, id FROM operations"))
    insert = "INSERT INTO taggings (id, picture, source, at, operation, scores) VALUES (?, ?, ?, ?, ?, ?)"
    last = 0
    while rows := _taggings(db, last):
        first, last = rows[0][0], rows[-1][0]
        packed = np.fromiter(map(itemgetter(0), db.execute(_PACKED, (first, last))), dtype=np.uint64)
        starts = np.searchsorted(packed >> np.uint64(31), [row[0] - first for row in rows])
        blobs = np.split((packed & np.uint64(0x7FFFFFFF)).astype("<u4"), starts[1:])
        values = ((*row, operations[row[2]], blob.tobytes()) for row, blob in zip(rows, blobs, strict=True))
        db.executemany(insert, values)


def _taggings(db: apsw.Connection, after: int) -> list[tuple[Any, ...]]:
    statement = "SELECT id, picture, model, at FROM old_taggings WHERE id > ? ORDER BY id LIMIT ?"
    return db.execute(statement, (after, _TAGGINGS_AT_ONCE)).fetchall()


# A prediction as one integer: tagging 32 bits, tag 22, present 1, score 8.
_PACKED: Final = """
SELECT ((tagging - ?1) << 31) | (tag << 9) | (present << 8) | score FROM predictions
WHERE tagging BETWEEN ?1 AND ?2 ORDER BY tagging, tag
"""


def m003_pushes(db: apsw.Connection) -> None:
    """What was pushed to other programs, so that only that is ever taken back there.

    * `targets` are places, by the words `hydrus URL SERVICE` or `szurubooru URL`.
    * `pushes` has one row a picture and target: the tags that are there by efuda's doing (little-endian uint32 each,
      ascending), the picture's revision at the time, whether models' tags went along, and the picture's name there.
    """
    for statement in (
        "CREATE TABLE targets (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE) STRICT",
        """CREATE TABLE pushes (
            target   INTEGER NOT NULL REFERENCES targets (id),
            picture  INTEGER NOT NULL REFERENCES pictures (id),
            revision INTEGER NOT NULL,
            models   INTEGER NOT NULL CHECK (models IN (0, 1)),
            there    TEXT    NOT NULL,
            tags     BLOB    NOT NULL CHECK (length(tags) % 4 = 0),
            at       TEXT    NOT NULL,
            PRIMARY KEY (target, picture)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


MIGRATIONS: Final[tuple[Callable[[apsw.Connection], None], ...]] = (
    m001_pictures_and_predictions,
    m002_operations_words_and_imports,
    m003_pushes,
)
