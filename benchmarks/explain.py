"""Are heat maps faithful? Take away what they call hot, and see whether the tag goes.

    python benchmarks/explain.py --demo demo

`--demo` is the folder that `efuda demo` made. For every tag that is true of a picture of the test split and predicted
(0.5 or more), the hottest 5, 10, 20, … 90 % of the pixels are replaced by the picture's mean colour, and the model is
asked again. The area under the curve of score / first score is lower the better the map; random blocks of an eighth of
the side are the same area of pixels in no order. Differences have 95 % intervals by bootstrap over pictures.

The second table is about place: figures are drawn anew, once as they are and once without one part (glasses, a hat, …),
so that the pixels that differ are where the tag is. A map points right if its hottest pixel is there, or within a
sixteenth of the side of it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from efuda.artifacts import Dataset
from efuda.images import read_rgb
from efuda.tagging import Tagger
from efuda.tagging.explaining import Explainer

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BLOCKS = 8
METHODS = ("activation", "occlusion", "random")
# A tag, and the components of the drawing that it names, under any of the styles' names.
PARTS: Mapping[str, tuple[str, ...]] = {
    "glasses": ("glasses", "accessories"),
    "hat": ("top", "hair"),
    "earrings": ("earrings",),
    "beard": ("facialHair", "beard"),
    "open_mouth": ("mouth",),
    "closed_eyes": ("eyes",),
}


def deletion(explainer: Explainer, dataset: Dataset, pictures: int) -> None:
    """Print the areas."""
    posts, rng = dataset.posts("test"), np.random.default_rng(0)
    areas: list[tuple[int, dict[str, float]]] = []
    for post in np.linspace(0, len(posts) - 1, min(pictures, len(posts))).astype(int).tolist():
        picture = read_rgb(posts.read(post))
        tagger = explainer.tagger
        scores = tagger.scores(tagger.preprocess.array(picture)[None])[0]
        names = dataset.vocabulary.names
        tags = [names[tag] for tag in posts.tags(post) if scores[tagger.vocabulary.index[names[tag]]] >= 0.5]
        if not tags:
            continue
        heats: dict[str, list[NDArray[np.float32]]] = {
            method: [one.heat for one in explainer.explain(picture, tags, method=method)]  # type: ignore[arg-type]
            for method in METHODS[:2]
        }
        heats["random"] = [blocks(picture.size, rng) for _ in tags]
        for at, tag in enumerate(tags):
            column = tagger.vocabulary.index[tag]
            areas.append((post, {method: area(tagger, picture, heats[method][at], column) for method in METHODS}))
    of = np.array([post for post, _ in areas])
    values = np.array([[one[method] for method in METHODS] for _, one in areas])
    print(f"{len(areas):,} pairs of picture and tag, {len(set(of.tolist()))} pictures")
    print("method       area under the deletion curve   minus random (95 %)      lower than random")
    for at, method in enumerate(METHODS):
        low, high = bootstrap(values[:, at] - values[:, 2], of)
        wins = (values[:, at] < values[:, 2]).mean()
        less = (
            f"{(values[:, at] - values[:, 2]).mean():+.3f} ({low:+.3f} to {high:+.3f})   {wins:.1%}" if at < 2 else ""
        )
        print(f"{method:<12} {values[:, at].mean():<31.3f} {less}")


def area(tagger: Tagger, picture: Image.Image, heat: NDArray[np.float32], column: int) -> float:
    """Under the curve of the score as the hottest pixels go, as a share of the score before."""
    pixels = np.asarray(picture)
    order = np.argsort(-heat.ravel(), kind="stable")
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    batch = [tagger.preprocess.array(picture)]
    for share in SHARES:
        flat = pixels.reshape(-1, 3).copy()
        flat[order[: round(share * len(order))]] = mean
        batch.append(tagger.preprocess.array(Image.fromarray(flat.reshape(pixels.shape))))
    scores = tagger.scores(np.stack(batch))[:, column]
    return float(np.trapezoid(scores / scores[0], [0, *SHARES]) / SHARES[-1])


def blocks(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Heat at random, the same within each block."""
    drawn = Image.fromarray(rng.random((BLOCKS, BLOCKS), dtype=np.float32))
    return np.asarray(drawn.resize(size, Image.Resampling.NEAREST))


def bootstrap(values: NDArray[np.float64], groups: NDArray[np.int64], replicates: int = 1000) -> tuple[float, float]:
    """95 % of the means over drawn groups."""
    rng = np.random.default_rng(0)
    unique, inverse = np.unique(groups, return_inverse=True)
    sums, counts = (np.bincount(inverse, weights=weights) for weights in (values, np.ones(len(values))))
    drawn = rng.integers(0, len(unique), (replicates, len(unique)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def pointing(explainer: Explainer, wanted: int) -> None:
    """Print how often the hottest pixel is where the tag is."""
    hits: dict[str, dict[str, list[bool]]] = {}
    for tag, picture, place in drawn_parts(wanted):
        tagger = explainer.tagger
        if tag not in tagger.vocabulary.index:
            continue
        score = tagger.scores(tagger.preprocess.array(picture)[None])[0, tagger.vocabulary.index[tag]]
        if score < 0.5:
            continue
        for method in METHODS[:2]:
            (found,) = explainer.explain(picture, [tag], method=method)  # type: ignore[arg-type]
            x, y = found.peak
            hits.setdefault(tag, {}).setdefault(method, []).append(bool(place[y, x]))
        hits[tag].setdefault("random", []).append(place.mean())
    print("\ntag            pictures   " + "   ".join(f"{method:<10}" for method in METHODS))
    for tag, found in hits.items():
        print(f"{tag:<14} {len(found['random']):<10} " + "   ".join(f"{np.mean(found[m]):<10.1%}" for m in METHODS))


def drawn_parts(wanted: int) -> Iterator[tuple[str, Image.Image, NDArray[np.bool_]]]:
    """(tag, picture, where it is): drawn figures, and where they differ from themselves without a part."""
    from efuda.demo.pictures import paint
    from efuda.demo.scenes import draw_scene
    from efuda.demo.styles import catalogue

    rng, counts = random.Random(99), dict.fromkeys(PARTS, 0)
    for number in range(40 * wanted):
        scene = draw_scene(catalogue(), rng, f"explain-{number}")
        if scene.effect or len(scene.figures) != 1:
            continue
        picture, tags = paint(scene, 256)
        for tag, parts in PARTS.items():
            if tag not in tags or counts[tag] >= wanted:
                continue
            without, left = paint(replace(scene, figures=tuple(bare(one, parts) for one in scene.figures)), 256)
            changed = np.abs(np.asarray(picture, int) - np.asarray(without, int)).max(axis=2) > 24
            if tag in left or not 0.001 < changed.mean() < 0.5:
                continue
            near = Image.fromarray(changed).convert("L").filter(ImageFilter.MaxFilter(2 * (256 // 16) + 1))
            counts[tag] += 1
            yield tag, picture, np.asarray(near) > 0
        if min(counts.values()) >= wanted:
            return


def bare(figure: Any, parts: Sequence[str]) -> Any:
    """The figure without some of its parts."""
    left_out = {f"{part}Probability": 0 for part in parts if f"{part}Probability" in figure.options}
    return replace(figure, options={**figure.options, **left_out})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=60, help="of the test split; 0 for none")
    parser.add_argument("--drawn", type=int, default=60, help="figures a tag for the pointing table; 0 for none")
    asked = parser.parse_args()
    explainer = Explainer(Tagger.open(asked.demo / "model"))
    print(f"{explainer.tagger.name}: {explainer.method} where nothing else is asked for")
    if asked.pictures:
        deletion(explainer, Dataset.open(asked.demo / "dataset"), asked.pictures)
    if asked.drawn:
        pointing(explainer, asked.drawn)


if __name__ == "__main__":
    main()
