"""Which tags a half-written word may mean: by beginning, inner word, initials, another name, a slip, or a wildcard.

    lexicon = Lexicon.of(names, aliases)                 # names by number, aliases name → number
    [match.tag for match in lexicon.matches("miku hats", counts, 50)]

Made once for a collection, a few microseconds a name; a lookup among 100,000 names takes a few milliseconds at most.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

__all__ = ["Lexicon", "Match", "wildcard"]

# How a name matches, best first; within one, the tag on more pictures comes first.
EXACT, BEGINS, CONTAINS, WORDS, INITIALS, SLIP, NOT = range(7)

_WORD: Final = re.compile(r"[^\W_]+")
_LAST: Final = "\U0010ffff"
_LONGEST: Final = 170  # no tag is longer
_GROWN_BY: Final = 2000  # so many new names are looked through apart; more are worth making the lexicon anew
_ENOUGH: Final = 3  # with so many matches nobody needs to be told of slips
_SLIPS: Final = 60  # candidates looked at for a slip
_CHECKED: Final = 5000  # places looked at, and names tried where a wildcard gives nothing to look for


class Match(NamedTuple):
    """A tag that a word may mean, how well, and the other name, initials or slip by which it was found."""

    tag: int
    rank: int
    by: str | None


@dataclass(frozen=True, eq=False)
class _Keys:
    """Words in order, and the names that each belongs to: of `keys[i]`, `places[starts[i]:starts[i + 1]]`."""

    keys: list[str]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, int]]) -> Self:
        found = dict[str, list[int]]()
        for key, place in pairs:
            found.setdefault(key, []).append(place)
        keys = sorted(found)
        starts = np.cumsum([0, *(len(found[key]) for key in keys)])
        places = np.fromiter(chain.from_iterable(found[key] for key in keys), dtype=np.int64, count=int(starts[-1]))
        return cls(keys, starts, places)

    def starting(self, start: str) -> NDArray[np.int64]:
        """The names of all keys that begin so."""
        low, high = _range(self.keys, start)
        return self.places[self.starts[low] : self.starts[high]]


@dataclass(frozen=True, eq=False)
class _Part:
    """Names in order, with the tags that they mean."""

    names: list[str]
    tags: NDArray[np.int64]
    is_alias: NDArray[np.bool_]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, int, bool]]) -> Self:
        ordered = sorted(pairs)
        tags = np.array([tag for _, tag, _ in ordered], dtype=np.int64)
        return cls([name for name, _, _ in ordered], tags, np.array([alias for _, _, alias in ordered], dtype=bool))

    @cached_property
    def words(self) -> _Keys:
        """Every word of every name."""
        return _Keys.of((word, place) for place, name in enumerate(self.names) for word in _WORD.findall(name))

    @cached_property
    def initials(self) -> _Keys:
        """The initials of every name."""
        split = ((place, _WORD.findall(name)) for place, name in enumerate(self.names))
        return _Keys.of(("".join([word[0] for word in words]), place) for place, words in split if words)

    @cached_property
    def letters(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Which letters each name has, as bits, and how many."""
        return _letters(self.names)

    @cached_property
    def text(self) -> tuple[str, NDArray[np.int64]]:
        """All names, each behind a line break, and where they begin."""
        lengths = np.array([len(name) + 1 for name in self.names], dtype=np.int64)
        return "\n" + "\n".join(self.names) + "\n", np.concatenate([[0], np.cumsum(lengths)])

    def ranks(self, text: str) -> NDArray[np.uint8]:
        """How well each name matches."""
        found = np.full(len(self.names), NOT, dtype=np.uint8)
        if (letters := text.replace("_", "")).isalpha() and len(letters) > 1:
            found[self.initials.starting(letters)] = INITIALS
        words = _WORD.findall(text)
        if words == [text]:  # one word: where a name has it, it has it whole
            found[self.words.starting(text) if len(text) > 1 else []] = CONTAINS
        elif words:
            found[self._with_words(words)] = WORDS
            if max(map(len, words)) > 1:
                found[self._containing(text)] = CONTAINS
        low, high = _range(self.names, text)
        found[low:high] = BEGINS
        if low < high and self.names[low] == text:
            found[low] = EXACT
        return found

    def _with_words(self, words: list[str]) -> NDArray[np.int64]:
        """Names with words that begin so, in any order."""
        every = np.ones(len(self.names), dtype=bool)
        for word in words:
            has = np.zeros(len(self.names), dtype=bool)
            has[self.words.starting(word)] = True
            every &= has
        return np.flatnonzero(every)

    def _containing(self, text: str) -> NDArray[np.int64]:
        """Names in which this stands where a word begins."""
        whole, begins = self.text
        at, places = whole.find(text, 1), list[int]()
        while at >= 0 and len(places) < _CHECKED:
            if not (whole[at - 1].isalnum() and text[0].isalnum()):
                places.append(at)
            at = whole.find(text, at + 1)
        return np.searchsorted(begins, places, side="left") - 1

    def slips(self, text: str, most: int) -> list[tuple[int, int]]:
        """Names that differ in at most `most` letters: place and how many."""
        letters, lengths = self.letters
        near = _near(text, letters, lengths, most)
        names = [self.names[place] for place in near.tolist()]
        found = extract(text, names, scorer=OSA.distance, processor=None, score_cutoff=most, limit=_SLIPS)
        return [(int(near[place]), int(distance)) for _, distance, place in found]

    def matching(self, pattern: str, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Names that a wildcard matches, of very many those that come first in `order`."""
        whole = wildcard(pattern).fullmatch
        longest = max(pattern.split("*"), key=len)
        if len(longest) < 2:
            first = (place for place in order[:_CHECKED].tolist() if whole(self.names[place]))
            return np.array(list(islice(first, 1000)), dtype=np.int64)
        text, begins = self.text
        places, at = set[int](), text.find(longest, 1)
        while at >= 0:
            place = int(np.searchsorted(begins, at, side="left")) - 1
            places.add(place)
            at = text.find(longest, int(begins[place + 1]))
        return np.array([place for place in sorted(places) if whole(self.names[place])], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Lexicon:
    """All names of a collection's tags; never changed, `grown` makes another."""

    parts: tuple[_Part, ...]
    size: int  # numbers below this are in it

    @classmethod
    def of(cls, names: Sequence[str], aliases: Mapping[str, int]) -> Self:
        """Names by number, empty ones passed over, and other names of the same tags."""
        pairs = [(name, tag, False) for tag, name in enumerate(names) if name]
        known = {name for name, _, _ in pairs}
        pairs += [(name, tag, True) for name, tag in aliases.items() if name and name not in known]
        return cls((_Part.of(pairs),), len(names))

    def grown(self, names: Sequence[str]) -> Self | None:
        """With the names that have come since; None where there are so many that it should be made anew."""
        if len(names) == self.size:
            return self
        new = [(name, tag, False) for tag, name in enumerate(names[self.size :], start=self.size) if name]
        if len(self.parts) > 1:
            old = self.parts[1]
            new += zip(old.names, old.tags.tolist(), old.is_alias.tolist(), strict=True)
        return None if len(new) > _GROWN_BY else type(self)((self.parts[0], _Part.of(new)), len(names))

    def matches(self, text: str, counts: NDArray[Any], limit: int) -> list[Match]:
        """The tags that a word may mean, likely ones first.

        Args:
            text: what is written, in small letters. With `*` it is a wildcard, with `/` at its beginning initials.
            counts: by number of tag; where there is none, the count is 0.
            limit: how many matches, at most.
        """
        if not text or len(text) > _LONGEST:
            return []
        if "*" in text and not text.startswith("/"):
            return self._best([(part, self._wild(part, text, counts)) for part in self.parts], counts, limit, None)
        if text.startswith("/") and len(text) > 1:
            found = self._best([(one, _initial_ranks(one, text[1:])) for one in self.parts], counts, limit, "/")
            if found:
                return found
        found = self._best([(part, part.ranks(text)) for part in self.parts], counts, limit, None)
        if sum(match.rank < INITIALS for match in found) < _ENOUGH:
            known = {match.tag for match in found}
            found += [match for match in self._slips(text, counts) if match.tag not in known]
        return found[:limit]

    def _wild(self, part: _Part, pattern: str, counts: NDArray[Any]) -> NDArray[np.uint8]:
        ranks = np.full(len(part.names), NOT, dtype=np.uint8)
        order = np.argsort(-_counts_of(part.tags, counts)) if len(max(pattern.split("*"), key=len)) < 2 else part.tags
        ranks[part.matching(pattern, order)] = BEGINS
        return ranks

    def _best(
        self, found: list[tuple[_Part, NDArray[np.uint8]]], counts: NDArray[Any], limit: int, sign: str | None
    ) -> list[Match]:
        """The best by rank and then by count, each tag once, under its own name where that is as good."""
        matches: list[Match] = []
        for part, ranks in found:
            places = np.flatnonzero(ranks < NOT)
            keys = (ranks[places].astype(np.int64) << 40) - _counts_of(part.tags[places], counts)
            wanted = 2 * limit + 20
            first = np.argpartition(keys, wanted)[:wanted] if wanted < len(keys) else slice(None)
            for place in places[first].tolist():
                by = part.names[place] if part.is_alias[place] else None
                if sign or ranks[place] == INITIALS:
                    by = "/" + "".join(word[0] for word in _WORD.findall(part.names[place]))
                matches.append(Match(int(part.tags[place]), int(ranks[place]), by))
        matches.sort(key=lambda match: (match.rank, -_count_of(match.tag, counts), match.by is not None))
        once = dict[int, Match]()
        for match in matches:
            once.setdefault(match.tag, match)
        return list(once.values())[:limit]

    def _slips(self, text: str, counts: NDArray[Any]) -> list[Match]:
        """Tags whose name, or a word of it, is nearly this."""
        if len(re.findall(r"[^\W_]", text)) < 3:
            return []
        most = 1 if len(text) < 7 else 2 if len(text) < 12 else 3
        found = dict[int, tuple[int, int, str]]()
        for part in self.parts:
            for place, distance in part.slips(text, most):
                tag = int(part.tags[place])
                by = part.names[place] if part.is_alias[place] else text
                found[tag] = min((distance, -_count_of(tag, counts), by), found.get(tag, (most + 1, 0, "")))
        ordered = sorted(found.items(), key=lambda item: item[1])
        return [Match(tag, SLIP, by) for tag, (distance, _, by) in ordered if distance <= ordered[0][1][0] + 1]


def wildcard(pattern: str) -> re.Pattern[str]:
    """Each part between stars is taken where it first occurs, for good: no pattern can take exponential time."""
    first, *rest = pattern.split("*")
    if not rest:
        return re.compile(re.escape(first))
    middle = "".join(f"(?>.*?{re.escape(part)})" for part in rest[:-1] if part)
    return re.compile(f"{re.escape(first)}{middle}.*{re.escape(rest[-1])}", re.DOTALL)


def _range(ordered: list[str], start: str) -> tuple[int, int]:
    return bisect_left(ordered, start), bisect_left(ordered, start + _LAST)


def _initial_ranks(part: _Part, letters: str) -> NDArray[np.uint8]:
    """Names by their initials, those with fewer words first."""
    initials, ranks = part.initials, np.full(len(part.names), NOT, dtype=np.uint8)
    low, high = _range(initials.keys, letters.split("*", maxsplit=1)[0])
    match, length = wildcard(letters + "*").fullmatch, len(letters.replace("*", ""))
    for place in range(low, high):
        if match(initials.keys[place]):
            names = initials.places[initials.starts[place] : initials.starts[place + 1]]
            ranks[names] = min(len(initials.keys[place]) - length, NOT - 1)
    return ranks


def _counts_of(tags: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.int64]:
    inside = tags < len(counts)
    return np.where(inside, counts[np.where(inside, tags, 0)] if len(counts) else 0, 0).astype(np.int64)


def _count_of(tag: int, counts: NDArray[Any]) -> int:
    return int(counts[tag]) if tag < len(counts) else 0


_ALPHABET: Final = {character: 1 << place for place, character in enumerate("abcdefghijklmnopqrstuvwxyz0123456789")}
_OTHER: Final = 1 << 40


def _letters(names: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    bits = np.array([_bits(name) for name in names], dtype=np.uint64)
    return bits, np.array([len(name) for name in names], dtype=np.int64)


def _bits(name: str) -> int:
    bits = 0
    for character in set(name):
        bits |= _ALPHABET.get(character, _OTHER)
    return bits


def _near(text: str, letters: NDArray[np.uint64], lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Those that could be within `most` changes, by their length and letters alone: a change mends one letter."""
    bits = np.uint64(_bits(text))
    close = np.flatnonzero(np.abs(lengths - len(text)) <= most)
    missing = np.bitwise_count(letters[close] & ~bits)
    extra = np.bitwise_count(~letters[close] & bits)
    near: NDArray[np.int64] = close[np.maximum(missing, extra) <= most]
    return near
