"""What every metatag's value says, and what is said of a value that says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from efuda.collection.conditions import (
    By,
    Condition,
    Family,
    FileTypes,
    Hash,
    Like,
    Numbers,
    Order,
    Parents,
    PathText,
    Ratings,
    Score,
    SourceText,
    State,
)
from efuda.collection.query import Metatag, parse
from efuda.collection.values import Interval
from efuda.errors import QueryError

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
NOON, DAY = NOW.timestamp(), 86400.0


def unix(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


def condition(text: str) -> Condition:
    node = parse(text, NOW).node
    assert isinstance(node, Metatag)
    return node.condition


def numbers(column: str, *intervals: Interval) -> Numbers:
    return Numbers(column, intervals)


def span(low: float, high: float) -> Interval:
    """A day, a month: its last moment belongs to the next."""
    return Interval(low, high, without_high=True)


SOME = Interval(1)
NONE = Interval(0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id:5", numbers("id", Interval(5, 5))),
        ("id:5,7..9,>20", numbers("id", Interval(5, 5), Interval(7, 9), Interval(20, without_low=True))),
        ("width:5..", numbers("width", Interval(5))),
        ("width:..5", numbers("width", Interval(high=5))),
        ("width:9..5", numbers("width", Interval(5, 9))),
        ("width:5...9", numbers("width", Interval(5, 9, without_high=True))),
        ("height:<5", numbers("height", Interval(high=5, without_high=True))),
        ("mpixels:2", numbers("mpixels", Interval(1_900_000, 2_100_000))),
        ("mpixels:>=1.5", numbers("mpixels", Interval(1_500_000))),
        ("ratio:16:9", numbers("ratio", Interval(178, 178))),
        ("filesize:1m", numbers("filesize", Interval(1048576 * 0.95, 1048576 * 1.05))),
        ("filesize:>1g", numbers("filesize", Interval(1024**3, without_low=True))),
        ("duration:10", numbers("duration", Interval(9500, 10500))),
        ("duration:>1m30s", numbers("duration", Interval(90_000, without_low=True))),
        ("duration:none", numbers("duration", NONE)),
        ("tagcount:any", numbers("tagcount", SOME)),
        ("gentags:<10", numbers("gentags", Interval(high=10, without_high=True))),
        ("arttags:none", numbers("arttags", NONE)),
        ("child_count:>2", numbers("children", Interval(2, without_low=True))),
        ("duplicates:any", numbers("duplicates", SOME)),
        ("parent:any", numbers("parent", SOME)),
        ("child:none", numbers("children", NONE)),
        ("parent:12", Family(12)),
        ("child:12", Parents(12)),
        ("rating:g,expl", Ratings(frozenset({"general", "explicit"}))),
        ("rating:none", Ratings(frozenset({None}))),
        ("is:sfw", Ratings(frozenset({"general", "sensitive"}))),
        ("is:nsfw", Ratings(frozenset({"questionable", "explicit"}))),
        ("is:safe", Ratings(frozenset({"sensitive"}))),
        ("is:png", FileTypes(frozenset({"png"}))),
        ("is:parent", numbers("children", SOME)),
        ("is:child", numbers("parent", SOME)),
        ("is:missing", State("missing")),
        ("is:removed", State("removed")),
        ("status:deleted", State("removed")),
        ("has:source", SourceText("*")),
        ("has:parent", numbers("parent", SOME)),
        ("has:children", numbers("children", SOME)),
        ("filetype:jpeg,heif", FileTypes(frozenset({"jpg", "heic"}))),
        ("md5:00FF" + "0" * 28, Hash("md5", frozenset({b"\0\xff" + bytes(14)}))),
        ("sha256:" + "ab" * 32, Hash("sha256", frozenset({b"\xab" * 32}))),
        ('path:"Summer Hat"', PathText("summer hat")),
        ("source:https://Example.org/*/7", SourceText("https://example.org/*/7")),
        ("source:none", SourceText(None)),
        ('source:""', SourceText(None)),
        ("ai:hat", Score("hat", None)),
        ("ai:hat>=0.8", Score("hat", 204)),
        ("ai:hat>0.8", Score("hat", 205)),
        ("ai:hat<=0.8", Score("hat", 0, 204)),
        ("ai:hat<0.8", Score("hat", 0, 203)),
        ("ai:hat,80", Score("hat", 204)),
        ("ai:hat,80%", Score("hat", 204)),
        ("ai:hat,<20", Score("hat", 0, 50)),
        ("ai:hat,20..80", Score("hat", 51, 204)),
        ("ai:hat,0", Score("hat", 0, 0)),
        ("ai:re:zero,50", Score("re:zero", 128)),
        ("src:human", By("human")),
        ("src:WD-v3@1a2b", By("wd-v3@1a2b")),
        ("src:wd-v3:re:zero", By("wd-v3", "re:zero")),
        ("src:human:-hat", By("human", "hat", no=True)),
        ("like:12", Like(12, 100)),
        ("like:12,5", Like(12, 5)),
        ("like:12,0.8", Like(12, None, 0.8)),
        ("date:2026-11-24", numbers("date", span(MIDNIGHT, MIDNIGHT + DAY))),
        ("date:2026/11/24", numbers("date", span(MIDNIGHT, MIDNIGHT + DAY))),
        ("date:today", numbers("date", span(MIDNIGHT, MIDNIGHT + DAY))),
        ("date:yesterday", numbers("date", span(MIDNIGHT - DAY, MIDNIGHT))),
        ("date:2026-11", numbers("date", span(unix(2026, 11), unix(2026, 12)))),
        ("date:2026-12", numbers("date", span(unix(2026, 12), unix(2027, 1)))),
        ("date:2024", numbers("date", span(unix(2024), unix(2025)))),
        ("date:2024-02-29T23:59", numbers("date", span(unix(2024, 2, 29, 23, 59), unix(2024, 3, 1)))),
        ('date:"2024-02-29 23:59"', numbers("date", span(unix(2024, 2, 29, 23, 59), unix(2024, 3, 1)))),
        ("date:>2026-11", numbers("date", Interval(unix(2026, 12)))),
        ("date:>=2026-11", numbers("date", Interval(unix(2026, 11)))),
        ("date:<2026-11", numbers("date", span(-inf, unix(2026, 11)))),
        ("date:<=2026-11", numbers("date", span(-inf, unix(2026, 12)))),
        ("date:2026-01..2026-02", numbers("date", span(unix(2026, 1), unix(2026, 3)))),
        ("date:2026-02..2026-01", numbers("date", span(unix(2026, 1), unix(2026, 3)))),
        ("date:2026-01...2026-02", numbers("date", span(unix(2026, 1), unix(2026, 2)))),
        ("date:2w_ago", numbers("date", span(MIDNIGHT - 14 * DAY, MIDNIGHT - 13 * DAY))),
        ('date:"2 weeks ago"', numbers("date", span(MIDNIGHT - 14 * DAY, MIDNIGHT - 13 * DAY))),
        ("date:>2w_ago", numbers("date", Interval(NOON - 14 * DAY, without_low=True))),
        ("age:<2w", numbers("date", Interval(NOON - 14 * DAY, without_low=True))),
        ("age:<=2weeks", numbers("date", Interval(NOON - 14 * DAY))),
        ("age:>1w2d", numbers("date", Interval(high=NOON - 9 * DAY, without_high=True))),
        ("age:1w..", numbers("date", Interval(high=NOON - 7 * DAY))),
        ("age:1d..2d", numbers("date", Interval(NOON - 2 * DAY, NOON - DAY))),
        ("age:1d", numbers("date", span(MIDNIGHT - DAY, MIDNIGHT))),
        ("age:<90min", numbers("date", Interval(NOON - 5400, without_low=True))),
        ("age:<1mo", numbers("date", Interval(NOON - 365.25 / 12 * DAY, without_low=True))),
        ("age:<1y", numbers("date", Interval(NOON - 365.25 * DAY, without_low=True))),
        ("added:today", numbers("added", span(MIDNIGHT, MIDNIGHT + DAY))),
        ("added:<2w", numbers("added", Interval(NOON - 14 * DAY, without_low=True))),
        ("added:2026-11-01..", numbers("added", Interval(unix(2026, 11)))),
        ("changed:<1h", numbers("changed", Interval(NOON - 3600, without_low=True))),
    ],
)
def test_values(text: str, expected: Condition) -> None:
    assert condition(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", Order()),
        ("order:none", Order()),
        ("order:id", Order("id", falling=False)),
        ("order:id_desc", Order("id")),
        ("order:change_asc", Order("changed", falling=False)),
        ("order:created_at", Order("added")),
        ("order:age", Order("date", falling=False)),
        ("order:landscape", Order("ratio")),
        ("order:portrait", Order("ratio", falling=False)),
        ("order:portrait_asc", Order("ratio")),
        ("order:chartags", Order("chartags")),
        ("order:child_count_asc", Order("children", falling=False)),
        ("order:path", Order("path", falling=False)),
        ("order:random", Order("random")),
        ("order:random,7", Order("random", seed=7)),
        ("id:3,1,2 order:custom", Order("custom", ids=(3, 1, 2))),
        ("a order:custom id:3,1,2 b", Order("custom", ids=(3, 1, 2))),
        ("like:12", Order("like", ids=(12,))),
        ("like:12 hat", Order("like", ids=(12,))),
        ("like:12 order:like", Order("like", ids=(12,))),
        ("like:12 order:id_desc", Order("id")),
        ("-like:12", Order()),
        ("like:12 like:13", Order()),
    ],
)
def test_orders(text: str, expected: Order) -> None:
    assert parse(text, NOW).order == expected


def test_settings_of_the_whole_search() -> None:
    query = parse("hat limit:7 random:20", NOW)
    assert (query.limit, query.sample, query.everything) == (7, 20, False)
    assert parse("-is:missing").everything and parse("(hat or status:any)").everything
    assert not parse("hat or is:png").everything


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("hat fav:me", 4, "fav: asks about Danbooru's votes and favourites, which a collection does not have"),
        ("user:albert", 0, "user: asks about Danbooru's users"),
        ("-pool:12", 1, "pool: asks about Danbooru's pools"),
        ("pixiv_id:12", 0, "write source:*pixiv*"),
        ("score:>5", 0, "ai:TAG>=0.8"),
        ("id:1,x,3", 5, "x is not a whole number"),
        ("id:1..x", 6, "x is not a whole number"),
        ('id:"1, x"', 7, "x is not a whole number"),
        ("id:>", 4, "nothing is not a whole number"),
        ("id:,", 3, "a value is missing between the commas"),
        ("width:any", 6, "every picture has one"),
        ("mpixels:>x", 9, "x is not a number"),
        ("duration:soon", 9, "soon is not a length of time"),
        ("date:2026-13", 5, "2026-13 is not a day of the calendar"),
        ("date:2026-02-30", 5, "2026-02-30 is not a day of the calendar"),
        ("date:2026-11-01..2026-11-31", 17, "2026-11-31 is not a day of the calendar"),
        ("date:soon", 5, "soon is not a date or an age"),
        ("date:9999", 5, "not a day"),
        ("age:<2", 5, "2 is not a date or an age"),
        ("age:<2q", 5, "2q is not a date or an age"),
        ("age:<99999y", 5, "too long ago"),
        ("rating:g,x", 9, "x is not a rating"),
        ("md5:12", 4, "12 is not the md5 of a file: 32 digits"),
        ("parent:x", 7, "x is not the id of a picture; write the id of a picture, as in parent:12"),
        ("has:pools", 4, "pools is not something a picture has"),
        ("is:remvoed", 3, "did you mean removed?"),
        ("status:pending", 7, "pending is not a state of pictures"),
        ("ai:hat,101", 7, "101 is not a percentage"),
        ("ai:hat,0.8", 7, "0.8 is not a percentage; write ai:tag,80 or ai:tag>=0.8"),
        ("src::hat", 4, "who said it is missing"),
        ("src:human:", 10, "a tag is missing after the colon"),
        ("like:hat", 5, "hat is not the id of a picture"),
        ("like:12,0", 8, "0 is neither a number of pictures nor a similarity"),
        ("like:12,2.5", 8, "2.5 is neither"),
        ("order:rank", 6, "rank orders by Danbooru's votes and favourites, which a collection does not have"),
        ("order:comment_asc", 6, "comment_asc orders by Danbooru's comments"),
        ("order:widht", 6, "did you mean width?"),
        ("order:custom", 0, "order:custom needs one list of ids beside it"),
        ("id:>5 order:custom", 6, "order:custom needs one list"),
        ("hat order:like", 4, "order:like needs one like: beside it"),
        ("random:0", 7, "0 is not possible"),
        ("random:5 random:6", 9, "given twice"),
        ("-random:5", 1, "cannot be negated"),
        ("random:x", 7, "x is not a whole number"),
    ],
)
def test_a_mistake_points_at_the_character(text: str, position: int, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text, NOW)
    assert message in caught.value.message
    assert caught.value.position == position
