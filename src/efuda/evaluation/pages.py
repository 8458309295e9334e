"""The sections of an evaluation's `report.html`: numbers with intervals, plots, tables that sort, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from efuda.errors import ImageError
from efuda.evaluation.comparison import Compared, difference_row
from efuda.evaluation.results import Measured, Results
from efuda.images import read_rgb
from efuda.metrics import Counts, Interval, Reliability, Score
from efuda.reports import Chip, Picture, Report, bar_plot, line_plot

if TYPE_CHECKING:
    from efuda.evaluation.evaluation import Evaluation, Shown, Suspect

__all__ = ["add_pictures", "add_sections"]


def add_sections(found: Evaluation, report: Report) -> None:
    """Everything."""
    for title, facts in _facts(found):
        report.facts(f"{found.split.capitalize()} split, {title}", facts)
    report.table("Policies and harnesses", _RULE_HEADER, [*_rules(found)], caption=_RULE_CAPTION)
    for compared in found.compared:
        _add_compared(compared, report)
    name, used = found.used
    _add_figures(found.results, name, used, report)
    for title, micro, macro in (
        ("Categories", used.per_category, used.macro_per_category),
        ("Frequency: pictures in the dataset that carry the tag", used.per_decade, used.macro_per_decade),
    ):
        report.table(title, _GROUP_HEADER, [_group(name, micro[name], macro[name]) for name in micro])
    top = [[f"first {one.k}", one.hit, one.precision] for one in found.results.top]
    report.table("The highest scores", ["", "with a true tag", "true of them"], top)
    rows = found.tag_rows()
    cells = [[_cell(value) for value in row.values()] for row in rows]
    report.table("Tags", list(rows[0]), cells, caption=_TAGS_CAPTION)
    add_pictures(found, report, "Pictures")
    _add_suspects(found, report)


def add_pictures(found: Evaluation, report: Report, title: str) -> None:
    """A few pictures of the split with what was predicted."""
    report.pictures(
        title,
        [_card(one) for one in found.shown],
        caption="Green: predicted and true. Yellow: true, not predicted. Red: predicted, not among the labels.",
    )


_GROUP_HEADER = ["", "tags", "micro P", "micro R", "micro F1", "tags in macro", "macro P", "macro R", "macro F1"]
_TAGS_CAPTION = (
    "A tag without pictures in this split has no recall and no F1 and is in no mean. A threshold of – means that the "
    "tag is never predicted. f1_low and f1_high are 95 %."
)


_RULE_HEADER = [
    "posts",
    "policy",
    "pictures",
    *_GROUP_HEADER[2:5],
    "95 %",
    *_GROUP_HEADER[6:],
    "95 %",
    "mAP",
    "never",
]
_RULE_CAPTION = (
    "The first 95 % is of micro F1, the second of macro F1. Diligent: the fifth of the posts with the most labels. "
    "Audited: posts with clean labels. Never: tags that are never predicted, since they cannot keep what is asked for."
)


def _facts(found: Evaluation) -> Iterator[tuple[str, Mapping[str, object]]]:
    results, (used, _) = found.results, found.used
    titles = {"calibrated": "calibrated thresholds", "0.5": "threshold 0.5"}
    auc = results.roc_auc[~np.isnan(results.roc_auc)]
    more: dict[str, object] = {
        _with("mAP", results.map_interval): results.map,
        "ROC-AUC": float(auc.mean()) if len(auc) else float("nan"),
        "calibration error (ECE)": results.reliability.error,
    }
    if results.calibrated:
        more["ECE of calibrated scores"] = results.calibrated.reliability.error
    yield titles[used], {**_headline(results.measured[used]), **more}
    if used != "0.5":
        yield titles["0.5"], _headline(results.measured["0.5"])


def _rules(found: Evaluation) -> Iterator[list[object]]:
    for harness, results in found.harnesses.items():
        for rule, one in results.measured.items():
            never = 0 if one.thresholds is None else int(np.isinf(one.thresholds).sum())
            yield [
                harness,
                rule,
                results.pictures,
                *_three(one.micro),
                _span(one.intervals["micro_f1"]),
                *_three(one.macro),
                _span(one.intervals["macro_f1"]),
                results.map,
                never,
            ]


def _three(score: Score) -> tuple[float, float, float]:
    return score.precision, score.recall, score.f1


def _span(bounds: Interval) -> str:
    return "–" if bounds.low != bounds.low else f"{bounds.low:.3f}–{bounds.high:.3f}"


def _headline(measured: Measured) -> dict[str, object]:
    facts: dict[str, object] = {}
    for kind, score in (("micro", measured.micro), ("macro", measured.macro)):
        for name, text in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
            bounds = measured.intervals[f"{kind}_{name}"]
            facts[_with(f"{kind} {text}", bounds)] = getattr(score, name)
    facts["F1 by picture"] = measured.pictures.f1
    return facts


def _with(name: str, bounds: Interval) -> str:
    return name if bounds.low != bounds.low else f"{name} · {_span(bounds)}"


def _add_compared(compared: Compared, report: Report) -> None:
    rows = [["mAP", *difference_row(compared.map)]]
    for rule, measures in compared.differences.items():
        rows += [
            [f"{name.replace('_', ' ').replace('f1', 'F1')}, {rule}", *difference_row(one)]
            for name, one in measures.items()
        ]
    report.table(
        f"Against {compared.name}",
        ["measure", "this model", compared.name, "difference", "from", "to", "surely"],
        rows,
        caption=f"On the {compared.tags:,} tags that both know and the same pictures; the interval of the difference "
        "is 95 %, by paired bootstrap.",
    )


def _add_figures(results: Results, name: str, used: Measured, report: Report) -> None:
    recall, precision = _pooled(results.curve)
    mark = (used.micro.recall, used.micro.precision, f"F1 {used.micro.f1:.3f}")
    lines = {"scores": _line(results.reliability)}
    if results.calibrated:
        lines["calibrated"] = _line(results.calibrated.reliability)
    lines["as it should be"] = ([0.0, 1.0], [0.0, 1.0])
    decades = {key: one.f1 for key, one in used.macro_per_decade.items() if one.f1 == one.f1}
    report.figure(
        "Precision and recall; reliability; frequency",
        line_plot({"all tags pooled": (recall, precision)}, x="recall", y="precision", mark=mark),
        line_plot(lines, x="score", y="share that is true"),
        *(
            [bar_plot(list(decades), list(decades.values()), x="macro F1 by pictures in the dataset")]
            if decades
            else []
        ),
        caption="Left: one threshold for all tags, from 0.01 to 0.99; the dot is where the thresholds in use "
        f"({name}) stand. Then: whether scores are probabilities.",
    )


def _line(table: Reliability) -> tuple[list[float], list[float]]:
    some = table.count > 0
    return table.score[some].tolist(), table.observed[some].tolist()


def _pooled(curve: Counts) -> tuple[list[float], list[float]]:
    """Recall and precision at thresholds 0.01, 0.02, … 0.99."""
    step = (len(curve.tp) - 1) // 100
    chosen = list(range(step, len(curve.tp) - step, step))
    tp, fp, fn = (np.asarray(part)[chosen] for part in (curve.tp, curve.fp, curve.fn))
    some = (tp + fp > 0) & (tp + fn > 0)
    return list((tp[some] / (tp + fn)[some]).astype(float)), list((tp[some] / (tp + fp)[some]).astype(float))


def _group(name: str, micro: Score, macro: Score) -> list[object]:
    return [
        name,
        micro.tags,
        micro.precision,
        micro.recall,
        micro.f1,
        macro.tags,
        macro.precision,
        macro.recall,
        macro.f1,
    ]


def _add_suspects(found: Evaluation, report: Report) -> None:
    for title, suspects, caption in (
        (
            "Likely missing labels",
            found.missing_labels(),
            "Not among the post's labels, though the tag is seldom wrong and the score is above most of the tag's own "
            "pictures: look whether the label should be there.",
        ),
        (
            "Worst false positives",
            found.false_positives(),
            "High scores for tags that are often wrong.",
        ),
    ):
        if cards := [card for one in suspects if (card := _suspect(one))]:
            report.pictures(title, cards, caption=caption)


def _suspect(one: Suspect) -> Picture | None:
    """None where the picture is no longer readable."""
    try:
        image = read_rgb(one.path)
    except ImageError:
        return None
    chips = [
        Chip(f"{one.tag} {one.score:.2f}", "extra"),
        Chip(f"above {one.outranked:.0%} of its pictures"),
        Chip(f"precision {one.precision:.2f}"),
    ]
    return Picture(image, f"post {one.post}", chips)


def _card(shown: Shown) -> Picture:
    predicted = dict(shown.predicted)
    chips = [Chip(f"{name} {value:.2f}", "hit" if name in shown.true else "extra") for name, value in predicted.items()]
    chips += [Chip(name, "miss") for name in shown.true if name not in predicted]
    return Picture(read_rgb(shown.path), f"post {shown.post}", chips)


def _cell(value: object) -> object:
    return float("nan") if value is None else value
