"""Places: what a path of this machine can do, and that a store behind a URL does the same in the same order."""

from __future__ import annotations

import errno
import glob
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from efuda.errors import InputError
from efuda.places import Stat, exists, expand, is_folder, is_remote, join, open_binary, read_bytes, stat, walk

FILES = {"a.txt": b"1", "a/b.txt": b"22", "a-b.txt": b"333", "a/c/d.json": b"4444", "e/[x].json": b"5"}
SORTED = ["a-b.txt", "a.txt", "a/b.txt", "a/c/d.json", "e/[x].json"]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(fill(tmp_path / "top", FILES))


@pytest.fixture
def memory() -> Iterator[str]:
    store = fsspec.filesystem("memory")
    for name, data in FILES.items():
        store.pipe(f"/top/{name}", data)
    yield "memory://top"
    store.rm("/top", recursive=True)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as made:
        for name, data in FILES.items():
            made.writestr(name, data)
    return f"zip://::{tmp_path / 'some.zip'}"


@pytest.fixture(params=["folder", "file", "memory", "archive"])
def top(request: pytest.FixtureRequest) -> str:
    """The same files, once on each kind of store."""
    if request.param == "file":
        return f"file://{request.getfixturevalue('folder')}"
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("posts.json", False),
        ("/data/posts.json", False),
        ("C:/data", False),
        ("file:///data", False),
        ("FILE:///data", False),
        ("s3://bucket/posts.json", True),
        ("hf://datasets/a/b", True),
        ("zip://a::s3://bucket/x.zip", True),
        ("simplecache::s3://bucket/x", True),
        ("a folder/with://colons", False),
    ],
)
def test_what_is_remote(place: str, remote: bool) -> None:
    assert is_remote(place) is remote


@pytest.mark.parametrize(
    ("place", "relative", "whole"),
    [
        ("/data", "a/b.jpg", "/data/a/b.jpg"),
        ("data/", "a.jpg", "data/a.jpg"),
        ("/data", "/other/a.jpg", "/other/a.jpg"),
        ("/data", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("file:///data", "a.jpg", "/data/a.jpg"),
        ("file://localhost/data", "a.jpg", "/data/a.jpg"),
        ("s3://bucket/data/", "a.jpg", "s3://bucket/data/a.jpg"),
        ("s3://bucket", "a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket", "/mnt/a.jpg", "/mnt/a.jpg"),
        ("memory://", "a.jpg", "memory://a.jpg"),
        ("zip://::/x.zip", "a.jpg", "zip://a.jpg::/x.zip"),
        ("zip://in::s3://bucket/x.zip", "a.jpg", "zip://in/a.jpg::s3://bucket/x.zip"),
    ],
)
def test_join(place: str, relative: str, whole: str) -> None:
    assert join(place, relative) == whole


def test_every_store_answers_alike(top: str) -> None:
    assert [(name, told.size) for name, told in walk(top)] == [(name, len(FILES[name])) for name in SORTED]
    one = join(top, "a/b.txt")
    assert read_bytes(one) == b"22"
    assert stat(one) == dict(walk(top))["a/b.txt"]
    assert stat(one).stamp
    with open_binary(one) as file:
        file.seek(1)
        assert file.read() == b"2"
    assert is_folder(top) and is_folder(join(top, "a")) and not is_folder(one) and not is_folder(join(top, "none"))
    assert exists(top) and exists(one) and not exists(join(top, "none"))


def test_what_is_not_there_is_an_oserror_everywhere(top: str) -> None:
    for ask in (read_bytes, stat, open_binary):
        with pytest.raises(FileNotFoundError):
            ask(join(top, "none.txt"))
    assert list(walk(join(top, "none"))) == []


def test_patterns_on_every_store(top: str) -> None:
    def found(pattern: str) -> list[str]:
        return [Path(one.partition("::")[0]).name for one in expand(join(top, pattern))]

    assert found("*.txt") == ["a-b.txt", "a.txt"]
    assert found("a/?.txt") == ["b.txt"]
    assert found("**/*.json") == ["d.json", "[x].json"]
    assert found("a[.-]*txt") == ["a-b.txt", "a.txt"]
    assert expand(join(top, "e/[x].json")) == [join(top, "e/[x].json")]  # it exists by that name
    assert expand(join(top, "*.zst")) == []
    assert expand(join(top, "none.txt")) == [join(top, "none.txt")]
    assert [read_bytes(one) for one in expand(join(top, "*.txt"))] == [b"333", b"1"]


def test_a_change_changes_the_stamp(folder: str, memory: str) -> None:
    here, there = join(folder, "a.txt"), join(memory, "a.txt")
    before = stat(here), stat(there)
    os.utime(here, ns=(5, 1_700_000_000_123_456_789))
    fsspec.filesystem("memory").pipe("/top/a.txt", b"9")
    assert stat(here) == Stat(1, "1700000000123456789")
    assert stat(here) != before[0]
    assert stat(there) != before[1]


def test_nothing_traps_the_walk(tmp_path: Path) -> None:
    fill(tmp_path, {"a/real.txt": b"1", "z.txt": b"2"})
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a/real.txt")
    os.mkfifo(tmp_path / "pipe.json")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).touch()
    told: dict[str, str] = {}
    assert [name for name, _ in walk(str(tmp_path), unreadable=told.__setitem__)] == ["a/real.txt", "link.txt", "z.txt"]
    assert {Path(path).name: reason for path, reason in told.items()} == {
        "self": os.strerror(errno.ELOOP),
        "broken": os.strerror(errno.ENOENT),
        "pipe.json": "not an ordinary file",
        "�.jpg": "its name is not UTF-8",
    }
    assert [name for name, _ in walk(str(tmp_path))] == ["a/real.txt", "link.txt", "z.txt"]
    found = expand(f"{tmp_path}/**/*.txt")
    assert found == [f"{tmp_path}/{name}" for name in ("a/real.txt", "link.txt", "z.txt")]


@contextmanager
def without_privileges() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_folder_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a/1.txt": b"", "b/2.txt": b"", "c/3.txt": b""})
    tmp_path.chmod(0o755)
    (tmp_path / "b").chmod(0)
    monkeypatch.chdir(tmp_path)
    told: list[tuple[str, str]] = []
    with without_privileges():
        names = [name for name, _ in walk(".", unreadable=lambda *what: told.append(what))]
    (tmp_path / "b").chmod(0o755)
    assert names == ["a/1.txt", "c/3.txt"]
    assert told == [("./b", os.strerror(errno.EACCES))]
    told.clear()
    assert list(walk("none", unreadable=lambda *what: told.append(what))) == []
    assert told == [("none", os.strerror(errno.ENOENT))]


def test_folders_may_lie_deeper_than_calls(tmp_path: Path) -> None:
    inside = [tmp_path]
    for _ in range(sys.getrecursionlimit() + 50):
        inside.append(inside[-1] / "d")
        inside[-1].mkdir()
    (inside[-1] / "f").touch()
    assert [name for name, _ in walk(str(tmp_path))] == ["d/" * (len(inside) - 1) + "f"]
    (inside[-1] / "f").unlink()
    for folder in reversed(inside[1:]):  # pytest would not get rid of them
        folder.rmdir()


NAMES = st.lists(st.text("ab-.", min_size=1, max_size=2).filter(lambda name: name.strip(".")), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, max_size=12), st.lists(st.sampled_from(["**", "*", "a*", "?", ".*", "a"]), max_size=3))
def test_any_tree_is_walked_in_the_order_of_its_paths(trees: list[list[str]], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as top:
        made = set()
        for names in trees:
            path = Path(top, *names)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:  # a file is in the way of a folder
                continue
            if path.is_file():
                made.add("/".join(names))
        assert [name for name, _ in walk(top)] == sorted(made)
        wanted = "/".join([top, *pattern, "**"])
        theirs = {found for found in glob.glob(wanted, recursive=True) if os.path.isfile(found)}
        assert expand(wanted) == sorted(theirs)


class Odd(MemoryFileSystem):
    """A store that fails as some do, with an error of its own kind."""

    protocol = "odd"
    cachable = False

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no credentials\nmany more lines")

    info = isdir = exists = find = glob = _open = _fail


def test_a_store_that_does_not_answer_is_not_an_empty_one() -> None:
    fsspec.register_implementation("odd", Odd, clobber=True)
    for ask in (is_folder, exists, lambda place: list(walk(place)), lambda place: expand(f"{place}/*")):
        with pytest.raises(
            InputError, match=r"odd://x.* cannot be reached: no credentials\. Check the address and your"
        ):
            ask("odd://x")
    for read in (read_bytes, stat, open_binary):
        with pytest.raises(OSError, match="no credentials"):
            read("odd://x")


def test_an_unknown_kind_of_store_is_named() -> None:
    for ask in (read_bytes, stat, exists, is_folder, lambda place: list(walk(place))):
        with pytest.raises(InputError, match="abc://x cannot be opened: Protocol not known: abc"):
            ask("abc://x")


def test_without_fsspec_paths_work_and_urls_name_the_extra(folder: str) -> None:
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from efuda.places import *\n"
        f"print(len(list(walk({folder!r}))))\n"
        "try: read_bytes('s3://bucket/x')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "5",
        'MissingExtra Reading s3://bucket/x needs fsspec, which is not installed: pip install "efuda[ray]"',
    ]
