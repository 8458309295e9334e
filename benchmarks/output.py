"""What choosing and writing cost a picture, once its scores are known: 100 kept scores, 25 of them present.

    python benchmarks/output.py

Prints microseconds of processor time a picture, the best of several runs over 512 pictures: warm, the same pictures
again and again, and cold, after the garbage collector has gone through memory before every run. Real jobs lie between:
their pictures are new, their code and names are not. What the disk takes is not counted.
Limits we set ourselves: 8 µs to choose by default rules, 10 µs for a line of JSON or CSV, 20 µs for both.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from efuda.tagging import Chooser, Handful, Rules, Tagged, Tagger, open_sink
from efuda.tagging.writing.forms import Caption, Hydrus, Xmp
from efuda.tagging.writing.results import csv_lines, json_lines, kohya_lines
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

TAGS, PICTURES, KEPT, PRESENT = 10_861, 512, 100, 25
RULES = {
    "default": Rules(),
    "kohya's": Rules(remove_underscore=True, character_tags_first=True, rating_tag="first"),
    "characters expanded": Rules(character_tag_expand=True),
    "exclusive groups": Rules(exclusive="danbooru"),
    "at most 20": Rules(max_tags=20),
}


def main() -> None:
    tagger, batch = fake_tagger(), Handful.of(pictures())
    print(f"{'':<30}{'warm':>7}{'cold':>7}")
    for name, rules in RULES.items():
        chooser = Chooser(tagger, rules)
        report(f"choose: {name}", lambda chooser=chooser: chooser.choose(batch))
    chosen = Chooser(tagger).choose(batch)
    for name, form in {"JSON lines": json_lines("m"), "CSV rows": csv_lines(), "kohya": kohya_lines(", ")}.items():
        report(f"text: {name}", lambda form=form: form.lines(chosen))
    one_by_one = list(chosen)
    lines: dict[str, Callable[[Any], Any]] = {"caption": Caption().fresh, "Hydrus": Hydrus().fresh, "XMP": Xmp().fresh}
    for name, line in lines.items():
        report(f"text: {name}", lambda line=line: [line(one) for one in one_by_one])
    with tempfile.TemporaryDirectory() as folder:
        chooser = Chooser(tagger)
        with open_sink("jsonl", "m", out=Path(folder, "tags.jsonl")) as sink:
            report("choose, and write jsonl", lambda: sink.write_many(chooser.choose(batch)))
        moved = [one._replace(path=Path(folder, one.path.name)) for one in chosen]
        with open_sink("txt", "m") as sink:
            began = time.process_time()
            sink.write_many(moved)
            print(f"{'write txt files, once':<30}{(time.process_time() - began) / PICTURES * 1e6:7.1f}")


def report(what: str, work: Callable[[], object]) -> None:
    print(f"{what:<30}{microseconds(work, cold=False):7.1f}{microseconds(work, cold=True):7.1f}")


def microseconds(work: Callable[[], object], *, cold: bool, runs: int = 15) -> float:
    """A picture, in the best of several runs."""
    best = float("inf")
    for _ in range(runs):
        if cold:
            gc.collect()
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / PICTURES * 1e6


def fake_tagger() -> Tagger:
    tags = [*(Tag(name, Category.RATING) for name in RATINGS), *(Tag(f"some_tag_{number}") for number in range(8_000))]
    rest = TAGS - len(tags)
    tags += [Tag(f"character_{number}_(series_{number % 99})", Category.CHARACTER) for number in range(rest)]
    thresholds = np.full(TAGS, 0.35, np.float32)
    made = SimpleNamespace(vocabulary=Vocabulary(tags), thresholds=thresholds, root=Path(), layout="wd", name="fake")
    return cast(Tagger, made)


def pictures() -> list[Tagged]:
    rng, found = np.random.default_rng(0), []
    for number in range(PICTURES):
        scores = np.zeros(TAGS, np.float32)
        rows = 4 + rng.choice(TAGS - 4, KEPT - 4, replace=False)
        scores[rows[:PRESENT]], scores[rows[PRESENT:]] = rng.uniform(0.36, 1, PRESENT), 0.1
        scores[:4] = (0.9, 0.05, 0.03, 0.02)
        found.append(Tagged.of(Path(f"/pictures/{number:06d}.jpg"), (1200, 900), scores))
    return found


if __name__ == "__main__":
    main()
