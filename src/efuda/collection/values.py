"""How numbers, sizes, dates and ages are written, alone, in ranges and in lists.

    read_numbers("5..10,20", whole)         # (Interval(5, 10), Interval(20, 20))
    read_times(">2026-11-24", now)          # (Interval(low=the first second of 25 November, as Unix time),)
    read_times("<2w", now)                  # (Interval(low=two weeks before `now`, without_low=True),)

Ranges follow Danbooru: `5  >5  >=5  <5  <=5  5..10  5...10 (without 10)  5..  ..5`, and lists of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from fractions import Fraction
from math import floor, inf
from typing import Final

__all__ = [
    "Interval",
    "Malformed",
    "decimal",
    "filesize",
    "items",
    "near",
    "ratio",
    "read_numbers",
    "read_times",
    "seconds",
    "whole",
]


class Malformed(ValueError):
    """A value that cannot be understood, `offset` characters into it; the parser adds the place."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, either end left out where it is open."""

    low: float = -inf
    high: float = inf
    without_low: bool = False
    without_high: bool = False


@dataclass(frozen=True, slots=True)
class _Span:
    """What a written value covers: a number is a point, a day lasts until the next begins.

    `ages` is set for an age, of which a larger one means an earlier time; `alone` is what it covers outside a range.
    """

    low: float
    high: float
    ages: bool = False
    alone: Interval | None = None

    @property
    def lasts(self) -> bool:
        return self.high > self.low


_Read = Callable[[str], _Span]


def items(value: str) -> Iterator[tuple[str, int]]:
    """The parts of a list, at commas or spaces, each with its place in it."""
    for match in re.finditer(r"[^,\s]+", value):
        yield match[0], match.start()


def near(word: str, known: list[str]) -> str:
    """What a wrong word may have meant, or all there is."""
    found = get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(found)}?" if found else f"choose one of {', '.join(known)}"


def read_numbers(
    value: str, read: Callable[[str], float], about: re.Pattern[str] = re.compile(r"(?!)")
) -> tuple[Interval, ...]:
    """Ranges of numbers; one written alone that matches `about` means within 5 %, as on Danbooru."""

    def span(text: str) -> _Span:
        number = read(text)
        alone = Interval(number * 0.95, number * 1.05) if about.fullmatch(text) else None
        return _Span(number, number, alone=alone)

    return _intervals(value.lower(), span)


def _intervals(value: str, read: _Read) -> tuple[Interval, ...]:
    if not (parts := list(items(value))):
        raise Malformed("a value is missing between the commas")
    return tuple(_interval(text, offset, read) for text, offset in parts)


def _interval(text: str, offset: int, read: _Read) -> Interval:
    def part(match: re.Match[str], group: int) -> _Span:
        try:
            return read(match[group])
        except Malformed as error:
            raise Malformed(str(error), offset + match.start(group)) from None

    if match := re.fullmatch(r"(.+?)(\.\.\.?)([^.].*|\.[0-9].*)", text):
        low, high = sorted((part(match, 1), part(match, 3)), key=lambda span: span.low)
        if match[2] == "...":
            return Interval(low.low, high.low, without_high=True)
        return Interval(low.low, high.high, without_high=high.lasts)
    if match := re.fullmatch(r"(<=|>=|<|>|\.\.(?!\.))(.*)", text):
        return _beyond(part(match, 2), match[1].replace("..", "<="))
    if match := re.fullmatch(r"(.+)\.\.", text):
        return _beyond(part(match, 1), ">=")
    match = re.fullmatch(r"(\S*)", text)
    assert match, "items have no spaces in them"
    span = part(match, 1)
    return span.alone or Interval(span.low, span.high, without_high=span.lasts)


def _beyond(span: _Span, sign: str) -> Interval:
    if span.ages:  # older than two weeks is before that time
        sign = sign.translate(str.maketrans("<>", "><"))
    match sign:
        case "<":
            return Interval(high=span.low, without_high=True)
        case "<=":
            return Interval(high=span.high, without_high=span.lasts)
        case ">":
            return Interval(low=span.high, without_low=not span.lasts)
    return Interval(low=span.low)


def whole(text: str) -> float:
    """A whole number."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Malformed(f"{text or 'nothing'} is not a whole number; write 5, >5, <=5, 5..10 or 5,6,7")
    return int(text)


def decimal(text: str) -> float:
    """A number with or without a fraction."""
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}", text):
        raise Malformed(f"{text or 'nothing'} is not a number; write 1.5, >1.5 or 1..2")
    return float(text)


def ratio(text: str) -> float:
    """Width : height in hundredths, half up, as the index rounds a picture's own."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:[:/]([0-9]{1,9}))?", text)
    if not match or (match[2] and int(match[2]) == 0):
        raise Malformed(f"{text or 'nothing'} is not a ratio; write 16:9, 1.78, >1 or 1:2..2:1")
    return floor(Fraction(match[1]) / int(match[2] or 1) * 100 + Fraction(1, 2))


def filesize(text: str) -> float:
    """Bytes; k, m and g count in 1024s."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([kmg]?)b?", text)
    if not match:
        raise Malformed(f"{text or 'nothing'} is not a file size; write 300k, >2m, 1.5mb or 1000b")
    return int(float(match[1]) * {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[match[2]])


_DAY: Final = 86400
_UNITS: Final = {
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "mi": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "d": float(_DAY),
    "w": 7.0 * _DAY,
    "wk": 7.0 * _DAY,
    "mo": 365.25 / 12 * _DAY,
    "y": 365.25 * _DAY,
    "yr": 365.25 * _DAY,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": float(_DAY),
    "week": 7.0 * _DAY,
    "month": 365.25 / 12 * _DAY,
    "year": 365.25 * _DAY,
}
_LENGTH: Final = r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?_?[a-z]+_?)+"


def seconds(text: str) -> float:
    """A length of time: 90, 90s, 1m30s."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", text):
        return float(text)
    if (total := _length(text)) is None:
        raise Malformed(f"{text or 'nothing'} is not a length of time; write 90, 1m30s, >2m or 10..30")
    return total


def _length(text: str) -> float | None:
    """Seconds in 2w3d, 1_month or 90min; None if it is something else."""
    if not re.fullmatch(_LENGTH, text):
        return None
    total = 0.0
    for number, unit in re.findall(r"([0-9.]+)_?([a-z]+)", text):
        size = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
        if size is None:
            return None
        total += float(number) * size
    return total


def read_times(value: str, now: datetime) -> tuple[Interval, ...]:
    """Dates and ages as intervals of Unix seconds, in the time zone of `now`.

    A date means all of it: a day, a month, a year, a minute. Alone, so does a time that is some while ago.
    """
    tidy = re.sub(r"(?<=[0-9])\s+(?=[0-9]{1,2}:[0-9])", "t", value.lower())
    tidy = re.sub(r"([0-9])\s?([a-z]+)\s(?=ago\b)", r"\1_\2_", tidy)
    return _intervals(tidy, lambda text: _time(text, now))


def _time(text: str, now: datetime) -> _Span:
    if text in ("today", "yesterday"):
        return _day(now - timedelta(days=text == "yesterday"))
    length = _length(text.removesuffix("ago"))
    if length is not None:
        try:
            then = now - timedelta(seconds=length)
            day = _day(then)
        except (OverflowError, ValueError):
            raise Malformed(f"{text} is too long ago; write 2w, <3d or 1y..2y") from None
        whole_day = Interval(day.low, day.high, without_high=True)
        return _Span(then.timestamp(), then.timestamp(), ages=not text.endswith("ago"), alone=whole_day)
    if span := _date(text, now):
        return span
    raise Malformed(f"{text or 'nothing'} is not a date or an age; write 2026-11-24, 2026-11, yesterday, <2w or 3d..1w")


_DATE: Final = re.compile(
    r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2})(?:t(\d{1,2}):(\d\d)(?::(\d\d))?(z)?)?)?)?", re.ASCII
)


def _date(text: str, now: datetime) -> _Span | None:
    """2026, 2026-11, 2026-11-24 or 2026-11-24T09:30, with Z for UTC; None if it is no date."""
    if not (match := _DATE.fullmatch(text)):
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups()[:6])
    assert year is not None
    zone = UTC if match[7] else now.tzinfo
    try:
        start = datetime(year, month or 1, day or 1, hour or 0, minute or 0, second or 0)
        if day is None:
            later = month or 12
            end = datetime(year + later // 12, later % 12 + 1, 1)
        else:
            step = {"seconds": 1} if second is not None else {"minutes": 1} if hour is not None else {"days": 1}
            end = start + timedelta(**step)
        return _Span(_unix(start, zone), _unix(end, zone))
    except (ValueError, OverflowError):
        raise Malformed(f"{text} is not a day of the calendar") from None


def _day(time: datetime) -> _Span:
    start = datetime(time.year, time.month, time.day)
    return _Span(_unix(start, time.tzinfo), _unix(start + timedelta(days=1), time.tzinfo))


def _unix(naive: datetime, zone: object) -> float:
    """Unix seconds of a time of day; without a zone it is this machine's, summer time and all."""
    return naive.replace(tzinfo=UTC).timestamp() if zone is UTC else naive.timestamp()
