"""Completing the word at the cursor: what it may become, and how many pictures the search would then find.

    complete(index, lexicon, "glasses (hat or rib", 19)
    # Completion(16, 19, [Suggestion("ribbon", "ribbon", "general", 3021, None), …])

Replacing `text[start:end]` by a suggestion's `value` gives the completed search. A tag's count is exact under the
search so far: the pictures that have it among those that everything required beside the word finds. Of an `or` that is
its own branch; behind a `-` it is how many would go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol

from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.lexicon import Lexicon, Match
from efuda.collection.metatags import METATAGS, State, words_of
from efuda.collection.query import TAG, All, And, Metatag, Node, Not, Or, Query, Tag, parse
from efuda.collection.tokens import PREFIX, word_at
from efuda.errors import QueryError
from efuda.vocabulary import Category

__all__ = ["Completion", "Counting", "Suggestion", "complete", "context_of", "written"]

_CURSOR: Final = "\ue000cursor\ue000"  # stands for the word being written while the rest is read
_NAMES: Final = frozenset({*METATAGS, TAG})
# A name that means itself wherever it stands.
_PLAIN: Final = re.compile(r"(?!(?:and|or)$)[a-z0-9][a-z0-9_.!+/'-]*(?:_\([a-z0-9_.!+/'-]+\))*")
_MORE: Final = 6  # so many times more candidates than suggestions are counted: what is rare in all may be common here
_FEW: Final = 200  # metatags with more words than this are not counted


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the word may become.

    Attributes:
        value: takes the word's place in the text.
        label: to be read: "long hair".
        category: the tag's, in words; None for a metatag.
        count: pictures that the search would find with it, exactly; None where that is not counted.
        antecedent: the other name, the initials or the slip by which the tag was found.
    """

    value: str
    label: str
    category: str | None = None
    count: int | None = None
    antecedent: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Suggestions for `text[start:end]`, likely ones first, those that would find nothing last."""

    start: int
    end: int
    suggestions: list[Suggestion]


class Counting(Protocol):
    """What is asked of an index."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def categories(self) -> Sequence[Category]: ...
    @property
    def counts(self) -> NDArray[Any]: ...
    def bitmap_of(self, query: Query) -> BitMap: ...
    def count_with(self, bitmap: BitMap, tag: int) -> int: ...


def complete(
    index: Counting,
    lexicon: Lexicon,
    text: str,
    at: int | None = None,
    *,
    limit: int = 20,
    sources: Sequence[str] = (),
) -> Completion:
    """Complete a search that is being written.

    Args:
        index: counts pictures.
        lexicon: knows the tags' names.
        text: the whole search.
        at: how many characters stand before the cursor; the end of the text if left out.
        limit: how many suggestions, at most.
        sources: names of models, imports and persons, for `src:`.
    """
    at = len(text) if at is None else max(0, min(at, len(text)))
    start, end = word_at(text, at, _NAMES)
    if start == at or limit <= 0:
        return Completion(at, at, [])
    word = _Word(index, lexicon, text, start, end, text[start:at], limit, sources)
    return word.completed()


@dataclass(frozen=True)
class _Word:
    """A word being written: `typed` is its part before the cursor."""

    index: Counting
    lexicon: Lexicon
    text: str
    start: int
    end: int
    typed: str
    limit: int
    sources: Sequence[str]

    def completed(self) -> Completion:
        prefix = PREFIX.match(self.typed)
        if prefix and prefix[1].lower() in _NAMES:
            return self._value(prefix[1].lower(), self.typed[prefix.end() :])
        tags = self._tags(self.typed.lower())
        metatags = [
            Suggestion(f"{name}:", f"{name}:") for name in _beginning(self.typed.lower(), sorted(_NAMES - {TAG}))
        ]
        if len(self.typed) < 2:
            metatags = []
        room = min(max(self.limit - min(len(metatags), 2), 1), sum(tag.count != 0 for tag in tags))
        return Completion(self.start, self.end, [*tags[:room], *metatags, *tags[room:]][: self.limit])

    def _value(self, name: str, typed: str) -> Completion:
        """The value of a metatag; where it names a tag, that tag."""
        if name == TAG:
            return Completion(self.start, self.end, self._tags(typed.strip("\"'").lower()))
        if name == "ai":
            return self._tag_within("ai:", typed, re.search(r".[<>,]", self.text[self.start : self.end]))
        if name == "src" and ":" in typed:
            source, _, tag = typed.partition(":")
            sign = "-" if tag.startswith("-") else ""
            return self._tag_within(f"src:{source}:{sign}", tag[len(sign) :], None)
        *before, last = re.split(r"(?<=,)", typed.lower()) if name in ("rating", "filetype") else (typed.lower(),)
        words = list(dict.fromkeys([*words_of(name), *(self._source_names() if name == "src" else ())]))
        found = [f"{name}:{''.join(before)}{_quoted(word)}" for word in _beginning(last, words)]
        counted = [Suggestion(value, value, None, self._count_of(value)) for value in found[:_FEW]]
        counted.sort(key=lambda one: one.count == 0)
        return Completion(self.start, self.end, counted[: self.limit])

    def _tag_within(self, prefix: str, typed: str, beyond: re.Match[str] | None) -> Completion:
        """A tag behind a prefix; from `beyond` on something else follows it. What that would find is not counted."""
        end = self.end if beyond is None else self.start + beyond.start() + 1
        if len(prefix) + len(typed) > end - self.start:  # the cursor is past the tag
            return Completion(self.end, self.end, [])
        plain = [tag for tag in self._tags(typed.lower(), counted=False) if not re.search(r'[\s<>,:"\'*]', tag.value)]
        return Completion(self.start, end, [replace(tag, value=prefix + tag.value, count=None) for tag in plain])

    def _source_names(self) -> Iterator[str]:
        for source in self.sources:
            yield source.partition("@")[0].casefold()

    def _tags(self, typed: str, *, counted: bool = True) -> list[Suggestion]:
        matches = self.lexicon.matches(typed, self.index.counts, self.limit * _MORE)
        matches = [match for match in matches if self.index.categories[match.tag] is not Category.RATING]
        context = self._context() if counted else None
        numbers = self._numbers(matches, context)
        matches.sort(key=lambda match: (numbers[match.tag] == 0, match.rank, -numbers[match.tag]))
        found = ((match, written(self.index.names[match.tag])) for match in matches)
        return list(islice((self._suggestion(match, value, numbers) for match, value in found if value), self.limit))

    def _suggestion(self, match: Match, value: str, numbers: dict[int, int]) -> Suggestion:
        name, category = self.index.names[match.tag], self.index.categories[match.tag]
        label = name.replace("_", " ").strip() or name
        return Suggestion(value, label, category.label, numbers[match.tag], match.by)

    def _numbers(self, matches: list[Match], context: BitMap | None) -> dict[int, int]:
        """How many pictures each tag would find."""
        if context is None:
            return {match.tag: int(self.index.counts[match.tag]) for match in matches}
        return {match.tag: self.index.count_with(context, match.tag) for match in matches}

    def _count_of(self, term: str) -> int | None:
        """How many pictures a term would find; None where it is not one that finds."""
        try:
            node = parse(term).node
            if isinstance(node, All):
                return None
            context = context_of(self.text, self.start, self.end)
            return len(self._bitmap(And((*context, node)) if context else node))
        except QueryError:
            return None

    def _context(self) -> BitMap | None:
        """What everything required beside the word finds; None where nothing is."""
        parts = list(context_of(self.text, self.start, self.end))
        while parts:
            try:
                return self._bitmap(And(tuple(parts)))
            except QueryError:
                parts = [part for part in parts if self._is_found(part)]
        return None

    def _is_found(self, part: Node) -> bool:
        try:
            self._bitmap(part)
        except QueryError:
            return False
        return True

    def _bitmap(self, node: Node) -> BitMap:
        return self.index.bitmap_of(Query(node, everything=_has_state(node), text=self.text))


def context_of(text: str, start: int, end: int) -> tuple[Node, ...]:
    """What a search requires beside the word at `start:end`, so far as it can be read; see the module's words."""
    before, after = text[:start] + _CURSOR, text[end:]
    for candidate in (before + after, before + after + _closing(before + after), before + _closing(before)):
        try:
            return tuple(_beside(parse(candidate).node) or ())
        except QueryError:
            continue
    return ()


def _closing(text: str) -> str:
    """The parentheses that are still open."""
    return " " + ")" * max(text.count("(") - text.count(")"), 0)


def _beside(node: Node) -> list[Node] | None:
    """What is required beside the cursor's tag; None where it is not beneath this node."""
    match node:
        case Tag(name):
            return [] if name == _CURSOR else None
        case Not(part):
            return _beside(part)
        case And(parts) | Or(parts):
            for part in parts:
                if (inner := _beside(part)) is not None:
                    others = [other for other in parts if other is not part] if isinstance(node, And) else []
                    return others + inner
    return None


def _has_state(node: Node) -> bool:
    match node:
        case Metatag(condition):
            return isinstance(condition, State)
        case And(parts) | Or(parts):
            return any(map(_has_state, parts))
        case Not(part):
            return _has_state(part)
    return False


def written(name: str) -> str | None:
    """How a tag is written in a search, also within parentheses; None if it cannot be."""
    if _PLAIN.fullmatch(name):
        return name
    for text in (name, f'{TAG}:"{name}"', f"{TAG}:'{name}'", f'{TAG}:"' + name.replace('"', '\\"') + '"'):
        try:
            if parse(text).node == parse(f"({text})").node == Tag(name):
                return text
        except QueryError:
            continue
    return None


def _quoted(word: str) -> str:
    return f'"{word}"' if re.search(r"\s", word) and '"' not in word else word


def _beginning(typed: str, words: Sequence[str]) -> list[str]:
    return [word for word in words if word.startswith(typed.strip("\"'"))]
