"""What a collection holds, in numbers for people.

with record.read() as db:
    print(status(db, record.path)["pictures"])
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import apsw

from efuda.collection.adding import real_path
from efuda.collection.schema import VERSION
from efuda.vocabulary import Category

__all__ = ["status"]


def status(db: apsw.Connection, path: Path) -> dict[str, Any]:
    """Pictures that are there, files, tags, postings, what persons said, models, bytes on disk, schema version."""
    beside = path.with_name(path.name + "-wal")
    return {
        "pictures": db.execute(_PICTURES).get,
        "missing": db.execute(_MISSING).get,
        "removed": db.execute("SELECT count(*) FROM pictures WHERE removed").get,
        "files": db.execute("SELECT count(*) FROM files WHERE missing IS NULL").get,
        "tags": db.execute("SELECT count(*) FROM tags WHERE category != ?", (Category.RATING,)).get,
        "postings": db.execute("SELECT coalesce(sum(length(scores)), 0) / 4 FROM taggings WHERE NOT withdrawn").get,
        "words": db.execute("SELECT count(*) FROM words").get,
        "models": [
            {"name": name, "identity": identity, "pictures": pictures}
            for name, identity, pictures in db.execute(_SOURCES, ("model",))
        ],
        "imports": [{"name": name, "pictures": pictures} for name, _, pictures in db.execute(_SOURCES, ("import",))],
        "folders": [_shown(path) for (path,) in db.execute("SELECT path FROM folders ORDER BY id")],
        "operations": db.execute("SELECT count(*) FROM operations").get,
        "revision": db.execute("SELECT value FROM state WHERE key = 'revision'").get,
        "bytes": sum(one.stat().st_size for one in (path, beside) if one.exists()),
        "schema": VERSION,
    }


def _shown(path: Any) -> str:
    """As text, also where it is none."""
    return os.fsencode(real_path(path)).decode("utf-8", "backslashreplace")


_PICTURES: Final = """
SELECT count(*) FROM pictures WHERE NOT removed AND id IN (SELECT picture FROM files WHERE missing IS NULL)
"""
_MISSING: Final = """
SELECT count(*) FROM pictures WHERE NOT removed AND id NOT IN (SELECT picture FROM files WHERE missing IS NULL)
"""
_SOURCES: Final = """
SELECT name, identity, count(taggings.id) FROM sources LEFT JOIN taggings
ON taggings.source = sources.id AND NOT withdrawn WHERE kind = ? GROUP BY sources.id ORDER BY sources.id
"""
