"""From sampled entries to posts with their labels: filters, counting, the cut, and the numbers of the tags that stay.

The order is the reference run's: tags are counted on the sample, then comes the minimum count. Everything
is arrays over a chunk at a time; threads share the chunks, since numpy lets go of the interpreter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

from efuda.datasets.entries import CATEGORIES
from efuda.datasets.reading import Chunk, Entries
from efuda.datasets.relations import Relations, read_tag_names
from efuda.datasets.rows import arrange, sort_rows, take_rows, unpack
from efuda.datasets.times import UNKNOWN, microseconds
from efuda.errors import InputError
from efuda.files import replacing
from efuda.recipes import PostsRecipe, Recipe
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary
from efuda.workers import few_ahead

__all__ = ["REJECTED", "Selection", "choose_vocabulary", "label_posts", "select"]

REJECTED: Final[Any] = arrow.schema(
    [("id", arrow.int64()), ("stage", arrow.string()), ("reason", arrow.string()), ("path", arrow.string())]
)
# Before Danbooru's "general" existed, s was "safe"; a dump that never says g is of that time.
_THREE_LEVELS: Final = {"s": "general", "q": "questionable", "e": "explicit"}
_FOUR_LEVELS: Final = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
T = TypeVar("T")


@dataclass
class Selection:
    """What is used of each chunk, and what the tags of the sample add up to.

    Attributes:
        used: a mask a chunk: the posts.
        held_out: a mask a chunk: the posts that carry a tag of `split.hold_out`.
        counts: int64 [names], in how many sampled entries each tag stands, the held-out ones not counted.
        ratings: letter → sampled entries; four_levels: whether the dump knows "general".
        rejected: a table `REJECTED`.
    """

    counts: NDArray[np.int64]
    used: list[NDArray[np.bool_]] = field(default_factory=list)
    held_out: list[NDArray[np.bool_]] = field(default_factory=list)
    ratings: dict[str, int] = field(default_factory=dict)
    four_levels: bool = False
    rejected: Any = None

    @property
    def posts(self) -> int:
        """How many posts are used."""
        return int(sum(mask.sum() for mask in self.used))

    @property
    def levels(self) -> dict[str, str]:
        """Letter → rating."""
        return _FOUR_LEVELS if self.four_levels else _THREE_LEVELS


def select(entries: Entries, recipe: Recipe, relations: Relations) -> Selection:
    """Keep the newest entry of each id, filter, and count tags on what is left.

    Entries without an id are counted, as in the reference run, but cannot be posts.

    Raises:
        InputError: `split.hold_out` names a tag that nothing carries.
    """
    ids = np.concatenate([_ids(chunk.open()) for chunk in entries.chunks] or [np.zeros(0, np.int64)])
    superseded = _superseded(entries, ids)
    selection = Selection(np.zeros(len(entries.names), np.int64))
    held = _name_mask(entries.names, [relations.aliases.get(name, name) for name in recipe.split.hold_out])
    without = _name_mask(entries.names, recipe.posts.without)

    def one(chunk: Chunk) -> _Judged:
        return _judge(chunk, superseded[chunk.first : chunk.first + chunk.rows], recipe.posts, held, without)

    rejected: list[Any] = []
    for chunk, judged in zip(entries.chunks, in_threads(one, entries.chunks), strict=True):
        selection.used.append(judged.used)
        selection.held_out.append(judged.held_out)
        selection.four_levels |= judged.four_levels
        np.add.at(selection.counts, chunk.codes, judged.counts)
        for letter, count in judged.ratings.items():
            selection.ratings[letter] = selection.ratings.get(letter, 0) + count
        rejected.append(judged.rejected)
    selection.rejected = arrow.concat_tables(rejected) if rejected else REJECTED.empty_table()
    if recipe.split.hold_out and not any(mask.any() for mask in selection.held_out):
        raise InputError(
            f"split.hold_out: no post carries any of {', '.join(recipe.split.hold_out)}. Check the spelling."
        )
    return selection


def choose_vocabulary(
    entries: Entries, selection: Selection, recipe: Recipe, relations: Relations, *, keep: Sequence[Tag] = ()
) -> tuple[Vocabulary, int, NDArray[np.int64]]:
    """Keep the tags that occur often enough, in the WD layout's order.

    Args:
        keep: tags of the dataset that is extended; they stay whatever their count.

    Returns:
        The vocabulary, how many different tags there were before the cut, and their counts, falling.

    Raises:
        InputError: nothing is left.
    """
    wanted = recipe.vocabulary
    category = _categories(entries, relations)
    known = np.isin(category, [int(Category[name.upper()]) for name in wanted.categories]) & (selection.counts > 0)
    kept = known & (selection.counts >= wanted.minimum_count)
    kept &= ~_name_mask(entries.names, [*wanted.exclude, *recipe.split.hold_out])
    if wanted.only:
        kept &= _name_mask(entries.names, sorted(read_tag_names(wanted.only)), wildcards=False)
    codes = np.flatnonzero(kept)
    if wanted.maximum_size and len(codes) > wanted.maximum_size:
        names = np.array(entries.names, dtype=object)[codes]
        codes = codes[np.lexsort((names, -selection.counts[codes]))][: wanted.maximum_size]
    before = np.sort(selection.counts[known])[::-1]
    tags = {
        entries.names[code]: Tag(entries.names[code], Category(int(category[code])), int(selection.counts[code]))
        for code in codes.tolist()
    }
    if not tags:
        raise InputError(
            f"No tag is left: none of {len(before):,} occurs in at least {wanted.minimum_count} of the sampled "
            "entries and is asked for by [vocabulary]. Use more entries, or lower it with "
            "--set vocabulary.minimum_count=20"
        )
    code_of = {name: code for code, name in enumerate(entries.names)} if keep else {}
    for tag in keep:
        if tag.category is not Category.RATING and tag.name not in tags:
            code = code_of.get(tag.name)
            tags[tag.name] = Tag(tag.name, tag.category, 0 if code is None else int(selection.counts[code]))
    ratings = [Tag(name, Category.RATING, _rating_count(selection, name)) for name in RATINGS]
    return Vocabulary.in_wd_order([*tags.values(), *(ratings if wanted.ratings else [])]), len(before), before


def label_posts(
    entries: Entries, selection: Selection, vocabulary: Vocabulary, path: Path, *, times: bool = False
) -> Any:
    """Write the posts with their labels to an Arrow file, and open it.

    Args:
        times: whether `created` is needed; it is `UNKNOWN` otherwise.

    Returns:
        A table, mapped into memory: id, rating, ext, md5, path, created (µs), held_out, tags (sorted outputs).
    """
    code_of = {tag.name: row for row, tag in enumerate(vocabulary) if tag.category is not Category.RATING}
    outputs = np.array([code_of.get(name, -1) for name in entries.names], dtype=np.int32)
    rating_rows = {tag.name: row for row, tag in enumerate(vocabulary) if tag.category is Category.RATING}
    ratings = {letter: rating_rows[name] for letter, name in selection.levels.items() if name in rating_rows}

    def one(part: tuple[Chunk, NDArray[np.bool_], NDArray[np.bool_]]) -> Any:
        return _label(*part, outputs, ratings, times=times)

    parts = list(zip(entries.chunks, selection.used, selection.held_out, strict=True))
    with (
        replacing(path, durable=False) as beside,
        arrow.OSFile(str(beside), "wb") as sink,
        arrow.ipc.new_file(sink, _LABELLED) as writer,
    ):
        for table in in_threads(one, parts):
            writer.write_table(table)
    return arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()


def in_threads(function: Callable[[T], Any], items: Sequence[T]) -> Iterator[Any]:
    """`map` over a few threads, in order, never far ahead."""
    threads = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(
            few_ahead(items, lambda item: pool.submit(function, item), lambda: 2 * threads, Future.cancel)
        ) as begun,
    ):
        for _, future in begun:
            yield future.result()


_LABELLED: Final[Any] = arrow.schema(
    [
        ("id", arrow.int64()),
        ("rating", arrow.string()),
        ("ext", arrow.string()),
        ("md5", arrow.string()),
        ("path", arrow.string()),
        ("created", arrow.int64()),
        ("held_out", arrow.bool_()),
        ("tags", arrow.list_(arrow.int32())),
    ]
)


@dataclass(frozen=True)
class _Judged:
    used: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    counts: NDArray[np.int64]
    ratings: dict[str, int]
    four_levels: bool
    rejected: Any


def _judge(
    chunk: Chunk,
    superseded: NDArray[np.bool_],
    recipe: PostsRecipe,
    held: NDArray[np.bool_],
    without: NDArray[np.bool_],
) -> _Judged:
    table = chunk.open()
    starts, local = unpack(table["tags"])
    ids = _ids(table)
    why = ["", "a later entry has the same id", "no id"]
    reason = np.where(superseded, 1, 0).astype(np.int16)
    for mask, words in _faults(table, ids, np.diff(starts), recipe):
        reason[(reason == 0) & mask] = len(why)
        why.append(words)
    if without.any():
        reason[(reason == 0) & _carries(starts, without[chunk.codes][local])] = len(why)
        why.append("carries a tag of posts.without")
    counted = reason == 0
    reason[counted & (ids == 0)] = 2
    held_out = _carries(starts, held[chunk.codes][local]) if held.any() else np.zeros(chunk.rows, bool)
    _, codes = take_rows(starts, local, np.flatnonzero(counted & ~held_out))
    rating = compute.value_counts(table["rating"].filter(arrow.array(counted))).to_pylist()
    out = np.flatnonzero(reason)
    return _Judged(
        used=counted & (ids > 0),
        held_out=held_out & counted & (ids > 0),
        counts=np.bincount(codes, minlength=len(chunk.codes)),
        ratings={one["values"]: one["counts"] for one in rating if one["values"]},
        four_levels=bool(compute.any(compute.equal(table["rating"], "g")).as_py()),
        rejected=_rejected(ids[out], [why[code] for code in reason[out].tolist()]),
    )


def _faults(
    table: Any, ids: NDArray[np.int64], tags: NDArray[np.int64], recipe: PostsRecipe
) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """What the recipe does not want: a mask and the reason."""

    def flag(name: str) -> NDArray[np.bool_]:
        return np.asarray(table[name].fill_null(False).to_numpy())

    if not recipe.deleted:
        yield flag("deleted"), "deleted"
    if not recipe.banned:
        yield flag("banned"), "banned"
    if recipe.ratings:
        rating = table["rating"].fill_null("unknown")
        for value in sorted(set(compute.unique(rating).to_pylist()) - set(recipe.ratings)):
            yield compute.equal(rating, value).to_numpy(), f"rating {value}"
    if recipe.minimum_score is not None:
        score = table["score"].fill_null(np.iinfo(np.int64).min).to_numpy()
        yield score < recipe.minimum_score, f"score below {recipe.minimum_score}"
    if recipe.minimum_id is not None:
        yield (ids > 0) & (ids < recipe.minimum_id), f"id below {recipe.minimum_id}"
    if recipe.maximum_id is not None:
        yield ids > recipe.maximum_id, f"id above {recipe.maximum_id}"
    if recipe.created_from or recipe.created_before:
        created = microseconds(table["created"])
        yield created == UNKNOWN, "date unknown"
        if recipe.created_from:
            yield created < _day(recipe.created_from), f"created before {recipe.created_from}"
        if recipe.created_before:
            yield created >= _day(recipe.created_before), f"created on {recipe.created_before} or later"
    if recipe.file_types:
        allowed = {kind.lower().lstrip(".").replace("jpeg", "jpg") for kind in recipe.file_types}
        kinds = table["ext"].fill_null("unknown")
        for value in sorted(set(compute.unique(kinds).to_pylist())):
            if value.replace("jpeg", "jpg") not in allowed:
                yield compute.equal(kinds, value).to_numpy(), f"file type {value}"
    if recipe.minimum_tags:
        yield tags < recipe.minimum_tags, f"fewer than {recipe.minimum_tags} tags"


def _label(
    chunk: Chunk,
    used: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    outputs: NDArray[np.int32],
    ratings: dict[str, int],
    *,
    times: bool,
) -> Any:
    table = chunk.open()
    rows = np.flatnonzero(used)
    starts, local = take_rows(*unpack(table["tags"]), rows)
    codes = outputs[chunk.codes][local]
    table = table.filter(arrow.array(used))
    if ratings:
        letters = table["rating"].fill_null("").to_numpy()
        level = np.array([ratings.get(letter, -1) for letter in letters], dtype=np.int32)
        starts, codes = arrange([(np.ones(len(level), np.int64), level), (np.diff(starts), codes)])
    starts, codes = sort_rows(starts, codes)
    return arrow.table(
        {
            "id": table["id"],
            "rating": table["rating"],
            "ext": table["ext"],
            "md5": table["md5"],
            "path": table["path"],
            "created": microseconds(table["created"]) if times else np.full(len(rows), UNKNOWN),
            "held_out": held_out[used],
            "tags": arrow.ListArray.from_arrays(arrow.array(starts.astype(np.int32)), arrow.array(codes)),
        },
        schema=_LABELLED,
    )


def _superseded(entries: Entries, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Entries whose id another one has that was updated later; between equals the last in file order stays."""
    rows = np.flatnonzero(ids > 0)
    order = rows[np.argsort(ids[rows], kind="stable")]
    same = ids[order][1:] == ids[order][:-1]
    doubled = np.zeros(len(order), dtype=bool)
    doubled[1:] |= same
    doubled[:-1] |= same
    lost = np.zeros(len(ids), dtype=bool)
    if not doubled.any():
        return lost
    rows = np.sort(order[doubled])
    updated = np.concatenate(
        [
            microseconds(chunk.open()["updated"].take(arrow.array(_within(rows, chunk) - chunk.first)))
            for chunk in entries.chunks
        ]
    )
    newest_last = np.lexsort((rows, updated, ids[rows]))
    ordered = ids[rows][newest_last]
    lost[rows[newest_last][:-1][ordered[1:] == ordered[:-1]]] = True
    return lost


def _within(rows: NDArray[np.int64], chunk: Chunk) -> NDArray[np.int64]:
    return rows[np.searchsorted(rows, chunk.first) : np.searchsorted(rows, chunk.first + chunk.rows)]


def _categories(entries: Entries, relations: Relations) -> NDArray[np.int64]:
    """Danbooru's number for each name: where it is written most; a tag list decides where it was only ever general."""
    numbers = np.array([int(Category[name.upper()]) for name in CATEGORIES])
    category = numbers[entries.categories]
    if relations.categories:
        known = set(map(int, Category)) - {int(Category.RATING)}
        for code in np.flatnonzero(entries.category_counts[:, 1:].sum(axis=1) == 0).tolist():
            listed = relations.categories.get(entries.names[code], 0)
            category[code] = listed if listed in known else 0
    return category


def _name_mask(names: Sequence[str], patterns: Sequence[str], *, wildcards: bool = True) -> NDArray[np.bool_]:
    """Which names match; `*` stands for anything, every other character for itself."""
    exact = {pattern for pattern in patterns if not wildcards or "*" not in pattern}
    mask = np.array([name in exact for name in names], dtype=bool)
    globs = [pattern for pattern in patterns if pattern not in exact]
    if globs:
        one = re.compile("|".join(f"(?:{'.*'.join(map(re.escape, pattern.split('*')))})" for pattern in globs))
        mask |= np.array([one.fullmatch(name) is not None for name in names], dtype=bool)
    return mask


def _carries(starts: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows hold a marked value."""
    before = np.concatenate([[0], np.cumsum(marked)])
    return np.asarray(before[starts[1:]] > before[starts[:-1]])


def _rejected(ids: NDArray[np.int64], reasons: list[str]) -> Any:
    return arrow.table(
        {
            "id": arrow.array(ids, mask=ids == 0),
            "stage": arrow.array(["posts"] * len(ids), arrow.string()),
            "reason": arrow.array(reasons, arrow.string()),
            "path": arrow.nulls(len(ids), arrow.string()),
        },
        schema=REJECTED,
    )


def _ids(table: Any) -> NDArray[np.int64]:
    """The ids, 0 where there is none."""
    return np.asarray(np.maximum(table["id"].fill_null(0).to_numpy(), 0))


def _rating_count(selection: Selection, name: str) -> int:
    return sum(selection.ratings.get(letter, 0) for letter, level in selection.levels.items() if level == name)


def _day(day: Any) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))
