"""Groups and splits: stable, whole, honest, and what happens to rare tags and to a dataset that grows."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from efuda.datasets import splitting
from efuda.datasets.splitting import Splits, group_posts, split_posts
from efuda.datasets.times import UNKNOWN
from efuda.errors import InputError
from efuda.recipes import SplitRecipe, load_recipe

METHODS = ("hash", "random", "id-modulo", "time")


def numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def split(ids: NDArray[np.int64], groups: NDArray[np.int64] | None = None, **more: Any) -> list[str]:
    recipe = SplitRecipe(**{key: more.pop(key) for key in list(more) if key in SplitRecipe.model_fields})
    return list(split_posts(ids, ids if groups is None else groups, recipe, **more).names)


def with_tags(
    ids: NDArray[np.int64], labels: list[list[int]], groups: NDArray[np.int64] | None = None, **more: Any
) -> Splits:
    recipe = SplitRecipe(**{key: more.pop(key) for key in list(more) if key in SplitRecipe.model_fields})
    starts = np.concatenate([[0], np.cumsum([len(row) for row in labels])]).astype(np.int64)
    tags = np.array([tag for row in labels for tag in row], dtype=np.int32)
    count = int(tags.max(initial=0)) + 1
    groups = ids if groups is None else groups
    return split_posts(ids, groups, recipe, starts=starts, tags=tags, tag_count=count, **more)


# Groups


def test_relatives_are_one_group_with_the_lowest_id_of_all() -> None:
    links = np.array([[5, 3], [9, 5], [8, 77], [77, 2]])
    assert group_posts(numbers(4, 5, 9, 8, 77), links).tolist() == [4, 3, 3, 2, 2]
    assert group_posts(numbers(4), np.zeros((0, 2), np.int64)).tolist() == [4]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=25))
def test_groups_are_what_links_connect(links: list[tuple[int, int]]) -> None:
    group = {number: {number} for number in range(1, 21)}
    for one, other in links:
        joined = group[one] | group[other]
        for member in joined:
            group[member] = joined
    ids = np.arange(1, 21, dtype=np.int64)
    found = group_posts(ids, np.array(links, dtype=np.int64).reshape(-1, 2))
    assert found.tolist() == [min(group[number]) for number in range(1, 21)]


# Methods


def test_the_reference_splits_84430_as_scikit_learn_does() -> None:
    """ceil(84,430 × 0.2) = 16,886 test; of the 67,544 left ceil(13,508.8) = 13,509 validation."""
    ids = np.arange(84_430, dtype=np.int64) + 1
    names = split_posts(ids, ids, load_recipe("reference").split).names
    assert Counter(names.tolist()) == {"train": 54_035, "validation": 13_509, "test": 16_886}
    rest, test = train_test_split(ids, test_size=0.2, random_state=0)
    train, validation = train_test_split(rest, test_size=0.2, random_state=0)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        assert set(ids[names == name].tolist()) == set(expected.tolist())


def test_three_posts_are_too_few_to_split_at_random() -> None:
    with pytest.raises(InputError, match="3 posts are too few"):
        split(np.arange(3, dtype=np.int64), method="random")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_about_the_shares_asked_for(method: str) -> None:
    ids = np.arange(1, 20_001, dtype=np.int64)
    shares = {name: count / len(ids) for name, count in Counter(split(ids, method=method)).items()}
    assert shares == pytest.approx({"train": 0.64, "validation": 0.16, "test": 0.20}, abs=0.01)


def test_a_hashed_split_never_changes_for_a_post() -> None:
    ids = np.arange(1, 20_001, dtype=np.int64)
    assert split(ids[500:]) == split(ids)[500:]
    assert split(ids, seed=1) != split(ids)
    expected = ["test", "train", "train", "train", "validation", "validation"]  # for ever
    assert split(numbers(1, 2, 3, 4, 5, 6)) == expected


@given(st.lists(st.integers(1, 10**9), unique=True, max_size=30), st.integers(0, 5))
def test_the_hash_is_sha256_of_seed_and_group(drawn: list[int], seed: int) -> None:
    def expected(group: int) -> str:
        place = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
        return "train" if place < 0.64 else "validation" if place < 0.64 + 0.16 else "test"

    groups = np.array(drawn, dtype=np.int64)
    assert split(groups + 7, groups, seed=seed) == [expected(group) for group in drawn]


@pytest.mark.parametrize("method", ["hash", "id-modulo", "time"])
def test_no_posts_have_no_splits(method: Any) -> None:
    done = with_tags(numbers(), [], method=method)
    assert (len(done.names), len(done.left_out), done.moved, done.crossing) == (0, 0, 0, 0)


def test_wd_splits_by_the_last_three_digits() -> None:
    ids = numbers(1000, 2639, 3640, 4799, 5800, 6999)
    assert split(ids, method="id-modulo") == ["train", "train", "validation", "validation", "test", "test"]


def test_the_newest_groups_are_test_and_a_group_is_as_old_as_its_oldest() -> None:
    ids = np.arange(1, 11, dtype=np.int64)
    created = (100 - ids) * 1_000_000  # the last id is the oldest
    shares = {"method": "time", "train": 0.5, "validation": 0.2, "test": 0.3}
    by_date = split(ids, created=created, **shares)
    assert by_date == ["test"] * 3 + ["validation"] * 2 + ["train"] * 5
    unknown = np.full(10, UNKNOWN)
    by_id = split(ids, created=unknown, **shares)
    assert by_id == ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    joined = split(ids, np.where(ids == 1, 10, ids), created=created, **shares)  # the newest goes with the oldest
    assert joined[0] == joined[9] == "train"


def test_a_post_without_a_date_is_the_oldest_unless_most_have_none() -> None:
    ids, shares = numbers(1, 2, 3, 4, 5), {"method": "time", "train": 0.4, "validation": 0.2, "test": 0.4}
    some = split(ids, created=numbers(50, 40, 30, UNKNOWN, UNKNOWN), **shares)
    assert some == ["test", "test", "validation", "train", "train"]
    most = split(ids, created=numbers(50, 40, UNKNOWN, UNKNOWN, UNKNOWN), **shares)
    assert most == ["train", "train", "validation", "test", "test"]


def test_time_cuts_at_whole_posts() -> None:
    """0.1 + 0.2 is a little more than 0.3: the fourth of ten is the first of the test set all the same."""
    names = split(np.arange(1, 11, dtype=np.int64), method="time", train=0.1, validation=0.2, test=0.7)
    assert Counter(names) == {"train": 1, "validation": 2, "test": 7}


@pytest.mark.parametrize("method", ["hash", "time"])
@settings(deadline=None)
@given(data=st.data())
def test_relatives_share_a_split(method: Any, data: st.DataObject) -> None:
    ids = np.arange(1, 41, dtype=np.int64)
    groups = np.array(data.draw(st.lists(st.integers(1, 12), min_size=40, max_size=40)), dtype=np.int64)
    labels = data.draw(st.lists(st.lists(st.integers(0, 8), unique=True, max_size=4), min_size=40, max_size=40))
    done = with_tags(ids, labels, groups, method=method)
    for group in set(groups.tolist()):
        assert len(set(done.names[groups == group].tolist())) == 1
    assert done.crossing == 0


@pytest.mark.parametrize("method", ["random", "id-modulo"])
def test_methods_that_know_no_groups_say_how_many_cross(method: Any) -> None:
    ids = np.arange(1, 2001, dtype=np.int64)
    recipe = SplitRecipe(method=method)
    assert split_posts(ids, (ids - 1) // 2, recipe).crossing > 200 if method == "random" else True
    assert split_posts(ids, ids, recipe).crossing == 0


@pytest.mark.parametrize("method", METHODS)
def test_held_out_posts_take_their_relatives_along(method: Any) -> None:
    ids = np.arange(1, 31, dtype=np.int64)
    splits = split(ids, np.where(ids == 2, 1, ids), held_out=ids == 1, method=method)
    assert splits[:2] == ["unseen", "unseen"]
    assert "unseen" not in splits[2:]


# Rare tags


def test_a_rare_tag_has_a_positive_in_every_split_where_it_can() -> None:
    ids = np.arange(1, 401, dtype=np.int64)
    before = split_posts(ids, ids, SplitRecipe(rare_tags=False)).names
    train = ids[before == "train"]
    rare = {int(post): [0] for post in train[:3]} | {int(post): [1] for post in train[10:12]} | {int(train[20]): [2]}
    labels = [[3, *rare.get(int(post), [])] for post in ids]
    done = with_tags(ids, labels)
    where = {tag: Counter(done.names[[tag in row for row in labels]].tolist()) for tag in range(4)}
    assert where[0] == {"train": 1, "validation": 1, "test": 1}
    assert where[1] == {"train": 1, "test": 1}
    assert where[2] == {"train": 1}
    assert done.uncovered == {1: ("validation",), 2: ("validation", "test")}
    assert done.moved == 3
    assert (done.names != before).sum() == 3


def test_the_first_positive_is_learned_and_the_second_tested() -> None:
    ids = np.arange(1, 401, dtype=np.int64)
    before = split_posts(ids, ids, SplitRecipe()).names
    validation, test = (ids[before == name].tolist() for name in ("validation", "test"))
    rare = {validation[0]: 0, test[0]: 1, validation[1]: 2, validation[2]: 2, test[1]: 3, test[2]: 3, test[3]: 3}
    done = with_tags(ids, [[rare.get(post, 4)] for post in ids.tolist()])
    where = {tag: sorted(done.names[post - 1] for post, of in rare.items() if of == tag) for tag in range(4)}
    assert where == {0: ["train"], 1: ["train"], 2: ["test", "train"], 3: ["test", "train", "validation"]}
    assert done.moved == (done.names != before).sum() == 1 + 1 + 2 + 2


def test_the_group_nearest_to_the_target_is_moved_and_none_that_another_tag_needs() -> None:
    """By time, train's newest may go; the seventh is another tag's only one in train, so the sixth goes."""
    shares = {"method": "time", "train": 0.7, "validation": 0.1, "test": 0.2}
    labels = [[0], [0], [0], [0], [0], [0], [0, 1], [0, 1], [1], [1]]
    done = with_tags(np.arange(1, 11, dtype=np.int64), labels, **shares)
    assert done.names.tolist() == ["train"] * 5 + ["test", "train", "validation", "test", "test"]
    assert (done.moved, done.uncovered) == (1, {})


def worth(labels: list[list[int]], names: NDArray[Any]) -> list[int]:
    value = {"train": 4, "validation": 1, "test": 2}
    covered = {(tag, name) for row, name in zip(labels, names.tolist(), strict=True) for tag in row}
    return [sum(value[name] for one, name in covered if one == tag) for tag in range(9)]


@pytest.mark.parametrize("method", ["hash", "time"])
@settings(deadline=None)
@given(data=st.data())
def test_no_tag_loses_by_moves_and_what_is_uncovered_is_said(method: Any, data: st.DataObject) -> None:
    groups = np.array(data.draw(st.lists(st.integers(1, 30), min_size=40, max_size=40)), dtype=np.int64)
    labels = data.draw(st.lists(st.lists(st.integers(0, 8), unique=True, max_size=4), min_size=40, max_size=40))
    ids = np.arange(1, 41, dtype=np.int64)
    before = with_tags(ids, labels, groups, method=method, rare_tags=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "_BATCH", 7)
        after = with_tags(ids, labels, groups, method=method)
    pairs = list(zip(worth(labels, before.names), worth(labels, after.names), strict=True))
    assert all(one <= other for one, other in pairs)
    assert after.moved == (after.names != before.names).sum()
    for tag, (_, now) in enumerate(pairs):
        lacking = tuple(name for name, bit in (("train", 4), ("validation", 1), ("test", 2)) if not now & bit)
        assert after.uncovered.get(tag, ()) == (lacking if now else ())


@settings(deadline=None)
@given(st.data())
def test_tags_of_three_lone_posts_are_covered(data: st.DataObject) -> None:
    ids = np.array(sorted(data.draw(st.sets(st.integers(1, 10**6), min_size=30, max_size=60))), dtype=np.int64)
    tags = data.draw(st.lists(st.integers(0, 7), min_size=len(ids), max_size=len(ids)))
    done = with_tags(ids, [[tag] for tag in tags])
    for tag, count in Counter(tags).items():
        if count >= 3:
            assert tag not in done.uncovered


def test_nothing_moves_where_the_recipe_or_the_method_forbids_it() -> None:
    ids = np.arange(1, 101, dtype=np.int64)
    labels = [[0] if post <= 3 else [1] for post in ids]
    for more in ({"rare_tags": False}, {"method": "random"}, {"method": "id-modulo"}):
        assert with_tags(ids, labels, **more).moved == 0


# A dataset that grows


def pins(*names: str) -> NDArray[Any]:
    return np.array(names, dtype=object)


@pytest.mark.parametrize("method", METHODS)
def test_posts_of_the_earlier_dataset_keep_their_split_and_draw_relatives_along(method: Any) -> None:
    ids = np.arange(1, 21, dtype=np.int64)
    groups = np.where(ids == 10, 1, ids)
    pinned = pins("test", "validation", "train", "unseen", *[""] * 16)
    done = split_posts(ids, groups, SplitRecipe(method=method), pinned=pinned)
    assert done.names[:4].tolist() == ["test", "validation", "train", "unseen"]
    assert done.names[9] == "test"
    assert not done.left_out.any()


def test_a_new_post_between_two_splits_is_left_out_and_the_old_ones_stay() -> None:
    ids, groups = numbers(1, 2, 3, 4), numbers(1, 1, 1, 4)
    done = split_posts(ids, groups, SplitRecipe(), pinned=pins("train", "test", "", ""))
    assert done.left_out.tolist() == [False, False, True, False]
    assert done.names[:2].tolist() == ["train", "test"]


def test_a_new_post_that_is_held_out_never_joins_what_is_learned_from() -> None:
    ids, groups = numbers(1, 2, 3, 4, 5), numbers(1, 1, 3, 3, 1)
    held_out = ids % 2 == 0
    done = split_posts(ids, groups, SplitRecipe(), held_out=held_out, pinned=pins("train", "", "", "", ""))
    assert done.left_out.tolist() == [False, True, False, False, False]
    assert done.names[[0, 2, 3, 4]].tolist() == ["train", "unseen", "unseen", "train"]
    kept = split_posts(ids, ids, SplitRecipe(), held_out=held_out, pinned=pins("train", "test", "", "", ""))
    assert kept.names[[0, 1, 3]].tolist() == ["train", "test", "unseen"]


def test_three_new_posts_are_hashed_where_random_could_not_split_them() -> None:
    ids = numbers(1, 2, 3, 4)
    pinned = pins("validation", "", "", "")
    done = split_posts(ids, ids, SplitRecipe(method="random"), pinned=pinned)
    assert done.names.tolist() == ["validation", *split(ids)[1:]]


@settings(deadline=None)
@given(st.data())
def test_growing_never_moves_a_post_nor_lets_relatives_cross(data: st.DataObject) -> None:
    ids = np.arange(1, 61, dtype=np.int64)
    labels = data.draw(st.lists(st.lists(st.integers(0, 6), unique=True, max_size=3), min_size=60, max_size=60))
    old = np.array(data.draw(st.lists(st.booleans(), min_size=60, max_size=60)))
    few = ids[old]
    first = with_tags(few, [row for row, had in zip(labels, old, strict=True) if had])
    pinned = np.full(60, "", dtype=object)
    pinned[old] = first.names
    groups = np.array(data.draw(st.lists(st.integers(1, 25), min_size=60, max_size=60)), dtype=np.int64)
    done = with_tags(ids, labels, groups, pinned=pinned)
    assert done.names[old].tolist() == first.names.tolist()
    for group in set(groups.tolist()):
        new = (groups == group) & ~old & ~done.left_out
        assert len({*done.names[new].tolist(), *done.names[(groups == group) & old].tolist()}) <= 1 or not new.any()
