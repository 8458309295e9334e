"""What a half-written word may mean, best first."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efuda.collection.lexicon import Lexicon, wildcard

# A number of pictures for each name.
COUNTS = {
    "1girl": 900,
    "glasses": 500,
    "gloves": 400,
    "round_glasses": 60,
    "eyebrows_visible_through_hair": 300,
    "hatsune_miku": 250,
    "hat": 700,
    "hat_ribbon": 90,
    "miku_day": 5,
    "ribbon": 350,
    "long_hair": 800,
    "saber_(fate)": 120,
    "smile": 650,
    ":)": 3,
    "never_seen": 0,
    "glass_of_wine": 12,
    "東方": 8,
}
NAMES = ["", *COUNTS]
ALIASES = {"eyewear": 2, "specs": 2, "sole_female": 1, "lengthy_hair": 11}
LEXICON = Lexicon.of(NAMES, ALIASES)
NUMBERS = np.array([0, *COUNTS.values()])


def found(text: str, lexicon: Lexicon = LEXICON) -> list[str]:
    return [NAMES[match.tag] + (f" < {match.by}" if match.by else "") for match in lexicon.matches(text, NUMBERS, 10)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gl", ["glasses", "gloves", "glass_of_wine", "round_glasses"]),  # by beginning, then by an inner word
        ("hat", ["hat", "hatsune_miku", "hat_ribbon"]),  # the word itself, then the more common
        ("ribbon", ["ribbon", "hat_ribbon"]),
        ("miku", ["miku_day", "hatsune_miku"]),
        ("miku_hatsu", ["hatsune_miku"]),  # any order of words
        ("hair_long", ["long_hair"]),
        ("(fate", ["saber_(fate)"]),
        ("_glasses", ["round_glasses", "glasses"]),
        (":", [":)"]),
        ("東", ["東方"]),
        ("/evth", ["eyebrows_visible_through_hair < /evth"]),
        ("/ev", ["eyebrows_visible_through_hair < /evth"]),
        ("/h", ["hat < /h", "hatsune_miku < /hm", "hat_ribbon < /hr"]),  # fewer words first
        ("/*th", ["eyebrows_visible_through_hair < /evth"]),
        ("evth", ["eyebrows_visible_through_hair < /evth"]),
        ("eyew", ["glasses < eyewear"]),
        ("sole", ["1girl < sole_female"]),
        ("glases", ["glasses < glases"]),
        ("logn_hair", ["long_hair < logn_hair"]),
        ("lnog_hair", ["long_hair < lnog_hair"]),
        ("eyewaer", ["glasses < eyewear"]),  # a slip in another name
        ("*g_hair", ["long_hair"]),
        ("*hair", ["long_hair", "eyebrows_visible_through_hair"]),
        ("h*t*", ["hat", "hatsune_miku", "hat_ribbon"]),
        ("never", ["never_seen"]),
        ("xyz", []),
        ("::", []),
        ("", []),
        ("x" * 200, []),
        ("*" * 50, sorted(COUNTS, key=lambda name: -COUNTS[name])[:10]),
    ],
)
def test_what_a_word_may_mean(text: str, expected: list[str]) -> None:
    assert found(text) == expected


def test_a_lexicon_grows_with_new_names() -> None:
    names = [*NAMES, "glass_slipper", "", "glow"]
    grown = LEXICON.grown(names)
    assert grown is not None
    assert [names[match.tag] for match in grown.matches("gl", NUMBERS, 10)] == [
        *("glasses", "gloves", "glass_of_wine", "glass_slipper", "glow", "round_glasses")
    ]
    again = grown.grown([*names, "glade"])
    assert again is not None and len(again.matches("gl", NUMBERS, 10)) == 7
    assert again.grown([*names, "glade"]) is again
    assert LEXICON.grown([*NAMES, *(f"new_{number}" for number in range(5000))]) is None


def test_an_empty_lexicon() -> None:
    assert Lexicon.of([], {}).matches("a", NUMBERS, 5) == []
    assert Lexicon.of([""], {}).matches("long_word", NUMBERS, 5) == []


@given(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=8), st.integers(1, 5))
def test_any_word_among_any_names(text: str, names: list[str], limit: int) -> None:
    lexicon = Lexicon.of(names, {"other": 0} if names else {})
    matches = lexicon.matches(text, np.zeros(1, dtype=np.int64), limit)
    assert len(matches) <= limit
    assert len({match.tag for match in matches}) == len(matches)


@given(st.lists(st.text("ab_", min_size=1, max_size=6), min_size=1, max_size=20, unique=True), st.data())
def test_what_begins_so_is_found(names: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(names))
    begun = {name for name in names if name.startswith(text)}
    matches = Lexicon.of(names, {}).matches(text, np.ones(len(names), dtype=np.int64), 100)
    assert names[matches[0].tag] == text
    assert {names[match.tag] for match in matches[: len(begun)]} == begun


def test_a_wildcard_cannot_take_for_ever() -> None:
    start = time.process_time()
    assert wildcard("*a" * 60 + "*b").fullmatch("a" * 5000) is None
    assert time.process_time() - start < 5
