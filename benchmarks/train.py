"""What `efuda train` costs beside the network alone: the loop, the loader, and a head of 100,000 tags.

    python benchmarks/train.py --demo demo [--size 128] [--steps 40]

`--demo` is the folder that `efuda demo` made; the loop reads its packed pictures, the loader the drawn ones of
512×512, resized to 448. All on this machine's processor, in one run, medians of three; a GPU would only change the
device. Limits we set ourselves: the loop at 0.95 of a bare loop of the same network, loss and optimiser on ready
tensors; the loader at 0.9 × cores × a bare decode of the same pictures.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from efuda.artifacts import Dataset
from efuda.datasets import prepare
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.progress import silent
from efuda.recipes import ModelRecipe, Recipe, load_recipe
from efuda.training.devices import Devices
from efuda.training.loading import batches, shuffled
from efuda.training.loop import Loop
from efuda.training.losses import per_picture
from efuda.training.model import build
from efuda.training.optim import optimizer, rate

ROUNDS = 3
LOADED = 1500


def recipe_of(options: argparse.Namespace, *keys: str) -> Recipe:
    """Lite0 at the wanted size, everything of `strong` switched on but what the bare loop has no counterpart of."""
    same = [
        "model.backbone=timm/tf_efficientnet_lite0",
        "model.weights=none",
        f"model.size={options.size}",
        "model.mean=[0.5,0.5,0.5]",
        "model.std=[0.5,0.5,0.5]",
        f"train.batch={options.batch}",
        "train.micro_batch=none",
        "train.ema=0",
        "train.checkpoint_minutes=1000",
    ]
    return load_recipe("strong", [*same, *keys])


def loop_rate(dataset: Dataset, recipe: Recipe, steps: int) -> float:
    """Pictures a second of the real loop, after a few steps to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(dataset, Path(folder), recipe, Devices(torch.device("cpu")), progress=silent, stop=lambda: False)
        began, seen = 0.0, 0

        class Enough(Exception):
            pass

        def stop() -> bool:
            nonlocal began, seen
            seen += 1
            if seen == 4:
                began = time.perf_counter()
            if seen == steps + 4:
                raise Enough
            return False

        loop.stop = stop
        try:
            while True:
                loop._epoch()
        except Enough:
            return steps * recipe.train.batch / (time.perf_counter() - began)


def bare_rate(dataset: Dataset, recipe: Recipe, steps: int) -> float:
    """Pictures a second of the same network, loss and optimiser on tensors that are there already."""
    tags, size, batch = len(dataset.vocabulary), recipe.model.size, recipe.train.batch
    model = build(recipe.model, tags).to(memory_format=torch.channels_last).train()
    adam = optimizer(model, recipe.train, fused=True)
    pictures = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = (torch.rand(batch, tags) < 0.05).float()

    def step() -> None:
        for group in adam.param_groups:
            group["lr"] = rate(10, 1000, recipe.train) * group["multiple"]
        adam.zero_grad(set_to_none=True)
        per_picture(model(pictures)[0], labels, recipe.loss).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.clip or 1.0)
        adam.step()

    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * batch / (time.perf_counter() - began)


def loader_rate(dataset: Dataset, size: int, workers: int) -> float:
    """Pictures a second of the loader alone."""
    posts = dataset.posts("train")
    order = shuffled(len(posts), seed=0, epoch=0)[:LOADED]
    loaded = batches(posts, order, Preprocess(size=size), batch=32, workers=workers)
    next(loaded)
    began = time.perf_counter()
    count = sum(len(batch.pictures) for batch in loaded)
    return count / (time.perf_counter() - began)


def decode_rate(dataset: Dataset, size: int) -> float:
    """Pictures a second and core of reading, decoding and resizing, with nothing around it."""
    posts, preprocess = dataset.posts("train"), Preprocess(size=size)
    order = shuffled(len(posts), seed=0, epoch=0)[: LOADED // 3]
    began = time.perf_counter()
    for post in order.tolist():
        preprocess.square(read_rgb(posts.read(post)))
    return len(order) / (time.perf_counter() - began)


def unpacked(demo: Path, out: Path) -> Dataset:
    """The demo's dump as a dataset whose pictures stay where they are, at 512×512."""
    recipe = load_recipe("demo", ["images.pack=none"])
    return prepare([demo / "dump" / "metadata"], demo / "dump" / "512px", out, recipe)


def head_rate(tags: int, head: str) -> tuple[float, float]:
    """Pictures a second and the most memory in GB of training so many tags, in a process of its own."""
    command = [sys.executable, __file__, "--head", head, "--tags", str(tags)]
    rate_, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(rate_), float(memory)


def head_process(head: str, tags: int) -> None:
    """What that process does."""
    recipe = ModelRecipe(backbone="timm/tf_efficientnet_lite0", weights="none", size=128, head=head)
    model = build(recipe, tags).to(memory_format=torch.channels_last).train()
    loop = load_recipe("strong")
    adam = optimizer(model, loop.train, fused=True)
    pictures, batch = torch.rand(16, 3, 128, 128).contiguous(memory_format=torch.channels_last), 16
    rows, on = torch.arange(16).repeat_interleave(30), torch.randint(0, tags, (480,))

    def step() -> None:
        labels = torch.zeros(batch, tags)
        labels[rows, on] = 1
        adam.zero_grad(set_to_none=True)
        per_picture(model(pictures)[0], labels, loop.loss).mean().backward()
        adam.step()

    for _ in range(2):
        step()
    began = time.perf_counter()
    for _ in range(6):
        step()
    seconds = time.perf_counter() - began
    print(6 * batch / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def median(measure: Callable[[], float]) -> float:
    """Of three."""
    return statistics.median(measure() for _ in range(ROUNDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="the folder that efuda demo made")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--head", help=argparse.SUPPRESS)
    parser.add_argument("--tags", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.head:
        head_process(options.head, options.tags)
        return
    if options.demo is None:
        parser.error("--demo is missing: the folder that efuda demo made")
    dataset, recipe, cores = Dataset.open(options.demo / "dataset"), recipe_of(options), os.cpu_count() or 1
    print("| what | seen | limit we set |\n|---|---|---|")
    pairs = [
        (bare_rate(dataset, recipe, options.steps), loop_rate(dataset, recipe, options.steps)) for _ in range(ROUNDS)
    ]
    bare, loop = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(
        f"| loop beside a bare loop, {options.size} px, batch {options.batch}: {bare:.0f} pictures/s | {loop:.0f} = "
        f"{ratio:.2f} | ≥ 0.95 |"
    )
    with tempfile.TemporaryDirectory() as folder:
        large = unpacked(options.demo, Path(folder) / "dataset")
        decode, loaded = median(lambda: decode_rate(large, 448)), median(lambda: loader_rate(large, 448, cores))
    print(
        f"| loader, {cores} processes, beside cores × a bare decode of {decode:.0f} pictures/s | {loaded:.0f} = "
        f"{loaded / cores / decode:.2f} | ≥ 0.9 |"
    )
    for head, tags in (("linear", 8_266), ("linear", 100_000), ("ml-decoder", 8_266), ("ml-decoder", 100_000)):
        speed, memory = head_rate(tags, head)
        print(
            f"| {head} head of {tags:,} tags, 128 px, batch 16 | {speed:.1f} pictures/s, {memory:.2f} GB | |",
            flush=True,
        )


if __name__ == "__main__":
    main()
