"""What goes wrong in real runs: disks, names, damage, company, signals. The others are tagged, each fault is named."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Efuda
from PIL import Image
from tagging_world import constant_tagger

CAPTION = "long_hair, 1girl\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It says the same of every picture, in no time."""
    root = tmp_path_factory.mktemp("models") / "constant"
    constant_tagger(root, {"long_hair": 0.9, "1girl": 0.8, "general": 0.7})
    return root


def picture(path: Path | str, number: int = 0) -> Path:
    """A picture like no other."""
    colours = random.Random(number)
    drawn = Image.new("RGB", (24, 24), tuple(colours.randrange(256) for _ in range(3)))
    drawn.putpixel((number % 24, number // 24 % 24), (number % 256, number // 256, 7))
    drawn.save(path, "PNG")
    return Path(path)


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        picture(path / f"{number:04}.png", number)
    return path


def failures(done: Any) -> dict[str, str]:
    return {Path(one["path"]).name: one["reason"] for one in done["failed"]}


def captions(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.rglob("*.txt"))]


def start(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "efuda", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


# Disks


def test_a_folder_where_the_caption_should_be(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 5)
    for name in ("0001.txt", "0003.txt"):
        (folder / name).mkdir()
    for existing in ("--skip-existing", "--merge", "--replace"):
        done = efuda("tag", folder, "-m", model, existing, "--json")
        assert done.code == 1
        assert failures(done.data) == dict.fromkeys(("0001.png", "0003.png"), "not written: a folder is in the way")
    assert [path.read_text() for path in sorted(folder.glob("*.txt")) if path.is_file()] == [CAPTION] * 3
    assert not list(folder.rglob("*.part"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_may_not_be_written(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    locked, free = folder_of(tmp_path / "locked", 3), folder_of(tmp_path / "open", 3)
    locked.chmod(0o555)
    try:
        done = efuda("tag", locked, free, "-m", model, "--json")
    finally:
        locked.chmod(0o755)
    assert (done.code, done.data["tagged"]) == (1, 3)
    assert set(failures(done.data).values()) == {"not written: no permission to write there"}
    assert captions(free) == [CAPTION] * 3


def test_a_folder_that_vanishes_in_the_middle(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    gone, stays = folder_of(tmp_path / "a gone", 1500), folder_of(tmp_path / "b stays", 20)

    def vanish() -> None:
        while not (gone / "0000.txt").exists():
            time.sleep(0.001)
        gone.rename(tmp_path / "elsewhere")

    thread = threading.Thread(target=vanish)
    thread.start()
    done = efuda("tag", gone, stays, "-m", model, "--json")
    thread.join()
    assert done.code == 1
    assert captions(stays) == [CAPTION] * 20
    written = captions(tmp_path / "elsewhere")
    assert set(written) == {CAPTION} and len(written) + len(done.data["failed"]) == 1500
    assert set(failures(done.data).values()) <= {"missing", "not written: the file or its folder is gone"}
    assert not gone.exists()


FULL = """
import resource, sys
from efuda.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[:2] = ["efuda"]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kind", ["scores", "jsonl", "csv"])
def test_a_disk_that_fills_up(kind: str, efuda: Efuda, model: Path, tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of a write; the same command goes on."""
    folder = folder_of(tmp_path / "in", 1500)
    command = ["tag", folder, "-m", model, "--json", "--scores", tmp_path / "scores"]
    if kind != "scores":
        command += ["--no-scores", "--to", kind, "--out", tmp_path / f"tags.{kind}"]
        command.remove("--scores")
        command.remove(tmp_path / "scores")
    most = 200_000 if kind == "scores" else 180_000 if kind == "jsonl" else 120_000
    full = [sys.executable, "-c", FULL, str(most), *map(str, command)]
    done = subprocess.run(full, capture_output=True, text=True, timeout=120)
    assert done.returncode in ((0,) if kind == "scores" else (1, 3)), done.stderr
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
    assert done.stderr.count("Scores are no longer kept" if kind == "scores" else "cannot be written") == 1
    if kind == "scores":
        assert captions(folder) == [CAPTION] * 1500
    again = efuda(*command)
    assert again.code == 0
    if kind == "scores":
        assert again.data["to_tag"] == 0
    else:
        lines = (tmp_path / f"tags.{kind}").read_text().splitlines()[kind == "csv" :]
        assert len({line.split(",")[0] for line in lines}) == len(lines) == 1500


# Company


@pytest.mark.parametrize("scores", ["shared", "none"])
def test_two_runs_at_once_in_one_folder(scores: str, model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 600)
    more = ["--no-scores"] if scores == "none" else ["--scores", tmp_path / "scores"]
    both = [start("tag", folder, "-m", model, "--json", *more) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert captions(folder) == [CAPTION] * 600
    assert len(list(folder.iterdir())) == 1200, "nothing unfinished lies about"
    assert all(not json.loads(out)["failed"] for out, _ in said)


# Names


def test_names_of_any_kind(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a\nb", "'single' \"double\"", "🌸 花見 (1)", " lead and trail ", "-m", "[x]*?", "a,b;c", "x" * 251]
    for number, name in enumerate(names):
        picture(folder / f"{name}.png", number)
    latin = os.fsencode(folder) + b"/caf\xe9.png"
    try:
        picture(folder / "latin.png", 99).rename(os.fsdecode(latin))
        names.append(os.fsdecode(b"caf\xe9"))
    except OSError:  # a disk that only takes Unicode
        (folder / "latin.png").unlink()
    done = efuda("tag", folder, "-m", model, "--json")
    assert (done.code, done.data["tagged"], done.data["failed"]) == (0, len(names), [])
    for name in names:
        assert (folder / f"{name}.txt").read_text() == CAPTION
    for kind in ("json", "xmp", "jsonl", "csv", "parquet", "kohya"):
        out = ["--out", tmp_path / f"all.{kind if kind != 'kohya' else 'json'}"]
        done = efuda("tag", folder, "-m", model, "--json", "--to", kind, *(out if kind not in ("json", "xmp") else []))
        too_long = ["x" * 251 + ".png"] if kind in ("json", "xmp") else []
        assert failures(done.data) == dict.fromkeys(too_long, "not written: the name would be too long"), kind
        assert done.data["tagged"] == len(names) - len(too_long)
        assert done.code == bool(too_long)


# Damage


def test_a_damaged_one_between_good_ones(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 9)
    whole = (folder / "0004.png").read_bytes()
    (folder / "0004.png").write_bytes(whole[:60])
    (folder / "0005.png").write_bytes(b"")
    (folder / "0006.png").write_text("<html>404</html>")
    done = efuda("tag", folder, "-m", model, "--json")
    assert (done.code, done.data["tagged"]) == (1, 6)
    assert failures(done.data) == {"0004.png": "truncated", "0005.png": "an empty file", "0006.png": "not a picture"}
    (folder / "0004.png").write_bytes(whole)
    again = efuda("tag", folder, "-m", model, "--json")
    assert (again.data["tagged"], again.data["kept"], again.data["to_tag"]) == (1, 6, 3)


def test_an_archive_with_a_bad_page(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    pages = folder_of(tmp_path / "pages", 4)
    book = tmp_path / "book.cbz"
    with zipfile.ZipFile(book, "w") as archive:
        for path in sorted(pages.iterdir()):
            archive.write(path, path.name)
    data = bytearray(book.read_bytes())
    at = data.index((pages / "0002.png").read_bytes()) + 50
    data[at : at + 4] = bytes(byte ^ 0xFF for byte in data[at : at + 4])
    book.write_bytes(data)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(data[: len(data) // 2])
    done = efuda("tag", book, broken, "-m", model, "--json")
    assert (done.code, done.data["tagged"]) == (1, 3)
    assert failures(done.data) == {"0002.png": "damaged in its archive", "broken.zip": "damaged archive"}
    assert "broken.zip: damaged archive" in done.err
    assert captions(tmp_path / "book.cbz.tags") == [CAPTION] * 3


# Signals


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_stopped_in_the_middle_the_same_command_goes_on(
    number: signal.Signals, efuda: Efuda, model: Path, tmp_path: Path
) -> None:
    folder, scores = folder_of(tmp_path / "in", 3000), tmp_path / "scores"
    command = ["tag", folder, "-m", model, "--json", "--scores", scores]
    process = start(*command, start_new_session=True)
    while process.poll() is None and not (folder / "0000.txt").exists():
        time.sleep(0.001)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to every process
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1].startswith("efuda: Stopped") and "run the same command again" in err
    assert all(line.startswith("tag: ") for line in err.splitlines()[:-1]), err
    done = len(captions(folder))
    assert 0 < done < 3000 and set(captions(folder)) == {CAPTION}
    assert not list(folder.glob(".*")), "nothing unfinished lies about"
    (database,) = scores.glob("*.db")
    with sqlite3.connect(database) as opened:
        (scored,) = opened.execute("SELECT count(*) FROM files").fetchone()
    assert done <= scored
    again = efuda(*command)
    assert (again.code, again.data["kept"], again.data["tagged"]) == (0, done, 3000 - done)
    assert again.data["from_kept_scores"] == scored - done, "nothing is looked at twice"
    assert captions(folder) == [CAPTION] * 3000


@pytest.mark.skipif(shutil.which("kill") is None, reason="needs signals")
def test_killed_outright_the_same_command_goes_on(efuda: Efuda, model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 1500)
    command = ["tag", folder, "-m", model, "--json", "--scores", tmp_path / "scores"]
    process = start(*command)
    while process.poll() is None and not (folder / "0000.txt").exists():
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=60)
    again = efuda(*command)
    assert (again.code, again.data["failed"]) == (0, [])
    assert captions(folder) == [CAPTION] * 1500
