"""Completing a search at the cursor: what is suggested, in which order, and how many pictures it would find."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_search import NOW, PERSONS, RATINGS, Plain, World

from efuda.collection.complete import Completion, complete, context_of, written
from efuda.collection.engine import Index
from efuda.collection.lexicon import Lexicon
from efuda.collection.query import And, Node, Not, Or, Tag, parse
from efuda.collection.record import Record
from efuda.errors import QueryError

# The tags of each picture, as a person said them; the sixth is removed.
TAGS = [
    "1girl hat glasses",
    "1girl hat",
    "1girl glasses long_hair",
    "hatsune_miku long_hair",
    "long_hair or",
    "1girl short_hair",
]
SOURCES = ["wd-v3@1a2b", "eva@9", "me"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    record = Record.open(tmp_path_factory.mktemp("complete") / "art.efuda", create=True)
    pictures = [
        Plain(number, 10, 10, 9, "png", NOW, NOW, 0, None, 0, number == 6, {f"/{number}.png": False})
        for number in range(1, len(TAGS) + 1)
    ]
    for picture, tags in zip(pictures, TAGS, strict=True):
        picture.words = dict.fromkeys([*tags.split(), "rating:general"], (1, PERSONS[0]))
    World(pictures).write(record)
    yield Index.load(record)
    record.close()


@pytest.fixture(scope="module")
def lexicon(index: Index) -> Lexicon:
    return Lexicon.of(index.names, index.tags.aliases)


def at_bar(index: Index, lexicon: Lexicon, text: str, limit: int = 5) -> Completion:
    """Completes where a | stands."""
    return complete(index, lexicon, text.replace("|", ""), text.index("|"), limit=limit, sources=SOURCES)


def shown(completion: Completion) -> list[str]:
    """Each as "value count < antecedent"."""
    found = []
    for one in completion.suggestions:
        count = "" if one.count is None else f" {one.count}"
        found.append(one.value + count + (f" < {one.antecedent}" if one.antecedent else ""))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ha|", ["hat 2", "hatsune_miku 1", "long_hair 3", "has:", "short_hair 0"]),
        ("hat|", ["hat 2", "hatsune_miku 1"]),
        ("1girl lo|", ["long_hair 1"]),  # of four with long hair one is a girl
        ("1girl -lo|", ["long_hair 1"]),  # so many would go
        ("-1girl lo|", ["long_hair 2"]),
        ("1girl (hat or lo|", ["long_hair 1"]),  # its own branch of the or
        ("hat or lo|", ["long_hair 3"]),
        ("1girl ~hat ~lo|", ["long_hair 1"]),
        ("1girl (hat (lo|", ["long_hair 0"]),
        ("hat lo|ng_ha glasses", ["long_hair 0"]),
        ("glasses lo| hat or", ["long_hair 1"]),  # what is broken behind the cursor is left alone
        ("nonsense_tag lo|", ["long_hair 3"]),  # and so is a tag that is not there
        ("spec|", ["glasses 2 < spectacles"]),
        ("logn_hair|", ["long_hair 3 < logn_hair"]),
        ("/lh|", ["long_hair 3 < /lh"]),
        ("hair_lon|", ["long_hair 3"]),
        ("*hair|", ["long_hair 3", "short_hair 0"]),
        ("is:removed sho|", ["short_hair 1"]),
        ("never|", ["never 0"]),
        ("-odd|", ['tag:"-odd name" 0']),
        ("odd|", ['tag:"-odd name" 0']),
        ("tag:o|", ['tag:"or" 1']),
        ("hat |", []),
        ("|", []),
        ("rat|", ["rating:", "ratio:"]),
        ("rating:g|", ["rating:general 5"]),
        (
            "hat rating:|",
            [
                "rating:general 2",
                "rating:any 2",
                *(f"rating:{one} 0" for one in RATINGS[1:]),
            ],
        ),
        ("rating:s,g|", ["rating:s,general 5"]),
        ("is:rem|", ["is:removed 1"]),
        ("filetype:p|", ["filetype:png 5"]),
        ("order:wid|", ["order:width", "order:width_desc", "order:width_asc"]),
        ("date:ye|", ["date:yesterday 0"]),
        ("src:w|", ["src:wd-v3 0"]),
        ("src:hu|", ["src:human 5"]),
        ("src:human:ha|", ["src:human:hat", "src:human:hatsune_miku", "src:human:long_hair", "src:human:short_hair"]),
        ("src:human:-gla|", ["src:human:-glasses"]),
        ("ai:gla|", ["ai:glasses"]),
        ("ai:gla|>=0.8", ["ai:glasses"]),
        ("ai:glasses>=0.|", []),
        ("width:1|", []),
        ('path:"ha|', []),
    ],
)
def test_what_is_suggested(index: Index, lexicon: Lexicon, text: str, expected: list[str]) -> None:
    assert shown(at_bar(index, lexicon, text)) == expected


def test_a_suggestion_takes_the_place_of_the_word(index: Index, lexicon: Lexicon) -> None:
    completion = at_bar(index, lexicon, "1girl -(gla|ss or hat)")
    [first, *_] = completion.suggestions
    assert (completion.start, completion.end) == (8, 13)
    assert (first.value, first.label, first.category, first.count) == ("glasses", "glasses", "general", 2)
    completion = at_bar(index, lexicon, "ai:gla|>=0.8 hat")
    assert (completion.start, completion.end, completion.suggestions[0].value) == (0, 6, "ai:glasses")
    assert at_bar(index, lexicon, "saber|").suggestions[0].label == "saber (fate)"


@pytest.mark.parametrize(
    "name", ["hat", ":)", "saber_(fate)", "-x", "~x", "or", "a b", "(x", "x)", "rating:g", 'a"b', "*", "not"]
)
def test_every_name_can_be_written(name: str) -> None:
    text = written(name)
    assert text is not None
    assert parse(text).node == parse(f"-(({text}))").node.part == Tag(name)  # type: ignore[union-attr]


def test_what_cannot_be_written_is_not_suggested() -> None:
    assert written("HAT") is None  # a search knows no capital letters


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("a |", "a"),
        ("a b |", "a b"),
        ("a or |", ""),
        ("a (b or |)", "a"),
        ("a (b or c |) d", "a d c"),
        ("a -(b |)", "a b"),
        ("a (b (c |", "a b c"),
        ("-a |", "-a"),
        ("~a ~|", ""),
        ("a ~b ~|", "a"),
        ("order:id a |", "a"),
        ("| b ) c", ""),
        ("(a | b", "a b"),
    ],
)
def test_what_a_word_stands_beside(text: str, beside: str) -> None:
    at = text.index("|")
    parts = context_of(text.replace("|", ""), at, at)
    expected = parse(beside).node
    assert set(parts) == set(expected.parts if isinstance(expected, And) else [expected][: len(beside)])


PIECES = [
    *"()-~*: \"'|",
    "ha",
    "gla",
    "or ",
    "and ",
    "rating:",
    "ai:",
    "src:",
    "tag:",
    "order:",
    "1girl ",
    "is:removed ",
    ">=0.5",
    "human:",
]


@settings(max_examples=400)
@given(
    text=st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)),
    at=st.integers(-5, 40),
)
def test_any_text_and_cursor(index: Index, lexicon: Lexicon, text: str, at: int) -> None:
    completion = complete(index, lexicon, text, at, limit=7, sources=SOURCES)
    assert 0 <= completion.start <= completion.end <= len(text) and len(completion.suggestions) <= 7
    before, after = text[: completion.start], text[completion.end :]
    try:
        parse(before + "placeholder" + after)
    except QueryError:
        return
    for one in completion.suggestions:
        if one.category is None or one.value.startswith(("ai:", "src:")):
            continue
        node = parse(before + one.value + after).node
        assert any(one.label == name.replace("_", " ") for name in tags_of(node)), (one, text)


def tags_of(node: Node) -> list[str]:
    match node:
        case Tag(name):
            return [name]
        case And(parts) | Or(parts):
            return [name for part in parts for name in tags_of(part)]
        case Not(part):
            return tags_of(part)
    return []


def test_counts_are_what_the_search_finds(index: Index, lexicon: Lexicon) -> None:
    random, terms = (
        Random(5),
        ["1girl", "hat", "-glasses", "long_hair", "(hat or long_hair)", "-(hat 1girl)", "width:>1"],
    )
    for _ in range(200):
        before = " ".join(random.sample(terms, random.randint(0, 3)))
        for one in complete(index, lexicon, f"{before} {random.choice('hgls1')}").suggestions:
            if one.count is not None:
                assert one.count == index.find(parse(f"{before} {one.value}"), limit=0)[0], (before, one)
