"""Several processes train as one does: real ones, over gloo, started by torchrun as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from efuda.artifacts import Dataset, Run
from efuda.recipes import Recipe
from efuda.training import train
from efuda.training.devices import Devices
from efuda.training.memory import find_micro_batch, is_out_of_memory

Recipes = Callable[..., Recipe]
# No batch norm, whose statistics are those of the pictures that one device sees; everything else is switched on.
ALIKE = [
    "model.backbone=timm/test_convnext",
    "model.head=ml-decoder",
    "model.decoder_width=16",
    "model.decoder_groups=3",
    "train.batch=10",
    "train.optimizer=adamw",
    "train.schedule=one-cycle",
    "train.clip=1.0",
    "train.ema=0.9",
    "augment.mixup=0.4",
    "augment.crop=0.1",
    "augment.colour=0.2",
    "loss.reduction=sum",
]


def torchrun(dataset: Dataset, out: Path, overrides: Sequence[str], *flags: str) -> subprocess.Popen[str]:
    """Two processes that train; their output is one pipe."""
    sets = [part for override in [*TINY, *overrides] for part in ("--set", override)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *flags]
    command += ["-m", "efuda", "train", str(dataset.root), "--out", str(out), *sets, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed as a result; the test fails where it failed."""
    out, error = process.communicate(timeout=150)
    assert process.returncode == 0, error[-3000:]
    return out


def end_all(process: subprocess.Popen[str], out: Path) -> None:
    """Kill torchrun and its workers, which are sessions of their own."""
    process.kill()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(out).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
    process.communicate()


def curve(run: Run) -> list[float]:
    return [value for one in run.log() for value in (one["train_loss"], one["validation"]["loss"])]


@pytest.fixture(scope="module")
def alone(dataset: Dataset, tiny_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(dataset, tmp_path_factory.mktemp("alone") / "run", tiny_recipe(*ALIKE))


def test_two_processes_give_the_loss_curve_of_one(dataset: Dataset, alone: Run, tmp_path: Path) -> None:
    said = json.loads(ended(torchrun(dataset, tmp_path / "run", ALIKE)))  # one result, though there are two
    together = Run.open(tmp_path / "run")
    assert curve(together) == pytest.approx(curve(alone), abs=1e-5)
    assert said["test_at_0.5"]["map"] == pytest.approx(alone.marker.counts["test_at_0.5"]["map"], abs=1e-6)
    assert together.marker.counts["pictures"] == alone.marker.counts["pictures"]


@pytest.mark.parametrize("micro_batch", [4, 7])
def test_micro_batches_give_the_loss_curve_of_one_batch(
    dataset: Dataset, alone: Run, tiny_recipe: Recipes, tmp_path: Path, micro_batch: int
) -> None:
    run = train(dataset, tmp_path / "run", tiny_recipe(*ALIKE, f"train.micro_batch={micro_batch}"))
    assert curve(run) == pytest.approx(curve(alone), abs=1e-5)


def test_torchrun_begins_again_where_a_killed_process_left_it(dataset: Dataset, tmp_path: Path) -> None:
    recipe = [*ALIKE, "train.epochs=1", "train.checkpoint_minutes=1e-9"]
    ended(torchrun(dataset, tmp_path / "undisturbed", recipe))
    process = torchrun(dataset, tmp_path / "run", recipe, "--max-restarts", "2", "--monitor-interval", "0.1")
    try:
        deadline = time.monotonic() + 90
        while not (tmp_path / "run" / "checkpoints" / "step-000000003.pt").is_file():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(child) for child in children if b"efuda" in Path(f"/proc/{child}/cmdline").read_bytes()]
        os.kill(workers[-1], signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=45)
    finally:
        end_all(process, tmp_path / "run")
    if process.returncode != 0:  # now and then gloo's processes do not find each other after torchrun's restart
        ended(torchrun(dataset, tmp_path / "run", recipe))  # and the same command goes on
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model"]
        for name in ("run", "undisturbed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parts_of_a_batch_are_whole_pairs_and_leave_nothing_out() -> None:
    for world in (1, 2, 3, 5):
        for batch in (1, 2, 7, 16):
            parts = [Devices(torch.device("cpu"), rank, world).part(batch) for rank in range(world)]
            assert [place for start, stop in parts for place in range(start, stop)] == list(range(batch))
            assert all(start % 2 == 0 or start == batch for start, _ in parts)


# Memory


def test_the_largest_micro_batch_that_fits_is_found() -> None:
    tried: list[int] = []

    def attempt(pictures: int) -> None:
        tried.append(pictures)
        if pictures > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert find_micro_batch(attempt, 96) == 12
    assert tried == [96, 48, 24, 12]


def test_other_errors_are_not_taken_for_a_full_device() -> None:
    def attempt(pictures: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        find_micro_batch(attempt, 8)
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))


def test_auto_finds_a_micro_batch_and_leaves_the_weights_alone(
    dataset: Dataset, alone: Run, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efuda.training.model import TagModel

    real = TagModel.forward

    def small(self: TagModel, pictures: torch.Tensor) -> Any:
        if self.training and len(pictures) > 6:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, pictures)

    monkeypatch.setattr(TagModel, "forward", small)
    run = train(dataset, tmp_path / "run", tiny_recipe(*ALIKE, "train.micro_batch=auto"))
    assert curve(run) == pytest.approx(curve(alone), abs=1e-5)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert saved["place"]["micro_batch"] == 6
