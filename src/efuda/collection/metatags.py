"""What a metatag's value says: `width:>=1000` is an interval of widths, `rating:g,s` a set of ratings.

    read_metatag("width", "5..10")       # Numbers("width", (Interval(5, 10),))
    read_metatag("order", "mpixels")     # Order("mpixels", falling=True)

Ranges follow Danbooru: `5  >5  >=5  <5  <=5  5..10  5...10 (without 10)  5..  ..5`, and lists of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import ceil, floor, inf
from typing import Final

__all__ = [
    "FILETYPES",
    "METATAGS",
    "Condition",
    "FileTypes",
    "Interval",
    "Limit",
    "Malformed",
    "Numbers",
    "Order",
    "PathText",
    "Ratings",
    "Score",
    "read_metatag",
]

FILETYPES: Final = ("jpg", "png", "gif", "webp", "avif", "bmp", "tiff")
_RATINGS: Final = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
_RATING_WORDS: Final = {**_RATINGS, **{name: name for name in _RATINGS.values()}, "safe": "sensitive"}
_LARGEST_PAGE: Final = 1000


class Malformed(ValueError):
    """A value that cannot be understood; the parser adds the place."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, either end left out where it is open."""

    low: float = -inf
    high: float = inf
    without_low: bool = False
    without_high: bool = False


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column whose value lies in any of the intervals. `ratio` counts in hundredths."""

    column: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Ratings:
    """The best rating is one of these; with None among them, also pictures without any."""

    names: frozenset[str | None]


@dataclass(frozen=True, slots=True)
class FileTypes:
    """The file is one of these types."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class PathText:
    """A path contains this, or with `*` in it matches it from beginning to end; case makes no difference."""

    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """The model's score × 255 for a tag (or the best of a wildcard's) is at least `least`; or below, if `below`.

    `least` None means the score that the model's own threshold asks for.
    """

    tag: str
    least: int | None
    below: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """Which pictures come first: the largest of a column if `falling`. Equal ones: the newest first."""

    column: str = "id"
    falling: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """Pictures on a page."""

    count: int


Condition = Numbers | Ratings | FileTypes | PathText | Score


def read_metatag(name: str, value: str) -> Condition | Order | Limit:
    """Read the value of one of `METATAGS`; raises Malformed saying what was expected."""
    if not value.strip():
        raise Malformed("a value is missing after the colon")
    return METATAGS[name](name, value)


def _near(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"


def _whole(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Malformed(f"{text or 'nothing'} is not a whole number; write 5, >5, <=5, 5..10 or 5,6,7")
    return int(text)


def _decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}", text):
        raise Malformed(f"{text or 'nothing'} is not a number; write 1.5, >1.5 or 1..2")
    return float(text)


def _ratio(text: str) -> float:
    """Width : height in hundredths, half up, as the index rounds a picture's own."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:[:/]([0-9]{1,9}))?", text)
    if not match or (match[2] and int(match[2]) == 0):
        raise Malformed(f"{text or 'nothing'} is not a ratio; write 16:9, 1.78, >1 or 1:2..2:1")
    return floor(Fraction(match[1]) / int(match[2] or 1) * 100 + Fraction(1, 2))


def _filesize(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([km]?)b?", text)
    if not match:
        raise Malformed(f"{text or 'nothing'} is not a file size; write 300k, >2m, 1.5mb or 1000b")
    return int(float(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2]])


_NUMERIC: Final[dict[str, tuple[Callable[[str], float], re.Pattern[str]]]] = {
    # How a number is written, and which of them mean "about this much" when alone: within 5 %, as on Danbooru.
    "id": (_whole, re.compile(r"(?!)")),
    "width": (_whole, re.compile(r"(?!)")),
    "height": (_whole, re.compile(r"(?!)")),
    "tagcount": (_whole, re.compile(r"(?!)")),
    "mpixels": (_decimal, re.compile(r".*")),
    "ratio": (_ratio, re.compile(r"(?!)")),
    "filesize": (_filesize, re.compile(r".*[km]b?")),
}


def _numbers(name: str, value: str) -> Numbers:
    items = re.split(r"[,\s]+", value.strip().lower())
    return Numbers(name, tuple(_interval(name, item) for item in items))


def _interval(name: str, item: str) -> Interval:
    read, about = _NUMERIC[name]
    if match := re.fullmatch(r"(.+?)(\.\.\.?)([^.].*|\.[0-9].*)", item):
        low, high = sorted((read(match[1]), read(match[3])))
        return Interval(low, high, without_high=match[2] == "...")
    if match := re.fullmatch(r"<=(.*)|\.\.(.*)", item):
        return Interval(high=read(match[1] or match[2] or ""))
    if match := re.fullmatch(r">=(.*)|(.+)\.\.", item):
        return Interval(low=read(match[1] or match[2] or ""))
    if item.startswith("<"):
        return Interval(high=read(item[1:]), without_high=True)
    if item.startswith(">"):
        return Interval(low=read(item[1:]), without_low=True)
    number = read(item)
    return Interval(number * 0.95, number * 1.05) if about.fullmatch(item) else Interval(number, number)


def _ratings(name: str, value: str) -> Ratings:
    names: set[str | None] = set()
    for word in re.split(r"[,\s]+", value.strip().lower()):
        if word in ("any", "none"):
            names |= set(_RATINGS.values()) if word == "any" else {None}
        elif word in _RATING_WORDS:
            names.add(_RATING_WORDS[word])
        else:
            raise Malformed(f"{word or 'nothing'} is not a rating; write g, s, q, e, or a list such as g,s")
    return Ratings(frozenset(names))


def _filetypes(name: str, value: str) -> FileTypes:
    same = {"jpeg": "jpg", "tif": "tiff"}
    words = [same.get(word, word) for word in re.split(r"[,\s]+", value.strip().lower())]
    for word in words:
        if word not in FILETYPES:
            raise Malformed(f"{word or 'nothing'} is not a file type; {_near(word, list(FILETYPES))}")
    return FileTypes(frozenset(words))


def _path(name: str, value: str) -> PathText:
    return PathText(value.casefold())


def _score(name: str, value: str) -> Score:
    match = re.fullmatch(r"(.+?)(>=|<=|>|<)([0-9.]{1,12})", value.strip().lower())
    if not match:
        if re.search(r".(>=|<=|[<>=])[^<>=_]*$", value) and re.search(r"[0-9%]$", value):
            raise Malformed("the score is not understood; write ai:tag>=0.8 or ai:tag<0.3")
        return Score(value.strip().lower(), None)
    score = _probability(match[3]) * 255
    # Whole numbers of 255ths: more than s is at least floor(s) + 1, at most s is below it.
    least = floor(score) + 1 if match[2] in (">", "<=") else ceil(score)
    return Score(match[1], least, below=match[2] in ("<", "<="))


def _probability(text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise Malformed(f"{text} is not a score; write a number from 0 to 1, such as 0.8")
    if (number := Fraction(text)) > 1:
        raise Malformed(f"{text} is not a score; scores go from 0 to 1, so 80 % is 0.8")
    return number


_ORDERS: Final[dict[str, Order]] = {
    **{
        name + suffix: Order(name, falling)
        for name in ("mpixels", "width", "height", "ratio", "filesize", "tagcount", "score")
        for suffix, falling in (("", True), ("_desc", True), ("_asc", False))
    },
    "id": Order("id", False),
    "id_asc": Order("id", False),
    "id_desc": Order("id", True),
    "landscape": Order("ratio", True),
    "portrait": Order("ratio", False),
    "random": Order("random"),
}


def _order(name: str, value: str) -> Order:
    word = value.strip().lower()
    if word not in _ORDERS:
        raise Malformed(f"{word} is not an order; {_near(word, [key for key in _ORDERS if '_' not in key])}")
    return _ORDERS[word]


def _limit(name: str, value: str) -> Limit:
    count = int(_whole(value.strip()))
    if not 1 <= count <= _LARGEST_PAGE:
        raise Malformed(f"{count} is not possible; a page holds 1 to {_LARGEST_PAGE} pictures")
    return Limit(count)


METATAGS: Final[dict[str, Callable[[str, str], Condition | Order | Limit]]] = {
    **dict.fromkeys(_NUMERIC, _numbers),
    "rating": _ratings,
    "filetype": _filetypes,
    "path": _path,
    "ai": _score,
    "order": _order,
    "limit": _limit,
}
