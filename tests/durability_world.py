"""A life of a collection, step by step and always the same, for tests that kill it or let its disk fail.

Each step is one commit: pictures added, a run of one of two models, an edit, an undo or a redo. After each commit its
number is printed, so that the test knows what a person has been told is done.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import apsw
from collection_world import make_file, make_tagger, tagged

from efuda.collection.adding import Writer
from efuda.collection.editing import edit
from efuda.collection.history import redo, redoable, undo, undoable
from efuda.collection.record import Record, rows
from efuda.tagging import Tagger

TAGS = [f"tag{number}" for number in range(12)]
AT_ONCE = 5
# Everything but times.
CONTENT = (
    "SELECT * FROM state ORDER BY key",
    "SELECT * FROM sources ORDER BY id",
    "SELECT id, sha256, md5, bytes, width, height, removed, revision FROM pictures ORDER BY id",
    "SELECT path, picture, missing FROM files ORDER BY path",
    "SELECT * FROM tags ORDER BY id",
    "SELECT id, picture, source, operation, withdrawn, scores FROM taggings ORDER BY id",
    "SELECT picture, tag, verdict, source, operation FROM words ORDER BY picture, tag",
    "SELECT id, source, kind, summary, undoes FROM operations ORDER BY id",
    "SELECT operation, n, picture, what, tag FROM changes ORDER BY operation, n",
)


class Life:
    """A record and what happens to it; `done` counts the steps it has behind it."""

    def __init__(self, record: Record, root: Path, done: int = 0) -> None:
        self.record, self.root, self.done = record, root, done
        self.taggers = [make_tagger(root / name, TAGS) for name in ("one", "two")]

    def step(self) -> str:
        """The next thing to happen; what it was."""
        chance = random.Random(self.done)
        with self.record.read() as db:
            count = len(rows(db, "SELECT id FROM pictures"))
            back, forth = undoable(db), redoable(db)
        kinds = ["add"] if count < AT_ONCE else ["add", "tag", "edit", "edit"]
        kinds += ["undo"] if back else []
        kinds += ["redo"] if forth else []
        kind = chance.choice(kinds)
        if kind == "add":
            self._tag(chance, self.taggers[0], range(count, count + AT_ONCE))
        elif kind == "tag":
            self._tag(chance, chance.choice(self.taggers), chance.sample(range(count), AT_ONCE))
        elif kind == "edit":
            add, remove = chance.sample(TAGS, 2)
            pictures = chance.sample(range(1, count + 1), AT_ONCE)
            edit(self.record, pictures, add=[f"mine{self.done}", add], remove=[remove] if self._knows(remove) else [])
        else:
            (undo if kind == "undo" else redo)(self.record, by="me")
        self.done += 1
        return kind

    def _tag(self, chance: random.Random, tagger: Tagger, numbers: Any) -> None:
        writer = Writer(self.record, tagger)
        for number in numbers:
            path = make_file(self.root / "pictures" / f"{number}.png")
            writer.take(tagged(tagger, path, {tag: chance.random() for tag in chance.sample(TAGS, 6)}))
        writer.flush()

    def _knows(self, name: str) -> bool:
        with self.record.read() as db:
            return bool(rows(db, "SELECT 1 FROM tags WHERE name = ?", (name,)))


def content(record: Record) -> list[list[tuple[Any, ...]]]:
    """All that a record holds."""
    with record.read() as db:
        return [rows(db, statement) for statement in CONTENT]


def live(path: Path, root: Path, done: int) -> None:
    """Live on from a step until killed, saying after each commit how many steps are done."""
    os.write(1, b"%d\n" % os.getpid())  # whole, whenever it is killed
    record = Record.open(path, create=True)
    record._writer.pragma("wal_autocheckpoint", 8)  # kills shall meet checkpoints as well
    life = Life(record, root, done)
    while True:
        life.step()
        os.write(1, b"%d\n" % life.done)  # whole, whenever it is killed


def live_again_and_again() -> None:
    """A process that is up already, for each line `[path, root, done]` of standard input; "end" when it is killed."""
    for line in sys.stdin:
        path, root, done = json.loads(line)
        child = os.fork()
        if not child:
            live(Path(path), Path(root), done)
        os.waitpid(child, 0)
        os.write(1, b"end\n")


class FaultyFile(apsw.VFSFile):
    """A file of `FaultyDisk`."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self.disk.fails("write"):
            if self.disk.kind == "short write":
                super().xWrite(bytes(data)[: len(data) // 2], offset)
            raise self.disk.error()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.disk.kind == "I/O error" and self.disk.fails("write"):
            raise self.disk.error()
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self.disk.fails("read"):
            raise self.disk.error()
        return super().xRead(amount, offset)


class FaultyDisk(apsw.VFS):
    """A disk that does as it should until it is armed: then the Nth call fails, and all that follow until disarmed."""

    def __init__(self) -> None:
        self.base = apsw.vfs_names()[0]
        self.kind, self.what, self.calls, self.failed = "", "", -1, False
        super().__init__("faulty", self.base, makedefault=True)

    def arm(self, kind: str, calls: int) -> None:
        """Fail at that call: "full disk", "I/O error" and "short write" when writing, "read error" when reading."""
        self.kind, self.what, self.calls = kind, "read" if kind == "read error" else "write", calls
        self.failed = False

    def disarm(self) -> bool:
        """Work again; whether it had failed."""
        self.calls = -1
        return self.failed

    def fails(self, what: str) -> bool:
        if self.calls < 0 or what != self.what:
            return False
        self.failed = self.failed or self.calls == 0
        self.calls = max(self.calls - 1, 0)
        return self.failed

    def error(self) -> apsw.Error:
        if self.kind in ("full disk", "short write"):
            return apsw.FullError("no space left")
        return apsw.IOError("the disk does not answer")

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:  # noqa: N802
        return FaultyFile(self, name, flags)


if __name__ == "__main__":
    live_again_and_again()
