"""No reader ever sees half a file, and a failure names the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efuda.errors import OutputError
from efuda.files import make_folder, remove_unfinished, replacing, sha256, write_json, write_text


def test_the_new_contents_replace_the_old_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"report\.txt cannot be written: No space left on device"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    for write in (lambda: write_text(below, "x"), lambda: write_json(below, {}), lambda: make_folder(below)):
        with pytest.raises(OutputError, match="below cannot be written: Not a directory"):
            write()
    with pytest.raises(OutputError, match="file cannot be written: File exists"):
        make_folder(tmp_path / "file")


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "report.txt").mkdir()
    with pytest.raises(OutputError, match=r"report\.txt cannot be written"):
        write_text(tmp_path / "report.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]


def test_folders_are_made_with_their_parents_and_left_empty(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(make_folder(tmp_path / "a" / "b").iterdir()) == []


def test_json_reads_well_in_a_diff(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"tag": "絵札", "count": 2})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert text == '{\n  "tag": "絵札",\n  "count": 2\n}\n'
    assert json.loads(text) == {"tag": "絵札", "count": 2}


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".tags.parquet.9123.part", "tags.parquet", "notes.part"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.part", "tags.parquet"]
