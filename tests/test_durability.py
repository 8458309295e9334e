"""A collection whose process is killed, or whose disk fails: what was said to be done is there, and nothing by half."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durability_world import FaultyDisk, Life, content
from test_record import make_version_1

from efuda.collection.checking import check
from efuda.collection.record import Record
from efuda.errors import CollectionError, OutputError

KILLS = 50
FIRST = 14


class Lives:
    """Processes that live on with a collection until they are killed, one after another."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        command = [sys.executable, str(Path(__file__).parent / "durability_world.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def live(self, done: int, steps: int, seconds: float) -> int:
        """One more, from a step on, that is killed so many seconds after so many steps; how far it said it came."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(self.path), str(self.root), done]) + "\n")
        number, wanted = int(self.process.stdout.readline()), done + steps
        while done < wanted:
            done = int(self.process.stdout.readline())
        time.sleep(seconds)
        os.kill(number, signal.SIGKILL)
        while (line := self.process.stdout.readline()) != "end\n":
            done = int(line)
        return done

    def close(self) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
def test_kills_at_fifty_moments_lose_nothing_that_was_said_to_be_done(tmp_path: Path) -> None:
    """Beside the collection whose process is killed lives one that is left in peace; they must be the same."""
    chance, path = random.Random(7), tmp_path / "killed"
    lives = Lives(path, tmp_path)
    peaceful = Life(Record.open(tmp_path / "peaceful", create=True), tmp_path)
    kinds, unsaid = [], 0
    for _ in range(KILLS):
        said = lives.live(peaceful.done, chance.randrange(3), chance.random() * 0.01)
        while peaceful.done < said:
            kinds.append(peaceful.step())
        killed = Record.open(path, create=True)
        found = content(killed)
        if found != content(peaceful.record):  # what was being done may be done, though it was not said
            kinds.append(peaceful.step())
            unsaid += 1
        assert found == content(peaceful.record), f"after {said} steps"
        assert check(killed) == []
        killed.close()
    lives.close()
    peaceful.record.close()
    assert {*kinds} == {"add", "tag", "edit", "undo", "redo"}
    assert unsaid > 0, "the kills no longer fall between a commit and its word; choose other moments"


# A disk that fails


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections after 14 to 18 steps, by number; from 14 on come an add, a run of a model, an edit and an undo."""
    root = tmp_path_factory.mktemp("life")
    life = Life(Record.open(root / "record", create=True), root)
    kinds = []
    while life.done < 18:
        if life.done >= FIRST:
            life.record.close()
            shutil.copy(root / "record", root / str(life.done))
            life.record = Record.open(root / "record")
        kinds.append(life.step())
    life.record.close()
    shutil.copy(root / "record", root / str(life.done))
    assert kinds[FIRST:] == ["add", "tag", "edit", "undo"]
    return root


def contents(path: Path) -> list[list[tuple[object, ...]]]:
    record = Record.open(path)
    assert check(record) == []
    found = content(record)
    record.close()
    return found


def copied(path: Path, to: Path) -> Path:
    """A copy of a collection as it lies on the disk at this moment."""
    for ending in ("", "-wal"):
        to.with_name(to.name + ending).unlink(missing_ok=True)
        if path.with_name(path.name + ending).exists():
            shutil.copy(path.with_name(path.name + ending), to.with_name(to.name + ending))
    return to


@pytest.mark.parametrize("kind", ["full disk", "I/O error", "short write"])
def test_a_disk_that_fails_at_a_write_leaves_nothing_by_half(
    kind: str, disk: FaultyDisk, life: Path, tmp_path: Path
) -> None:
    words = "cannot be read or written" if kind == "I/O error" else "the disk is full"
    for step in range(FIRST, 18):
        before, after = contents(life / str(step)), contents(life / str(step + 1))
        failures = 0
        for call in range(0, 1000, 4):
            path = copied(life / str(step), tmp_path / "tried")
            trying = Life(Record.open(path), life, step)
            trying.record._writer.pragma("wal_autocheckpoint", 8)
            disk.arm(kind, call)
            try:
                trying.step()
            except (OutputError, CollectionError) as error:
                failures += 1
                assert words in str(error) and str(error).startswith(f"{path}") and "\n" not in str(error)
                disk.disarm()
                crashed = copied(path, tmp_path / "crashed")  # as if the power had gone, too
                assert contents(crashed) in (before, after)
                if content(trying.record) == before:
                    trying.step()  # once there is room again, the same step succeeds
            failed = disk.disarm()
            assert content(trying.record) == after
            trying.record.close()
            assert contents(path) == after
            if not failed:
                break
        assert failures > 2, f"step {step} writes too little; choose another"


def test_a_disk_that_fails_while_an_older_file_is_converted(disk: FaultyDisk, tmp_path: Path) -> None:
    start = tmp_path / "version 1"
    make_version_1(start)
    expected, failures = contents(copied(start, tmp_path / "converted")), 0
    for call in range(0, 1000, 7):
        path = copied(start, tmp_path / "tried")
        disk.arm("full disk", call)
        try:
            Record.open(path).close()
        except OutputError as error:
            failures += 1
            assert "the disk is full" in str(error)
        failed = disk.disarm()
        assert contents(path) == expected
        if not failed:
            break
    assert failures > 2


def test_a_disk_that_cannot_be_read_is_named(disk: FaultyDisk, life: Path, tmp_path: Path) -> None:
    expected, failures = contents(life / "18"), 0
    for call in range(0, 100, 3):
        record = Record.open(copied(life / "18", tmp_path / "tried"))
        disk.arm("read error", call)
        try:
            assert content(record) == expected
        except (OutputError, CollectionError) as error:
            failures += 1
            assert "\n" not in str(error) and f"{record.path} cannot be read or written" in str(error)
        failed = disk.disarm()
        assert content(record) == expected
        record.close()
        if not failed:
            break
    assert failures > 2


def test_a_disk_that_fails_while_a_collection_is_made(disk: FaultyDisk, tmp_path: Path) -> None:
    failures = 0
    for call in range(0, 1000, 5):
        path = tmp_path / f"{call}.efuda"
        disk.arm("full disk", call)
        try:
            Record.open(path, create=True).close()
        except OutputError as error:
            failures += 1
            assert "the disk is full" in str(error)
        failed = disk.disarm()
        record = Record.open(path, create=True)
        assert (check(record), record.revision) == ([], 0)
        record.close()
        if not failed:
            break
    assert failures > 2
