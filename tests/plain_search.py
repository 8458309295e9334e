"""The search language once more, as plain Python over plain pictures: slow, short, and apart from the engine.

`World.drawn(random)` makes pictures by chance and writes them into a collection's tables; `Asking(world, random)` makes
a search by chance, as text with the pictures it should find, in order. Neither reads a line of our parser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

from efuda.collection.record import Record, Writing
from efuda.vocabulary import Category

NOW = datetime(2026, 11, 24, 12, 34, 56, tzinfo=UTC)
CATEGORIES = {
    **dict.fromkeys(("1girl", "hat", "glasses", "long_hair", "short_hair", "smile", ":)", "never"), Category.GENERAL),
    **dict.fromkeys(("saber_(fate)", "re:zero", "hatsune_miku"), Category.CHARACTER),
    **dict.fromkeys(("fate_(series)", "vocaloid"), Category.COPYRIGHT),
    **dict.fromkeys(("ann_(artist)",), Category.ARTIST),
    **dict.fromkeys(("highres", "-odd name", "or"), Category.META),
}
RATINGS = ("general", "sensitive", "questionable", "explicit")
IMPLIES = {"saber_(fate)": "fate_(series)", "hatsune_miku": "vocaloid", "vocaloid": "highres"}
ALIASES = {"spectacles": "glasses", "miku": "hatsune_miku"}
MODELS = {"wd-v3@1a2b": "wd-v3", "eva@9": "eva"}  # identity → name
IMPORTS, PERSONS = ("gallery-dl",), ("me", "ann")
FILETYPES = ("jpg", "png", "gif", "webp")
COUNTED = {
    "gentags": Category.GENERAL,
    "arttags": Category.ARTIST,
    "copytags": Category.COPYRIGHT,
    "chartags": Category.CHARACTER,
    "metatags": Category.META,
}


@dataclass
class Plain:
    """A picture, as its tables have it and as a search sees it."""

    id: int
    width: int
    height: int
    filesize: int
    filetype: str
    added: datetime
    date: datetime
    duration: int
    source: str | None
    parent: int
    removed: bool
    paths: dict[str, bool]  # path → whether it is missing
    taggings: list[tuple[str, bool, dict[str, tuple[int, bool]]]] = field(default_factory=list)  # the latest last
    words: dict[str, tuple[int, str]] = field(default_factory=dict)
    changed: datetime = NOW

    @property
    def state(self) -> str:
        return "removed" if self.removed else "present" if False in self.paths.values() else "missing"

    @property
    def md5(self) -> str:
        return hashlib.md5(b"%d" % self.id).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b"%d" % self.id).hexdigest()

    def model(self) -> dict[str, tuple[int, bool]]:
        """What the latest model says: tag → score, present."""
        said = [scores for source, withdrawn, scores in self.taggings if source in MODELS and not withdrawn]
        return said[-1] if said else {}

    def tags(self) -> set[str]:
        """The effective tags, ratings among them."""
        found = {tag for tag, (_, present) in self.model().items() if present}
        for source, withdrawn, scores in self.taggings:
            if source in IMPORTS and not withdrawn:
                found |= {tag for tag, (_, present) in scores.items() if present}
        found |= {tag for tag, (verdict, _) in self.words.items() if verdict > 0}
        refused = {tag for tag, (verdict, _) in self.words.items() if verdict < 0}
        found -= refused
        while more := {IMPLIES[tag] for tag in found if tag in IMPLIES} - found - refused:
            found |= more
        return found

    def rating(self) -> str | None:
        """A person's, else an import's, else the model's."""
        imports = [s for source, withdrawn, s in self.taggings if source in IMPORTS and not withdrawn]
        for said in (
            [tag for tag, (verdict, _) in self.words.items() if verdict > 0],
            [tag for scores in imports for tag, (_, present) in scores.items() if present],
            [tag for tag, (_, present) in self.model().items() if present],
        ):
            for tag in sorted(said):
                if tag.startswith("rating:") and self.words.get(tag, (1, ""))[0] > 0:
                    return tag.removeprefix("rating:")
        return None

    def number(self, column: str, world: World) -> int:
        """A column as `conditions.Numbers` describes it."""
        match column:
            case "mpixels":
                return self.width * self.height
            case "ratio":
                return int(Fraction(self.width * 100, self.height) + Fraction(1, 2))
            case "date" | "added" | "changed":
                return int(getattr(self, column).timestamp())
            case "tagcount":
                return sum(not tag.startswith("rating:") for tag in self.tags())
            case "children":
                return sum(one.parent == self.id and one.state == "present" for one in world.pictures)
            case "score":
                scores = [s for tag, (s, present) in self.model().items() if present and not tag.startswith("rating:")]
                return round(Fraction(1000 * sum(scores), len(scores))) if scores else 0
        if column in COUNTED:
            return sum(CATEGORIES.get(tag) is COUNTED[column] for tag in self.tags())
        value: int = getattr(self, column)
        return value


@dataclass(repr=False)
class World:
    pictures: list[Plain]
    seen: dict[tuple[str, int], Any] = field(default_factory=dict)

    def number(self, picture: Plain, column: str) -> int:
        key = (column, picture.id)
        if key not in self.seen:
            self.seen[key] = picture.number(column, self)
        return int(self.seen[key])

    def tags(self, picture: Plain) -> set[str]:
        key = ("tags", picture.id)
        if key not in self.seen:
            self.seen[key] = picture.tags()
        found: set[str] = self.seen[key]
        return found

    @classmethod
    def drawn(cls, random: Random, size: int) -> World:
        return cls([_picture(random, number) for number in range(1, size + 1)])

    def write(self, record: Record) -> None:
        """Into the tables, as adding, importing and editing would leave them."""
        with record.write(durable=False) as writing:
            tags = {name: writing.tag(name, category) for name, category in CATEGORIES.items()}
            tags |= {f"rating:{name}": writing.tag(f"rating:{name}", Category.RATING) for name in RATINGS}
            sources = {identity: writing.source("model", identity, name) for identity, name in MODELS.items()}
            sources |= {name: writing.source("import", name, name) for name in IMPORTS}
            sources |= {name: writing.source("person", name, name) for name in PERSONS}
            for tag, implied in IMPLIES.items():
                writing.db.execute("INSERT INTO implications VALUES (?, ?)", (tags[tag], tags[implied]))
            for name, tag in ALIASES.items():
                writing.db.execute("INSERT INTO tag_aliases VALUES (?, ?)", (name, tags[tag]))
            writing.relations_changed()
            writing.db.execute("PRAGMA defer_foreign_keys = ON")
            for picture in self.pictures:
                _write(writing, picture, tags, sources)
            writing.touch(picture.id for picture in self.pictures)


def _picture(random: Random, number: int) -> Plain:
    some = random.random
    moved = [f"/art/{random.choice(['Summer', 'winter', 'a b'])}/{number}-{place}.png" for place in range(2)]
    picture = Plain(
        number,
        random.choice([512, 640, 800, 1000, 1920]),
        random.choice([512, 800, 900, 1080, 1500]),
        random.choice([1024, 51200, 200_000, 307_200, 1_572_864, 5_000_000]),
        random.choice(FILETYPES),
        _some_time(random, 30),
        _some_time(random, 800),
        random.choice([0, 0, 0, 900, 10_000, 90_000]),
        random.choice([None, None, "https://www.example.org/art/1", "http://pixiv.example/77", "A book"]),
        random.choice([0, 0, random.randint(1, 12)]) if number > 1 else 0,
        some() < 0.1,
        {path: some() < 0.2 for path in moved[: random.choice([1, 1, 2])]},
    )
    if picture.parent == number:
        picture.parent = 0
    for source in random.sample([*MODELS, *IMPORTS], random.randint(0, 3)):
        picture.taggings.append((source, some() < 0.15, _scores(random, source in IMPORTS)))
    for tag in random.sample([*CATEGORIES, "rating:general", "rating:explicit"], random.choice([0, 0, 1, 3])):
        rated = any(other.startswith("rating:") for other in picture.words)
        if not (tag.startswith("rating:") and rated):
            picture.words[tag] = (random.choice([1, -1]), random.choice(PERSONS))
    times = [picture.added, *(picture.added + timedelta(hours=random.randint(0, 9)) for _ in range(2))]
    picture.changed = max(times) if picture.taggings else picture.added
    return picture


def _some_time(random: Random, days: int) -> datetime:
    start = NOW - timedelta(days=random.randint(0, days), seconds=random.choice([0, 0, 4000, 50_000]))
    return start if random.random() < 0.7 else start.replace(hour=0, minute=0, second=0)


def _scores(random: Random, imported: bool) -> dict[str, tuple[int, bool]]:
    tags = random.sample([name for name in CATEGORIES if name != "never"], random.randint(0, 7))
    if imported:
        scores = dict.fromkeys(tags, (255, True))
    else:
        scores = {
            tag: (score, score >= 90) for tag in tags if (score := random.choice([13, 51, 89, 90, 128, 204, 255]))
        }
    if random.random() < 0.8:
        best = random.choice(RATINGS)
        scores[f"rating:{best}"] = (255 if imported else 200, True)
    return scores


def _write(writing: Writing, picture: Plain, tags: dict[str, int], sources: dict[str, int]) -> None:
    def text(time: datetime) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ")

    db = writing.db
    db.execute(
        "INSERT INTO pictures (id, sha256, md5, bytes, filetype, width, height, added, date, duration_ms, source, "
        "parent, removed, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            *(
                picture.id,
                bytes.fromhex(picture.sha256),
                bytes.fromhex(picture.md5),
                picture.filesize,
                picture.filetype,
            ),
            *(picture.width, picture.height, text(picture.added), text(picture.date), picture.duration or None),
            *(picture.source, picture.parent or None, picture.removed),
        ),
    )
    for path, missing in picture.paths.items():
        db.execute("INSERT INTO files VALUES (?, ?, 0, ?)", (path, picture.id, text(NOW) if missing else None))
    operation = writing.operation("add", "me", "drawn")
    for place, (source, withdrawn, scores) in enumerate(picture.taggings):
        packed = sorted(tags[tag] << 9 | present << 8 | score for tag, (score, present) in scores.items())
        at = picture.changed if place == 0 else picture.added
        db.execute(
            "INSERT INTO taggings (picture, source, at, operation, withdrawn, scores) VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(picture.id, sources[source], text(at), operation, withdrawn),
                b"".join(one.to_bytes(4, "little") for one in packed),
            ),
        )
    for tag, (verdict, person) in picture.words.items():
        db.execute(
            "INSERT INTO words VALUES (?, ?, ?, ?, ?, ?)",
            (picture.id, tags[tag], verdict, sources[person], text(NOW), operation),
        )


# Searches

Holds = Callable[[Plain], bool]
Term = tuple[str, Holds]
ORDERS = (
    *("id", "width", "height", "mpixels", "ratio", "filesize", "duration", "date", "added", "changed", "tagcount"),
    *("gentags", "arttags", "copytags", "chartags", "metatags", "children", "score"),
)
UNITS = {"d": 86400, "w": 7 * 86400, "h": 3600, "day": 86400, "weeks": 7 * 86400}


@dataclass
class Asked:
    """A search as text, and the ids that it should find, in order."""

    text: str
    found: list[int]


class Asking:
    """Makes searches by chance. Where a choice is made, the first is the plainest, for `random` that shrinks."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.everything = False

    def query(self) -> Asked:
        self.everything = False
        text, holds = self._any(self.random.choice([0, 0, 1, 1, 2]))
        seen = [one for one in self.world.pictures if self.everything or one.state == "present"]
        found = [one for one in seen if holds(one)]
        order, key = self._order()
        found.sort(key=lambda one: (key(one), -one.id))
        return Asked(text + order, [one.id for one in found])

    def _order(self) -> tuple[str, Callable[[Plain], Any]]:
        if self.random.random() < 0.6:
            return "", lambda one: 0
        column = self.random.choice(ORDERS)
        falling = self.random.random() < 0.5
        suffix = "_asc" if not falling else "_desc" if column == "id" or self.random.random() < 0.5 else ""
        sign = -1 if falling else 1
        return f" order:{column}{suffix}", lambda one: sign * self.world.number(one, column)

    # The grammar: or, and, side by side, signs and parentheses

    def _any(self, depth: int) -> Term:
        parts = [self._all(depth) for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        joint = self.random.choice([" or ", " OR ", "\u3000or "])
        return joint.join(text for text, _ in parts), lambda one: any(holds(one) for _, holds in parts)

    def _all(self, depth: int) -> Term:
        parts = [self._factors(depth) for _ in range(self.random.choice([1, 1, 1, 2]))]
        joint = self.random.choice([" and ", " And  "])
        return joint.join(text for text, _ in parts), lambda one: all(holds(one) for _, holds in parts)

    def _factors(self, depth: int) -> Term:
        texts, required, optional = list[str](), list[Holds](), list[Holds]()
        for _ in range(self.random.choice([1, 1, 2, 3])):
            sign = self.random.choice(["", "", "-", "~"])
            text, holds = self._one(depth)
            texts.append(sign + text)
            if sign == "~":
                optional.append(holds)
            else:
                required.append(_not(holds) if sign == "-" else holds)
        return " ".join(
            texts
        ), lambda one: all(holds(one) for holds in required) and (not optional or any(holds(one) for holds in optional))

    def _one(self, depth: int) -> Term:
        if depth and self.random.random() < 0.5:
            text, holds = self._any(depth - 1)
            space = "" if text[-1].isalnum() else " "
            return f"({text}{space})", holds
        kinds = [self._tag, self._tag, self._tag, self._wildcard, self._rating, self._number, self._number, self._time]
        kinds += [self._file, self._family, self._state, self._score, self._said, self._source]
        return self.random.choice(kinds)()

    # Terms

    def _tag(self) -> Term:
        name = self.random.choice([*CATEGORIES, *ALIASES])
        tag = ALIASES.get(name, name)
        text = f'tag:"{name}"' if name in ("-odd name", "or") or self.random.random() < 0.05 else name
        return text.upper() if text.isalpha() and text != "or" else text, lambda one: tag in self.world.tags(one)

    def _wildcard(self) -> Term:
        pattern = self.random.choice(["*hair", "h*", "*a*e*", "*_(*)", "*", "re*zero"])
        names = [name for name in CATEGORIES if _matches(pattern, name)]
        return pattern, lambda one: not self.world.tags(one).isdisjoint(names)

    def _rating(self) -> Term:
        names = self.random.sample([*RATINGS, None], self.random.choice([1, 2]))
        words = [self.random.choice([name, name[0]]) if name else "none" for name in names]
        if self.random.random() < 0.2:
            kind, found = self.random.choice(
                [("is:sfw", RATINGS[:2]), ("is:nsfw", RATINGS[2:]), ("has:rating", RATINGS)]
            )
            return kind, lambda one: one.rating() in found
        return "rating:" + ",".join(words), lambda one: one.rating() in names

    def _number(self) -> Term:
        column = self.random.choice(
            ["width", "height", "id", "tagcount", "children", "ratio", "mpixels", "filesize", "duration", *COUNTED]
        )
        name = "child_count" if column == "children" and self.random.random() < 0.3 else column
        if self.random.random() < 0.1 and column in ("tagcount", "children", "duration", *COUNTED):
            some = self.random.random() < 0.5
            return f"{name}:{'any' if some else 'none'}", lambda one: (self.world.number(one, column) > 0) == some
        picked = [self._written(column) for _ in range(self.random.choice([1, 1, 2]))]
        text = ",".join(text for text, _ in picked)
        return f"{name}:{text}", lambda one: any(holds(self.world.number(one, column)) for _, holds in picked)

    def _written(self, column: str) -> tuple[str, Callable[[int], bool]]:
        low, high = sorted((self._value(column), self._value(column)), key=lambda pair: pair[1])
        (a, x), (b, y) = low, high
        forms: list[tuple[str, Callable[[int], bool]]] = [
            (a, _about(column, a, x)),
            (f">{a}", lambda n: n > x),
            (f">={a}", lambda n: n >= x),
            (f"<{a}", lambda n: n < x),
            (f"<={a}", lambda n: n <= x),
            (f"{a}..{b}", lambda n: x <= n <= y),
            (f"{b}..{a}", lambda n: x <= n <= y),
            (f"{a}...{b}", lambda n: x <= n < y),
            (f"{a}..", lambda n: n >= x),
            (f"..{a}", lambda n: n <= x),
        ]
        return self.random.choice(forms)

    def _value(self, column: str) -> tuple[str, int]:
        """A number as it may be written, and what it stands for."""
        n = self.world.number(self.random.choice(self.world.pictures), column)
        match column:
            case "ratio":
                return self.random.choice([("16:9", 178), ("1", 100), ("4/3", 133), (f"{n / 100}", n)])
            case "mpixels":
                return self.random.choice([("1", 1_000_000), ("0.5", 500_000), ("0.41", 410_000), (f"{n / 1e6}", n)])
            case "filesize":
                return self.random.choice([("50k", 51200), ("1.5mb", 1_572_864), ("200000b", 200_000), (f"{n}", n)])
            case "duration":
                return self.random.choice([("10", 10_000), ("1m30s", 90_000), ("1min", 60_000), (f"{n / 1000}", n)])
        return f"{n}", n

    def _time(self) -> Term:
        name = self.random.choice(["date", "added", "changed", "age"])
        column = "date" if name == "age" else name
        text, holds = self._age() if name == "age" or self.random.random() < 0.3 else self._day(column)
        return f"{name}:{text}", lambda one: holds(datetime.fromtimestamp(self.world.number(one, column), UTC))

    def _age(self) -> tuple[str, Callable[[datetime], bool]]:
        number, unit = self.random.randint(1, 40), self.random.choice(list(UNITS))
        then = NOW - timedelta(seconds=number * UNITS[unit])
        day = then.replace(hour=0, minute=0, second=0)
        earlier = then - timedelta(days=9)
        return self.random.choice(
            [
                (f"<{number}{unit}", lambda time: time > then),
                (f"<={number}{unit}", lambda time: time >= then),
                (f">{number}{unit}", lambda time: time < then),
                (f"{number}{unit}..", lambda time: time <= then),
                (f"{number}{unit}", lambda time: day <= time < day + timedelta(days=1)),
                (f"{number}{unit}..{number}{unit}9d", lambda time: earlier <= time <= then),
            ]
        )

    def _day(self, column: str) -> tuple[str, Callable[[datetime], bool]]:
        (a, start, end), (b, begin, stop) = sorted((self._span(column), self._span(column)), key=lambda one: one[1])
        return self.random.choice(
            [
                (a, lambda time: start <= time < end),
                (f">{a}", lambda time: time >= end),
                (f">={a}", lambda time: time >= start),
                (f"<{a}", lambda time: time < start),
                (f"<={a}", lambda time: time < end),
                (f"{a}..{b}", lambda time: start <= time < stop),
                (f"{a}...{b}", lambda time: start <= time < begin),
                (f"{a},{b}", lambda time: start <= time < end or begin <= time < stop),
            ]
        )

    def _span(self, column: str) -> tuple[str, datetime, datetime]:
        """A date as it may be written, when it begins, and when the next begins."""
        time = datetime.fromtimestamp(self.world.number(self.random.choice(self.world.pictures), column), UTC)
        day = time.replace(hour=0, minute=0, second=0)
        month, year = day.replace(day=1), day.replace(day=1, month=1)
        today = NOW.replace(hour=0, minute=0, second=0)
        one = timedelta(days=1)
        return self.random.choice(
            [
                (f"{day:%Y-%m-%d}", day, day + one),
                (f"{day:%Y/%m/%d}", day, day + one),
                (f"{day:%Y-%m}", month, (month + 31 * one).replace(day=1)),
                (f"{day:%Y}", year, year.replace(year=year.year + 1)),
                (f"{time:%Y-%m-%dT%H:%M}", time.replace(second=0), time.replace(second=0) + timedelta(minutes=1)),
                ("today", today, today + one),
                ("yesterday", today - one, today),
            ]
        )

    def _file(self) -> Term:
        one = self.random.choice(self.world.pictures)
        kinds = self.random.sample(FILETYPES, 2)
        terms: list[Term] = [
            (f"filetype:{kinds[0]}", lambda other: other.filetype == kinds[0]),
            (f"filetype:{','.join(kinds)}", lambda other: other.filetype in kinds),
            (f"is:{kinds[0]}", lambda other: other.filetype == kinds[0]),
            (f"md5:{one.md5}", lambda other: other is one),
            (f"sha256:{one.sha256.upper()}", lambda other: other is one),
            ("path:summer", lambda other: any("summer" in path.lower() for path in other.paths)),
            ('path:"A b/"', lambda other: any("a b/" in path.lower() for path in other.paths)),
            ("path:/art/*-1.png", lambda other: any(path.endswith("-1.png") for path in other.paths)),
        ]
        return self.random.choice(terms)

    def _source(self) -> Term:
        terms: list[Term] = [
            ("source:none", lambda one: one.source is None),
            ("source:any", lambda one: one.source is not None),
            ("has:source", lambda one: one.source is not None),
            ("source:example.org", lambda one: "example.org" in (one.source or "")),
            ("source:https://www.example.org/*/1", lambda one: "example.org" in (one.source or "")),
            ("source:*pixiv*", lambda one: "pixiv" in (one.source or "")),
            ("source:'a BOOK'", lambda one: one.source == "A book"),
            ("source:book", lambda one: False),
        ]
        return self.random.choice(terms)

    def _family(self) -> Term:
        one = self.random.choice(self.world.pictures)
        terms: list[Term] = [
            (f"parent:{one.id}", lambda other: other is one or other.parent == one.id),
            (f"child:{one.id}", lambda other: other.id == one.parent),
            ("parent:any", lambda other: other.parent > 0),
            ("parent:none", lambda other: other.parent == 0),
            ("is:child", lambda other: other.parent > 0),
            ("has:parent", lambda other: other.parent > 0),
            ("child:any", lambda other: self.world.number(other, "children") > 0),
            ("child:none", lambda other: self.world.number(other, "children") == 0),
            ("is:parent", lambda other: self.world.number(other, "children") > 0),
        ]
        return self.random.choice(terms)

    def _state(self) -> Term:
        if self.random.random() < 0.7:
            return self._tag()
        self.everything = True
        terms: list[Term] = [
            ("is:missing", lambda one: one.state == "missing"),
            ("is:removed", lambda one: one.state == "removed"),
            ("status:deleted", lambda one: one.state == "removed"),
            ("status:active", lambda one: one.state == "present"),
            ("status:any", lambda one: True),
        ]
        return self.random.choice(terms)

    def _score(self) -> Term:
        pattern = self.random.choice(["hat", "smile", "saber_(fate)", "re:zero", "*hair", "spectacles"])
        names = [name for name in CATEGORIES if _matches(pattern, ALIASES.get(name, name))] or [ALIASES[pattern]]
        percent = self.random.choice([0, 20, 35, 50, 80, 100])

        def score(one: Plain) -> int:
            return max((one.model().get(name, (0, False))[0] for name in names), default=0)

        steps = Fraction(percent * 255, 100)
        terms: list[Term] = [
            (f"ai:{pattern}", lambda one: any(one.model().get(name, (0, False))[1] for name in names)),
            (f"ai:{pattern}>={percent / 100}", lambda one: score(one) >= steps),
            (f"ai:{pattern}>{percent / 100}", lambda one: score(one) > steps),
            (f"ai:{pattern}<{percent / 100}", lambda one: score(one) < steps),
            (f"ai:{pattern}<={percent / 100}", lambda one: score(one) <= steps),
            (f"ai:{pattern},{percent}", lambda one: score(one) >= steps if percent else score(one) == 0),
        ]
        return self.random.choice(terms)

    def _said(self) -> Term:
        tag, name = self.random.choice(["hat", "glasses", "highres", "hatsune_miku"]), self.random.choice(PERSONS)

        def said(*sources: str) -> Holds:
            return lambda one: any(source in sources and not withdrawn for source, withdrawn, _ in one.taggings)

        def says(source: str, present: bool) -> Holds:
            return lambda one: any(
                source == other and not withdrawn and scores.get(tag, (0, False))[1] == present
                for other, withdrawn, scores in one.taggings
            )

        terms: list[Term] = [
            ("src:human", lambda one: bool(one.words)),
            (f"src:{name}", lambda one: any(who == name for _, who in one.words.values())),
            (f"src:human:{tag}", lambda one: one.words.get(tag, (0, ""))[0] == 1),
            (f"src:human:-{tag}", lambda one: one.words.get(tag, (0, ""))[0] == -1),
            (f"src:{name.upper()}:{tag}", lambda one: one.words.get(tag) == (1, name)),
            ("src:model", said(*MODELS)),
            ("src:import", said(*IMPORTS)),
            ("src:wd-v3", said("wd-v3@1a2b")),
            ("src:eva@9", said("eva@9")),
            (f"src:wd-v3@1a2b:{tag}", says("wd-v3@1a2b", True)),
            (f"src:eva:{tag}", says("eva@9", True)),
            (f"src:eva:-{tag}", says("eva@9", False)),
            (f"src:gallery-dl:{tag}", says("gallery-dl", True)),
        ]
        return self.random.choice(terms)


def _not(holds: Holds) -> Holds:
    return lambda one: not holds(one)


def _about(column: str, text: str, number: int) -> Callable[[int], bool]:
    """A number alone; some mean within 5 %."""
    if column in ("mpixels", "duration") or (column == "filesize" and text.rstrip("b")[-1] in "km"):
        return lambda n: number * 0.95 <= n <= number * 1.05
    return lambda n: n == number


def _matches(pattern: str, name: str) -> bool:
    """A wildcard, by trying every way to cut the name."""
    if "*" not in pattern:
        return pattern == name
    first, rest = pattern.split("*", maxsplit=1)
    return name.startswith(first) and any(_matches(rest, name[cut:]) for cut in range(len(first), len(name) + 1))


def rises(numbers: list[int]) -> bool:
    """Whether each is larger than the one before."""
    return all(a < b for a, b in pairwise(numbers))
