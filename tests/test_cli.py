"""The command line: exit codes, what goes to which stream, data on request, and a set of flags that is kept."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import typer.main
from conftest import TINY, Done, Efuda

from efuda.artifacts import Dataset, Model, Run
from efuda.cli import app
from efuda.recipes import load_recipe, recipe_names

FLAGS: dict[str, set[str]] = {
    "": {"--version", "--verbose", "-v", "--quiet", "-q", "--install-completion", "--show-completion"},
    "demo": {"--out", "--set", "--json"},
    "prepare": {
        *("--images", "--out", "--recipe", "-r", "--set", "--extend", "--dry-run", "--overwrite", "--workers", "--ray"),
        "--json",
    },
    "train": {"--out", "--recipe", "-r", "--set", "--json"},
    "export": {"--out", "--checkpoint", "--int8", "--dataset", "--json"},
    "calibrate": {"--policy", "--split", "--workers", "--json"},
    "evaluate": {
        *("--split", "--minimum-positives", "--policy", "--against", "--aliases", "--diligent", "--labels"),
        *("--workers", "--out", "--json"),
    },
    "explain": {"--model", "-m", "--out", "--method", "--json"},
    "tag": {
        *("--model", "-m", "--to", "--out", "--output-path", "--embed", "--keep-mtime", "--skip-existing", "--merge"),
        *("--append-tags", "--replace", "--caption-extension", "--caption-extention", "--caption-separator"),
        *("--threshold", "--thresh", "--general-threshold", "--character-threshold", "--copyright-threshold"),
        *("--artist-threshold", "--meta-threshold", "--policy", "--top", "--max-tags", "--undesired-tags"),
        *("--implications", "--implications-file", "--exclusive", "--remove-underscore", "--character-tag-expand"),
        *("--character-tags-first", "--always-first-tags", "--tag-replacement", "--use-rating-tags"),
        *("--use-rating-tags-as-last-tag", "--use-quality-tags", "--use-quality-tags-as-last-tag", "--recursive"),
        *("--no-recursive", "--batch", "--batch-size", "--frequency-tags", "--dry-run", "--json", "--videos"),
        *("--frames", "--reduced-decode", "--full-decode", "--watch", "--scores", "--no-scores", "--workers", "--ray"),
        *("--probabilities",),
    },
    "collection": set(),
    "collection add": {
        *("--model", "-m", "--threshold", "--scores", "--no-scores", "--batch", "--batch-size", "--workers", "--json"),
    },
    "collection status": {"--json"},
    "collection show": {"--json"},
    "collection edit": {
        *("--add", "-a", "--remove", "-r", "--forget", "-f", "--rating", "--by", "--dry-run", "--json"),
    },
    "collection similar": {"--limit", "--among", "--paths", "--json"},
    "collection duplicates": {"--near", "--limit", "--offset", "--json"},
    "collection merge": {"--by", "--json"},
    "collection remove": {"--back", "--by", "--dry-run", "--json"},
    "collection undo": {"--by", "--dry-run", "--json"},
    "collection redo": {"--by", "--dry-run", "--json"},
    "collection history": {"--limit", "--before", "--json"},
    "collection import-tags": {"--name", "--dry-run", "--json"},
    "collection relations": {"--all", "--dry-run", "--json"},
    "collection scan": {"--yes", "--forget", "--dry-run", "--json"},
    "collection watch": {"--model", "-m", "--every"},
    "collection backup": {"--keep", "--json"},
    "collection restore": {"--dry-run", "--json"},
    "collection check": {"--files", "--json"},
    "collection export": {
        *("--to", "--out", "--decided", "--merge", "--replace", "--remove-underscore", "--links", "--dry-run"),
        "--json",
    },
    "push": set(),
    "push hydrus": {
        *("--url", "--service", "--key-file", "--certificate", "--models", "--again", "--dry-run", "--json"),
    },
    "push szurubooru": {"--url", "--key-file", "--certificate", "--models", "--again", "--dry-run", "--json"},
    "search": {"--limit", "--offset", "--paths", "--paths0", "-0", "--ids", "--count", "--facets", "--json"},
    "complete": {"--at", "--limit", "--json"},
    "serve": {
        *("--model", "-m", "--host", "--port", "--name", "--password-file", "--token-file", "--set-password"),
        *("--read-only", "--workers"),
    },
    "models": {"--json"},
    "recipes": {"--json"},
    "doctor": {"--json"},
}


@pytest.fixture
def pictures(dump: Path, tmp_path: Path) -> Path:
    """A folder of ten pictures from the dump."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted((dump / "512px").rglob("*.jpg"))[:10]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def collection(model: Model, dump: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of the whole dump; tests only search it."""
    from efuda.collection import Collection
    from efuda.images import find_pictures
    from efuda.tagging import Tagger, tag

    path = tmp_path_factory.mktemp("collection") / "art.efuda"
    tagger = Tagger.open(model.root)
    with Collection.open(path, create=True) as opened:
        opened.add(tag(tagger, find_pictures([dump / "512px"])), tagger)
    return path


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, groups and the program itself included."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for sub, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {sub}".strip(), inner)

    return walk("", typer.main.get_command(app))


# Flags and help


def test_flags_are_these_and_no_others() -> None:
    """A new flag is a conscious change: values belong in recipes."""
    found = {
        name: {
            text
            for parameter in command.params
            if parameter.param_type_name == "option"
            for text in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in commands()
    }
    assert found == FLAGS


@pytest.mark.parametrize("name", FLAGS)
def test_help_of_every_command(name: str, efuda: Efuda) -> None:
    done = efuda(*name.split(), "--help")
    assert done.code == 0
    assert "Usage: efuda" in done.out
    assert efuda(*name.split(), "-h").out == done.out
    assert all(flag in done.out for flag in FLAGS[name] if not flag.startswith("--no-"))


def test_version(efuda: Efuda) -> None:
    assert efuda("--version") == Done(0, f"efuda {importlib.metadata.version('efuda')}\n", "")


# Exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["tag", "pictures"],  # no --model
        ["tag", "pictures", "--model", "model", "--no-such-flag"],
        ["tag", "pictures", "--model", "model", "--threshold", "2"],
        ["train", "dataset"],
        ["evaluate"],
    ],
)
def test_usage_is_2(arguments: list[str], efuda: Efuda) -> None:
    done = efuda(*arguments)
    assert done.code == 2
    assert "Usage: efuda" in done.err
    assert done.out == ""


def test_flags_that_do_not_go_together_are_2(efuda: Efuda, model: Model, pictures: Path) -> None:
    both = efuda("tag", pictures, "--model", model.root, "--to", "jsonl", "--json")
    assert both.code == 2 and "name a file with --out" in both.err
    unknown = efuda("tag", pictures, "--model", model.root, "--to", "xml")
    assert unknown.code == 2 and "choose one of txt, json, jsonl, csv, parquet, xmp" in unknown.err
    assert [*pictures.glob("*.txt")] == []


def test_unknown_recipe_key_is_3_and_names_the_nearest(efuda: Efuda, dataset: Dataset, tmp_path: Path) -> None:
    done = efuda("train", dataset.root, "--out", tmp_path / "run", "--set", "train.epoch=3")
    assert done.code == 3
    assert done.err.startswith("efuda: ") and "unknown key train.epoch; did you mean epochs?" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        "train {tmp} --out {tmp}/run",
        "export {tmp} --out {tmp}/model",
        "calibrate {tmp} {tmp}",
        "evaluate {tmp} {tmp}",
        "evaluate {tmp} {tmp} {tmp}",
        "export {tmp} --out {tmp}/model --int8 --dataset {tmp}",
        "explain {tmp}/picture.png glasses --model {tmp}",
        "tag {tmp} --model {tmp}",
        "collection add {tmp}/art.efuda {tmp} --model {tmp}",
        "collection status {tmp}/absent.efuda",
        "search {tmp}/absent.efuda circle",
        "models {tmp}",
        "recipes no-such-recipe",
        "prepare {tmp} --images {tmp} --out {tmp}/dataset",
    ],
)
def test_bad_input_is_3_in_one_sentence(command: str, efuda: Efuda, tmp_path: Path) -> None:
    done = efuda(*command.format(tmp=tmp_path).split())
    assert done.code == 3, done
    assert done.err.startswith("efuda: ")
    assert "Traceback" not in done.err and "bug" not in done.err
    assert done.out == ""


def test_verbose_shows_where_an_error_came_from(efuda: Efuda, tmp_path: Path) -> None:
    done = efuda("-v", "models", tmp_path)
    assert done.code == 3
    assert "Traceback" in done.err and "ArtifactError" in done.err


def test_unwritable_out_is_3(efuda: Efuda, dataset: Dataset, run: Run, model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    for command in (
        ["train", dataset.root, "--out", out],
        ["export", run.root, "--out", out],
        ["evaluate", model.root, dataset.root, "--out", out],
        ["tag", tmp_path, "--model", model.root, "--to", "csv", "--out", out],
    ):
        done = efuda(*command)
        assert done.code == 3, done
        assert "cannot be written" in done.err
    assert (tmp_path / "file").read_text() == "in the way"


def test_picture_that_fails_is_1_and_the_others_are_tagged(efuda: Efuda, model: Model, pictures: Path) -> None:
    (pictures / "text.jpg").write_text("no picture")
    done = efuda("tag", pictures, "--model", model.root)
    assert done.code == 1
    assert "10 pictures tagged" in done.out
    assert f"skipped {pictures / 'text.jpg'}: " in done.err
    assert len([*pictures.glob("*.txt")]) == 10
    assert not (pictures / "text.txt").exists()


# The way from a dump to a search


def test_prepare(efuda: Efuda, dump: Path, tmp_path: Path) -> None:
    overrides = [word for one in TINY for word in ("--set", one)]
    command = ["prepare", dump / "metadata", "--images", dump / "512px", "--out", tmp_path / "dataset", *overrides]
    done = efuda(*command, "--workers", 1, "--json")
    assert done.code == 0
    assert (done.data["entries"], done.data["kept_tags"], done.data["images_verified"]) == (120, 7, 120)
    assert done.data["sources"][0].startswith("Danbooru 2021 JSON lines: 1 file at ")
    text = efuda(*command)
    assert "images verified" in text.out and "Danbooru 2017–2020 JSON lines" in text.out
    assert "Next: efuda train" in text.err and "report.html" in text.err


def test_a_dry_run_says_the_funnel_and_writes_nothing(efuda: Efuda, dump: Path, tmp_path: Path) -> None:
    overrides = [word for one in TINY for word in ("--set", one)]
    command = ["prepare", dump / "metadata", *overrides, "--dry-run", "--workers", 1]
    done = efuda(*command, "--json", "--out", tmp_path / "dataset")
    assert done.code == 0
    assert {name: done.data[name] for name in ("entries", "sampled", "unique_tags", "kept_tags", "posts")} == {
        "entries": 120,
        "sampled": 120,
        "unique_tags": 7,
        "kept_tags": 7,
        "posts": 120,
    }
    text = efuda(*command)
    assert "kept tags" in text.out and "Nothing was written" in text.err
    assert not list(tmp_path.iterdir())
    without = efuda("prepare", dump / "metadata", "--images", dump / "512px")
    assert without.code == 2 and "--out is missing" in without.err


def test_a_dataset_is_extended(efuda: Efuda, dump: Path, tmp_path: Path) -> None:
    overrides = [word for one in TINY for word in ("--set", one)]
    command = ["prepare", dump / "metadata" / "posts000000000000.json", "--images", dump / "512px", *overrides]
    assert efuda(*command, "--out", tmp_path / "one", "--workers", 1).code == 0
    grow = ["prepare", dump / "metadata", "--extend", tmp_path / "one", *overrides, "--workers", 1, "--json"]
    done = efuda(*grow, "--out", tmp_path / "two")
    assert done.code == 0, done.err
    assert done.data["images_verified"] == 120
    same = efuda(*grow, "--out", tmp_path / "one")
    assert same.code == 3 and "the same folder" in same.err


def test_stages_from_run_to_report(efuda: Efuda, run: Run, dataset: Dataset, tmp_path: Path) -> None:
    exported = efuda("export", run.root, "--out", tmp_path / "model")
    assert exported.code == 0 and "7 tags, checked against PyTorch" in exported.out
    assert f"Next: efuda calibrate {tmp_path / 'model'} {dataset.root}" in exported.err
    assert efuda("models", tmp_path, "--json").data[0]["thresholds"] == "the family's defaults"
    assert "policies: fixed=NUMBER, mcut\n" in efuda("models", tmp_path).out
    calibrated = efuda("calibrate", tmp_path / "model", dataset.root, "--json")
    assert calibrated.code == 0 and calibrated.data["tags"] == 7
    evaluated = efuda("evaluate", tmp_path / "model", dataset.root)
    assert evaluated.code == 0
    assert "threshold 0.5" in evaluated.out and "calibrated" in evaluated.out
    assert (tmp_path / "model" / "evaluation-test" / "report.html").is_file()


def test_evaluate_json(efuda: Efuda, model: Model, dataset: Dataset, tmp_path: Path) -> None:
    done = efuda("evaluate", model.root, dataset.root, "--out", tmp_path / "report", "--json")
    assert done.code == 0
    assert done.data["split"] == "test" and done.data["pictures"] == 29
    assert done.data["calibrated"]["micro_f1"] > 0.5
    assert Path(done.data["report"]).is_file()
    unknown = efuda("evaluate", model.root, dataset.root, "--split", "exam", "--out", tmp_path / "other")
    assert unknown.code == 3 and "no posts in the split 'exam'" in unknown.err


def test_tag_json_and_again(efuda: Efuda, model: Model, pictures: Path) -> None:
    first = efuda("tag", pictures, "--model", model.root, "--json")
    assert first.code == 0
    assert first.data == {"found": 10, "tagged": 10, "to_tag": 10, "kept": 0, "from_kept_scores": 0, "failed": []}
    again = efuda("tag", pictures, "--model", model.root)
    assert again.code == 0 and "0 pictures tagged, 10 had one already." in again.out
    replaced = efuda("tag", pictures, "--model", model.root, "--replace", "--json")
    assert (replaced.data["tagged"], replaced.data["from_kept_scores"]) == (10, 10)
    assert len([*pictures.glob("*.txt.bak")]) == 10


def test_tag_dry_run_writes_nothing(efuda: Efuda, model: Model, pictures: Path) -> None:
    done = efuda("tag", pictures, "--model", model.root, "--dry-run")
    assert done.code == 0 and "10 pictures would be tagged" in done.out
    assert len([*pictures.iterdir()]) == 10


def test_tag_to_standard_output_carries_results_alone(efuda: Efuda, model: Model, pictures: Path) -> None:
    done = efuda("tag", pictures, "--model", model.root, "--to", "jsonl", "--threshold", "0")
    assert done.code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [Path(line["path"]) for line in lines] == sorted(pictures.iterdir())
    assert all(len(line["tags"]) == 7 for line in lines)
    assert "10 pictures tagged" in done.err


def test_quiet_prints_results_and_errors_only(efuda: Efuda, model: Model, pictures: Path) -> None:
    assert efuda("-q", "tag", pictures, "--model", model.root) == Done(0, "", "")
    assert efuda("tag", pictures, "--model", model.root, "--replace", "--quiet") == Done(0, "", "")


def test_help_says_all_that_it_means(efuda: Efuda) -> None:
    """Square brackets are markup: what stood in them was not shown."""
    said = " ".join(efuda("tag", "--help").out.replace("│", " ").split())
    for words in ("the cache by default", "one a core by default", "Needs the extra ray.", "left alone and a file of"):
        assert words in said


def test_watching_cannot_be_counted_beforehand(efuda: Efuda, model: Model, pictures: Path) -> None:
    done = efuda("tag", pictures, "--model", model.root, "--watch", "--dry-run")
    assert done.code == 2 and "--watch and --dry-run" in done.err


def test_probabilities_come_from_calibrate(efuda: Efuda, model: Model, pictures: Path) -> None:
    command = ["tag", pictures, "--model", model.root, "--to", "jsonl", "--threshold", 0.5]
    plain, likely = (
        [json.loads(line)["tags"] for line in efuda(*command, *more).out.splitlines()]
        for more in ((), ("--probabilities",))
    )
    assert [set(tags) for tags in plain] == [set(tags) for tags in likely]
    curves = model.calibration()
    assert curves is not None
    for scores, probabilities in zip(plain, likely, strict=True):
        dense = np.zeros((1, 7), np.float32)
        dense[0, [model.vocabulary.index[name] for name in scores]] = [*scores.values()]
        expected = curves.apply(dense)[0]
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
        for name, probability in probabilities.items():
            assert probability == pytest.approx(expected[model.vocabulary.index[name]], abs=2e-3), name


def test_a_damaged_archive_is_a_failure(efuda: Efuda, model: Model, pictures: Path) -> None:
    (pictures / "pages.zip").write_text("no archive")
    done = efuda("tag", pictures, "--model", model.root, "--json")
    assert (done.code, done.data["tagged"]) == (1, 10)
    assert done.data["failed"] == [{"path": str(pictures / "pages.zip"), "reason": "damaged archive"}]


def test_tables_do_not_fold_in_a_pipe(efuda: Efuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = efuda("recipes").out.splitlines()
    assert len(lines) == 1 + len(recipe_names()) and all(line == line.rstrip() for line in lines)


def test_collection_add_and_status(efuda: Efuda, model: Model, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "art.efuda"
    (pictures / "text.jpg").write_text("no picture")
    done = efuda("collection", "add", path, pictures, "--model", model.root, "--json")
    assert done.code == 1
    assert (done.data["added"], done.data["kept"]) == (10, 0)
    assert [Path(one["path"]).name for one in done.data["failed"]] == ["text.jpg"]
    (pictures / "text.jpg").unlink()
    again = efuda("collection", "add", path, pictures, "--model", model.root)
    assert again.code == 0 and "0 pictures added, 0 updated, 10 unchanged" in again.out
    other = efuda("collection", "add", tmp_path / "other.efuda", pictures, "--model", model.root, "--json")
    assert (other.data["added"], other.data["from_kept_scores"]) == (10, 10)
    fresh = efuda("collection", "add", tmp_path / "fresh.efuda", pictures, "-m", model.root, "--no-scores", "--json")
    assert (fresh.data["added"], fresh.data["from_kept_scores"]) == (10, 0)
    status = efuda("collection", "status", path)
    assert status.code == 0 and "most used" in status.out
    assert efuda("collection", "status", path, "--json").data["pictures"] == 10


def test_a_collection_uses_the_scores_that_tag_kept_and_takes_files_only(
    efuda: Efuda, model: Model, pictures: Path, tmp_path: Path
) -> None:
    tagged = efuda("tag", pictures, "--model", model.root, "--to", "jsonl")
    with zipfile.ZipFile(pictures / "comic.cbz", "w") as archive:
        archive.write(next(pictures.glob("*.jpg")), "1.jpg")
        archive.write(next(pictures.glob("*.jpg")), "2.jpg")
    done = efuda("collection", "add", tmp_path / "art.efuda", pictures, "--model", model.root, "--json")
    assert (done.code, done.data["added"], done.data["from_kept_scores"]) == (0, 10, 10)
    assert f"left out {pictures / 'comic.cbz'}: a collection holds files" in done.err
    named = efuda("collection", "add", tmp_path / "art.efuda", pictures / "comic.cbz", "--model", model.root, "--json")
    assert (named.code, named.data["found"], len(named.data["failed"])) == (1, 0, 1)
    found = efuda("search", tmp_path / "art.efuda", "", "--json").data["pictures"]
    said = {Path(one["path"]).name: {tag["name"] for tag in one["tags"]} for one in found}
    assert said == {Path(one["path"]).name: set(one["tags"]) for one in map(json.loads, tagged.out.splitlines())}


def test_a_collection_is_edited_and_that_is_taken_back(efuda: Efuda, collection: Path, tmp_path: Path) -> None:
    path = shutil.copy(collection, tmp_path / "art.efuda")
    tried = efuda("collection", "edit", path, "red_background", "--add", "crimson", "--dry-run")
    count = efuda("search", path, "red_background", "--json").data["total"]
    assert tried.out == f"added crimson (new: crimson): {count} pictures would be changed\n"
    done = efuda("collection", "edit", path, "red_background", "-a", "crimson", "--by", "ann", "--json")
    assert (done.data["changed"], done.data["new_tags"], done.data["by"]) == (count, ["crimson"], "ann")
    one = efuda("collection", "edit", path, 1, 2, "--remove", "crimson", "--rating", "s")
    assert one.out.startswith(
        "removed crimson, rated sensitive: 2 pictures changed\nTake it back: efuda collection undo"
    )
    shown = efuda("collection", "show", path, 1, "--json").data
    assert (shown["rating"], [tag["name"] for tag in shown["refused"]]) == ("sensitive", ["crimson"])
    assert "crimson  (general; me, " in efuda("collection", "show", path, 1).out
    undone = efuda("collection", "undo", path)
    assert undone.out.startswith("undid removed crimson, rated sensitive: 2 pictures changed\nTake it back: efuda coll")
    assert efuda("collection", "redo", path, "--dry-run", "--json").data["changed"] == 2
    listed = efuda("collection", "history", path)
    assert "undid removed crimson" in listed.out and "added crimson (new: crimson)" in listed.out
    kinds = [one["kind"] for one in efuda("collection", "history", path, "--json", "--limit", 3).data["operations"]]
    assert kinds == ["undo", "edit", "edit"]
    efuda("collection", "remove", path, 1)
    assert (
        efuda("search", path, "", "--json").data["total"] == efuda("search", collection, "", "--json").data["total"] - 1
    )
    both = efuda("collection", "edit", path, 1, "hat", "--add", "x")
    assert both.code == 2 and "not both" in both.err
    wrong = efuda("collection", "edit", path, 1, "--remove", "no_such_tag")
    assert wrong.code == 3 and wrong.err == "efuda: The collection has no tag no_such_tag. Check its spelling.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_not_utf_8_comes_out_as_it_is(collection: Path, tmp_path: Path) -> None:
    from efuda.collection import Collection

    path = shutil.copy(collection, tmp_path / "art.efuda")
    with Collection.open(path) as opened, opened.record.write() as writing:
        writing.db.execute("UPDATE files SET path = ? WHERE picture = 1", (b"/art/\x8e\x97.png",))
        writing.touch([1])

    def run(*arguments: str) -> bytes:
        return subprocess.run([sys.executable, "-m", "efuda", *arguments], check=True, capture_output=True).stdout

    assert run("search", str(path), "id:1", "--paths") == b"/art/\x8e\x97.png\n"
    assert b"/art/\x8e\x97.png" in run("collection", "show", str(path), "1")
    assert json.loads(run("collection", "show", str(path), "1", "--json"))["path"] == "/art/\udc8e\udc97.png"


def test_tags_and_relations_are_taken_in(efuda: Efuda, collection: Path, pictures: Path, tmp_path: Path) -> None:
    path = shutil.copy(collection, tmp_path / "art.efuda")
    picture = Path(efuda("collection", "show", path, 1, "--json").data["path"])
    copy = pictures / picture.name
    shutil.copy(picture, copy)
    copy.with_suffix(".txt").write_text("my tag, a*b")
    nothing = efuda("collection", "import-tags", path, pictures)
    assert nothing.code == 0 and nothing.out.startswith(
        "nothing lies beside the collection's pictures there\nPictures come"
    )
    (tmp_path / "list.csv").write_text('red_background,0,5,"rb,/rb"\n')
    done = efuda("collection", "relations", path, tmp_path / "list.csv")
    assert done.out == "taken in: new aliases: 2, new implications: 0, changed categories: 0, new tags: 0\n"
    assert efuda("collection", "relations", path, tmp_path / "list.csv", "--json").data["aliases"] == 0


def test_search(efuda: Efuda, collection: Path) -> None:
    done = efuda("search", collection, "red_background", "--json", "--limit", 3)
    assert done.code == 0
    assert done.data["total"] > 10 and len(done.data["pictures"]) == 3
    tags = [{tag["name"]: tag for tag in one["tags"]} for one in done.data["pictures"]]
    assert all(one["red_background"]["by"] == "model" for one in tags)
    paths = efuda("search", collection, "red_background", "--paths", "--limit", 3)
    assert paths.out.splitlines() == [one["path"] for one in done.data["pictures"]]
    later = efuda("search", collection, "red_background", "--paths", "--limit", 1, "--offset", 2)
    assert later.out.splitlines() == paths.out.splitlines()[2:]
    text = efuda("search", collection, "red_background blue_background")
    assert text.code == 0 and text.out.splitlines()[0] == "0 pictures"


def test_a_search_tells_a_pipe_what_it_needs(efuda: Efuda, collection: Path) -> None:
    pictures = efuda("search", collection, "red_background order:id", "--json", "--limit", 1000).data["pictures"]
    ids = efuda("search", collection, "red_background order:id", "--ids")
    assert ids.out.split() == [str(one["id"]) for one in pictures]
    paths = efuda("search", collection, "red_background order:id", "--paths0", "--offset", 2)
    assert paths.out.split("\0") == [*(one["path"] for one in pictures[2:]), ""]
    assert efuda("search", collection, "red_background", "--count").out == f"{len(pictures)}\n"
    assert efuda("search", collection, "red_background blue_background", "--ids").out == ""
    assert efuda("search", collection, "red_background", "--ids", "--limit", 2, "--json").data["ids"] == [
        one["id"] for one in pictures[:-3:-1]
    ]
    facets = efuda("search", collection, "red_background", "--facets", "--json").data
    assert facets["tags"][0] == {"name": "red_background", "category": "general", "count": len(pictures)}
    assert "red_background  general" in efuda("search", collection, "red_background", "--facets").out
    assert efuda("search", collection, "--count", "-red_background").out != f"{len(pictures)}\n"
    slip = efuda("search", collection, "hat", "--conut")
    assert slip.code == 2
    both = efuda("search", collection, "", "--ids", "--count")
    assert both.code == 2 and "--ids and --count print different things; choose one." in both.err


def test_complete(efuda: Efuda, collection: Path) -> None:
    done = efuda("complete", collection, "-red_b", "--json").data
    count = efuda("search", collection, "red_background", "--json").data["total"]
    assert (done["start"], done["end"]) == (1, 6)
    best = {"value": "red_background", "label": "red background", "category": "general", "count": count}
    assert done["suggestions"][0] == {**best, "antecedent": None}
    within = efuda("complete", collection, "red_b circle", "--at", 4).out.splitlines()
    both = efuda("search", collection, "red_background circle", "--count").out.strip()
    assert within[1].split() == ["red_background", "general", both]
    assert efuda("complete", collection, "red_background ").out == ""


def test_search_that_is_not_understood_shows_the_place(efuda: Efuda, collection: Path) -> None:
    done = efuda("search", collection, "circle (square")
    assert done.code == 3
    message, query, caret = done.err.splitlines()
    assert message.startswith("efuda: ")
    assert query.strip() == "circle (square"
    assert caret.index("^") >= query.index("(")
    assert set(caret.strip()) == {"^"}


# What there is


def test_models(efuda: Efuda, model: Model) -> None:
    (one,) = efuda("models", model.root, "--json").data
    assert (one["layout"], one["tags"], one["size"], one["thresholds"]) == ("efuda", 7, 64, "calibrated")
    (general,) = (line for line in one["categories"] if line["category"] == "general")
    assert general["tags"] == 7 and 0 < general["lowest"] <= general["highest"] < 1
    assert "calibrated" in efuda("models", model.root.parent).out
    slip = efuda("models", "wd-vit-tager-v3")
    assert slip.code == 3 and "did you mean wd-vit-tagger-v3?" in slip.err
    known = efuda("models", "--json").data
    assert "SmilingWolf/wd-vit-tagger-v3" in {entry["repository"] for entry in known}
    assert "SmilingWolf/wd-vit-tagger-v3" in efuda("models").out


def test_recipes(efuda: Efuda, tmp_path: Path) -> None:
    assert set(efuda("recipes", "--json").data) == set(recipe_names())
    assert "reference" in efuda("recipes").out
    text = efuda("recipes", "reference")
    (tmp_path / "mine.toml").write_text(text.out)
    assert load_recipe(str(tmp_path / "mine.toml")) == load_recipe("reference")
    assert efuda("recipes", "reference", "--json").data["train"]["batch"] == 16


def test_doctor(efuda: Efuda) -> None:
    found = efuda("doctor", "--json")
    assert found.code == 0
    assert found.data["machine"]["efuda"] == importlib.metadata.version("efuda")
    assert found.data["extras"]["base"]["numpy"] == importlib.metadata.version("numpy")
    assert "SQLite of collections" in found.data["machine"]
    assert "numpy" in efuda("doctor").out


# Interrupted


def test_ctrl_c_during_training_keeps_a_checkpoint(efuda: Efuda, dataset: Dataset, tmp_path: Path) -> None:
    overrides = [word for one in [*TINY, "train.epochs=3"] for word in ("--set", one)]
    command = ["train", str(dataset.root), "--out", str(tmp_path / "run"), *overrides]
    process = subprocess.Popen(
        [sys.executable, "-m", "efuda", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("train: ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Stopping after this step" in err
    assert "a checkpoint of step" in err and "run the same command again" in err
    assert out == ""
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
    assert not (tmp_path / "run" / "efuda.json").exists()
    done = efuda(*command)
    assert done.code == 0
    assert "Test split, threshold 0.5" in done.out and "Next: efuda export" in done.err
    assert Run.open(tmp_path / "run").marker.counts["epochs"] == 3
