"""Which pictures `efuda tag` works on: lists, archives, URLs, animations, watched folders; and the same in Python."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import Efuda
from PIL import Image
from test_tagging import wd_directory

import efuda
from efuda.tagging import Failed, Tagged, Tagger

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def wd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says reddish of red pictures, bluish and ao of blue ones."""
    return wd_directory(tmp_path_factory.mktemp("model") / "wd", fixed_batch=False)


def png(colour: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(data, "PNG")
    return data.getvalue()


def lines(text: str) -> dict[str, list[str]]:
    """Path → tags of JSON lines."""
    found = [json.loads(line) for line in text.splitlines()]
    return {one["path"]: list(one["tags"]) for one in found}


def test_a_list_on_standard_input(wd: Path, tmp_path: Path) -> None:
    odd = tmp_path / "two\nlines.png"
    odd.write_bytes(png(RED))
    (tmp_path / "b.png").write_bytes(png(BLUE))
    command = [sys.executable, "-m", "efuda", "-q", "tag", "-", "-m", str(wd), "--to", "jsonl"]
    listed = f"{odd}\0{tmp_path / 'b.png'}\0{tmp_path / 'gone.png'}\0"
    done = subprocess.run(command, input=listed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert f"skipped {tmp_path / 'gone.png'}: missing" in done.stderr
    assert lines(done.stdout) == {str(odd): ["reddish"], str(tmp_path / "b.png"): ["bluish", "ao"]}


def test_pages_of_an_archive_and_captions_beside_it(wd: Path, tmp_path: Path, efuda: Efuda) -> None:
    with zipfile.ZipFile(tmp_path / "comic.cbz", "w") as archive:
        archive.writestr("10.png", png(BLUE))
        archive.writestr("2.png", png(RED))
        archive.writestr("3.png", b"broken")
    done = efuda("tag", tmp_path, "-m", wd, "--json")
    assert (done.code, done.data["tagged"]) == (1, 2)
    assert [(Path(one["path"]).name, one["reason"]) for one in done.data["failed"]] == [("3.png", "not a picture")]
    captions = {path.name: path.read_text() for path in (tmp_path / "comic.cbz.tags").iterdir()}
    assert captions == {"2.txt": "reddish\n", "10.txt": "bluish, ao\n"}


def test_urls_go_into_one_file(wd: Path, tmp_path: Path, efuda: Efuda) -> None:
    with zipfile.ZipFile(tmp_path / "far.zip", "w") as archive:
        archive.writestr("art/a.png", png(RED))
        archive.writestr("art/readme.txt", b"")
    place = f"zip://art::{tmp_path}/far.zip"
    done = efuda("tag", place, "-m", wd, "--to", "jsonl")
    assert done.code == 0, done.err
    assert list(lines(done.out).values()) == [["reddish"]]
    refused = efuda("tag", place, "-m", wd)
    assert refused.code == 2 and "choose --to jsonl, csv or parquet" in refused.err


def test_an_animation_has_the_tags_of_all_its_frames(wd: Path, tmp_path: Path, efuda: Efuda) -> None:
    first, *others = (Image.new("RGB", (20, 20), colour) for colour in (RED, RED, BLUE, BLUE))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others, duration=100, loop=0)
    both = efuda("tag", tmp_path, "-m", wd, "--to", "jsonl")
    one = efuda("tag", tmp_path, "-m", wd, "--to", "jsonl", "--frames", 1)
    assert set(next(iter(lines(both.out).values()))) == {"reddish", "bluish", "ao"}
    assert next(iter(lines(one.out).values())) == ["reddish"]


def test_a_video(wd: Path, tmp_path: Path, efuda: Efuda) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            picture = Image.new("RGB", (64, 64), RED if number < 20 else BLUE)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    done = efuda("tag", tmp_path, "-m", wd, "--to", "jsonl", "--videos")
    assert {"reddish", "bluish"} <= set(next(iter(lines(done.out).values())))
    assert efuda("tag", tmp_path, "-m", wd, "--json").data["found"] == 0


def test_watching_tags_what_comes_until_it_is_stopped(wd: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "inbox", tmp_path / "tags.jsonl"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(RED))
    command = [sys.executable, "-m", "efuda", "tag", str(folder), "-m", str(wd), "--watch", "--to", "jsonl"]
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:

        def wait_for(count: int) -> None:
            end = time.monotonic() + 60
            while not (out.exists() and out.read_bytes().count(b"\n") == count):
                assert running.poll() is None and time.monotonic() < end
                time.sleep(0.1)

        wait_for(1)
        (folder / "b.png").write_bytes(png(BLUE))
        wait_for(2)
        running.send_signal(signal.SIGINT)
        said, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert said.decode().strip() == "2 pictures tagged."
    assert b"Traceback" not in errors
    assert list(lines(out.read_text()).values()) == [["reddish"], ["bluish", "ao"]]


def test_watching_names_what_fails_as_it_happens(wd: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "inbox").mkdir()
    (folder / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "efuda", "-q", "tag", str(folder), "-m", str(wd), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == f"skipped {folder / 'bad.png'}: not a picture\n"
        running.send_signal(signal.SIGINT)
        _, more = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "bad.png" not in more, "named once"


@pytest.mark.parametrize(("kind", "name"), [("parquet", "tags.parquet"), ("kohya", "tags.json")])
def test_a_folder_without_pictures_is_said(kind: str, name: str, wd: Path, tmp_path: Path, efuda: Efuda) -> None:
    (folder := tmp_path / "empty").mkdir()
    done = efuda("tag", folder, "-m", wd, "--to", kind, "--out", tmp_path / name)
    assert done.code == 0 and done.out.strip() == f"No pictures were found, and {tmp_path / name} was not written."
    assert not (tmp_path / name).exists()


def test_three_lines_of_python(wd: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(RED))
    (tmp_path / "b.png").write_bytes(b"broken")
    tagger = efuda.Tagger(str(wd))
    one, other = tagger.tag(str(tmp_path))
    assert isinstance(one, Tagged) and [name for name, _ in one.present(tagger)] == ["reddish"]
    assert other == Failed(tmp_path / "b.png", "not a picture")
    assert [result.path for result in tagger.tag([tmp_path / "a.png", str(tmp_path / "a.png")])] == [tmp_path / "a.png"]
    assert list(tagger.tag([])) == []


def test_pictures_that_are_open_already(wd: Path) -> None:
    tagger = Tagger(wd)
    veiled = Image.new("RGBA", (10, 10), (0, 0, 255, 255))
    found = list(tagger.tag(Image.new("RGB", (40, 30), colour) for colour in (RED, BLUE)))
    found += tagger.tag(veiled)
    said = [[name for name, _ in one.present(tagger)] for one in found if isinstance(one, Tagged)]
    assert said == [["reddish"], ["bluish", "ao"], ["bluish", "ao"]]
    assert [(str(one.path), one.size) for one in found if isinstance(one, Tagged)] == [
        *(("0", (40, 30)), ("1", (40, 30))),
        ("0", (10, 10)),
    ]
