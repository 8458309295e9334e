"""Danbooru's own vectors of its grammar, each with what it means written as Python; and where words begin and end."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efuda.collection.query import All, And, Metatag, Node, Not, Or, Tag, Wildcard, parse
from efuda.collection.tokens import word_at
from efuda.errors import QueryError

# One line each: what is written => what it means. `a*` is written s, `*a` t, `b*` u, `*` every, in the meaning.
MEANINGS = """
a                => a
A                => a
 a               => a
a b              => a and b
(a b)            => a and b
a (b)            => a and b
(a) b            => a and b
(a) (b)          => a and b
((a) (b))        => a and b
((a b) c)        => a and b and c
(a (b (c)))      => a and b and c
((a) (b) (c))    => a and b and c
a and b          => a and b
a AND b          => a and b
(a and b) and c  => a and b and c
a and (b and c)  => a and b and c
a or b           => a or b
a OR b           => a or b
(a) or (b)       => a or b
a or (b or (c or d)) => a or b or c or d
((a or b) or c) or d => a or b or c or d
a b or c d       => (a and b) or (c and d)
a and b or c and d => (a and b) or (c and d)
a or b c         => a or (b and c)
(a or b) c       => (a or b) and c
~a ~b            => a or b
~a ~b ~c ~d      => a or b or c or d
~a               => a
(~a)             => a
~(a)             => a
~(~(~a))         => a
~(-a)            => not a
-(~a)            => not a
-(~(-(~a)))      => a
~(-(~(-a)))      => a
a ~b             => a and b
~a b             => a and b
((a) ~b)         => a and b
~(a b)           => a and b
~a and ~b        => a and b
~a or ~b         => a or b
~(-a) or ~(-b)   => (not a) or (not b)
~(a) ~(b)        => a or b
(~a) (~b)        => a and b
(~a) ~b ~c       => a and (b or c)
~a (~b ~c)       => a and (b or c)
~a ~b or ~c ~d   => a or b or c or d
~a ~b and ~c ~d  => (a or b) and (c or d)
(~a ~b) (~c ~d)  => (a or b) and (c or d)
~(a b) ~(c d)    => (a and b) or (c and d)
a b c ~d         => a and b and c and d
a b ~c ~d        => a and b and (c or d)
a ~b c ~d        => a and c and (b or d)
a ~b ~c d        => a and d and (b or c)
a ~b ~c ~d       => a and (b or c or d)
~a b c ~d        => b and c and (a or d)
~a b ~c d        => b and d and (a or c)
~a b ~c ~d       => b and (a or c or d)
~a ~b c d        => c and d and (a or b)
~a ~b c ~d       => c and (a or b or d)
~a ~b ~c d       => d and (a or b or c)
-a               => not a
- a              => not a
a -b             => a and not b
(a -b)           => a and not b
((a) -b)         => a and not b
-(-a)            => a
-(-(-a))         => not a
a -(-(b)) c      => a and b and c
a -(-(b -(-c))) d => a and b and c and d
-(a b)           => not (a and b)
-(a or b)        => not (a or b)
-(-a -b -c)      => a or b or c
-(-a or -b or -c) => a and b and c
-(a -(b -(c d))) => not (a and not (b and not (c and d)))
a or (b c)       => a or (b and c)
(b c) or a       => a or (b and c)
(a b) or (c d) or (a d) => (a and b) or (c and d) or (a and d)
* b              => every and b
a* b             => s and b
a b*             => a and u
a -b*            => a and not u
~a ~*a           => a or t
~* ~a            => every or a
a or a*          => a or s
a* or b*         => s or u
a -* c           => a and c and not every
"""
ATOMS = {"a*": "s", "*a": "t", "b*": "u", "*": "every"}


def meanings() -> list[tuple[str, str]]:
    lines = [line.partition("=>") for line in MEANINGS.strip("\n").splitlines()]
    return [(text.rstrip(), meaning.strip()) for text, _, meaning in lines]


def holds(node: Node, true: dict[str, bool]) -> bool:
    match node:
        case Tag(name):
            return true[name]
        case Wildcard(pattern):
            return true[ATOMS[pattern]]
        case And(parts):
            return all(holds(part, true) for part in parts)
        case Or(parts):
            return any(holds(part, true) for part in parts)
        case Not(part):
            return not holds(part, true)
    raise AssertionError(node)


@pytest.mark.parametrize(("text", "meaning"), meanings())
def test_every_search_means_what_it_means_on_danbooru(text: str, meaning: str) -> None:
    node, names = parse(text).node, ["a", "b", "c", "d", "s", "t", "u", "every"]
    code = compile(meaning, text, "eval")
    for values in product([False, True], repeat=len(names)):
        true = dict(zip(names, values, strict=True))
        assert holds(node, true) == eval(code, {}, true), true


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("foo_(bar)", "foo_(bar)"),
        ("(foo_(bar))", "foo_(bar)"),
        ("foo_(bar_(baz))", "foo_(bar_(baz))"),
        ("(foo_(bar_(baz)))", "foo_(bar_(baz))"),
        (";)", ";)"),
        (":)", ":)"),
        ("(:))", ":)"),
        ("(9)", "9"),
        ("(9) ", "9"),
        ("a(b", "a(b"),
        ("order", "order"),
        ("or-b", "or-b"),
        ("andy", "andy"),
        ("a)b", "a)b"),
        ("re:zero", "re:zero"),
        (">_<", ">_<"),
        ('tag:"-a"', "-a"),
        ('(tag:"or")', "or"),
        ("tag:'rating:x'", "rating:x"),
        ('tag:"a\\"b"', 'a"b'),
        ("tag:~a", "~a"),
    ],
)
def test_names_with_odd_characters(text: str, name: str) -> None:
    assert parse(text).node == Tag(name)


@pytest.mark.parametrize("text", ["", " ", "\u3000", "\u00a0\u0085"])
def test_nothing_is_everything(text: str) -> None:
    assert parse(text).node == All()


@pytest.mark.parametrize(("text", "value"), [("path:(a)", "(a)"), ("(path:(a)", "(a"), ("PATH:A", "a")])
def test_values_take_parentheses_unless_a_group_needs_the_last(text: str, value: str) -> None:
    node = parse(text).node
    assert isinstance(node, Metatag) and getattr(node.condition, "text", None) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('path:"foo bar"', "foo bar"),
        ('path:foobar"(', 'foobar"('),
        ('path:"don\'t say \\"lazy\\" okay"', 'don\'t say "lazy" okay'),
        ("path:'say \\'lazy\\' now'", "say 'lazy' now"),
        ("path:foo\\ bar", "foo bar"),
        ('(a (path:"foo)bar"))', "foo)bar"),
    ],
)
def test_quoted_values(text: str, value: str) -> None:
    node = parse(text).node
    found = node.parts[1] if isinstance(node, And) else node
    assert isinstance(found, Metatag) and getattr(found.condition, "text", None) == value


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("(", 0),
        (")", 0),
        ("-", 0),
        ("~", 0),
        ("(a", 0),
        (")a", 0),
        ("-~a", 1),
        ("~-a", 1),
        ("~~a", 1),
        ("--a", 1),
        ("and", 0),
        ("-and", 1),
        ("~and", 1),
        ("or", 0),
        ("-or", 1),
        ("~or", 1),
        ("a and", 2),
        ("a or", 2),
        ("and a", 0),
        ("or a", 0),
        ("a -", 2),
        ("a ~", 2),
        ("(a b", 0),
        ("(a (b)", 0),
        ('path:"foo', 5),
        ('path:"foo bar', 5),
        ('path:"foo"bar', 10),
        ('tag:""', 4),
        ("tag:", 4),
    ],
)
def test_what_finds_nothing_on_danbooru_is_an_error_that_points(text: str, position: int) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("gla|", "gla"),
        ("hat gla|", "gla"),
        ("gl|asses hat", "glasses"),
        ("|glasses", "glasses"),
        ("hat | glasses", ""),
        ("-gla|", "gla"),
        ("~gla|", "gla"),
        ("(hat or -(gla|", "gla"),
        ("(gla|)", "gla"),
        ("((gla|))", "gla"),
        ("(saber_(fate|))", "saber_(fate)"),
        ("saber_(fa|", "saber_(fa"),
        ("(:|))", ":)"),
        ("(*_hai|)", "*_hai"),
        ('path:"summer h|at" hat', 'path:"summer hat"'),
        ('path:"summer h|', 'path:"summer h'),
        ("src:human:gl|asses hat", "src:human:glasses"),
        ("path:a\\ b|c hat", "path:a\\ bc"),
        ("hat　gla|", "gla"),
        ("(|", ""),
        ("hat |", ""),
        ("(hat)|", ""),
        ("|", ""),
    ],
)
def test_the_word_at_the_cursor(text: str, word: str) -> None:
    at = text.index("|")
    whole = text.replace("|", "")
    start, end = word_at(whole, at, frozenset({"path", "src"}))
    assert whole[start:end] == word


@given(st.text(st.sampled_from('ab ()-~*:"\\'), max_size=12), st.integers(0, 12))
def test_the_word_at_any_cursor_is_around_it(text: str, at: int) -> None:
    at = min(at, len(text))
    start, end = word_at(text, at, frozenset({"a"}))
    assert 0 <= start <= at <= end <= len(text)
