"""Pictures written by the thousand, in columns, are the very bytes of each written for itself by the plainest code."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efuda.tagging import Choices, Chooser, Chosen, Handful, Rules, Tagged, open_sink
from efuda.tagging.writing.results import csv_lines, json_lines, kohya_lines
from efuda.tagging.writing.weaving import Ragged, Texts, paired, woven
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

ODD = ["long_hair", "^_^", 'say_"hi"', "one,two", "two words", "初音ミク", "back\\slash", ":d", "re:zero", "smile"]
VOCABULARY = Vocabulary(
    [
        *(Tag(name, Category.RATING) for name in RATINGS),
        *(Tag(name) for name in ODD),
        *(Tag(name, Category.CHARACTER) for name in ("saber_(fate)", "rin_(fate)", "saber_(alter)_(fate)")),
        Tag("fate", Category.COPYRIGHT),
    ]
)
NAMES = ["a.jpg", 'a, "b".jpg', "two\nlines.png", "絵/a.webp", os.fsdecode(b"\xff.jpg"), "comic.cbz/1.png"]
RULES = [
    Rules(),
    Rules(threshold=0, remove_underscore=True, rating_tag="first"),
    Rules(character_tag_expand=True, character_tags_first=True, threshold=0.1),
    Rules(replacements={"smile": "long_hair", "^_^": "a, b", ":d": ""}, undesired=["two words"], always_first=["fate"]),
    Rules(top=3, character_tag_expand=True, rating_tag="last"),
    Rules(policy="mcut", max_tags=2),
]


def tagger() -> Any:
    limits = np.full(len(VOCABULARY), 0.35, np.float32)
    return SimpleNamespace(vocabulary=VOCABULARY, thresholds=limits, root=Path("nowhere"), layout="wd", name="fake")


@st.composite
def pictures(draw: st.DrawFn) -> list[Tagged]:
    found = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        scores = draw(
            st.lists(
                st.sampled_from([0, 0.02, 0.3, 0.35, 0.5, 0.987654, 1]),
                min_size=len(VOCABULARY),
                max_size=len(VOCABULARY),
            )
        )
        found.append(Tagged.of(Path(name), (30, 20), np.array(scores, np.float32)))
    return found


def plain_json(chosen: Chosen) -> str:
    fields = {"path": str(chosen.path), "width": chosen.size[0], "height": chosen.size[1]}
    tags = {"tags": {name: score for name, score, _ in chosen.tags}, "rating": dict(chosen.ratings), "model": "fake"}
    words = json.dumps({**fields, **tags}, ensure_ascii=False)
    if "\udcff" not in words:
        return words + "\n"
    return words.replace("\udcff", "\\udcff") + "\n"  # the odd name alone is escaped


def plain_csv(chosen: Chosen) -> str:
    names = " ".join(name.replace(" ", "_") for name, _, _ in chosen.tags)
    scores = " ".join(f"{score:.4f}" for _, score, _ in chosen.tags)
    line = io.StringIO()
    row = [str(chosen.path), *chosen.size, names, scores, chosen.rating or ""]
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def plain_kohya(chosen: Chosen) -> str:
    caption = ", ".join(name for name, _, _ in chosen.tags)
    value = {"image_path": str(chosen.path), "caption": caption, "image_size": list(chosen.size)}
    return json.dumps(value, ensure_ascii="\udcff" in str(chosen.path)) + "\n"


@settings(deadline=None)
@given(pictures(), st.sampled_from(RULES))
def test_many_at_once_are_each_for_itself(batch: list[Tagged], rules: Rules) -> None:
    chooser = Chooser(tagger(), rules)
    choices = chooser.choose(batch)
    singly = [chooser.choose([one])[0] for one in batch]
    assert list(choices) == singly == list(Choices.of(singly))
    for form, plain in ((json_lines("fake"), plain_json), (csv_lines(), plain_csv), (kohya_lines(", "), plain_kohya)):
        expected = "".join(map(plain, singly))
        assert form.lines(choices) == form.lines(Choices.of(singly)) == expected, form.name
        assert [form.path(form.lines(Choices.of([one]))) for one in singly] == [str(one.path) for one in batch]


@pytest.mark.parametrize("rules", RULES)
def test_parquet_is_what_its_rows_are(tmp_path: Path, rules: Rules) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rng, batch = np.random.default_rng(0), []
    for number in range(50):
        scores = rng.choice(np.array([0, 0.02, 0.4, 0.987654], np.float32), len(VOCABULARY))
        batch.append(Tagged.of(Path(f"{number}.jpg"), (number, 20), scores * (number != 7)))
    chosen = Chooser(tagger(), rules).choose(batch)
    with open_sink("parquet", "fake", out=tmp_path / "a.parquet") as sink:
        for start in range(0, 50, 20):
            sink.write_many(chosen[start : start + 20])
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["tags"] for row in rows] == [[name for name, _, _ in one.tags] for one in chosen]
    said = [[round(score, 4) for score in row["scores"]] for row in rows]
    assert said == [[score for _, score, _ in one.tags] for one in chosen]
    assert [row["ratings"] for row in rows] == [
        [(name, pytest.approx(score)) for name, score in one.ratings.items()] for one in chosen
    ]
    assert [(row["path"], row["width"], row["rating"], row["model"]) for row in rows] == [
        (str(one.path), one.size[0], one.rating, "fake") for one in chosen
    ]


def test_a_handful_is_its_pictures() -> None:
    scores = np.zeros((3, len(VOCABULARY)), np.float32)
    scores[0, [1, 4]], scores[2, 5] = (0.5, 0.25), 1
    single = [Tagged.of(Path(f"{number}.jpg"), (number, 9), one) for number, one in enumerate(scores)]
    handful = Handful.of(single)
    assert [facts(one) for one in handful] == [facts(one) for one in single] == [facts(handful[at]) for at in range(3)]
    assert [facts(one) for one in handful[1:]] == [facts(one) for one in single[1:]]
    assert facts(handful[-1]) == facts(single[-1]) and Handful.of(handful) is handful and not len(handful[:0])


def facts(one: Tagged) -> tuple[object, ...]:
    return one.path, one.size, one.rows.tolist(), one.scores.tolist()


def test_pieces_are_woven_picture_by_picture() -> None:
    counts, words = np.array([2, 0, 1]), np.array([0, 1, 0])
    made: list[int] = []

    def name(number: int) -> str:
        made.append(number)
        return "ab"[number]

    texts = Texts(name)
    doubled = paired(counts, texts.take(words), np.array(["1", "2", "3"], dtype=object))
    heads: Sequence[str] = ["x", "y", "z"]
    assert woven(3, heads, Ragged(counts, texts.take(words)), "-", doubled, "\n") == "xab-a1b2\ny-\nza-a3\n"
    assert made == [0, 1], "each text is made once"
    assert woven(0, [], Ragged(counts[:0], texts.take(words[:0])), "\n") == ""
