"""Where tags go: every kind of file, what becomes of one that is there, and failures that stop nothing."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagging_world import choose, fake_tagger, tagged

from efuda.errors import MissingExtra, OutputError, UsageError
from efuda.tagging import SINKS, Chooser, Chosen, Failed, Rules, Style, open_sink, write
from efuda.tagging.writing import places
from efuda.tagging.writing.forms import Hydrus, merged_caption
from efuda.tagging.writing.xmp import read_tags

SCORES = {"long_hair": 0.98765, "1girl": 0.75, "general": 0.6}


def chosen_for(path: Path, scores: dict[str, float] | None = None) -> Chosen:
    return choose(scores or SCORES)._replace(path=path)


def put(kind: str, *pictures: Path, **more: Any) -> list[Failed]:
    """Write the same tags for pictures that the sink wants."""
    scores = more.pop("scores", None)
    with open_sink(kind, "fake", **more) as sink:
        return sink.write_many([chosen_for(path, scores) for path in pictures if sink.wants(path)])


# Beside the pictures


def test_caption(tmp_path: Path) -> None:
    picture = tmp_path / "a.b.jpg"
    with open_sink("txt", "fake") as sink:
        assert sink.wants(picture)
        assert sink.write_many([chosen_for(picture)]) == []
        assert not sink.wants(picture)
    assert (tmp_path / "a.b.txt").read_bytes() == b"long_hair, 1girl\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.b.txt"]


def test_caption_of_another_style(tmp_path: Path) -> None:
    put("txt", tmp_path / "a.jpg", style=Style(separator="; ", extension=".caption"))
    assert (tmp_path / "a.caption").read_text() == "long_hair; 1girl\n"


def test_json(tmp_path: Path) -> None:
    put("json", tmp_path / "a.jpg")
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "path": str(tmp_path / "a.jpg"),
        "width": 30,
        "height": 20,
        "tags": {"long_hair": 0.9877, "1girl": 0.75},
        "rating": {"general": 0.6, "sensitive": 0.0, "questionable": 0.0, "explicit": 0.0},
        "model": "fake",
    }


def test_hydrus(tmp_path: Path) -> None:
    scores = {
        "saber_(fate)": 0.9,
        "fate": 0.8,
        "some_artist": 0.7,
        "highres": 0.65,
        ":d": 0.6,
        "^_^": 0.55,
        "long_hair": 0.52,
    }
    put("hydrus", tmp_path / "a.jpg", scores={**scores, "explicit": 0.4})
    assert (tmp_path / "a.jpg.txt").read_text().splitlines() == [
        "character:saber (fate)",
        "series:fate",
        "creator:some artist",
        "meta:highres",
        "::d",
        "^_^",
        "long hair",
        "rating:explicit",
    ]
    assert Hydrus().name("a.jpg") == "a.jpg.txt"


def test_xmp_names_the_whole_file(tmp_path: Path) -> None:
    put("xmp", tmp_path / "a.jpg")
    assert read_tags((tmp_path / "a.jpg.xmp").read_bytes()) == ["long_hair", "1girl", "general"]


def test_of_pictures_that_share_a_stem_the_first_has_the_sidecar(tmp_path: Path) -> None:
    for kind, expected in (("txt", [True, False, True]), ("hydrus", [True, True, True])):
        with open_sink(kind, "fake") as sink:
            assert [sink.wants(tmp_path / name) for name in ("a.jpg", "a.png", "b.png")] == expected


def test_pages_of_an_archive_have_their_files_in_a_folder_beside_it(tmp_path: Path) -> None:
    archive = tmp_path / "comic.cbz"
    archive.write_bytes(b"PK")
    pages = [archive / "003.png", archive / "ch1" / "004.png", archive / ".." / ".." / "out.png"]
    (failed,) = put("txt", *pages)
    assert failed == Failed(pages[2], "not written: its name leads out of the archive")
    assert (tmp_path / "comic.cbz.tags" / "003.txt").read_text() == "long_hair, 1girl\n"
    assert (tmp_path / "comic.cbz.tags" / "ch1" / "004.txt").exists()
    with open_sink("txt", "fake") as sink:
        assert [sink.wants(page) for page in pages] == [False, False, True]
    (failed,) = put("embed", pages[0])
    assert "pages of archives" in failed.reason


@pytest.mark.parametrize("name", ["絵札 ①.jpg", "two\nlines.jpg", ".hidden.png", "é" * 120 + ".jpg", "-rf.jpg"])
def test_names_of_any_kind(name: str, tmp_path: Path) -> None:
    for kind in ("txt", "json", "xmp", "hydrus"):
        assert put(kind, tmp_path / name) == []
    assert len([*tmp_path.iterdir()]) == 4


# What is there already


@pytest.mark.parametrize("kind", ["txt", "json", "xmp", "hydrus"])
def test_what_is_there_is_left_alone(kind: str, tmp_path: Path) -> None:
    name = {"xmp": "a.jpg.xmp", "hydrus": "a.jpg.txt"}.get(kind, f"a.{kind}")
    (tmp_path / name).write_text("by hand")
    with open_sink(kind, "fake") as sink:
        assert not sink.wants(tmp_path / "a.jpg")
        sink.write_many([chosen_for(tmp_path / "a.jpg")])  # written by hand while the model was at work
    assert (tmp_path / name).read_text() == "by hand"
    (tmp_path / name).write_text("")  # a power cut may leave an empty file
    put(kind, tmp_path / "a.jpg")
    assert (tmp_path / name).read_bytes()


def test_replaced_twice_what_a_person_wrote_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("by hand")
    (tmp_path / "a.txt").chmod(0o640)
    for _ in range(2):
        put("txt", tmp_path / "a.jpg", existing="replace")
    assert (tmp_path / "a.txt").read_text() == "long_hair, 1girl\n"
    assert (tmp_path / "a.txt.bak").read_text() == "by hand"
    assert (tmp_path / "a.txt.bak2").read_text() == "long_hair, 1girl\n"
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_merged_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("smile")
    (tmp_path / "a.txt").symlink_to("real.txt")
    put("txt", tmp_path / "a.jpg", existing="merge")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "smile, long_hair, 1girl\n"


@pytest.mark.parametrize(
    ("text", "separator", "merged"),
    [
        ("Long Hair, smile\n", ", ", "Long Hair, smile, 1girl\n"),
        ("smile,1girl,", ", ", "smile,1girl, long_hair\n"),
        ("A girl who smiles.\nlong hair\n\n", ", ", "A girl who smiles.\nlong hair, 1girl\n"),
        ("1girl,long_hair", ", ", "1girl,long_hair"),  # nothing is missing: not a byte changes
        ("", ", ", "long_hair, 1girl\n"),
        ("\ufeffsmile", ", ", "\ufeffsmile, long_hair, 1girl\n"),
        ("a\r\nlong_hair\r\n", "\n", "a\r\nlong_hair\n1girl\n"),
        ("smile 1girl", " ", "smile 1girl long_hair\n"),
    ],
)
def test_a_caption_is_added_to(text: str, separator: str, merged: str) -> None:
    assert merged_caption(text, ["long_hair", "1girl"], separator) == merged


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(text=TEXT, tags=st.lists(TEXT, max_size=4), separator=st.sampled_from([", ", ",", "; ", " ", "\n", "|"]))
def test_adding_to_a_caption_again_changes_nothing(text: str, tags: list[str], separator: str) -> None:
    once = merged_caption(text, tags, separator)
    assert merged_caption(once, tags, separator) == once
    stripped = text.rstrip(f"{separator} \t\r\n")
    assert once.startswith(stripped.rstrip())


def test_json_is_added_to(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"tags": {"1girl": 1.0, "mine": 1.0}, "note": "by hand"}')
    for _ in range(2):
        assert put("json", tmp_path / "a.jpg", existing="merge") == []
    merged = json.loads(file.read_text())
    assert merged["tags"] == {"1girl": 1.0, "mine": 1.0, "long_hair": 0.9877}
    assert (merged["note"], merged["model"]) == ("by hand", "fake")
    for other in ("[1]", "{", '{"tags": ["1girl"]}'):
        file.write_text(other)
        assert "what is there is" in put("json", tmp_path / "a.jpg", existing="merge")[0].reason
        assert file.read_text() == other


@pytest.mark.parametrize("kind", ["txt", "hydrus"])
def test_what_cannot_be_read_is_not_added_to(kind: str, tmp_path: Path) -> None:
    for name in ("a.txt", "a.jpg.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe1\0")
    assert put(kind, tmp_path / "a.jpg", existing="merge")[0].reason == "not written: what is there is not UTF-8"


# What fails


def test_a_picture_whose_file_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "x").touch()
    pictures = [tmp_path / "a.jpg", tmp_path / "gone" / "b.jpg", tmp_path / ("n" * 254 + "."), tmp_path / "c.jpg"]
    failed = put("txt", *pictures)
    assert [(one.path, one.reason) for one in failed] == [
        (pictures[1], "not written: the file or its folder is gone"),
        (pictures[2], "not written: the name would be too long"),
    ]
    assert sorted(path.name for path in tmp_path.glob("?.txt")) == ["a.txt", "c.txt"]


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.txt").write_text("by hand")

    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places.os, "link", full)
    monkeypatch.setattr(places.os, "replace", full)
    failed = put("txt", tmp_path / "a.jpg", tmp_path / "b.jpg", existing="replace")
    assert [one.reason for one in failed] == ["not written: no space left"] * 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b.txt": "by hand"}


def test_writing_goes_on_after_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    results = [tagged(SCORES, str(tmp_path / "a.jpg")), Failed(tmp_path / "b.jpg", "truncated")]
    results += [tagged(SCORES, str(tmp_path / "gone" / "c.jpg")), tagged(SCORES, str(tmp_path / "d.jpg"))]
    with open_sink("txt", "fake") as sink:
        written = list(write(results, Chooser(fake_tagger()), sink, batch=2))
    assert sorted(one.path.name for one in written if isinstance(one, Failed)) == ["b.jpg", "c.jpg"]
    assert [one.path.name for one in written if isinstance(one, Chosen)] == ["a.jpg", "d.jpg"]


# One file for all


def test_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "tags.jsonl"
    with open_sink("jsonl", "fake", out=out) as sink:
        sink.write_many([chosen_for(Path(name)) for name in ("one.jpg", "два.jpg", os.fsdecode(b"\xff.jpg"))])
        assert out.read_bytes().count(b"\n") == 3, "a killed job keeps what it wrote"
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["path"] for line in lines] == ["one.jpg", "два.jpg", os.fsdecode(b"\xff.jpg")]
    assert lines[0]["tags"] == {"long_hair": 0.9877, "1girl": 0.75}


def test_csv(tmp_path: Path) -> None:
    rules = Rules(remove_underscore=True)
    with open_sink("csv", "fake", out=tmp_path / "tags.csv") as sink:
        sink.write_many([choose(SCORES, rules)._replace(path=Path('a, "b".jpg'))])
    with (tmp_path / "tags.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "width", "height", "tags", "scores", "rating"],
            ['a, "b".jpg', "30", "20", "long_hair 1girl", "0.9877 0.7500", "general"],
        ]


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", os.fsdecode(b"\xff.jpg")):
        with open_sink("csv", "fake") as sink:
            sink.write_many([chosen_for(Path(name))])
        assert capsys.readouterr().out.splitlines()[1].endswith(".jpg,30,20,long_hair 1girl,0.9877 0.7500,general")


def test_parquet(tmp_path: Path) -> None:
    out = tmp_path / "tags.parquet"
    put("parquet", Path("a.jpg"), Path("б.jpg"), out=out)
    with open_sink("parquet", "fake", out=out) as sink:
        assert [sink.wants(Path(name)) for name in ("a.jpg", "c.jpg")] == [False, True]
        sink.write_many([chosen_for(Path("c.jpg"))])
    rows = parquet.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == ["a.jpg", "б.jpg", "c.jpg"]
    assert (rows[0]["tags"], rows[0]["rating"], rows[0]["model"]) == (["long_hair", "1girl"], "general", "fake")
    assert rows[0]["scores"] == pytest.approx([0.9877, 0.75])
    assert [*tmp_path.iterdir()] == [out]


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "efuda\[train\]"'):
        open_sink("parquet", "fake", out=tmp_path / "tags.parquet")


def test_kohyas_files(tmp_path: Path) -> None:
    put("kohya", Path("a.jpg"), out=tmp_path / "all.json")
    put("kohya", Path("a.jpg"), Path("b.jpg"), out=tmp_path / "all.json")
    one = {"tags": "long_hair, 1girl", "image_size": [30, 20]}
    assert json.loads((tmp_path / "all.json").read_text()) == {"a.jpg": one, "b.jpg": one}
    put("kohya", Path("a.jpg"), out=tmp_path / "all.jsonl")
    line = {"image_path": "a.jpg", "caption": "long_hair, 1girl", "image_size": [30, 20]}
    assert json.loads((tmp_path / "all.jsonl").read_text()) == line


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_stopped_job_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"tags.{kind}"
    names = [Path('a, "b".jpg'), Path("c\u2028d\n.jpg"), Path("e.jpg")]
    with pytest.raises(KeyboardInterrupt), open_sink(kind, "fake", out=out) as sink:
        sink.write_many([chosen_for(name) for name in names[:2]])
        raise KeyboardInterrupt
    with out.open("a") as file:
        file.write('{"path": "half' if kind == "jsonl" else '"half\n')  # what a kill in the middle of a line leaves
    with open_sink(kind, "fake", out=out) as sink:
        assert [sink.wants(name) for name in names] == [False, False, True]
        sink.write_many([chosen_for(names[2])])
    put(kind, *names, out=tmp_path / "whole")
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "kohya"])
@pytest.mark.parametrize("text", ["by hand", "by hand\n", '{"path": "a.jpg"}', "[1]\n", "a,b\n1,2\n", "{}"])
def test_file_of_somebody_else_is_left_alone(kind: str, text: str, tmp_path: Path) -> None:
    out = tmp_path / "tags"
    out.write_text(text)
    with pytest.raises(UsageError, match=r"Choose another --out, or --replace it"), open_sink(kind, "fake", out=out):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"tags": text}
    put(kind, Path("a.jpg"), out=out, existing="replace")
    assert (tmp_path / "tags.bak").read_text() == text
    assert out.stat().st_size > len(text)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "kohya"])
def test_job_without_results_leaves_no_file(kind: str, tmp_path: Path) -> None:
    with open_sink(kind, "fake", out=tmp_path / "tags"):
        pass
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "kohya"])
def test_two_jobs_do_not_write_one_file(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "tags"
    with open_sink(kind, "fake", out=out) as sink:
        sink.write_many([chosen_for(Path("a.jpg"))])
        for existing in ("skip", "replace"):
            with (
                pytest.raises(UsageError, match="is being written by another job"),
                open_sink(kind, "fake", out=out, existing=existing),
            ):
                pass
    with open_sink(kind, "fake", out=out) as sink:
        assert not sink.wants(Path("a.jpg"))
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_one_file_on_a_full_disk_ends_with_a_whole_line(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; sys.path[:0] = sys.argv[3:]; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from pathlib import Path; from test_sinks import put\n"
        "from efuda.errors import OutputError\n"
        "try: put(sys.argv[2], *[Path(f'{n}.jpg') for n in range(5)], out=Path(sys.argv[1]))\n"
        "except OutputError: sys.exit(3)\n"
        "try: put(sys.argv[2], *[Path(f'{n}.jpg') for n in range(5, 50)], out=Path(sys.argv[1]))\n"
        "except OutputError: sys.exit(4)\n"
    )
    out = tmp_path / "tags.jsonl"
    done = subprocess.run([sys.executable, "-c", limited, out, "jsonl", Path(__file__).parent, *sys.path], check=False)
    assert done.returncode == 4
    assert [json.loads(line)["path"] for line in out.read_text().splitlines()] == [f"{n}.jpg" for n in range(5)]


def test_two_jobs_in_one_folder_leave_whole_files(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{number}.jpg" for number in range(40)]
    with open_sink("txt", "fake", existing="replace") as one, open_sink("txt", "fake", existing="replace") as other:
        for path in pictures:
            for sink in (one, other):
                assert sink.wants(path)
                assert sink.write_many([chosen_for(path)]) == []
    assert {path.read_text() for path in tmp_path.glob("*.txt")} == {"long_hair, 1girl\n"}
    assert not [*tmp_path.glob(".*")]


# What is refused


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda out: open_sink("yaml", "fake"), "--to yaml is not known; choose one of txt, json, jsonl, csv, parquet"),
        (lambda out: open_sink("txt", "fake", out=out), "--out goes with jsonl, csv"),
        (lambda out: open_sink("parquet", "fake"), "name it with --out"),
        (lambda out: open_sink("csv", "fake", out=out, existing="merge"), "--merge goes with files beside"),
        (lambda out: open_sink("txt", "fake", style=Style(extension=".PNG")), "--caption-extension .PNG is none"),
        (lambda out: open_sink("txt", "fake", style=Style(separator="")), "--caption-separator is empty"),
    ],
)
def test_refused(attempt: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        attempt(tmp_path / "all")


def test_kinds() -> None:
    assert SINKS == ("txt", "json", "jsonl", "csv", "parquet", "xmp", "hydrus", "embed", "kohya")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "kohya"])
def test_a_file_that_cannot_be_made(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), open_sink(kind, "fake", out=tmp_path / "no" / "tags"):
        pass
