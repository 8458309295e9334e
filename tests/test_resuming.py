"""Killed at any moment and started again, a run ends with the same weights, bit for bit; and nothing else may go on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY

from efuda.artifacts import Dataset
from efuda.errors import ArtifactError, Diverged, Stopped
from efuda.recipes import Recipe, load_recipe
from efuda.training import train

Recipes = Callable[..., Recipe]
# Everything that is random or remembered between steps.
BUSY = [
    *("augment.rotate=10", "augment.crop=0.2", "augment.colour=0.3", "augment.cutout=0.2", "augment.mixup=0.5"),
    *('augment.filters=["box", "lanczos"]', "model.dropout=0.1", "model.drop_path=0.1", "model.size=48"),
    *("train.ema=0.9", "train.schedule=one-cycle", "train.micro_batch=4", "train.clip=1", "train.sizes=[[0.5, 32]]"),
    *("loss.kind=splc", "loss.believe_from=1", "labels.few_tags=2", "labels.few_weight=0.5"),
]
SCRIPT = """
import sys
from pathlib import Path
from efuda.artifacts import Dataset
from efuda.recipes import load_recipe
from efuda.training import loop, train

steps, at = 0, int(sys.argv[3])
step = loop.Loop._step


def slowly(self, *arguments):
    global steps
    if steps == at:
        print("here", flush=True)
        sys.stdin.readline()  # the kill comes now, or within what follows
    steps += 1
    step(self, *arguments)


loop.Loop._step = slowly
train(Dataset.open(Path(sys.argv[1])), Path(sys.argv[2]), load_recipe(None, sys.argv[4:]))
"""


def last(run: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return {**saved["model"], **{f"ema.{name}": value for name, value in saved["ema"].items()}}


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tiny_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(dataset, out, tiny_recipe(*BUSY))
    return out


def test_killed_at_ten_random_moments_it_ends_with_the_same_weights(
    dataset: Dataset, undisturbed: Path, tmp_path: Path
) -> None:
    """Two epochs of nine steps; checkpoints come at random as well, with and without a loader process."""
    rng, out, kills = random.Random(7), tmp_path / "run", 0
    while kills < 10:
        overrides = [*TINY, *BUSY, f"train.checkpoint_minutes={rng.choice(['1e-9', '1e-9', '9'])}"]
        overrides.append(f"train.workers={rng.randint(0, 1)}")
        command = [sys.executable, "-c", SCRIPT, str(dataset.root), str(out), str(rng.randint(0, 3)), *overrides]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        if "here" not in process.stdout.readline():  # it got to the end
            process.communicate()
            break
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        process.communicate()
        kills += 1
    assert kills >= 4
    train(dataset, out, load_recipe(None, [*TINY, *BUSY]))
    one, other = last(out), last(undisturbed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (out / "log.jsonl").read_text() == (undisturbed / "log.jsonl").read_text()


def test_the_last_checkpoints_are_kept_and_no_more(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe("train.checkpoint_minutes=1e-9", "train.keep=3", "train.epochs=1")
    train(dataset, tmp_path / "run", recipe)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.pt",
        "last.pt",
        *(f"step-{step:09d}.pt" for step in (7, 8, 9)),
    ]
    assert (folder / "last.pt").samefile(folder / "step-000000009.pt")


def test_a_damaged_checkpoint_names_the_one_before(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    out, steps = tmp_path / "run", iter([False, False, True])
    recipe = tiny_recipe("train.checkpoint_minutes=1e-9")
    with pytest.raises(Stopped):
        train(dataset, out, recipe, stop=lambda: next(steps))
    folder = out / "checkpoints"
    data = (folder / "last.pt").read_bytes()
    (folder / "step-000000003.pt").write_bytes(data[: len(data) // 2])  # last.pt is the same file
    with pytest.raises(ArtifactError, match=r"last\.pt cannot be read .*: copy step-000000002\.pt over it"):
        train(dataset, out, recipe)
    (folder / "last.pt").unlink()
    (folder / "step-000000002.pt").rename(folder / "last.pt")
    assert len(train(dataset, out, recipe).log()) == 2


def test_what_is_not_a_number_is_said_of_step_and_tag(
    dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efuda.training.model import TagModel

    real, steps = TagModel.forward, iter(range(99))

    def broken(self: TagModel, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, embedding = real(self, pictures)
        if self.training and next(steps) == 4:
            logits = logits + torch.tensor([0, 0, float("nan"), 0, 0, 0, 0])
        return logits, embedding

    monkeypatch.setattr(TagModel, "forward", broken)
    out, recipe = tmp_path / "run", tiny_recipe("train.checkpoint_minutes=1e-9")
    with pytest.raises(Diverged, match=rf"nan at step 5 of 18 .*first in {dataset.vocabulary.names[2]}\."):
        train(dataset, out, recipe)
    kept = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert kept["place"]["batch"] == 4
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert len(train(dataset, out, recipe).log()) == 2  # the fault was not in the weights: it goes on


def test_weights_that_are_no_numbers_are_never_saved(
    dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efuda.training.loop import Loop

    real = Loop._step

    def broken(self: Loop, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        if self.place.batch == 2:
            with torch.no_grad():
                self.model.head.weight[0, 0] = float("inf")

    monkeypatch.setattr(Loop, "_step", broken)
    out = tmp_path / "run"
    with pytest.raises(Diverged, match="Weights are no longer finite after step 3 of 18: the checkpoint before"):
        train(dataset, out, tiny_recipe("train.checkpoint_minutes=1e-9"))
    kept = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in kept.values())
