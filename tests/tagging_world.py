"""A vocabulary of a few known tags, and results on it written as {tag: score}: for what needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from efuda.tagging import Chooser, Chosen, Rules, Tagged
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

GENERAL = [
    *("1girl", "2girls", "1boy", "long_hair", "very_long_hair", "short_hair", "blue_eyes", "red_eyes", "green_eyes"),
    *("heterochromia", "smile", "^_^", "||_||", ":d", "re:zero"),
]
VOCABULARY = Vocabulary(
    [
        *(Tag(name, Category.RATING) for name in RATINGS),
        *(Tag(name) for name in GENERAL),
        *(Tag(name, Category.CHARACTER) for name in ("saber_(fate)", "rin_(swimsuit)_(fate)", "hatsune_miku")),
        Tag("fate", Category.COPYRIGHT),
        Tag("some_artist", Category.ARTIST),
        Tag("highres", Category.META),
    ]
)


def fake_tagger(root: Path = Path("nowhere"), **thresholds: float) -> Any:
    """A tagger that scores nothing; every threshold is 0.5 but those named."""
    limits = np.full(len(VOCABULARY), 0.5, np.float32)
    for name, value in thresholds.items():
        limits[VOCABULARY.index[name]] = value
    return SimpleNamespace(
        vocabulary=VOCABULARY, thresholds=limits, root=root, layout="wd", calibrated=False, name="fake"
    )


def tagged(scores: Mapping[str, float], path: str = "a.jpg") -> Tagged:
    dense = np.zeros(len(VOCABULARY), np.float32)
    for name, score in scores.items():
        dense[VOCABULARY.index[name]] = score
    return Tagged.of(Path(path), (30, 20), dense)


def choose(scores: Mapping[str, float], rules: Rules | None = None, tagger: Any = None) -> Chosen:
    """What is said of one picture, which stands between two others in its batch."""
    chooser = Chooser(tagger or fake_tagger(), rules)
    others = [tagged({"smile": 0.9, "2girls": 0.8, "heterochromia": 0.7, "general": 0.6}), tagged({})]
    return chooser.choose([others[0], tagged(scores), others[1]])[1]


def names(scores: Mapping[str, float], rules: Rules | None = None, tagger: Any = None) -> list[str]:
    return [name for name, _, _ in choose(scores, rules, tagger).tags]
