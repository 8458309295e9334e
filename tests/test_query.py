"""docs/query.md, run: every example finds what it says, every error points where it says; and random queries."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from collection_world import make_file, make_tagger, tagged
from hypothesis import given, settings
from hypothesis import strategies as st

from efuda.collection import Collection
from efuda.collection.metatags import METATAGS, Interval, Numbers, Order, Score, words_of
from efuda.collection.query import All, And, Metatag, Not, Or, Tag, Wildcard, parse
from efuda.collection.record import Writing
from efuda.collection.taggings import packed_scores, put_tagging
from efuda.collection.vectors import put_vector
from efuda.errors import QueryError
from efuda.vocabulary import Category
from efuda.vocabulary import Tag as Word

PAGE = (Path(__file__).parent.parent / "docs" / "query.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(search|error)\n(.*?)^```$", PAGE, re.M | re.S)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| \d.*\|$", PAGE, re.M)
]  # id, tags, rating, size, bytes, file, date, look, besides


def searches() -> list[tuple[str, list[int]]]:
    lines = [line for kind, block in BLOCKS if kind == "search" for line in block.splitlines()]
    return [(query.strip(), [int(one) for one in ids.split()]) for query, ids in (line.split("=>") for line in lines)]


def errors() -> list[tuple[str, int, str]]:
    cases = [case for kind, block in BLOCKS if kind == "error" for case in block.strip("\n").split("\n\n")]
    marked = [(case.split("\n")[0], case.split("\n")[1]) for case in cases]
    return [(query, mark.index("^"), mark.split("^", 1)[1].strip()) for query, mark in marked]


def scores_of(row: list[str]) -> dict[str, float]:
    scores = {name: float(score or 0.9) for name, _, score in (word.partition("=") for word in row[1].split())}
    return {**scores, row[2]: 0.8} if row[2] else scores


CATEGORIES = {
    "hatsune_miku": Category.CHARACTER,
    "saber_(fate)": Category.CHARACTER,
    "re:zero": Category.COPYRIGHT,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    folder = tmp_path_factory.mktemp("world")
    names = sorted({name.partition("=")[0] for row in ROWS for name in row[1].split()})
    tags = [Word(name, CATEGORIES.get(name, Category.GENERAL)) for name in names]
    taggers = [make_tagger(folder / name / "wd-v3", tags, ratings=name == "rates") for name in ("rates", "plain")]
    with Collection.open(folder / "world.efuda", create=True) as collection:
        for row in ROWS:
            tagger = taggers[0 if row[2] else 1]
            path = make_file(folder / row[5], row[0].encode(), int(row[4]))
            os.utime(path, (noon := date_of(row[6]).timestamp(), noon))
            width, height = map(int, row[3].split("×"))
            collection.add([tagged(tagger, path, scores_of(row), (width, height))], tagger)
        with collection.record.write() as writing:
            writing.db.execute("DELETE FROM embeddings")
            for row in ROWS:
                for fact in filter(None, [f"look {row[7]}" if row[7] else "", *row[8].split("; ")]):
                    note(writing, int(row[0]), fact)
        yield collection


def date_of(text: str) -> datetime:
    """Noon of a day, on this machine's clock."""
    if ago := re.fullmatch(r"(\d) days ago", text):
        return datetime.now() - timedelta(days=int(ago[1]))
    return datetime.fromisoformat(f"{text}T12:00")


def note(writing: Writing, picture: int, fact: str) -> None:
    """What stands in the last columns, into the tables."""
    db, operation = writing.db, writing.operation("edit", "me", fact)
    words = fact.split()
    match words:
        case ["from", url]:
            writing.set(operation, picture, "source", url)
        case ["variant", "of", parent]:
            writing.set(operation, picture, "parent", int(parent))
        case ["missing"]:
            db.execute("UPDATE files SET missing = '2026-01-01T00:00:00Z' WHERE picture = ?", (picture,))
        case ["removed"]:
            writing.set(operation, picture, "removed", 1)
        case ["lasts", seconds, "s"]:
            db.execute("UPDATE pictures SET duration_ms = ? WHERE id = ?", (int(float(seconds) * 1000), picture))
        case ["same", "pixels"]:
            db.execute("UPDATE pictures SET pixels = ? WHERE id = ?", (bytes(16), picture))
        case ["look", angle]:
            radians = math.radians(int(angle.removesuffix("°")))
            vector = np.array([math.cos(radians), math.sin(radians)], dtype=np.float16)
            put_vector(writing, picture, 1, vector)
        case ["me", word]:
            writing.word(operation, picture, writing.tag(word[1:]), 1 if word[0] == "+" else -1)
        case [name, word]:
            tags = np.array([writing.tag(word[1:])], dtype=np.int64)
            scores = packed_scores(tags, np.array([255]), np.array([True]))
            put_tagging(writing, operation, picture, writing.source("import", name, name), scores)
        case _:
            raise AssertionError(fact)
    writing.touch([picture])


def ids(collection: Collection, query: str, **page: int) -> list[int]:
    return [picture.id for picture in collection.search(query, **page).pictures]


@pytest.mark.parametrize(("query", "expected"), searches())
def test_the_page_s_searches(world: Collection, query: str, expected: list[int]) -> None:
    assert ids(world, query) == expected
    if "limit:" not in query:
        assert world.search(query).total == len(expected)


@pytest.mark.parametrize(("query", "position", "message"), errors())
def test_the_page_s_errors(world: Collection, query: str, position: int, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        world.search(query)
    assert (caught.value.position, caught.value.query) == (position, query)
    assert message in caught.value.message


def test_the_page_covers_every_metatag_and_order() -> None:
    assert len(searches()) > 250 and len(errors()) > 40
    page = " ".join(query for query, _ in searches())
    assert [name for name in METATAGS if not re.search(rf"\b{name}:", page)] == []
    orders = {re.sub(r"_(asc|desc)$", "", word) for word in words_of("order")}
    assert [name for name in sorted(orders) if not re.search(rf"\border:{name}(_asc|_desc)?\b", page)] == []


a, b, c, d = (Tag(name) for name in "abcd")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", All()),
        (" \u3000\u0085 ", All()),
        ("A", a),
        ("(9)", Tag("9")),
        ("foo_(bar_(baz))", Tag("foo_(bar_(baz))")),
        ("(foo_(bar_(baz)))", Tag("foo_(bar_(baz))")),
        ("(foo*)", Wildcard("foo*")),
        (" ( ( a ) ) ", a),
        ("a b or c d", Or((And((a, b)), And((c, d))))),
        ("~a ~b c", And((Or((a, b)), c))),
        ("a ~b", And((b, a))),
        ("~a ~b and ~c ~d", And((Or((a, b)), Or((c, d))))),
        ("~a ~b or ~c ~d", Or((Or((a, b)), Or((c, d))))),
        ("~(a b) ~(c d)", Or((And((a, b)), And((c, d))))),
        ("~a (~b ~c)", And((a, Or((b, c))))),
        ("-(-a)", Not(Not(a))),
        ("- a", Not(a)),
        ("order:id", All()),
        ("orange order:id", Tag("orange")),
        ("a or-b", And((a, Tag("or-b")))),
        ("width:5...10", Metatag(Numbers("width", (Interval(5, 10, without_high=True),)))),
        ("width:5..,1", Metatag(Numbers("width", (Interval(5), Interval(1, 1))))),
        ("ai:>_<>=0.5", Metatag(Score(">_<", 128))),
        ("ai:x<=0", Metatag(Score("x", 0, 0))),
    ],
)
def test_trees(text: str, node: object) -> None:
    assert parse(text).node == node


def test_settings_beside_the_tree() -> None:
    query = parse("a ORDER:mpixels limit:7")
    assert (query.node, query.order, query.limit) == (a, Order("mpixels"), 7)


def test_pages_follow_one_another(world: Collection) -> None:
    for query in ("", "order:id", "order:width", "order:tagcount_asc"):
        whole = ids(world, query)
        assert [one for offset in range(0, 10, 3) for one in ids(world, query, limit=3, offset=offset)] == whole
    assert world.search("1girl", limit=0).total == 4
    assert ids(world, "", offset=100) == ids(world, "order:width", offset=100) == []


def test_random_order_is_a_shuffle(world: Collection) -> None:
    assert sorted(ids(world, "order:random")) == list(range(1, 9))
    assert len({tuple(ids(world, "order:random limit:4")) for _ in range(20)}) > 1


def test_deep_nesting_is_refused_and_wide_is_not(world: Collection) -> None:
    with pytest.raises(QueryError, match="parentheses inside each other"):
        parse("(" * 5000 + "a" + ")" * 5000)
    assert world.search(" or ".join(["hat"] * 5000)).total == 2


def test_a_wildcard_cannot_take_for_ever(world: Collection) -> None:
    with pytest.raises(QueryError):
        world.search("*a" * 60 + "*b")


@given(st.text())
def test_any_text_is_understood_or_a_query_error(world: Collection, text: str) -> None:
    _understood_or_refused(world, text)


METATAG_PIECES = ["width:", "ai:", "order:", "limit:", "path:", "rating:", "ratio:", "filesize:", ">", "<=", "..", ","]
METATAG_PIECES += ["date:", "age:", "added:", "src:", "like:", "source:", "parent:", "child:", "is:", "has:", "tag:"]
METATAG_PIECES += ["duration:", "random:", "md5:", "2026", "-11", "2w", "any", "none", "human", "yesterday", "_ago"]
PIECES = [*METATAG_PIECES, *"()-~*: \"'\\5gk", "0.5", "hat", ":)", "or ", "and "]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_pieces_of_queries_are_understood_or_a_query_error(world: Collection, text: str) -> None:
    _understood_or_refused(world, text)


def _understood_or_refused(world: Collection, text: str) -> None:
    try:
        world.search(text)
    except QueryError as error:
        assert 0 <= error.position <= len(text)


# Random queries against sets: an expression is its text and the pictures it should find.

Expression = tuple[str, frozenset[int]]
SEEN = [row for row in ROWS if row[8] not in ("missing", "removed")]
EVERY = frozenset(int(row[0]) for row in SEEN)


def where(holds: Callable[[list[str]], bool]) -> frozenset[int]:
    return frozenset(int(row[0]) for row in SEEN if holds(row))


def score(row: list[str], name: str) -> float:
    return scores_of(row).get(name, 0.0)


def by_tag(name: str) -> Expression:
    return name, where(lambda row: score(row, name) >= 0.35)


def by_score(name: str, limit: int) -> Expression:
    return f"ai:{name}>={limit / 100}", where(lambda row: score(row, name) >= limit / 100)


def by_width(low: int, high: int) -> Expression:
    return f"width:{low}..{high}", where(lambda row: low <= int(row[3].split("×")[0]) <= high)


def by_ratings(names: list[str]) -> Expression:
    return f"rating:{','.join(names)}", where(lambda row: row[2] != "" and row[2][0] in names)


NAMES = ["glasses", "hat", "1girl", "1boy", "long_hair", ":)", "saber_(fate)", "smile", "d:", "re:zero"]
LEAVES = st.one_of(
    st.sampled_from(NAMES).map(by_tag),
    st.builds(by_score, st.sampled_from(["hat", "smile"]), st.sampled_from([10, 25, 40, 60, 93])),
    st.builds(by_width, st.integers(1, 2000), st.integers(2000, 5000)),
    st.lists(st.sampled_from("gsqe"), min_size=1, max_size=3).map(by_ratings),
    st.just(("*hair", where(lambda row: "hair" in row[1]))),
)


def without(one: Expression) -> Expression:
    return f"-({one[0]} )", EVERY - one[1]


def either(many: list[Expression]) -> Expression:
    return "(" + " or ".join(f"({text} )" for text, _ in many) + ")", frozenset().union(*(found for _, found in many))


def tildes(many: list[Expression]) -> Expression:
    return "(" + " ".join(f"~({text} )" for text, _ in many) + ")", frozenset().union(*(found for _, found in many))


def both(joint: str, many: list[Expression]) -> Expression:
    return joint.join(f"({text} )" for text, _ in many), EVERY.intersection(*(found for _, found in many))


def extend(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        inner.map(without),
        several.map(either),
        several.map(tildes),
        st.builds(both, st.sampled_from([" ", " and ", "　", " AND\t"]), several),
    )


@settings(max_examples=400)
@given(st.recursive(LEAVES, extend, max_leaves=12), st.sampled_from(["", " order:id", " order:width_asc"]))
def test_random_queries_find_what_sets_find(world: Collection, expression: Expression, order: str) -> None:
    text, expected = expression
    found = world.search(text + order)
    assert {picture.id for picture in found.pictures} == expected, text
    assert found.total == len(expected)
