"""`efuda tag` beside what the machine can do, and beside how others tag: same files, same ONNX file, one run.

    python benchmarks/tag.py [--pictures 2000] [--large 240] [--work DIR] [--peers .venv-peers/bin/python]

Pictures of 0.3–4 megapixels (a third each of JPEG, PNG and WebP) are made from illustrations drawn on the spot; the
networks, EfficientNet-Lite0 at 224 and ResNet50 at 448 pixels with 8,266 tags, have weights that nobody trained, in the
layout of the WD taggers. The limit is cores ÷ (processor seconds to decode and resize + those of the model alone) a
picture, both measured in the same run, a thread a core. `--large` is how many pictures the large network sees.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from efuda.images import find_pictures, read_frames
from efuda.tagging import Tagger
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

TAGS = 8_266
NETWORKS = {"lite0": ("timm/tf_efficientnet_lite0", 224), "resnet50": ("torchvision/resnet50", 448)}
PLAIN = """
import sys, time, numpy, onnxruntime
from PIL import Image
model, side, paths = sys.argv[1], int(sys.argv[2]), open(sys.argv[3]).read().split(chr(0))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
begun, found = time.perf_counter(), []
def ready(path):
    picture = Image.open(path)
    if picture.mode not in ("RGB", "RGBA"):
        picture = picture.convert("RGBA") if "transparency" in picture.info else picture.convert("RGB")
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        picture = white.convert("RGB")
    longer = max(picture.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
    return numpy.asarray(square.resize((side, side), Image.BICUBIC), numpy.float32)[:, :, ::-1]
for at in range(0, len(paths), 8):
    batch = numpy.stack([ready(path) for path in paths[at : at + 8]])
    found.append(session.run(None, {session.get_inputs()[0].name: batch})[0])
seconds = time.perf_counter() - begun
numpy.save(sys.argv[4], numpy.concatenate(found))
print(seconds)
"""
IMGUTILS = """
import sys, time, numpy
from imgutils.tagging import get_wd14_tags
paths = open(sys.argv[1]).read().split(chr(0))
look = lambda path: get_wd14_tags(path, model_name="SwinV2_v3", fmt="prediction")
look(paths[0])
begun = time.perf_counter()
found = [look(path) for path in paths]
seconds = time.perf_counter() - begun
numpy.save(sys.argv[2], numpy.stack(found))
print(seconds)
"""


def make_pictures(folder: Path, count: int) -> None:
    """Illustrations of many sizes; those that are there are kept."""
    from efuda.demo.pictures import paint
    from efuda.demo.scenes import draw_scene
    from efuda.demo.styles import catalogue

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        suffix = ("jpg", "png", "webp")[number % 3]
        path = folder / f"{number:05d}.{suffix}"
        if path.exists():
            continue
        rng = random.Random(number)
        picture, _ = paint(draw_scene(catalogue(), rng, str(number)), 768)
        pixels, aspect = rng.uniform(0.3e6, 4e6), rng.uniform(0.6, 1.7)
        size = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        noise = Image.effect_noise((size[0] // 4, size[1] // 4), 24).resize(size).convert("RGB")
        drawn = Image.blend(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), noise, 0.1)
        drawn.save(path, **({"quality": 88} if suffix != "png" else {"compress_level": 4}))


def make_model(root: Path, network: str, side: int) -> None:
    """A directory as those of the WD taggers; some dozens of tags a picture are likely, the others far from it."""
    import torch

    from efuda.recipes import load_recipe
    from efuda.training.exporting import _WdModel, _write_onnx
    from efuda.training.model import build

    if (root / "selected_tags.csv").exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    recipe = load_recipe("strong", [f"model.backbone={network}", "model.weights=none", f"model.size={side}"])
    model = build(recipe.model, TAGS).eval()
    with torch.no_grad():
        model.head.weight.mul_(1.0 / model.head.weight.std() / model.features**0.5)
        model.head.bias.normal_(-7.0, 1.6)
    _write_onnx(_WdModel(model, recipe, TAGS, False).eval(), root / "model.onnx", side)
    tags = [*(Tag(name, Category.RATING) for name in RATINGS)]
    tags += [Tag(f"tag_{number}", count=TAGS - number) for number in range(TAGS - 4)]
    Vocabulary(tags).write_csv(root / "selected_tags.csv")


def cpu_seconds(call: Callable[[], object], count: int) -> float:
    """Processor seconds for one of `count`, in this thread; the median of three."""
    seen = []
    for _ in range(3):
        began = time.thread_time()
        call()
        seen.append((time.thread_time() - began) / count)
    return statistics.median(seen)


def limits(name: str, work: Path, folder: Path) -> tuple[float, float]:
    """Processor seconds a picture of decoding and resizing, and of the model, measured on all cores at once: a core
    that has the machine to itself is faster than one whose neighbours work, too."""
    command = [sys.executable, __file__, "--limit", name, "--work", str(work), "--folder", str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(os.cpu_count() or 1)]
    seen = [tuple(map(float, process.communicate()[0].split())) for process in running]
    decode, infer = (statistics.mean(column) for column in zip(*seen, strict=True))
    return decode, infer


def limit_process(name: str, work: Path, folder: Path) -> None:
    """What each of those processes does, once before it counts."""
    tagger = Tagger.open(work / name, threads=1)
    preprocess, paths = tagger.preprocess, list(find_pictures([folder]))
    batch = np.stack([preprocess.array(Image.new("RGB", (64, 64), "red"))] * 4)
    tagger.scores(batch)
    decode = cpu_seconds(lambda: [preprocess.array(read_frames(path.read_bytes())[0]) for path in paths], len(paths))
    rounds = 24 if name == "lite0" else 5
    print(decode, cpu_seconds(lambda: [tagger.scores(batch) for _ in range(rounds)], 4 * rounds))


def command_rate(model: Path, folder: Path, count: int, *flags: str) -> tuple[float, float]:
    """Pictures a second of the whole command, from its start to its end; processor seconds a picture."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["tag", str(folder), "-m", str(model), "--to", "jsonl", "--out", f"{out}/tags.jsonl", *flags]
        began, used = time.perf_counter(), children_seconds()
        subprocess.run([sys.executable, "-m", "efuda", "-q", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds, used = time.perf_counter() - began, children_seconds() - used
        lines = Path(out, "tags.jsonl").read_bytes().count(b"\n")
        assert lines == count, f"{lines} of {count} pictures were tagged"
    return count / seconds, used / count


def children_seconds() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plain_rate(model: Path, side: int, listed: Path, scores: Path, count: int) -> float:
    """Pictures a second of a loop as most people write it: Pillow and onnxruntime in turn, batches of eight."""
    command = [sys.executable, "-c", PLAIN, str(model / "model.onnx"), str(side), str(listed), str(scores)]
    return count / float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def imgutils_seconds(python: Path, model: Path, listed: Path, scores: Path, hub: Path) -> float:
    """Seconds of dghs-imgutils, which takes models from the hub's cache: ours is laid out as one."""
    for file, repository, inside in (
        ("model.onnx", "deepghs/wd14_tagger_with_embeddings", "SmilingWolf/wd-swinv2-tagger-v3/model.onnx"),
        ("selected_tags.csv", "SmilingWolf/wd-swinv2-tagger-v3", "selected_tags.csv"),
    ):
        root = hub / f"models--{repository.replace('/', '--')}"
        target = root / "snapshots" / ("0" * 40) / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model / file, target)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text("0" * 40)
    environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "ONNX_MODE": "cpu"}
    command = [str(python), "-c", IMGUTILS, str(listed), str(scores)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


def measure(name: str, model: Path, folder: Path, paths: list[Path], peers: Path | None, rounds: int) -> None:
    """One network: the limit, the command, the peers; and whether they agree."""
    cores = os.cpu_count() or 1
    side, count = NETWORKS[name][1], len(paths)
    some = model.parent / f"some-{name}"
    some.mkdir(exist_ok=True)
    for path in paths[:: count // 90 + (count // 90 % 3 == 0)]:  # of every format
        if not (link := some / path.name).exists():
            link.symlink_to(path.resolve())
    rates, ratios, busy, plain, theirs = [], [], [], [], []
    for _ in range(rounds):
        decode, infer = limits(name, model.parent, some)
        limit = cores / (decode + infer)
        rate, used = command_rate(model, folder, count, "--no-scores")
        rates.append(rate)
        ratios.append(rate / limit)
        busy.append((decode + infer) / used)
        said = f"decode {decode * 1e3:.1f} ms, model {infer * 1e3:.1f} ms, limit {limit:.1f}/s"
        print(
            f"  {name}: {said}, command {rate:.1f}/s = {ratios[-1]:.2f}; {used * 1e3:.1f} ms = {busy[-1]:.2f}",
            file=sys.stderr,
            flush=True,
        )
        with tempfile.TemporaryDirectory() as work:
            listed = Path(work, "paths")
            listed.write_text("\0".join(map(str, paths)))
            plain.append(plain_rate(model, side, listed, Path(work, "plain.npy"), count))
            if peers:
                seconds = imgutils_seconds(peers, model, listed, Path(work, "theirs.npy"), Path(work, "hub"))
                theirs.append(count / seconds)
            agree(model, paths[:60], Path(work), bool(peers))
    rate = statistics.median(rates)
    print(
        f"| {name}@{side}, {TAGS:,} tags, {count:,} pictures: the whole command beside the limit | {rate:.1f} /s = "
        f"{statistics.median(ratios):.2f}; by processor time {statistics.median(busy):.2f} | ≥ 0.92 |"
    )
    wanted = "≥ 1.5" if name == "lite0" else "≥ 1.0"
    print(
        f"| … beside a plain loop, {statistics.median(plain):.1f} pictures/s | "
        f"{statistics.median(a / b for a, b in zip(rates, plain, strict=True)):.2f} × | {wanted} × |"
    )
    if theirs:
        print(
            f"| … beside dghs-imgutils, {statistics.median(theirs):.1f} pictures/s | "
            f"{statistics.median(a / b for a, b in zip(rates, theirs, strict=True)):.2f} × | {wanted} × |",
            flush=True,
        )


def agree(model: Path, paths: list[Path], work: Path, peers: bool) -> None:
    """The scores of all are equal to 1e-3; what a reduced decoding would do to them."""
    tagger = Tagger.open(model)
    full = np.stack([tagger.preprocess.array(read_frames(path)[0]) for path in paths])
    less = np.stack(
        [tagger.preprocess.array(read_frames(path, reduce_to=4 * tagger.preprocess.size)[0]) for path in paths]
    )
    ours = tagger.scores(full)
    for name in ("plain", *(["theirs"] if peers else [])):
        apart = float(np.abs(np.load(work / f"{name}.npy")[: len(paths)] - ours).max())
        print(f"  {name} differs by at most {apart:.1e}", file=sys.stderr)
    print(
        f"  reduced decoding differs by at most {float(np.abs(tagger.scores(less) - ours).max()):.1e}", file=sys.stderr
    )


def measure_store(model: Path, folder: Path, count: int) -> None:
    """Start to first tag, and a second run from the store of scores."""
    with tempfile.TemporaryDirectory() as work:
        flags = ("--scores", f"{work}/scores")
        command_rate(model, folder, count, *flags)
        again = [command_rate(model, folder, count, *flags)[0] for _ in range(3)]
    one = next(iter(find_pictures([folder])))
    seconds = [1 / command_rate(model, one, 1, "--no-scores")[0] for _ in range(5)]
    print(f"| lite0: one picture, from start to end of the command | {statistics.median(seconds):.2f} s | ≤ 1.5 s |")
    print(f"| second run, scores from the store, {count:,} pictures, start included | {max(again):,.0f} pictures/s | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--large", type=int, default=240, help="pictures that ResNet50 sees")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "efuda-bench-tag")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limit:
        limit_process(options.limit, options.work, options.folder)
        return
    folder, few = options.work / "pictures", options.work / "few"
    make_pictures(folder, options.pictures)
    make_pictures(few, options.large)
    for name, (network, side) in NETWORKS.items():
        make_model(options.work / name, network, side)
    peers = options.peers if options.peers.is_file() else None
    if peers is None:
        print("dghs-imgutils is left out: make test makes its environment.", file=sys.stderr)
    print("| what | seen | limit we set |\n|---|---|---|", flush=True)
    measure("lite0", options.work / "lite0", folder, list(find_pictures([folder])), peers, options.rounds)
    measure_store(options.work / "lite0", folder, options.pictures)
    measure("resnet50", options.work / "resnet50", few, list(find_pictures([few])), peers, options.rounds)


if __name__ == "__main__":
    main()
