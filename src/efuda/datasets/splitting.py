"""Groups of posts that belong together, and which of them are learned from and which only measured on.

A group is what parents, children and near-duplicates join; `hash` and `time` never cut one apart, so that no picture is
measured on whose twin was learned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.datasets.times import UNKNOWN
from efuda.errors import InputError, MissingExtra
from efuda.recipes import SplitRecipe

__all__ = ["SPLITS", "Splits", "group_posts", "split_posts"]

SPLITS: Final = ("train", "validation", "test", "unseen")
_UNSEEN, _FREE = 3, -1
_WORTH: Final = np.array([4, 1, 2])  # a positive to train, validation, test: learned first, then tested
_NEED: Final = (0, 2, 1)  # the order in which a tag's splits are filled
_BATCH: Final = 1 << 17  # posts whose tags are counted at a time
_TRIED: Final = 1000  # groups looked at before a tag is given up

Ids = NDArray[np.int64]
Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Splits:
    """What became of n posts.

    Attributes:
        names: object [n], the split of each.
        left_out: bool [n], posts that can be in no split: their relatives stand in different ones of the dataset that
            is extended, or they are held out and their relatives are learned from or measured on. Their name says
            nothing.
        moved: posts that changed split so that a rare tag has a positive in each.
        uncovered: tag → the splits of train, validation and test in which nothing carries it, of the tags that
            something carries in one of them.
        crossing: groups whose posts stand in several splits (`random` and `id-modulo` know no groups; else only those
            that the dataset that is extended already holds so).
    """

    names: NDArray[np.object_]
    left_out: NDArray[np.bool_]
    moved: int
    uncovered: dict[int, tuple[str, ...]]
    crossing: int


def group_posts(ids: Ids, links: NDArray[np.int64]) -> Ids:
    """The group of each post: the lowest id among all its relatives, its own where it has none.

    Args:
        ids: int64 [n].
        links: int64 [m, 2], pairs of ids that belong together; they may name posts that are not among `ids`.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError as error:
        raise MissingExtra("Grouping posts", "train", "scikit-learn") from error
    if not len(links):
        return ids.copy()
    known, places = np.unique(links, return_inverse=True)
    places = places.reshape(-1, 2)
    graph = coo_array((np.ones(len(links), bool), (places[:, 0], places[:, 1])), shape=(len(known), len(known)))
    _, label = connected_components(graph, directed=False)
    lowest = np.full(label.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, label, known)
    at = np.searchsorted(known, ids)
    at[at == len(known)] = 0
    return np.where(known[at] == ids, lowest[label[at]], ids)


def split_posts(
    ids: Ids,
    groups: Ids,
    recipe: SplitRecipe,
    *,
    held_out: NDArray[np.bool_] | None = None,
    created: Ids | None = None,
    starts: Ids | None = None,
    tags: NDArray[np.int32] | None = None,
    tag_count: int = 0,
    pinned: NDArray[Any] | None = None,
) -> Splits:
    """Say for each post which split it belongs to.

    Posts of the dataset that is extended keep their split, and new relatives join them; held-out posts and their groups
    are "unseen"; then the method decides; then groups are moved for rare tags (`hash`, `time`).

    Args:
        ids, groups: int64 [n].
        created: int64 [n], µs since 1970 or `UNKNOWN`, for `time`.
        starts, tags: post i carries `tags[starts[i]:starts[i + 1]]`, numbers below `tag_count`.
        pinned: [n], the split of each in the dataset that is extended, "" or None for new posts.
    """
    names, where = np.unique(groups, return_inverse=True)  # one row a group
    codes, left_out = _given(len(names), where, held_out, pinned)
    free = np.flatnonzero((codes == _FREE) & ~left_out)
    open_groups: _OpenGroups | None = None
    if recipe.method == "id-modulo":
        codes[free] = _cut(ids[free] % 1000, np.round(_edges(recipe) * 1000, 6))
    elif recipe.method == "random" and (pinned is None or len(free) >= 4):
        codes[free] = _by_chance(len(free), recipe)
    else:
        open_groups = _open_groups(ids, names, where, free, created, recipe)
        codes[free] = open_groups.codes[open_groups.of_post[free]]
    moved, uncovered = 0, {}
    if starts is not None and tags is not None:
        carried = _Carried(starts, tags, tag_count)
        positives = _positives(np.where(left_out, np.int8(_UNSEEN), codes), carried)
        if recipe.rare_tags and recipe.method in ("hash", "time") and open_groups is not None:
            moved = _Covering(codes, positives, carried, open_groups, recipe).run()
        uncovered = _uncovered(positives)
    return Splits(
        names=np.array([*SPLITS, "train"], dtype=object)[codes],
        left_out=left_out,
        moved=moved,
        uncovered=uncovered,
        crossing=_crossing(codes, where, ~left_out, len(names)),
    )


def _given(
    groups: int, where: Ids, held_out: NDArray[np.bool_] | None, pinned: NDArray[Any] | None
) -> tuple[Codes, NDArray[np.bool_]]:
    """What is settled before any method is asked: the code of each post, and which posts can be nowhere."""
    held = np.zeros(len(where), dtype=bool) if held_out is None else held_out
    old = np.full(len(where), _FREE, dtype=np.int8)
    if pinned is not None:
        for code, name in enumerate(SPLITS):
            old[pinned == name] = code
    has = old >= 0
    low = np.full(groups, len(SPLITS), dtype=np.int8)
    high = np.full(groups, _FREE, dtype=np.int8)
    np.minimum.at(low, where[has], old[has])
    np.maximum.at(high, where[has], old[has])
    several = (high > low)[where]
    unseen = np.zeros(groups, dtype=bool)
    unseen[where[held]] = True
    of_group = np.where((high == _FREE) & unseen, np.int8(_UNSEEN), high)
    codes = np.where(has, old, of_group[where])
    return codes, ~has & (several | (held & (codes != _UNSEEN)))


# Methods


@dataclass(frozen=True)
class _OpenGroups:
    """The groups that a method may put anywhere.

    Attributes:
        names: int64 [g].
        place: float64 [g], where the method sees each from 0 (train) to 1 (test).
        codes: int8 [g], the split of each; changes as groups are moved.
        of_post: int64 [n], the group of each post, -1 for posts that are not free.
        posts, starts: the posts of group i are `posts[starts[i]:starts[i + 1]]`.
    """

    names: Ids
    place: NDArray[np.float64]
    codes: Codes
    of_post: Ids
    posts: Ids
    starts: Ids


def _open_groups(ids: Ids, names: Ids, where: Ids, free: Ids, created: Ids | None, recipe: SplitRecipe) -> _OpenGroups:
    which, at = np.unique(where[free], return_inverse=True)
    size = np.bincount(at, minlength=len(which))
    if recipe.method == "time":
        before = _before(_times(ids[free], None if created is None else created[free]), at, size)
        codes = _cut(before, np.round(_edges(recipe) * len(free), 6))
        place = before / max(len(free), 1)
    else:
        place = _places(names[which], recipe.seed)
        codes = _cut(place, _edges(recipe))
    of_post = np.full(len(ids), -1, dtype=np.int64)
    of_post[free] = at
    starts = np.concatenate([[0], np.cumsum(size)])
    return _OpenGroups(names[which], place, codes, of_post, free[np.argsort(at, kind="stable")], starts)


def _edges(recipe: SplitRecipe) -> NDArray[np.float64]:
    return np.array([recipe.train, recipe.train + recipe.validation])


def _cut(places: NDArray[Any], edges: NDArray[np.float64]) -> Codes:
    return np.searchsorted(edges, places, side="right").astype(np.int8)


def _places(groups: Ids, seed: int) -> NDArray[np.float64]:
    """A number from 0 to 1 that a group keeps for ever."""
    start = f"{seed}:".encode()
    parts = [np.zeros(0)]
    for first in range(0, len(groups), _BATCH):
        digests = [
            hashlib.sha256(start + b"%d" % group).digest()[:8] for group in groups[first : first + _BATCH].tolist()
        ]
        parts.append(np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64) / 2**64)
    return np.concatenate(parts)


def _times(ids: Ids, created: Ids | None) -> Ids:
    """When posts were made. Where most have no date, ids tell, which grow with time; else one without is the oldest,
    so that all that is tested is known to be new."""
    if created is None or 2 * np.count_nonzero(created == UNKNOWN) > len(created):
        return ids
    return created


def _before(times: Ids, at: Ids, size: Ids) -> Ids:
    """How many posts stand before each group in time. It is as old as its oldest member, so that test is all new."""
    oldest = np.full(len(size), np.iinfo(np.int64).max)
    np.minimum.at(oldest, at, times)
    order = np.argsort(oldest, kind="stable")
    before = np.empty(len(size), dtype=np.int64)
    before[order] = np.cumsum(size[order]) - size[order]
    return before


def _by_chance(posts: int, recipe: SplitRecipe) -> Codes:
    """The reference's: one cut for the test set, another for validation."""
    try:
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise MissingExtra("A random split", "train", "scikit-learn") from error
    if posts < 4:
        raise InputError(f"{posts} posts are too few to split in three; use more entries or pictures.")
    rest, test = train_test_split(np.arange(posts), test_size=recipe.test, random_state=recipe.seed)
    share = recipe.validation / (recipe.train + recipe.validation)
    train, validation = train_test_split(rest, test_size=share, random_state=recipe.seed)
    codes = np.empty(posts, dtype=np.int8)
    for code, rows in enumerate((train, validation, test)):
        codes[rows] = code
    return codes


# Rare tags


@dataclass(frozen=True)
class _Carried:
    """Which post carries which tag: row i `tags[starts[i]:starts[i + 1]]`."""

    starts: Ids
    tags: NDArray[np.int32]
    tag_count: int

    def of(self, posts: Ids) -> NDArray[np.int32]:
        return np.concatenate([self.tags[self.starts[post] : self.starts[post + 1]] for post in posts.tolist()])

    def batches(self) -> Iterator[tuple[int, int]]:
        """Ranges of posts, so that no copy of all tags is made."""
        posts = len(self.starts) - 1
        for first in range(0, posts, _BATCH):
            yield first, min(first + _BATCH, posts)

    def posts_of(self, wanted: Ids) -> dict[int, Ids]:
        """The posts of some tags, ascending."""
        mask = np.zeros(self.tag_count, dtype=bool)
        mask[wanted] = True
        tags, posts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first, end in self.batches():
            some = self.tags[self.starts[first] : self.starts[end]]
            at = np.flatnonzero(mask[some])
            tags.append(some[at])
            posts.append(np.searchsorted(self.starts, at + self.starts[first], side="right") - 1)
        every, of = np.concatenate(tags), np.concatenate(posts)
        order = np.argsort(every, kind="stable")
        edges = np.searchsorted(every[order], [wanted, wanted + 1])
        return {tag: of[order[low:high]] for tag, low, high in zip(wanted.tolist(), *edges.tolist(), strict=True)}


def _positives(codes: Codes, carried: _Carried) -> NDArray[np.int64]:
    """int64 [tags, 3]: positives in train, validation and test."""
    counts = np.zeros(4 * carried.tag_count, dtype=np.int64)
    for first, end in carried.batches():
        split = np.repeat(codes[first:end], np.diff(carried.starts[first : end + 1]))
        some = carried.tags[carried.starts[first] : carried.starts[end]]
        counts += np.bincount(some.astype(np.int64) * 4 + split, minlength=len(counts))
    return counts.reshape(-1, 4)[:, :3].copy()


def _uncovered(positives: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    lacking = (positives == 0) & (positives.sum(axis=1) > 0)[:, None]
    tags = np.flatnonzero(lacking.any(axis=1)).tolist()
    return {tag: tuple(SPLITS[code] for code in range(3) if lacking[tag, code]) for tag in tags}


class _Covering:
    """Moves whole groups so that each tag has a positive in train, test and validation, as far as its groups go.

    The rarest tags come first. A tag's first positive belongs in train, where it is learned, the second in test, the
    third in validation. What is given up comes from the split in which most of the tag's groups stand; of these the one
    whose place lies nearest to the split that lacks it, so that the choice stays when data are added; and never one
    whose move takes from another tag more than it gives it.
    """

    def __init__(
        self, codes: Codes, positives: NDArray[np.int64], carried: _Carried, groups: _OpenGroups, recipe: SplitRecipe
    ) -> None:
        self._codes, self._positives, self._carried, self._groups = codes, positives, carried, groups
        self._borders = np.array([0, *_edges(recipe), 1])

    def run(self) -> int:
        """Move; returns how many posts changed split."""
        before = self._codes.copy()
        while self._once():  # a move may make another possible; each is worth more to a tag and less to none
            pass
        return int(np.count_nonzero(self._codes != before))

    def _once(self) -> bool:
        total = self._positives.sum(axis=1)
        lacking = np.flatnonzero((total > 0) & (self._positives == 0).any(axis=1))
        posts_of = self._carried.posts_of(lacking)
        moved = False
        for tag in lacking[np.lexsort((lacking, total[lacking]))].tolist():
            at = self._groups.of_post[posts_of[tag]]
            at = at[at >= 0]
            for target in _NEED:
                if len(at) and not self._positives[tag, target]:
                    moved |= self._give(tag, at, target)
        return moved

    def _give(self, tag: int, at: Ids, target: int) -> bool:
        """Move one of the tag's groups; `at` holds the group of each of its free posts."""
        groups, often = np.unique(at, return_counts=True)
        source = self._groups.codes[groups]
        last = often == self._positives[tag, source]  # a move takes the tag's last positive from the source
        place = self._groups.place[groups]
        far = np.maximum(self._borders[target] - place, place - self._borders[target + 1]).clip(0)
        most = np.bincount(source, minlength=3)[source]
        order = np.lexsort((self._groups.names[groups], far, -most, np.where(last, _WORTH[source], 0)))
        return any(self._move(tag, group, target) for group in groups[order[:_TRIED]].tolist())

    def _move(self, tag: int, group: int, target: int) -> bool:
        groups, positives = self._groups, self._positives
        posts = groups.posts[groups.starts[group] : groups.starts[group + 1]]
        source = int(groups.codes[group])
        tags, often = np.unique(self._carried.of(posts), return_counts=True)
        gained = np.where(positives[tags, target] == 0, _WORTH[target], 0)
        worth = gained - np.where(positives[tags, source] == often, _WORTH[source], 0)
        if source == target or (worth < 0).any() or worth[np.searchsorted(tags, tag)] <= 0:
            return False
        positives[tags, source] -= often
        positives[tags, target] += often
        groups.codes[group] = target
        self._codes[posts] = target
        return True


def _crossing(codes: Codes, where: Ids, use: NDArray[np.bool_], groups: int) -> int:
    low = np.full(groups, len(SPLITS), dtype=np.int8)
    high = np.full(groups, _FREE, dtype=np.int8)
    np.minimum.at(low, where[use], codes[use])
    np.maximum.at(high, where[use], codes[use])
    return int(np.count_nonzero(high > low))
