"""What a metatag's value says: `width:>=1000` is an interval of widths, `rating:g,s` a set of ratings.

    read_metatag("width", "5..10", now)       # Numbers("width", (Interval(5, 10),))
    read_metatag("parent", "12", now)         # Family(12)
    read_metatag("order", "mpixels", now)     # Order("mpixels", falling=True)

What each condition means is in `conditions`; how numbers and dates are written is in `values`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from math import ceil, floor
from typing import Final, TypeVar

from efuda.collection.conditions import (
    By,
    Condition,
    Family,
    FileTypes,
    Hash,
    Like,
    Limit,
    Numbers,
    Order,
    Parents,
    PathText,
    Ratings,
    Sample,
    Score,
    Setting,
    SourceText,
    State,
)
from efuda.collection.values import (
    Interval,
    Malformed,
    decimal,
    filesize,
    items,
    near,
    ratio,
    read_numbers,
    read_times,
    seconds,
    whole,
)

__all__ = [
    "ELSEWHERE",
    "FILETYPES",
    "METATAGS",
    "By",
    "Condition",
    "Family",
    "FileTypes",
    "Hash",
    "Interval",
    "Like",
    "Limit",
    "Malformed",
    "Numbers",
    "Order",
    "Parents",
    "PathText",
    "Ratings",
    "Sample",
    "Score",
    "Setting",
    "SourceText",
    "State",
    "read_metatag",
    "words_of",
]

FILETYPES: Final = ("jpg", "png", "gif", "webp", "avif", "bmp", "tiff", "heic", "jxl", "other")
_RATINGS: Final = ("general", "sensitive", "questionable", "explicit")
_LARGEST_PAGE: Final = 1000
_LARGEST_SAMPLE: Final = 100_000


_Value = TypeVar("_Value")
_Read = Callable[[str, str, datetime], Condition | Setting]


def read_metatag(name: str, value: str, now: datetime) -> Condition | Setting:
    """Read the value of one of `METATAGS`; raises Malformed saying what was expected.

    `now` is what ages are counted from, so a condition holds for the moment it was read.
    """
    if not value.strip():
        raise Malformed("a value is missing after the colon")
    return METATAGS[name](name, value, now)


# Numbers: how one is written, and which of them mean "about this much" when alone, as on Danbooru.

_NEVER: Final = re.compile(r"(?!)")
_NUMERIC: Final[dict[str, tuple[Callable[[str], float], re.Pattern[str]]]] = {
    "id": (whole, _NEVER),
    "width": (whole, _NEVER),
    "height": (whole, _NEVER),
    "mpixels": (lambda text: round(decimal(text) * 1e6), re.compile(r".*")),
    "ratio": (ratio, _NEVER),
    "filesize": (filesize, re.compile(r".*[kmg]b?")),
    "duration": (lambda text: round(seconds(text) * 1000), re.compile(r".*")),
    "tagcount": (whole, _NEVER),
    "gentags": (whole, _NEVER),
    "arttags": (whole, _NEVER),
    "copytags": (whole, _NEVER),
    "chartags": (whole, _NEVER),
    "metatags": (whole, _NEVER),
    "duplicates": (whole, _NEVER),
    "children": (whole, _NEVER),
    "child_count": (whole, _NEVER),
}
_MAY_BE_NONE: Final = frozenset(_NUMERIC) - {"id", "width", "height", "mpixels", "ratio", "filesize"}
_SOME: Final = (Interval(1),)
_ZERO: Final = (Interval(0, 0),)


def _numbers(name: str, value: str, now: datetime) -> Numbers:
    column = "children" if name == "child_count" else name
    if (word := value.strip().lower()) in ("any", "none"):
        if name not in _MAY_BE_NONE:
            raise Malformed(f"every picture has one, so {word} says nothing; write a number or a range")
        return Numbers(column, _SOME if word == "any" else _ZERO)
    return Numbers(column, read_numbers(value, *_NUMERIC[name]))


def _times(name: str, value: str, now: datetime) -> Numbers:
    return Numbers("date" if name == "age" else name, read_times(value, now))


def _rating(word: str) -> frozenset[str | None]:
    if word in ("any", "none"):
        return frozenset(_RATINGS) if word == "any" else frozenset({None})
    if word == "safe":
        return frozenset({"sensitive"})
    found = frozenset[str | None](name for name in _RATINGS if name.startswith(word))
    if not found:
        raise Malformed(f"{word} is not a rating; write g, s, q, e, or a list such as g,s")
    return found


def _ratings(name: str, value: str, now: datetime) -> Ratings:
    return Ratings(frozenset[str | None]().union(*_each(value, _rating)))


def _filetype(word: str) -> str:
    name = {"jpeg": "jpg", "tif": "tiff", "heif": "heic"}.get(word, word)
    if name not in FILETYPES:
        raise Malformed(f"{word} is not a file type; {near(word, list(FILETYPES))}")
    return name


def _filetypes(name: str, value: str, now: datetime) -> FileTypes:
    return FileTypes(frozenset(_each(value, _filetype)))


def _hash(name: str, value: str, now: datetime) -> Hash:
    digits = 32 if name == "md5" else 64

    def read(word: str) -> bytes:
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", word):
            raise Malformed(f"{word[:80]} is not the {name} of a file: {digits} digits from 0 to 9 and a to f")
        return bytes.fromhex(word)

    return Hash(name, frozenset(_each(value, read)))


def _each(value: str, read: Callable[[str], _Value]) -> list[_Value]:
    """What a list says, item by item; a mistake points at its item."""
    found = list[_Value]()
    for word, offset in items(value.lower()):
        try:
            found.append(read(word))
        except Malformed as error:
            raise Malformed(str(error), offset) from None
    if not found:
        raise Malformed("a value is missing between the commas")
    return found


def _path(name: str, value: str, now: datetime) -> PathText:
    return PathText(value.casefold())


def _source(name: str, value: str, now: datetime) -> SourceText:
    word = value.strip().casefold()
    return SourceText({"none": None, "any": "*"}.get(word, word))


def _family(name: str, value: str, now: datetime) -> Numbers | Family | Parents:
    column = "parent" if name == "parent" else "children"
    word = value.strip().lower()
    if word in ("any", "none"):
        return Numbers(column, _SOME if word == "any" else _ZERO)
    number = _id(word, f"write the id of a picture, as in {name}:12, or any or none")
    return Family(number) if name == "parent" else Parents(number)


def _id(word: str, hint: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", word):
        raise Malformed(f"{word or 'nothing'} is not the id of a picture; {hint}")
    return int(word)


_HAS: Final[dict[str, Condition]] = {
    "parent": Numbers("parent", _SOME),
    "children": Numbers("children", _SOME),
    "child": Numbers("children", _SOME),
    "source": SourceText("*"),
    "rating": Ratings(frozenset(_RATINGS)),
    "tags": Numbers("tagcount", _SOME),
    "duplicates": Numbers("duplicates", _SOME),
    "duration": Numbers("duration", _SOME),
}
_IS: Final[dict[str, Condition]] = {
    "sfw": Ratings(frozenset({"general", "sensitive"})),
    "nsfw": Ratings(frozenset({"questionable", "explicit"})),
    "safe": Ratings(frozenset({"sensitive"})),
    **{name: Ratings(frozenset({name})) for name in _RATINGS},
    "parent": Numbers("children", _SOME),
    "child": Numbers("parent", _SOME),
    "missing": State("missing"),
    "removed": State("removed"),
    "animated": Numbers("duration", _SOME),
    **{name: FileTypes(frozenset({name})) for name in FILETYPES if name != "other"},
}
_STATUS: Final[dict[str, Condition]] = {
    "active": State("present"),
    "deleted": State("removed"),
    "missing": State("missing"),
    "any": State("any"),
    "all": State("any"),
}


def _has(name: str, value: str, now: datetime) -> Condition:
    return _one_of(value, _HAS, "something a picture has")


def _is(name: str, value: str, now: datetime) -> Condition:
    return _one_of(
        {"deleted": "removed", "jpeg": "jpg"}.get(value.strip().lower(), value), _IS, "something a picture is"
    )


def _status(name: str, value: str, now: datetime) -> Condition:
    return _one_of(value, _STATUS, "a state of pictures")


def _one_of(value: str, known: dict[str, Condition], what: str) -> Condition:
    if (word := value.strip().lower()) not in known:
        raise Malformed(f"{word} is not {what}; {near(word, list(known))}")
    return known[word]


def _score(name: str, value: str, now: datetime) -> Score:
    text = value.strip().lower()
    if match := re.fullmatch(r"(.+),((?:>=|<=|>|<)?[0-9.]+%?)", text):
        return _percent(match[1], match[2])
    if match := re.fullmatch(r"(.+?)(>=|<=|>|<)([0-9.]{1,12})", text):
        return _compared(match[1], match[2], _probability(match[3], match.start(3)))
    if re.search(r".(>=|<=|[<>=])[^<>=_]*$", text) and re.search(r"[0-9%]$", text):
        raise Malformed("the score is not understood; write ai:tag>=0.8 or ai:tag<0.3")
    return Score(text, None)


def _compared(tag: str, sign: str, score: Fraction) -> Score:
    steps = score * 255  # whole numbers of 255ths: more than s is at least floor(s) + 1, below s at most ceil(s) - 1
    match sign:
        case ">=":
            return Score(tag, ceil(steps))
        case ">":
            return Score(tag, floor(steps) + 1)
        case "<=":
            return Score(tag, 0, floor(steps))
    return Score(tag, 0, ceil(steps) - 1)


def _percent(tag: str, text: str) -> Score:
    """Danbooru's ai:tag,80, at least 80 %; 0 means that the model does not see it at all."""
    match = re.fullmatch(r"(?:(>=|<=|>|<)?([0-9]{1,3})|([0-9]{1,3})\.\.([0-9]{1,3}))%?", text)
    numbers = [int(part) for part in match.groups()[1:] if part] if match else [101]
    if not match or max(numbers) > 100:
        raise Malformed(f"{text or 'nothing'} is not a percentage; write ai:tag,80 or ai:tag>=0.8", len(tag) + 1)
    if match[3]:
        low, high = sorted(numbers)
        return Score(tag, ceil(Fraction(low * 255, 100)), floor(Fraction(high * 255, 100)))
    if match[1] is None and numbers[0] == 0:
        return Score(tag, 0, 0)
    return _compared(tag, match[1] or ">=", Fraction(numbers[0], 100))


def _probability(text: str, offset: int) -> Fraction:
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise Malformed(f"{text} is not a score; write a number from 0 to 1, such as 0.8", offset)
    if (number := Fraction(text)) > 1:
        raise Malformed(f"{text} is not a score; scores go from 0 to 1, so 80 % is 0.8", offset)
    return number


def _by(name: str, value: str, now: datetime) -> By:
    source, colon, tag = value.strip().lower().partition(":")
    if not source:
        raise Malformed("who said it is missing; write src:human, src:MODEL or src:human:TAG")
    if not colon:
        return By(source.casefold())
    no = tag.startswith("-") and len(tag) > 1
    if not tag or tag == "-":
        raise Malformed(f"a tag is missing after the colon; write src:{source} or src:{source}:TAG", len(source) + 1)
    return By(source.casefold(), tag[no:], no)


def _like(name: str, value: str, now: datetime) -> Like:
    first, comma, rest = value.strip().partition(",")
    picture = _id(first, "write like:12, like:12,50 for the 50 nearest, or like:12,0.8 for at least so similar")
    if not comma:
        return Like(picture)
    if re.fullmatch(r"[0-9]{1,6}", rest) and int(rest) > 0:
        return Like(picture, int(rest))
    if re.fullmatch(r"0?\.[0-9]{1,9}|[01]\.0*", rest):
        return Like(picture, None, float(rest))
    raise Malformed(f"{rest or 'nothing'} is neither a number of pictures nor a similarity from 0 to 1", len(first) + 1)


_ORDERS: Final[dict[str, Order]] = {
    **{
        name + suffix: Order(column, falling)
        for name, column in {
            **{
                name: name
                for name in (
                    *("mpixels", "width", "height", "ratio", "filesize", "duration", "score", "md5"),
                    *("tagcount", "gentags", "arttags", "copytags", "chartags", "metatags"),
                    *("date", "added", "changed", "children", "duplicates"),
                )
            },
            "change": "changed",  # Danbooru's names for the same
            "created_at": "added",
            "child_count": "children",
        }.items()
        for suffix, falling in (("", True), ("_desc", True), ("_asc", False))
    },
    **{
        name + suffix: Order(column, falling)
        for name, column, first in (("landscape", "ratio", True), ("portrait", "ratio", False))
        for suffix, falling in (("", first), ("_desc", first), ("_asc", not first))
    },
    **{f"age{suffix}": Order("date", falling) for suffix, falling in (("", False), ("_desc", False), ("_asc", True))},
    "id": Order("id", False),
    "id_asc": Order("id", False),
    "id_desc": Order("id", True),
    "path": Order("path", False),
    "path_asc": Order("path", False),
    "path_desc": Order("path", True),
    "random": Order("random"),
    "custom": Order("custom"),
    "like": Order("like"),
    "none": Order(),
}
_ORDERS_ELSEWHERE: Final = {
    **dict.fromkeys(("rank", "upvotes", "downvotes", "favcount"), "votes and favourites"),
    **dict.fromkeys(("comment", "comment_bumped", "note", "artcomm"), "comments and notes"),
    **dict.fromkeys(("modqueue", "disapproved", "curated"), "moderation"),
}


def _order(name: str, value: str, now: datetime) -> Order:
    word = value.strip().lower()
    if seeded := re.fullmatch(r"random,([0-9]{1,9})", word):
        return Order("random", seed=int(seeded[1]))
    if word in _ORDERS:
        return _ORDERS[word]
    if what := _ORDERS_ELSEWHERE.get(re.sub(r"_(asc|desc)$", "", word)):
        raise Malformed(f"{word} orders by Danbooru's {what}, which a collection does not have; try order:score")
    known = [key for key in _ORDERS if not key.endswith(("_asc", "_desc", "_at", "_count"))]
    raise Malformed(f"{word} is not an order; {near(word, known)}")


def _limit(name: str, value: str, now: datetime) -> Limit:
    count = int(whole(value.strip()))
    if not 1 <= count <= _LARGEST_PAGE:
        raise Malformed(f"{count} is not possible; a page holds 1 to {_LARGEST_PAGE} pictures")
    return Limit(count)


def _sample(name: str, value: str, now: datetime) -> Sample:
    count = int(whole(value.strip()))
    if not 1 <= count <= _LARGEST_SAMPLE:
        raise Malformed(f"{count} is not possible; write a number from 1 to {_LARGEST_SAMPLE}, as in random:20")
    return Sample(count)


METATAGS: Final[dict[str, _Read]] = {
    **dict.fromkeys(_NUMERIC, _numbers),
    **dict.fromkeys(("date", "age", "added", "changed"), _times),
    "rating": _ratings,
    "filetype": _filetypes,
    "md5": _hash,
    "sha256": _hash,
    "path": _path,
    "source": _source,
    "parent": _family,
    "child": _family,
    "has": _has,
    "is": _is,
    "status": _status,
    "ai": _score,
    "src": _by,
    "like": _like,
    "order": _order,
    "limit": _limit,
    "random": _sample,
}
_USERS: Final = "Danbooru's users, of whom a collection knows nothing; src:human finds what a person tagged"
_VOTES: Final = "Danbooru's votes and favourites, which a collection does not have; a tag of your own can mark pictures"
_POOLS: Final = "Danbooru's pools, which a collection does not have; path: finds the pictures of a folder"
_NOTES: Final = "Danbooru's notes and comments, which a collection does not have"
_MODERATION: Final = "Danbooru's moderation, which a collection does not have"

ELSEWHERE: Final[dict[str, str]] = {
    # Danbooru's metatags that mean nothing here, each with what it asks about there.
    **dict.fromkeys(
        ("user", "approver", "commenter", "comm", "noter", "noteupdater", "artcomm", "commentaryupdater"), _USERS
    ),
    **dict.fromkeys(("flagger", "appealer"), _USERS),
    **dict.fromkeys(("fav", "ordfav", "favgroup", "ordfavgroup", "upvote", "downvote", "reacted"), _VOTES),
    **dict.fromkeys(("upvotes", "downvotes", "favcount"), _VOTES),
    "score": f"{_VOTES}; ai:TAG>=0.8 asks for a model's score",
    **dict.fromkeys(("pool", "ordpool", "pools", "pool_count", "series_pool_count", "collection_pool_count"), _POOLS),
    **dict.fromkeys(("note", "notes", "note_count", "comment", "comments", "comment_count", "commentary"), _NOTES),
    **dict.fromkeys(("embedded", "active_note_count", "active_comment_count"), _NOTES),
    **dict.fromkeys(("disapproved", "flags", "flag_count", "appeals", "appeal_count", "approvals"), _MODERATION),
    **dict.fromkeys(("approval_count", "replacements", "replacement_count", "disapproval_count"), _MODERATION),
    "search": "Danbooru's saved searches, which a collection does not have",
    **dict.fromkeys(("pixiv", "pixiv_id"), "Danbooru's numbers of pixiv; write source:*pixiv*"),
    "unaliased": "Danbooru's aliases; here an alias always means its tag",
    "exif": "Danbooru's table of EXIF data, which a collection does not have",
    "pixelhash": "Danbooru's hash of pixels; write duplicates:>0, md5: or sha256:",
}


def words_of(name: str) -> list[str]:
    """The words that a metatag knows, for completing them; empty where it takes numbers or text."""
    match name:
        case "rating":
            return [*_RATINGS, "any", "none"]
        case "filetype":
            return list(FILETYPES)
        case "has" | "is" | "status":
            return list({"has": _HAS, "is": _IS, "status": _STATUS}[name])
        case "order":
            return list(_ORDERS)
        case "parent" | "child" | "source":
            return ["any", "none"]
        case "date" | "age" | "added" | "changed":
            return ["today", "yesterday", "<1d", "<1w", "<1mo", "<1y"]
        case "src":
            return ["human", "model", "import"]
    return ["any", "none"] if name in _MAY_BE_NONE else []
