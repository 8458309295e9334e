"""The search language: text in, a small frozen tree out, or a `QueryError` that points at the character.

    parse("glasses -hat order:mpixels")
    # Query(And((Tag("glasses"), Not(Tag("hat")))), order=Order("mpixels"))

Danbooru's grammar (docs/query.md shows it by example):

    any     = all ("or" all)*
    all     = factors ("and" factors)*
    factors = factor+                       every "~x" among them joins one "or"
    factor  = ["-" | "~"] ("(" any ")" | term)
    term    = metatag | wildcard | tag            `tag:"-x"` is a tag whose name could not be written otherwise

Where Danbooru silently finds nothing, this raises. Whether a tag exists is for the index to say, not for the parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from efuda.collection.metatags import (
    ELSEWHERE,
    METATAGS,
    Condition,
    Like,
    Limit,
    Malformed,
    Numbers,
    Order,
    Sample,
    Setting,
    State,
    read_metatag,
)
from efuda.collection.tokens import BARE, OF_TAGS, PREFIX, QUOTED, SPACE, WORD, taken
from efuda.errors import QueryError

__all__ = ["TAG", "All", "And", "Metatag", "Node", "Not", "Or", "Query", "Tag", "Wildcard", "parse"]


@dataclass(frozen=True, slots=True)
class All:
    """Every picture."""


@dataclass(frozen=True, slots=True)
class Tag:
    """Pictures that carry a tag; `at` is where it stands in the text."""

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Pictures that carry any tag that matches; `*` stands for any characters."""

    pattern: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Metatag:
    """Pictures with some property: a size, a rating, a path, a score; `value_at` is where its value begins."""

    condition: Condition
    at: int = field(default=0, compare=False)
    value_at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """Pictures that every part finds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Pictures that any part finds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Pictures that the part does not find."""

    part: Node


Node = All | Tag | Wildcard | Metatag | And | Or | Not


@dataclass(frozen=True, slots=True)
class Query:
    """A whole search: what to find, in which order, and how many on a page where the search says so.

    With `sample`, only so many of those found, taken at random, are the result. `everything` says that the search looks
    also at pictures that are missing or removed.
    """

    node: Node
    order: Order = field(default_factory=Order)
    limit: int | None = None
    sample: int | None = None
    everything: bool = False
    text: str = field(default="", compare=False)


def parse(text: str, now: datetime | None = None) -> Query:
    """Read a search; empty text finds everything.

    Args:
        text: what a person wrote.
        now: what `yesterday` and `age:<2w` are counted from, with its time zone; the present, in this machine's time
            zone, if left out. A query that is kept grows old.

    Raises:
        QueryError: it cannot be understood; `position` is the character at fault.
    """
    parser = _Parser(text, now or datetime.now().astimezone())
    node = parser.whole()
    settings = dict[type, tuple[Setting, int]]()
    for setting, at, _ in parser.settings:
        if type(setting) in settings:
            raise parser.error("this is given twice; keep one", at)
        settings[type(setting)] = (setting, at)
    limit, sample = (settings.get(kind, (None, 0))[0] for kind in (Limit, Sample))
    assert limit is None or isinstance(limit, Limit)
    assert sample is None or isinstance(sample, Sample)
    return Query(
        node,
        _order(parser, node, *settings.get(Order, (None, 0))),
        limit.count if limit else None,
        sample.count if sample else None,
        any(isinstance(one.condition, State) for one in parser.metatags),
        text,
    )


def _order(parser: _Parser, node: Node, setting: object, at: int) -> Order:
    """The order asked for; of a search for what is like a picture, the nearest first unless it says otherwise."""
    required = [part.condition for part in (node.parts if isinstance(node, And) else (node,)) if type(part) is Metatag]
    like = [one for one in required if isinstance(one, Like)]
    if not isinstance(setting, Order):
        return Order("like", ids=(like[0].picture,)) if len(like) == 1 else Order()
    if setting.column == "like":
        if len(like) != 1:
            raise parser.error("order:like needs one like: beside it, as in like:12 order:like", at)
        return Order("like", ids=(like[0].picture,))
    if setting.column == "custom":
        lists = [one.intervals for one in required if isinstance(one, Numbers) and one.column == "id"]
        if len(lists) != 1 or any(one.low != one.high for one in lists[0]):
            raise parser.error("order:custom needs one list of ids beside it, as in id:5,3,9 order:custom", at)
        return Order("custom", ids=tuple(int(one.low) for one in lists[0]))
    return setting


TAG: Final = "tag"  # tag:"-x" is the tag called -x
_DEEPEST: Final = 100


class _Parser:
    """Recursive descent: `at` is the next character, `opened` where each parenthesis still open stands.

    `order:`, `limit:` and `random:` mean something only where everything is required: they go to `settings` and leave
    `All` behind, and a negation or an "or" that finds new ones there refuses them.
    """

    def __init__(self, text: str, now: datetime) -> None:
        self.text, self.at, self.now = text, 0, now
        self.opened: list[int] = []
        self.settings: list[tuple[Setting, int, int]] = []  # with its place, and in how many parentheses
        self.metatags: list[Metatag] = []

    def whole(self) -> Node:
        self.space()
        if self.at == len(self.text):
            return All()
        node = self.any()
        if self.at < len(self.text):
            raise self.error("this ) closes nothing; remove it")
        return node

    def any(self) -> Node:
        before = len(self.settings)
        parts = [self.all()]
        while self.keyword("or"):
            parts.append(self.all())
        if len(parts) == 1:
            return parts[0]
        nested = any(depth for _, _, depth in self.settings[before:])
        if nested or any(isinstance(part, All) for part in parts):  # not: hat or ribbon order:id
            self.refuse_settings(before)
        return Or(tuple(parts))

    def all(self) -> Node:
        parts = [self.factors()]
        while self.keyword("and"):
            parts.append(self.factors())
        return _both(parts)

    def factors(self) -> Node:
        parts: list[Node] = []
        optional: list[Node] = []
        while True:
            if self.text.startswith("~", self.at):
                optional.append(self.prefixed())
            elif self.text.startswith("-", self.at):
                parts.append(Not(self.prefixed()))
            else:
                parts.append(self.operand())
            if self.at == len(self.text) or self.text[self.at] == ")" or self.keyword_ahead():
                break
        if optional:
            parts.insert(0, optional[0] if len(optional) == 1 else Or(tuple(optional)))
        return _both(parts)

    def prefixed(self) -> Node:
        """What follows a `-` or `~`."""
        sign, at, before = self.text[self.at], self.at, len(self.settings)
        self.at += 1
        self.space()
        if self.at == len(self.text) or self.text[self.at] == ")":
            raise self.error(f"nothing follows this {sign}", at)
        if self.text[self.at] in "-~":
            raise self.error(f"two signs in a row; use parentheses, as in {sign}({self.text[self.at]}tag)")
        node = self.operand()
        self.refuse_settings(before)
        return node

    def operand(self) -> Node:
        """A term, or a whole search in parentheses; the space after it is eaten."""
        if self.at == len(self.text):
            raise self.error("a tag is missing here")
        if self.text[self.at] == ")":
            hint = "nothing stands between these parentheses" if self.opened else "this ) closes nothing; remove it"
            raise self.error(hint)
        node = self.group() if self.text[self.at] == "(" else self.term()
        self.space()
        return node

    def group(self) -> Node:
        if len(self.opened) == _DEEPEST:
            raise self.error(f"more than {_DEEPEST} parentheses inside each other")
        start = self.at
        self.opened.append(start)
        self.at += 1
        self.space()
        if self.at == len(self.text):
            raise self.error("this ( is never closed", start)
        node = self.any()
        if not self.text.startswith(")", self.at):
            raise self.error("this ( is never closed", start)
        self.at += 1
        self.opened.pop()
        return node

    def term(self) -> Node:
        prefix = PREFIX.match(self.text, self.at)
        if prefix and prefix[1].lower() == TAG:
            return self.named(prefix.end())
        if prefix and prefix[1].lower() in METATAGS:
            return self.metatag(prefix[1].lower(), prefix.end())
        if prefix and (elsewhere := ELSEWHERE.get(prefix[1].lower())):
            raise self.error(f"{prefix[0].lower()} asks about {elsewhere}")
        start = self.at
        word = self.taken(WORD, balance=True)
        if "*" in word:
            return Wildcard(word.lower(), start)
        if word.lower() in ("and", "or"):
            raise self.error(f'a tag is missing beside "{word}"', start)
        return Tag(word.lower(), start)

    def named(self, value_at: int) -> Tag:
        """tag:"…", a tag by its very name, whatever characters are in it."""
        value, quoted = self.value(TAG, value_at)
        if not value:
            raise self.error("tag: a name is missing after the colon", min(value_at, len(self.text)))
        return Tag(value.lower(), value_at + quoted)

    def value(self, name: str, value_at: int) -> tuple[str, bool]:
        """What follows the colon, and whether it stands in quotation marks."""
        self.at = value_at
        if self.text[value_at : value_at + 1] in QUOTED:
            return self.quoted(), True
        return self.taken(BARE, balance=name in OF_TAGS).replace("\\ ", " "), False

    def metatag(self, name: str, value_at: int) -> Node:
        start = self.at
        value, quoted = self.value(name, value_at)
        if name == "source" and quoted and not value:
            value = "none"  # as on Danbooru
        value_at += quoted
        try:
            read = read_metatag(name, value, self.now)
        except Malformed as error:
            raise self.error(f"{name}: {error}", min(value_at + error.offset, len(self.text))) from None
        if isinstance(read, Setting):
            self.settings.append((read, start, len(self.opened)))
            return All()
        found = Metatag(read, start, value_at)
        self.metatags.append(found)
        return found

    def quoted(self) -> str:
        """A value in quotation marks, with a backslash before any that is meant."""
        quote = self.text[self.at]
        match = QUOTED[quote].match(self.text, self.at)
        if not match:
            raise self.error(f"this {quote} is never closed")
        self.at = match.end()
        if self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] != ")":
            raise self.error("a space is missing after the quotation mark")
        return match[1].replace(f"\\{quote}", quote)

    def taken(self, pattern: re.Pattern[str], *, balance: bool) -> str:
        word = taken(self.text, self.at, pattern, len(self.opened), balance=balance)
        self.at += len(word)
        return word

    def keyword_ahead(self) -> bool:
        return any(self._keyword(word) for word in ("and", "or"))

    def keyword(self, word: str) -> bool:
        """Eat `word` if it comes next as an operator: in any case, with space after it."""
        if not self._keyword(word):
            return False
        start = self.at
        self.at += len(word)
        self.space()
        if self.at == len(self.text) or self.text[self.at] == ")" or self.keyword_ahead():
            raise self.error(f'a tag is missing after "{word}"', start)
        return True

    def _keyword(self, word: str) -> bool:
        end = self.at + len(word)
        return self.text[self.at : end].lower() == word and (
            end == len(self.text) or self.text[end].isspace() or (bool(self.opened) and self.text[end] == ")")
        )

    def refuse_settings(self, before: int) -> None:
        if len(self.settings) > before:
            at = self.settings[before][1]
            raise self.error("this applies to the whole search, so it cannot be negated or part of an or", at)

    def space(self) -> None:
        match = SPACE.match(self.text, self.at)
        assert match
        self.at = match.end()

    def error(self, message: str, at: int | None = None) -> QueryError:
        return QueryError(message, self.text, self.at if at is None else at)


def _both(parts: list[Node]) -> Node:
    conditions = [part for part in parts if not isinstance(part, All)]
    if len(conditions) == 1:
        return conditions[0]
    return And(tuple(conditions)) if conditions else All()
