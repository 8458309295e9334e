"""docs/tagging.md and the command itself: every option and kind is named, and the examples are what it writes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from conftest import Efuda
from PIL import Image
from tagging_world import VOCABULARY, constant_tagger

from efuda.cli import app
from efuda.tagging import SINKS
from efuda.tagging.writing.containers import read_xmp

PAGE = (Path(__file__).parent.parent / "docs" / "tagging.md").read_text(encoding="utf-8")
COMMAND = typer.main.get_command(app).commands["tag"]  # type: ignore[attr-defined]
SCORES = {
    "1girl": 0.99,
    "long_hair": 0.95,
    "rin_(swimsuit)_(fate)": 0.9,
    "very_long_hair": 0.85,
    "blue_eyes": 0.8,
    "^_^": 0.7,
    "red_eyes": 0.6,
    "smile": 0.3,
    "sensitive": 0.8,
}


def examples() -> list[tuple[str, str]]:
    block = re.search(r"```captions\n(.*?)```", PAGE, re.DOTALL)
    assert block
    return [tuple(part.strip() for part in line.split("=>")) for line in block[1].splitlines()]  # type: ignore[misc]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two pictures, and `any`, a real network that gives all of them the same scores, beside it."""
    monkeypatch.chdir(tmp_path)
    root, folder = tmp_path / "any", tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    constant_tagger(root, SCORES)
    (root / "tag_implications.csv").write_text("very_long_hair,long_hair\n")
    for number, path in enumerate((folder / "a.jpg", folder / "deeper" / "b.jpg")):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(path)
    return folder


@pytest.mark.parametrize(("flags", "caption"), examples())
def test_captions_of_the_page(flags: str, caption: str, pictures: Path, efuda: Efuda) -> None:
    done = efuda("tag", pictures, "--model", "any", *shlex.split(flags))
    assert done.code == 0, done.err
    assert (pictures / "a.txt").read_text() == caption + "\n"


def test_the_page_names_every_option_and_kind() -> None:
    for option in COMMAND.params:
        for name in option.opts if option.param_type_name == "option" else ():
            assert f"`{name}" in PAGE or name in ("--model", "-m", "--out", "--to", "--help"), name
    for kind in SINKS:
        assert f"| `{kind}` |" in PAGE


@pytest.mark.parametrize("command", re.findall(r"^efuda tag (.*)", PAGE, re.MULTILINE))
def test_commands_of_the_page_are_understood(command: str) -> None:
    COMMAND.make_context("tag", shlex.split(command))


def test_every_option_may_have_underscores() -> None:
    words = ["folder", "--model", "m", "--use_rating_tags", "--caption_extension=.cap", "--undesired_tags", "a_b"]
    found = COMMAND.make_context("tag", words).params
    assert (found["use_rating_tags"], found["caption_extension"], found["undesired_tags"]) == (True, ".cap", "a_b")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--merge --replace", "exclude each other"),
        ("--embed --to txt", "give one of them"),
        ("--output-path a.json --out b.json", "give one of them"),
        ("--policy p=r --threshold 0.5", "leave out --threshold"),
        ("--top 3 --general-threshold 0.5", "know no thresholds"),
        ("--implications-file a.csv", "goes with --implications"),
        ("--keep-mtime", "goes with --embed"),
        ("--policy none", "has no thresholds for the policy"),
        ("--tag-replacement a", "is not source,target"),
        ("--to parquet", "name it with --out"),
        ("--use-quality-tags", "has no tags of quality"),
        ("--exclusive absent.toml", "absent.toml does not exist"),
    ],
)
def test_what_does_not_go_together(flags: str, message: str, pictures: Path, efuda: Efuda) -> None:
    done = efuda("tag", pictures, "--model", "any", *flags.split())
    assert done.code in (2, 3) and message in done.err
    assert [path.name for path in pictures.iterdir() if path.is_file()] == ["a.jpg"]


def test_kohyas_file_subfolders_and_frequencies(pictures: Path, tmp_path: Path, efuda: Efuda) -> None:
    out = tmp_path / "all.json"
    words = ["--output_path", out, "--no-recursive", "--frequency_tags", "--max-tags", 1]
    done = efuda("tag", pictures, "--model", "any", *words)
    assert json.loads(out.read_text()) == {str(pictures / "a.jpg"): {"tags": "1girl", "image_size": [30, 20]}}
    assert done.out.splitlines() == ["1 picture tagged.", "        1  1girl"]
    done = efuda("tag", pictures, "--model", "any", "--output_path", out, "--frequency_tags", "--json")
    assert (done.data["tagged"], done.data["kept"]) == (1, 1)
    assert done.data["frequencies"]["1girl"] == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "kohya"])
def test_trying_out_a_replacement_replaces_nothing(kind: str, pictures: Path, tmp_path: Path, efuda: Efuda) -> None:
    out = tmp_path / "tags"
    words = ["tag", pictures, "--model", "any", "--to", kind, "--out", out]
    assert efuda(*words).code == 0
    before = out.read_bytes()
    done = efuda(*words, "--replace", "--dry-run")
    assert "2 pictures would be tagged" in done.out
    assert out.read_bytes() == before and not (tmp_path / "tags.bak").exists()


def test_embedding_from_the_command_line(pictures: Path, efuda: Efuda) -> None:
    (pictures / "deeper" / "b.jpg").write_bytes(b"\xff\xd8\xff")
    done = efuda("tag", pictures, "--model", "any", "--embed", "--json")
    assert done.code == 1 and [Path(one["path"]).name for one in done.data["failed"]] == ["b.jpg"]
    assert b"rin_(swimsuit)_(fate)" in (read_xmp((pictures / "a.jpg").read_bytes()) or b"")


def test_the_pages_scores_are_the_tests() -> None:
    assert set(SCORES) <= set(VOCABULARY.names)
    for name, score in SCORES.items():
        assert re.search(rf"`?{re.escape(name)}`?\s+{score}" if name != "sensitive" else "rating sensitive", PAGE)
