"""The commands that keep a collection and give what it says to others."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Efuda
from PIL import Image
from pushing_world import AI_TAGS, KEY, LOGIN, Booru, HydrusClient, served
from tagging_world import constant_tagger

from efuda.collection import Collection


@pytest.fixture
def art(tmp_path: Path, efuda: Efuda) -> Path:
    """A collection of three pictures, of which a person has tagged the first."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    path = tmp_path / "art.efuda"
    assert efuda("collection", "scan", path, tmp_path / "pictures").code == 0
    with Collection.open(path) as collection:
        collection.edit([1], add=["solo", "character:hatsune_miku"], rating="general")
    return path


def tags_of(path: Path, picture: int) -> list[str]:
    with Collection.open(path) as collection:
        return [tag.name for tag in collection.picture(picture).tags]


def test_scan_says_what_it_found(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    shutil.move(tmp_path / "pictures" / "0.png", tmp_path / "pictures" / "moved.png")
    (tmp_path / "pictures" / "1.png").unlink()
    (tmp_path / "pictures" / "text.png").write_text("no picture")
    said = efuda("collection", "scan", art, "--dry-run", "--json")
    assert said.code == 1 and (said.data["moved"], said.data["missing"], said.data["unchanged"]) == (1, 1, 1)
    assert said.data["failed"] == [{"path": str(tmp_path / "pictures" / "text.png"), "reason": "not a picture"}]
    done = efuda("collection", "scan", art)
    assert done.out == "3 files: 1 moved, 1 missing, 1 unchanged.\n"
    assert "text.png: not a picture" in done.err


def test_scan_of_an_unplugged_drive_exits_with_1(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "pictures")
    done = efuda("collection", "scan", art)
    assert done.code == 1 and "is not there: 3 files" in done.err and "--yes" in done.err
    assert efuda("collection", "scan", art, "--yes").out == "0 files: 3 missing.\n"
    assert efuda("collection", "scan", art, "--forget", tmp_path / "pictures").code == 0
    assert efuda("collection", "scan", art, "--forget", tmp_path / "pictures").code == 3


def test_scan_wants_a_folder_that_it_knows(efuda: Efuda, tmp_path: Path) -> None:
    assert "does not exist" in efuda("collection", "scan", tmp_path / "none.efuda").err
    Collection.open(tmp_path / "new.efuda", create=True).close()
    done = efuda("collection", "scan", tmp_path / "new.efuda")
    assert done.code == 3 and "Name one: efuda collection scan" in done.err


def test_backup_check_and_restore(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    made = Path(efuda("collection", "backup", art, tmp_path / "backups", "--keep", "2", "--json").data["backup"])
    assert efuda("collection", "check", made, "--files").out == f"{made} is whole.\n"
    with Collection.open(art) as collection:
        collection.edit([2], add=["solo"])
    assert "could be restored" in efuda("collection", "restore", art, made, "--dry-run").out
    kept = Path(efuda("collection", "restore", art, made, "--json").data["kept"])
    assert [tags_of(path, 2) for path in (art, kept)] == [[], ["solo"]]
    (tmp_path / "pictures" / "0.png").unlink()
    done = efuda("collection", "check", art, "--files")
    assert done.code == 1 and "0.png is gone" in done.out
    assert efuda("collection", "backup", art, tmp_path / "none" / "b.db").code == 3


def test_export_of_captions_and_xmp(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    assert efuda("collection", "export", art, "id:1", "--to", "txt", "--dry-run").out == "1 file would be written.\n"
    done = efuda("collection", "export", art, "id:1", "--to", "txt", "--remove-underscore")
    assert done.out == "1 file written.\n" and not (place / "1.txt").exists()
    assert (place / "0.txt").read_text() == "hatsune miku, solo\n"
    assert efuda("collection", "export", art, "id:1", "--to", "txt").out == "0 files written, 1 had tags already.\n"
    assert efuda("collection", "export", art, "id:1", "--to", "txt", "--replace").code == 0
    assert (place / "0.txt").read_text() == "hatsune_miku, solo\n"
    assert (place / "0.txt.bak").read_text() == "hatsune miku, solo\n"
    out = tmp_path / "captions"
    assert efuda("collection", "export", art, "--to", "xmp", "--out", out).out == "3 files written.\n"
    text = (out / "0.png.xmp").read_text()
    assert "digiKam:TagsList" in text and "<rdf:li>character/hatsune_miku</rdf:li>" in text
    assert "<rdf:li>rating/general</rdf:li>" in text
    hydrus = efuda("collection", "export", art, "id:1", "--to", "hydrus", "--out", out)
    assert hydrus.code == 0
    assert (out / "0.png.txt").read_text() == "character:hatsune miku\nsolo\nrating:general\n"


def test_export_of_one_file(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    lines = efuda("collection", "export", art, "id:1", "--to", "jsonl").out.splitlines()
    assert [sorted(json.loads(line)["tags"]) for line in lines] == [["hatsune_miku", "solo"]]
    posts = tmp_path / "posts.jsonl"
    assert efuda("collection", "export", art, "--to", "posts", "--decided", "--out", posts).out.startswith("3 lines")
    post = json.loads(posts.read_text().splitlines()[-1])
    assert post["tag_string_character"] == "hatsune_miku" and post["rating"] == "g"
    record = efuda("collection", "export", art).out.splitlines()
    assert [json.loads(line)["kind"] for line in record].count("picture") == 3
    assert efuda("collection", "export", art, "--to", "posts", "--out", posts).code == 2
    assert efuda("collection", "export", art, "--to", "posts", "--out", posts, "--replace").code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--to", "xml"], "choose one of txt, json, xmp"),
        (["--to", "txt", "--merge", "--replace"], "do not go together"),
        (["solo", "--to", "record"], "is of everything"),
        (["--to", "posts", "--json"], "name a file with --out"),
        (["--to", "parquet"], "name it with --out"),
    ],
)
def test_exports_that_make_no_sense(art: Path, efuda: Efuda, flags: list[str], words: str) -> None:
    done = efuda("collection", "export", art, *flags)
    assert done.code == 2 and words in done.err


def test_posts_are_read_by_prepare(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    arguments = ("--to", "posts", "--out", tmp_path / "metadata" / "posts.jsonl", "--links", tmp_path / "images")
    for more in ((), ("--replace",)):
        assert efuda("collection", "export", art, *arguments, *more).code == 0
    assert {one.name for one in (tmp_path / "images").iterdir()} == {"1.png", "2.png", "3.png"}
    done = efuda(
        *("prepare", tmp_path / "metadata", "--images", tmp_path / "images", "--out", tmp_path / "dataset", "--json"),
        *("--set", "vocabulary.minimum_count=1", "--set", "images.exact_size=none", "--workers", "1"),
    )
    assert "find: 3 of 3 pictures  3 found" in done.err  # they are too few and too plain to learn from
    assert "tags: 2 of 2 tags" in done.err
    assert efuda("collection", "export", art, "--to", "txt", "--links", tmp_path / "images").code == 2


def test_push_to_hydrus(art: Path, efuda: Efuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = HydrusClient()
    with Collection.open(art) as collection:
        sha256 = collection.picture(1).sha256
    client.files = {sha256}
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    with served(client.answer) as url:
        arguments = ("push", "hydrus", art, "--url", url, "--key-file", key)
        listed = efuda(*arguments)
        assert listed.code == 2 and f"AI tags ({AI_TAGS})" in listed.err
        dry = efuda(*arguments, "--service", "AI tags", "--dry-run")
        assert dry.out.startswith("1 picture would be changed there: 3 tags would be added. 2 are not there.")
        assert client.tags(bytes.fromhex(sha256)) == set()
        done = efuda(*arguments, "--service", "AI tags", "--json")
        assert (done.data["pushed"], done.data["tags_added"], done.data["absent"]) == (1, 3, 2)
        assert client.tags(bytes.fromhex(sha256)) == {"solo", "character:hatsune miku", "rating:general"}
        again = efuda(*arguments, "--service", "AI tags", "--json").data
        assert (again["pushed"], again["pushed_before"]) == (0, 1)
        monkeypatch.setenv("EFUDA_HYDRUS_KEY", "f" * 64)
        wrong = efuda("push", "hydrus", art, "--url", url, "--service", "AI tags")
        assert wrong.code == 3 and "does not accept the key" in wrong.err and "ffff" not in wrong.err


def test_push_to_szurubooru(art: Path, efuda: Efuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    booru = Booru()
    number = booru.put_post(hashlib.sha1((tmp_path / "pictures" / "0.png").read_bytes()).hexdigest(), ["theirs"])
    monkeypatch.setenv("EFUDA_SZURUBOORU_LOGIN", LOGIN)
    with served(booru.answer) as url:
        done = efuda("push", "szurubooru", art, "id:1", "--url", f"{url}/api")
    assert done.code == 0, done.err
    assert done.out == "1 picture changed there: 2 tags added.\n"
    assert sorted(booru.posts[number]["tags"]) == ["hatsune_miku", "solo", "theirs"]
    assert booru.tags["hatsune_miku"]["category"] == "character"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--service", "x"], 2, "access key is missing"),
        (["--key-file", "{tmp}/key"], 2, "--url is missing"),
        (["--key-file", "{tmp}/none", "--url", "http://127.0.0.1:9"], 3, "cannot be read"),
        (["--key-file", "{tmp}/two", "--url", "http://127.0.0.1:9"], 3, "in one line"),
        (["--key-file", "{tmp}/short", "--url", "http://127.0.0.1:9"], 2, "64 hexadecimal digits"),
    ],
)
def test_keys_and_addresses(
    art: Path, efuda: Efuda, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "two").write_text(f"{KEY}\n{KEY}")
    (tmp_path / "short").write_text("secret")
    done = efuda("push", "hydrus", art, *(one.format(tmp=tmp_path) for one in arguments))
    assert done.code == code and words in done.err and "secret" not in done.err


@contextmanager
def watching(*arguments: object) -> Iterator[Callable[[str], None]]:
    """A watch in a process of its own, which is interrupted at the end; waits for a line with these words."""
    command = [sys.executable, "-m", "efuda", "collection", "watch", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        giving_up = threading.Timer(60, job.kill)
        giving_up.start()
        assert job.stderr is not None
        lines = iter(job.stderr)
        try:
            yield lambda words: next(line for line in lines if words in line) and None
            job.send_signal(signal.SIGINT)
            assert "Stopped: what was finished is kept" in "".join(lines)
        finally:
            job.kill()
            giving_up.cancel()
    assert job.returncode == 130


def test_a_watch_ends_with_ctrl_c(art: Path, tmp_path: Path) -> None:
    with watching(art, "--every", "1") as until:
        until("3 unchanged")
        Image.new("RGB", (8, 6), (99, 0, 0)).save(tmp_path / "pictures" / "new.png")
        until("1 new")


def test_a_watch_tags_what_is_new(art: Path, tmp_path: Path) -> None:
    constant_tagger(tmp_path / "model", {"1girl": 0.9})
    with watching(art, "--model", tmp_path / "model") as until:
        until("3 pictures tagged.")
        Image.new("RGB", (8, 6), (99, 0, 0)).save(tmp_path / "pictures" / "new.png")
        until("1 picture tagged.")
    assert tags_of(art, 4) == ["1girl"]


def test_what_a_scan_finds_is_found_by_searches(art: Path, efuda: Efuda, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "1.png").unlink()
    shutil.move(tmp_path / "pictures" / "2.png", tmp_path / "pictures" / "moved.png")
    assert efuda("collection", "scan", art).code == 0
    with Collection.open(art) as collection:
        assert sorted(collection.ids("")) == [1, 3]
        assert list(collection.ids("is:missing")) == [2]
        assert list(collection.ids("path:moved")) == [3]
        assert list(collection.ids("solo")) == [1]
