"""Ten thousand searches by chance: the engine finds what plain Python finds, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_search import NOW, Asking, World

from efuda.collection.engine import Index
from efuda.collection.query import parse
from efuda.collection.record import Record

SIZE, WORLDS, EACH = 60, 4, 40


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[World, Index]]]:
    folder, made, records = tmp_path_factory.mktemp("worlds"), [], []
    for seed in range(WORLDS):
        world, record = World.drawn(Random(seed), SIZE), Record.open(folder / f"{seed}.efuda", create=True)
        index = Index.load(record)
        world.write(record)
        # Half of the versions are read anew, half come from an empty one.
        made.append((world, index.refreshed(record) if seed % 2 else Index.load(record)))
        records.append(record)
    yield made
    for record in records:
        record.close()


def check(world: World, index: Index, random: Random) -> None:
    asked = Asking(world, random).query()
    total, found = index.find(parse(asked.text, NOW), limit=SIZE)
    assert (asked.text, total, found) == (asked.text, len(asked.found), asked.found)


@settings(max_examples=10_000 // EACH, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, WORLDS - 1), st.integers(0, 2**63))
def test_ten_thousand_searches_find_what_plain_python_finds(
    worlds: list[tuple[World, Index]], number: int, seed: int
) -> None:
    random = Random(seed)
    for _ in range(EACH):
        check(*worlds[number], random)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, WORLDS - 1), st.randoms(use_true_random=False))
def test_a_search_that_fails_shrinks(worlds: list[tuple[World, Index]], number: int, random: Random) -> None:
    check(*worlds[number], random)
