"""Pictures are found in order, whatever folders do meanwhile; lists on standard input; folders that are watched."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn import encoded, soft

from efuda.errors import InputError
from efuda.images import find_pictures, paths_from, read_rgb, watch


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_pictures_are_found_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "z/c.webp", "m/d.avif", ".hidden.jpg", ".git/e.jpg", "notes.txt"):
        touch(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures([tmp_path])]
    assert found == ["a.JPG", "b.png", "m/d.avif", "z/c.webp"]


def test_a_file_named_outright_is_taken_whatever_its_name_and_each_only_once(tmp_path: Path) -> None:
    one, other = touch(tmp_path / "one.jpg"), touch(tmp_path / "other.download")
    assert list(find_pictures([other, tmp_path, one, other])) == [other, one]


def test_a_loop_of_links_does_not_trap_the_walk(tmp_path: Path) -> None:
    picture = touch(tmp_path / "folder" / "a.jpg")
    (tmp_path / "folder" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert list(find_pictures([tmp_path])) == [picture]


def test_all_formats_are_found_and_videos_if_asked(tmp_path: Path) -> None:
    stills = "a.jpg b.png c.webp d.gif e.apng f.avif g.heic h.jxl i.bmp j.tiff k.jfif".split()  # noqa: SIM905
    for name in (*stills, "x.mp4", "y.webm", "z.psd"):
        touch(tmp_path / name)
    assert [path.name for path in find_pictures([tmp_path])] == stills
    assert [path.name for path in find_pictures([tmp_path], videos=True)] == [*stills, "x.mp4", "y.webm"]


def test_only_this_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "deeper/b.jpg"):
        touch(tmp_path / name)
    assert list(find_pictures([tmp_path], recursive=False)) == [tmp_path / "a.jpg"]


def test_names_in_any_script_and_with_line_ends(tmp_path: Path) -> None:
    names = [
        "初音ミク.png",
        "Ωμέγα.png",
        "a\nb.png",
        " .png",
        "🎨.png",
        "'\"$(x).png",
        "-rf.png",
        "é.png",
        "e\u0301.png",
    ]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"\xff\xfe.png"))
    data = encoded(soft(), "PNG")
    for name in names:
        (tmp_path / name).write_bytes(data)
    found = list(find_pictures([tmp_path]))
    assert {path.name for path in found} == set(names)
    assert all(read_rgb(path).size == (97, 83) for path in found)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_does_not_stop_the_walk(tmp_path: Path) -> None:
    touch(tmp_path / "closed" / "a.jpg")
    touch(tmp_path / "open" / "b.jpg")
    (tmp_path / "closed").chmod(0)
    skipped: list[tuple[Path, str]] = []
    try:
        found = list(find_pictures([tmp_path], skipped=lambda path, reason: skipped.append((path, reason))))
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert found == [tmp_path / "open" / "b.jpg"]
    assert skipped == [(tmp_path / "closed", "no permission to read it")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "gone"), "vanished"),
        (PermissionError(13, "no"), "no permission to read it"),
        (OSError(5, "bad disk"), "input/output error"),
    ],
)
def test_whatever_a_folder_does_the_walk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        touch(tmp_path / name)
    real = os.scandir

    def scandir(folder: str) -> object:
        if str(folder).endswith("b"):
            raise error
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    skipped: list[tuple[str, str]] = []
    found = list(find_pictures([tmp_path], skipped=lambda path, why: skipped.append((path.name, why))))
    assert [path.name for path in found] == ["1.jpg", "3.jpg"]
    assert skipped == [("b", reason)]
    assert len(list(find_pictures([tmp_path]))) == 2  # nobody has to listen


def test_folders_that_vanish_during_the_walk(tmp_path: Path) -> None:
    for number in range(20):
        touch(tmp_path / f"{number:02}" / "a.jpg")
    found = find_pictures([tmp_path])
    next(found)
    for number in range(10, 20):
        (tmp_path / f"{number:02}" / "a.jpg").unlink()
        (tmp_path / f"{number:02}").rmdir()
    assert len(list(found)) == 9


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    skipped: list[tuple[str, str]] = []
    for place in (tmp_path, tmp_path / "pipe.jpg"):
        assert list(find_pictures([place], skipped=lambda path, why: skipped.append((path.name, why)))) == []
    assert skipped == [("pipe.jpg", "not a file")] * 2


def test_a_link_that_leads_nowhere_is_named_later(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert list(find_pictures([tmp_path])) == [tmp_path / "a.jpg"]


def test_what_is_missing_can_be_reported_instead(tmp_path: Path) -> None:
    skipped: list[tuple[Path, str]] = []
    places = [tmp_path / "nowhere", tmp_path / ("x" * 5000), touch(tmp_path / "a.jpg")]
    found = find_pictures(places, strict=False, skipped=lambda path, why: skipped.append((path, why)))
    assert list(found) == [tmp_path / "a.jpg"]
    assert skipped == [(places[0], "missing"), (places[1], "missing")]


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        list(find_pictures([tmp_path / "nowhere"]))


def test_a_list_of_lines(tmp_path: Path) -> None:
    assert list(paths_from(io.BytesIO(b"a.jpg\n b c.png\r\n\n\xe7\xb5\xb5.webp"))) == [
        Path("a.jpg"),
        Path(" b c.png"),
        Path("絵.webp"),
    ]
    assert list(paths_from(io.BytesIO(b""))) == []
    assert list(paths_from(io.BytesIO(b"only.jpg\r\n"))) == [Path("only.jpg")]


def test_a_list_with_nuls_keeps_line_ends() -> None:
    data = b"a\nb.jpg\0c.png\r\0\0last"
    assert list(paths_from(io.BytesIO(data))) == [Path("a\nb.jpg"), Path("c.png\r"), Path("last")]
    assert list(paths_from(io.BytesIO(b"a\nb.jpg"), separator=b"\0")) == [Path("a\nb.jpg")]


def test_paths_come_as_they_arrive() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        paths = paths_from(stream)
        os.write(writing, b"first.jpg\nsec")
        assert next(paths) == Path("first.jpg")
        os.write(writing, b"ond.jpg\n")
        assert next(paths) == Path("second.jpg")
        os.close(writing)
        assert list(paths) == []


def test_a_long_list_is_split_anywhere() -> None:
    names = [f"folder/{number}/picture.jpg" for number in range(20_000)]
    assert list(paths_from(io.BytesIO("\n".join(names).encode()))) == [Path(name) for name in names]


# Watching


class Watching:
    """What `watch` yields, in a thread."""

    def __init__(self, *paths: Path, **options: float) -> None:
        self.found: list[Path] = []
        self.stop = threading.Event()
        settings = {"every": 0.02, "settled": 0.08, **options}
        stream = watch(paths, stop=self.stop, **settings)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self._follow, args=(stream,))
        self.thread.start()

    def _follow(self, stream: Iterator[Path]) -> None:
        for path in stream:
            self.found.append(path)

    def until(self, count: int) -> list[Path]:
        ends = time.monotonic() + 20
        while len(self.found) < count and time.monotonic() < ends:
            time.sleep(0.01)
        return self.found

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_watching_yields_what_is_there_and_what_comes_and_changes(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a.jpg"), tmp_path / "new" / "b.png"
    touch(tmp_path / "notes.txt")
    with Watching(tmp_path) as watching:
        assert watching.until(1) == [first]
        touch(second)
        assert watching.until(2) == [first, second]
        first.write_bytes(b"changed")
        assert watching.until(3) == [first, second, first]
        first.unlink()
        time.sleep(0.1)
        touch(first)
        assert watching.until(4)[3:] == [first]


def test_a_file_that_grows_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "slow.jpg"
    with Watching(tmp_path, settled=0.5) as watching:
        for number in range(12):
            with path.open("ab") as file:
                file.write(bytes([number]))
            time.sleep(0.08)
            assert watching.found == []
        assert watching.until(1) == [path]
    assert len(watching.found) == 1


def test_watching_survives_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with Watching(folder) as watching:
        path = touch(folder / "a.jpg")
        assert watching.until(1) == [path]
        path.unlink()
        folder.rmdir()
        time.sleep(0.1)
        touch(path)
        assert watching.until(2) == [path, path]


def test_pages_of_an_archive_that_arrives(tmp_path: Path) -> None:
    with Watching(tmp_path) as watching:
        with zipfile.ZipFile(tmp_path / "part", "w") as archive:
            for name in ("10.png", "2.png"):
                archive.writestr(name, encoded(soft(), "PNG"))
        (tmp_path / "part").rename(tmp_path / "comic.cbz")
        assert [path.name for path in watching.until(2)] == ["2.png", "10.png"]


def test_watching_ends_when_it_is_closed(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    stream = watch([tmp_path], every=0.01, settled=0.0)
    assert next(stream).name == "a.jpg"
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(stream)
