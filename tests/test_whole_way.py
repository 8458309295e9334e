"""The whole way, stage by stage through the command line: from a dump to pictures found by what was predicted."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from efuda.cli import main
from efuda.demo import run_demo

Run = Callable[..., Any]


@pytest.fixture
def efuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command and give back what it printed as JSON."""

    def run(*arguments: object, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["efuda", "-q", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == code
        return json.loads(capsys.readouterr().out)

    return run


def test_from_a_dump_to_a_search(efuda: Run, dump: Path, tmp_path: Path) -> None:
    sets = [
        part
        for one in [*TINY, "train.epochs=6", "train.learning_rate=0.003", "split.seed=3"]
        for part in ("--set", one)
    ]
    dataset, run, model = tmp_path / "dataset", tmp_path / "run", tmp_path / "model"

    funnel = efuda("prepare", dump / "metadata", "--images", dump / "512px", "--out", dataset, *sets)
    assert funnel["entries"] == funnel["images_verified"] == 120
    assert funnel["kept_tags"] == 7
    assert funnel["train"] + funnel["validation"] + funnel["test"] == 120

    assert efuda("train", dataset, "--out", run, *sets)["test_at_0.5"]["map"] > 0.5
    assert efuda("export", run, "--out", model)["tags"] == 7
    assert efuda("calibrate", model, dataset)["tags"] == 7
    measured = efuda("evaluate", model, dataset)
    assert measured["pictures"] == funnel["test"]
    assert measured["calibrated"]["micro_f1"] > 0.4

    pictures = tmp_path / "pictures"
    shutil.copytree(dump / "512px", pictures)
    (pictures / "notes.jpg").write_text("not a picture")
    tagged = efuda("tag", pictures, "--model", model, code=1)
    assert (tagged["tagged"], tagged["failed"][0]["reason"]) == (120, "not a picture")

    collection = tmp_path / "art.db"
    assert efuda("collection", "add", collection, pictures, "--model", model, code=1)["added"] == 120
    captions = {path.stem: path.read_text().strip().split(", ") for path in pictures.rglob("*.txt")}
    (common, _), *others = Counter(tag for tags in captions.values() for tag in tags).most_common()
    rare = next(name for name, count in others if count < 100)
    expected = {stem for stem, tags in captions.items() if common in tags and rare not in tags}
    found = efuda("search", collection, f"{common} -{rare}", "--limit", 200)
    assert found["total"] == len(expected) > 0
    assert {Path(one["path"]).stem for one in found["pictures"]} == expected


def test_the_demo_on_a_small_dump(tmp_path: Path) -> None:
    sets = ["vocabulary.minimum_count=10", "train.epochs=1", "train.workers=0"]
    demo = run_demo(tmp_path / "demo", posts=220, overrides=sets)
    data = demo.data()
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == data
    assert set(data) >= {"funnel", "test", "seconds", "paths"}
    assert set(data["test"]) >= {"micro_f1", "macro_f1", "map", "at_0.5", "unseen_styles"}
    assert data["test"]["unseen_styles"]["pictures"] == data["funnel"]["unseen"] > 0
    for path in data["paths"].values():
        assert Path(path).exists()
    page = Path(data["paths"]["report"]).read_text(encoding="utf-8")
    for credit in demo.dump.credits:
        assert credit.artist in page
    assert "floor" in demo.text()
    assert 'src="http' not in page
    assert not any(name in demo.model.vocabulary.names for name in demo.dump.held_out)

    seconds = run_demo(tmp_path / "demo", posts=220, overrides=sets).seconds
    assert seconds["render"] + seconds["prepare"] + seconds["train"] < 5, "finished stages are not done again"
