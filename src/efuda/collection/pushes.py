"""What was pushed to other programs, so that only that is ever taken back there, and a push goes on where it was.

    memory = Pushes(record, "hydrus http://127.0.0.1:45869 6c6f63616c2074616773")
    before = memory.before([7, 8])              # picture → Before(tags, there), {} for what was never pushed
    memory.note([(7, {"hat"}, "ab12…")], models=False)

Noted is what the other side has confirmed, so a push that is cut off may have put more there than is known here: that
stays, which is the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import apsw
import numpy as np

from efuda.collection.record import Record, rows

__all__ = ["Before", "Pushes"]


@dataclass(frozen=True, slots=True)
class Before:
    """What was pushed of a picture.

    Attributes:
        tags: names that are there by efuda's doing.
        there: what the target calls the picture.
    """

    tags: frozenset[str] = frozenset()
    there: str = ""


class Pushes:
    """The memory of one target.

    Args:
        identity: the target's, the same for as long as it is the same place.
    """

    def __init__(self, record: Record, identity: str) -> None:
        self.record, self.identity = record, identity

    def unpushed(self, pictures: Sequence[int], *, models: bool) -> list[int]:
        """Those of these pictures that have changed since they were pushed, or never were.

        Args:
            models: whether models' tags go along.
        """
        with self.record.read() as db:
            pushed = {picture for (picture,) in db.execute(_UNCHANGED, (self.identity, int(models)))}
        return [picture for picture in pictures if picture not in pushed]

    def before(self, pictures: Iterable[int]) -> dict[int, Before]:
        """What was pushed of each of these pictures."""
        with self.record.read() as db:
            target = _target(db, self.identity)
            found = {}
            for picture in pictures:
                for blob, there in rows(db, _BEFORE, (target, picture)):
                    found[picture] = Before(frozenset(_names(db, blob)), there)
            return found

    def note(self, pushed: Iterable[tuple[int, int, Iterable[str], str]], *, models: bool) -> None:
        """Remember what is there now.

        Args:
            pushed: of each picture its number, its revision when it was read, the tags there by efuda's doing, and what
                the target calls it.
        """
        with self.record.write(durable=False) as writing:
            db = writing.db
            db.execute("INSERT INTO targets (identity) VALUES (?) ON CONFLICT DO NOTHING", (self.identity,))
            target = _target(db, self.identity)
            for picture, revision, names, there in pushed:
                numbers = sorted(writing.tag(name) for name in names)
                blob = np.array(numbers, dtype="<u4").tobytes()
                db.execute(_NOTE, (target, picture, revision, int(models), there, blob, writing.at))


def _target(db: apsw.Connection, identity: str) -> int:
    found = db.execute("SELECT id FROM targets WHERE identity = ?", (identity,)).get
    return found if isinstance(found, int) else 0


def _names(db: apsw.Connection, blob: bytes) -> list[str]:
    numbers = np.frombuffer(blob, dtype="<u4").tolist()
    marks = ",".join("?" * len(numbers))
    return [name for (name,) in rows(db, f"SELECT name FROM tags WHERE id IN ({marks})", numbers)]


_UNCHANGED: Final = """
SELECT picture FROM pushes JOIN targets ON targets.id = target JOIN pictures ON pictures.id = picture
WHERE identity = ? AND models = ? AND pushes.revision = pictures.revision
"""
_BEFORE: Final = "SELECT tags, there FROM pushes WHERE target = ? AND picture = ?"
_NOTE: Final = """
INSERT INTO pushes (target, picture, revision, models, there, tags, at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (target, picture) DO UPDATE SET revision = excluded.revision, models = excluded.models,
there = excluded.there, tags = excluded.tags, at = excluded.at
"""
