"""Measuring: one model in depth, or any number of taggers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from efuda.cli.console import output
from efuda.errors import UsageError

__all__ = ["evaluate", "place", "register", "scores_line"]

_F1 = ("micro_f1", "macro_f1")
_PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class _Asked:
    """What is asked of one model."""

    split: str
    minimum_positives: int
    policy: list[str]
    against: list[str]
    diligent: bool
    labels: Path | None
    workers: int


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATASET",
            help="A model made by efuda export and the dataset it was trained on; or any taggers and a dataset.",
            show_default=False,
        ),
    ],
    split: Annotated[str, typer.Option(help="test, validation, train or unseen.")] = "test",
    minimum_positives: Annotated[int, typer.Option(min=1, help="Leave rarer tags out of macro means and mAP.")] = 1,
    policy: Annotated[
        list[str], typer.Option(help="A further threshold policy, fitted on validation; or mcut. May be repeated.")
    ] = [],  # noqa: B006
    against: Annotated[
        list[str], typer.Option(help="Another model, ours or WD's, to compare with. May be repeated.")
    ] = [],  # noqa: B006
    aliases: Annotated[
        Path | None,
        typer.Option(help="A tag list with aliases, for tags that another model names otherwise (CSV)."),
    ] = None,
    diligent: Annotated[
        bool, typer.Option("--diligent", help="Measure the fifth of the posts with the most labels, too.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="A CSV of clean labels (id,tags); measure its posts against them, too.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that run the model.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the report goes; MODEL/evaluation-SPLIT by default, comparison-SPLIT for several."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a model on a split that it has not learned from, with 95 % intervals, and against others.

    With several models, or one that efuda did not make of this dataset, all are judged on the tags that they have in
    common: each by its own preprocessing, with thresholds fitted on validation for all alike, and every difference by
    paired bootstrap. Nothing is written into their directories.
    """
    if len(models) < 2:
        raise UsageError("Name a model and a dataset: efuda evaluate MODEL DATASET.")
    *places, dataset = models
    if len(places) == 1 and _ours(places[0], dataset):
        asked = _Asked(split, minimum_positives, policy, against, diligent, labels, workers)
        _alone(places[0], dataset, out, json, aliases, asked)
        return
    if against or diligent or labels:
        raise UsageError("--against, --diligent and --labels go with one model of efuda's; name all models instead.")
    from efuda.artifacts import Dataset
    from efuda.evaluation import compare

    with output.progress() as progress:
        found = compare(
            [place(text) for text in places],
            Dataset.open(Path(dataset)),
            policies=policy or ("per-tag",),
            split=split,
            minimum_positives=minimum_positives,
            aliases=_aliases(aliases),
            workers=workers,
            progress=progress,
        )
    page = found.write(out or Path(f"comparison-{split}"))
    said = {**found.summary(), "report": str(page)}
    if json:
        output.result(said, as_json=True, text="")
        return
    _tables(found, page)


def place(text: str) -> Path | str:
    """A tagger's directory, or its name as it is, which may be one on the hub."""
    path = Path(text)
    return path if path.exists() else text


def scores_line(scores: Any) -> str:
    """Micro and macro precision, recall and F1 in one line."""
    micro, macro = ([_number(scores[f"{kind}_{key}"]) for key in _PARTS] for kind in ("micro", "macro"))
    return f"micro P {micro[0]} R {micro[1]} F1 {micro[2]}   macro P {macro[0]} R {macro[1]} F1 {macro[2]}"


def _alone(model: str, dataset: str, out: Path | None, json: bool, aliases: Path | None, asked: _Asked) -> None:
    from efuda.artifacts import Dataset, Model
    from efuda.evaluation import Plan
    from efuda.evaluation import evaluate as stage

    plan = Plan(
        policies=asked.policy,
        against=[place(text) for text in asked.against],
        aliases=_aliases(aliases),
        diligent=asked.diligent,
        labels=asked.labels,
        workers=asked.workers,
    )
    with output.progress() as progress:
        found = stage(
            Model.open(Path(model)),
            Dataset.open(Path(dataset)),
            split=asked.split,
            minimum_positives=asked.minimum_positives,
            plan=plan,
            progress=progress,
        )
    page = found.write(out or Path(model) / f"evaluation-{asked.split}")
    summary = found.summary()
    text = "\n".join([*_measured(summary), f"Report: {page}"])
    output.result({**summary, "report": str(page)}, as_json=json, text=text)


def _ours(model: str, dataset: str) -> bool:
    """Whether the model is to be measured in depth: efuda made it, of a dataset with these tags."""
    from efuda.artifacts import Dataset, Model, has_marker

    root = place(model)
    if isinstance(root, str) or not has_marker(root):
        return False
    return Model.open(root).vocabulary == Dataset.open(Path(dataset)).vocabulary


def _aliases(path: Path | None) -> Mapping[str, str] | None:
    if path is None:
        return None
    from efuda.datasets.relations import read_relations

    return read_relations([str(path)]).aliases


def _tables(found: Any, page: Path) -> None:
    for one in found.entries:
        alias = f", {one.by_alias:,} by alias" if one.by_alias else ""
        output.say(f"{one.name}: {one.tags:,} tags, {one.in_dataset:,} of the dataset's{alias}")
    title = f"{found.pictures:,} pictures, {len(found.vocabulary):,} tags in common"
    header = ["model", "thresholds", "macro F1", "95 %", "micro F1", "95 %", "mAP", "95 %"]
    output.table(title, header, [[*map(_cell, row)] for row in found.rows()], right=(2, 3, 4, 5, 6, 7))
    if found.pairs:
        header = ["pair", "measure", "thresholds", "first", "second", "difference", "from", "to", "surely"]
        rows = [[*map(_cell, row[:5]), *(_signed(value) for value in row[5:])] for row in found.differences()]
        output.table("Paired differences, 95 %", header, rows, right=(3, 4, 5, 6, 7))
    print(f"Report: {page}")


def _signed(value: object) -> str:
    return _number(value, "+") if isinstance(value, float) else str(value)


def _cell(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _measured(summary: dict[str, Any]) -> Iterator[str]:
    for name, one in {"": summary, **summary["harnesses"]}.items():
        said = f" of the harness {name!r}" if name else ""
        yield f"{one['pictures']:,} pictures{said}, mAP {_sure(one, 'map')} over {summary['tags_in_macro']} tags"
        rules = {"threshold 0.5": one["at_0.5"], "calibrated": one["calibrated"], **one["policies"]}
        for rule, scores in rules.items():
            if scores:
                yield f"{rule:<16} {scores_line(scores)}   F1 {_range(scores['intervals']['micro_f1'])} and " + _range(
                    scores["intervals"]["macro_f1"]
                )
    for one in summary["compared"]:
        yield f"Against {one['model']}, on {one['tags']:,} tags in common:"
        rules = {name: found for name, found in one.items() if isinstance(found, dict) and name != "map"}
        rows = {"mAP": one["map"], **{f"{key}, {rule}": some[key] for rule, some in rules.items() for key in _F1}}
        for name, row in rows.items():
            yield f"  {name:<28} {_number(row['difference'], '+')} {_range(row['interval'], '+')}"


def _sure(scores: dict[str, Any], key: str) -> str:
    return f"{_number(scores[key])} {_range(scores[f'{key}_interval'])}"


def _range(bounds: list[float | None], sign: str = "") -> str:
    return f"({_number(bounds[0], sign)} to {_number(bounds[1], sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"
