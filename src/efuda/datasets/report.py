"""A dataset's `report.html`: what became of the entries, which tags there are, what was left out, what changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from efuda.datasets.contents import Contents, Pictures, Reason, Rows, positives, read_posts, read_rejected
from efuda.datasets.neighbours import find_neighbours
from efuda.datasets.splitting import SPLITS
from efuda.recipes import Recipe
from efuda.reports import Bar, Chip, Picture, Report, Share, column_plot, curve_plot, heat_map, percent
from efuda.vocabulary import Category

__all__ = ["Change", "Findings", "write_report"]

_TOP: Final = 30
_PICTURES: Final = 24
_CHIPS: Final = 16
_LISTED: Final = 2000
_REASONS: Final = 200
_STEPS: Final = {
    "entries": "entries in the metadata",
    "sampled": "sampled",
    "posts": "posts that pass the filters",
    "images_found": "pictures found",
    "images_verified": "pictures verified",
}
_FAST: Final = 8  # bits; near-duplicates further apart take long to find again
_RATINGS: Final = ("general", "sensitive", "questionable", "explicit", "not said", "other")


@dataclass(frozen=True)
class Change:
    """What an extended dataset has that the earlier one had not."""

    base: str
    posts_before: Mapping[str, int]
    posts_after: Mapping[str, int]
    tags_added: Sequence[str]
    tags_gone: Sequence[str]
    left_out: int


@dataclass(frozen=True)
class Findings:
    """What the files of the dataset do not say.

    Attributes:
        sources: what was read, in words.
        uncovered: tag → the splits in which nothing carries it.
        moved: posts that changed split for a rare tag.
        crossing: groups that stand in several splits.
        counts_before_cut: int64 [unique tags], occurrences, falling; without it the curve shows the kept tags.
        read: row of posts.parquet → the picture's bytes, where they lie neither in a shard nor at their path.
    """

    sources: Sequence[str]
    uncovered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    moved: int = 0
    crossing: int = 0
    counts_before_cut: NDArray[np.int64] | None = None
    change: Change | None = None
    read: Callable[[int], bytes] | None = None


def write_report(out: Path, recipe: Recipe, findings: Findings, images: str) -> None:
    """Write `out/report.html` from the dataset's files; the same files give the same bytes.

    Args:
        images: the first images folder, for the sample of pictures.
    """
    funnel: dict[str, int] = json.loads((out / "funnel.json").read_text(encoding="utf-8"))
    tags = parquet.read_table(out / "tags.parquet")
    rejected = read_rejected(out / "rejected.parquet")
    with parquet.ParquetFile(out / "posts.parquet") as posts:
        contents = read_posts(posts, tags, _TOP)
        report = Report("Dataset", "; ".join(findings.sources))
        _summary(report, funnel, tags, contents)
        if findings.change:
            _change(report, findings.change, tags)
        _funnel(report, funnel)
        _splits(report, funnel, tags, recipe, findings)
        _groups(report, contents, recipe, findings)
        _frequencies(report, tags, contents, recipe, findings)
        _shares(report, tags, contents)
        _together(report, tags, contents)
        _rejected(report, rejected)
        general = contents.has("g") or any(kind.is_rating_general() for kind in rejected)
        fit = contents.rated(*("g", "") if general else ("s", ""))
        _pictures(report, Pictures(posts, out, images, findings.read), tags, fit, general=general)
    _tag_table(report, tags, [name for name in SPLITS if name in funnel])
    report.write(out / "report.html")


def _summary(report: Report, funnel: Mapping[str, int], tags: Any, contents: Contents) -> None:
    per_post = np.arange(len(contents.lengths)) @ contents.lengths / max(int(contents.lengths.sum()), 1)
    left_out = funnel.get("images_verified", 0) - len(contents.ratings)
    facts: dict[str, object] = {
        "posts": len(contents.ratings),
        "tags": len(tags),
        "tags a post, on average": f"{per_post:.1f}",
        **{name: funnel[name] for name in SPLITS if name in funnel},
        "different tags before the cut": funnel["unique_tags"],
        "unreadable lines": funnel["bad_lines"],
    }
    if left_out > 0:
        facts["left out when splitting"] = left_out
    report.facts("In short", facts)


def _change(report: Report, change: Change, tags: Any) -> None:
    before, after = change.posts_before, change.posts_after
    names = [name for name in SPLITS if name in before or name in after]
    rows = [(name, before.get(name, 0), after.get(name, 0)) for name in names]
    rows.append(("all", sum(before.values()), sum(after.values())))
    left_out = (
        f" New posts left out: {change.left_out:,}; their relatives stand in different splits of it, so that in either "
        "a picture that is measured on would have a twin that was learned from."
        if change.left_out
        else " No new post had to be left out."
    )
    report.table(
        "What changed",
        ["split", "before", "now", "more"],
        [[name, old, new, new - old] for name, old, new in rows],
        caption=f"Extends {change.base}. Its posts keep their split, so measurements stay comparable.{left_out}",
    )
    title = f"New tags: {len(change.tags_added):,}"
    if change.tags_added:
        added = set(change.tags_added)
        known = [row for row in tags.drop(["aliases"]).to_pylist() if row["name"] in added]
        report.table(
            title,
            ["tag", "category", "occurrences", "train"],
            [_tag(row, ["train"]) for row in known[:_LISTED]],
            caption=_first(len(known)) + "A model trained on the earlier dataset has no output for them.",
        )
    else:
        report.text(title, "The vocabulary did not grow.")
    if change.tags_gone:
        shown = ", ".join(change.tags_gone[:300])
        report.text(f"Tags gone: {len(change.tags_gone):,}", _first(len(change.tags_gone), 300) + shown)


def _funnel(report: Report, funnel: Mapping[str, int]) -> None:
    steps = [(words, funnel[step]) for step, words in _STEPS.items() if step in funnel]
    kept = sum(funnel.get(name, 0) for name in SPLITS)
    if kept != steps[-1][1]:
        steps.append(("in a split", kept))
    whole = max(max(count for _, count in steps), 1)
    bars, losses = [], []
    for (name, count), (_, before) in zip(steps, [steps[0], *steps], strict=False):
        lost = before - count
        note = percent(count / whole) + (f" · −{lost:,}" if lost > 0 else "")
        bars.append(Bar(name, count, count / whole, note, before / whole))
        losses.append(0 if name == _STEPS["sampled"] else lost)  # sampling is a choice, not a loss
    largest = max(losses)
    step = f"“{steps[losses.index(largest)][0]}”: {largest:,}, {percent(largest / whole)} of all entries"
    report.bars(
        "From entries to posts",
        {"": bars},
        caption="Widths are counts, not their logarithms; pale is what a step took away; shares are of all entries. "
        + (f"The largest loss is at {step}; “What was left out” below says why." if largest > 0 else ""),
    )
    unique, kept = funnel["unique_tags"], funnel["kept_tags"]
    share = kept / max(unique, kept, 1)
    report.bars(
        "From names to outputs",
        {"": [Bar("different tags", unique, float(unique > 0), "100.0%"), Bar("kept", kept, share, percent(share), 1)]},
        caption="Most names of a booru occur a handful of times; the curve below shows how much of all tagging lies "
        "above the cut.",
    )


def _splits(report: Report, funnel: Mapping[str, int], tags: Any, recipe: Recipe, findings: Findings) -> None:
    names = [name for name in SPLITS if name in funnel]
    carried = [Bar(name, *_part(int((tags[name].to_numpy() > 0).sum()), len(tags))) for name in names]
    split = recipe.split
    wanted = f"{split.train:.0%} train, {split.validation:.0%} validation, {split.test:.0%} test"
    moved = f" Posts moved, so that rare tags have a positive in every split: {findings.moved:,}."
    bare = [tags["name"][int(row)].as_py() for row in np.flatnonzero(positives(tags) == 0)]
    never = f" Tags that no usable picture carries: {len(bare):,}, for example {', '.join(bare[:5])}; their outputs "
    never += "learn only that they are never there."
    report.bars(
        "Splits",
        {"Posts": _parts([(name, funnel[name]) for name in names]), "Tags that at least one post carries": carried},
        caption=f"Split by {split.method}; the recipe asks for {wanted}.{moved if findings.moved else ''} A tag that "
        f"nothing in a split carries cannot be measured there.{never if bare else ''}",
    )
    if not findings.uncovered:
        return
    known = {row["name"]: row for row in tags.to_pylist()}
    rows = [
        [*_tag(known[name], SPLITS[:3]), ", ".join(findings.uncovered[name])]
        for name in known
        if name in findings.uncovered
    ]
    report.table(
        f"Tags that lack a positive in a split: {len(findings.uncovered):,}",
        ["tag", "category", "occurrences", *SPLITS[:3], "missing in"],
        rows[:_LISTED],
        caption=_first(len(rows)) + "Too few groups of posts carry them. Their scores are left out where they are "
        "missing, not counted as right. A higher minimum_count, or more pictures, makes the list shorter.",
    )


def _groups(report: Report, contents: Contents, recipe: Recipe, findings: Findings) -> None:
    _, place, sizes = np.unique(contents.groups, return_inverse=True, return_counts=True)
    joined = sizes[place] > 1
    facts: dict[str, object] = {
        "groups": len(sizes),
        "with several posts": int((sizes > 1).sum()),
        "posts in those": int(joined.sum()),
        "posts in the largest": int(sizes.max(initial=0)),
    }
    bits, near = recipe.split.near_duplicates, ""
    if bits is not None and bits <= _FAST and contents.hashes is not None:
        facts["posts with a near-duplicate"] = len(np.unique(find_neighbours(contents.hashes[joined], bits)))
    if bits is not None:
        near = f", and pictures whose 64-bit hashes differ in at most {bits} bits"
    facts["groups in several splits"] = findings.crossing
    crossing = (
        f"Groups that stand in several splits: {findings.crossing:,}. Pictures that were learned from have relatives "
        "that are measured on, so the scores will look better than they are. The method hash keeps groups whole."
        if findings.crossing
        else "None stands in several splits: no picture is measured on whose relative was learned from."
    )
    report.facts("Groups", facts, caption=f"A group joins parents and children{near}. {crossing}")


def _frequencies(report: Report, tags: Any, contents: Contents, recipe: Recipe, findings: Findings) -> None:
    counts = np.sort(tags["count"].to_numpy())[::-1] if (all_tags := findings.counts_before_cut) is None else all_tags
    counts = counts[counts > 0]
    cut = recipe.vocabulary.minimum_count
    above = int((counts >= cut).sum())
    rank = np.unique(np.geomspace(1, max(len(counts), 1), 400).astype(int))[: len(counts)]
    curve = curve_plot(
        rank.tolist(),
        counts[rank - 1].tolist(),
        x="tags, the commonest first",
        y="occurrences",
        level=cut,
        label=f"cut at {cut:,}: {above:,} tags above",
    )
    posts, longest = max(int(contents.lengths.sum()), 1), len(contents.lengths) - 1
    until = np.cumsum(contents.lengths) / posts
    median, last = int(np.searchsorted(until, 0.5)), int(np.searchsorted(until, 0.999))
    heights = contents.lengths[: last + 1]
    histogram = column_plot(
        (np.arange(len(heights) + 1) - 0.5).tolist(), heights.tolist(), x="tags a post, of those kept", y="posts"
    )
    share = percent(counts[:above].sum() / max(counts.sum(), 1))
    more = f" Fewer than one post in a thousand has more than {last:,}; they are not drawn." if longest > last else ""
    bare = int(contents.lengths[0])
    none = f" Posts without any: {bare:,}; they teach that nothing is there." if bare else ""
    which = "all tags" if all_tags is not None else "the kept tags (the others were not counted)"
    report.figure(
        "How often tags occur",
        curve,
        histogram,
        caption=f"Left, {which}: {above:,} of {len(counts):,} occur at least {cut:,} times, and those make up {share} "
        "of all occurrences. The further the curve falls before the cut, the rarer the rarest tags that are learned. "
        f"Right: half of the posts have at most {median:,} tags, the longest list has {longest:,}.{more}{none}",
    )


def _shares(report: Report, tags: Any, contents: Contents) -> None:
    numbers, carried = tags["category"].to_numpy(), positives(tags)
    of_kind = [(kind.label, numbers == int(kind)) for kind in Category if (numbers == int(kind)).any()]
    words = [*_RATINGS] if contents.has("g") else [_RATINGS[0], "safe or sensitive", *_RATINGS[2:]]
    ratings = np.bincount(contents.ratings, minlength=len(words)).tolist()
    said = [(word, count) for word, count in zip(words, ratings, strict=True) if count]
    report.bars(
        "Categories and ratings",
        {
            "Tags": _parts([(label, int(mask.sum())) for label, mask in of_kind]),
            "What posts carry": _parts([(label, int(carried[mask].sum())) for label, mask in of_kind]),
            "Posts by rating": _parts(said),
        },
        caption="A category with many tags and few occurrences is made of rare tags, each learned from few pictures. "
        "A model sees ratings in these shares: what is rare here will be scored less reliably.",
    )


def _together(report: Report, tags: Any, contents: Contents) -> None:
    size = len(contents.top)
    if size < 2:
        return
    shares = contents.both / np.maximum(np.diag(contents.both), 1)[:, None]
    names = [tags["name"][int(row)].as_py() for row in contents.top]
    apart = shares - 2 * np.eye(size)
    strongest = [divmod(int(at), size) for at in np.argsort(-apart, axis=None, kind="stable")[: min(3, size)]]
    told = "; ".join(f"{percent(shares[row, col])} of {names[row]} also carry {names[col]}" for row, col in strongest)
    report.figure(
        "Which tags stand together",
        heat_map(names, shares.tolist(), "{share} of the posts with {row} also carry {column}"),
        caption="Percent of the posts with the row's tag that also carry the column's; the commonest tags, without "
        f"ratings. Strongest: {told}. A pair near 100 is hardly ever seen apart, so a model cannot learn one without "
        "the other. A column that is dark all the way down is a tag of nearly every picture.",
        wide=True,
    )


def _rejected(report: Report, kinds: Sequence[Reason]) -> None:
    whole = sum(kind.count for kind in kinds)
    if not whole:
        report.text("What was left out", "Nothing.")
        return
    report.table(
        "What was left out",
        ["stage", "reason", "how many", "share", "for example (id, place)"],
        [
            [kind.stage, kind.text(), kind.count, Share(kind.count / whole), ", ".join(kind.examples)]
            for kind in kinds[:_REASONS]
        ],
        caption=f"{whole:,} in all, each with its reason in rejected.parquet; N stands for numbers that differ. "
        "Shares are of what was left out. Look at the examples of the largest: a wrong folder or a filter that is too "
        "strict shows here first.",
    )


def _pictures(report: Report, posts: Pictures, tags: Any, fit: Rows, *, general: bool) -> None:
    """A few of the posts that `fit`, spread evenly; others stand in for those that cannot be read."""
    names = tags["name"].to_pylist()
    categories = [Category(number) for number in tags["category"].to_pylist()]
    spread = fit[np.unique(np.linspace(0, len(fit) - 1, 4 * _PICTURES).astype(int))] if len(fit) else fit
    shown: dict[int, Picture] = {}
    for row in np.concatenate([spread[start::4] for start in range(4)]).tolist():
        if len(shown) == _PICTURES:
            break
        picture = posts.picture(row)
        if picture is None:
            continue
        post = posts.post(row)
        carried = [tag for tag in post["tags"] if categories[tag] is not Category.RATING]
        carried.sort(key=lambda tag: categories[tag] is Category.GENERAL)  # characters and artists first
        chips = [Chip(names[tag], categories[tag].label) for tag in carried[:_CHIPS]]
        if len(carried) > _CHIPS:
            chips.append(Chip(f"+{len(carried) - _CHIPS}"))
        shown[row] = Picture(picture, f"{post['id']} · {post['split']}", chips)
    which = "general" if general else "safe"
    caption = (
        f"Evenly spread over the dataset; only posts rated {which}, or not at all, are shown. Compare tags and "
        "pictures: what a list lacks, the model is told is not there."
    )
    report.pictures(
        "Some of the posts",
        [shown[row] for row in sorted(shown)],
        caption=caption if shown else f"No post that is rated {which}, or not at all, has a picture that can be read.",
    )


def _tag_table(report: Report, tags: Any, splits: Sequence[str]) -> None:
    rows = [[*_tag(row, splits), ", ".join(row["aliases"][:5])] for row in tags.slice(0, _LISTED).to_pylist()]
    report.table(
        "Every tag" if len(tags) <= _LISTED else "Tags",
        ["tag", "category", "occurrences", *splits, "aliases"],
        rows,
        caption=_first(len(tags), file="tags.parquet") + "In the order of the outputs. Occurrences are those in the "
        "sampled entries; the others are posts of the split that carry the tag. Click a heading to sort.",
    )


def _tag(row: Mapping[str, Any], splits: Sequence[str]) -> list[object]:
    return [row["name"], Category(row["category"]).label, row["count"], *(row[name] for name in splits)]


def _parts(counts: Sequence[tuple[str, int]]) -> list[Bar]:
    whole = sum(count for _, count in counts)
    return [Bar(name, *_part(count, whole)) for name, count in counts]


def _part(count: int, whole: int) -> tuple[int, float, str]:
    share = count / max(whole, 1)
    return count, share, percent(share)


def _first(count: int, listed: int = _LISTED, file: str = "") -> str:
    if count <= listed:
        return ""
    return f"The first {listed:,} of {count:,}" + (f"; all are in {file}. " if file else ". ")
