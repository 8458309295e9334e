"""One picture as the record has it: its tags with who says so, its files and its relatives.

    with record.read() as db:
        [picture] = pictures_of(db, [7])
    print(picture.rating, [(tag.name, tag.by, tag.source) for tag in picture.tags])

A picture carries what its latest model says and what imports say; a person's yes adds to that and a person's no takes
away; then whatever a carried tag implies joins, unless a person said no to it (and a refused tag passes nothing on).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from efuda.collection.adding import RATING_PREFIX, real_path
from efuda.collection.record import rows
from efuda.collection.taggings import unpacked_scores
from efuda.errors import CollectionError
from efuda.vocabulary import Category

__all__ = ["Picture", "TagOn", "path_of", "pictures_of"]

_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class TagOn:
    """A tag on a picture, and where it comes from.

    Attributes:
        score: what the latest model gives it, 0 to 1 in steps of 1/255; None where that model kept nothing of it.
        by: who says so, the first of person, import, model that does; "implied" where only another tag does.
        source: the person, the model's name@version, the import, or the tag that implies it.
        at: when that was said, ISO 8601, UTC.
    """

    name: str
    category: Category
    score: float | None
    by: Literal["person", "model", "import", "implied"]
    source: str
    at: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        id: rises in the order in which pictures came; never given to another.
        path: absolute; where the same content lies at several paths, the first by name of those that are there;
            `Path()` where none is known any more.
        width: in pixels, upright, as is height.
        added: when the collection got it, ISO 8601, UTC, as are all times.
        date: the time of its file when it was first seen, or what an import says.
        missing: since when none of its files is there; None for a picture that is.
        source: where it comes from, mostly an address.
        parent: the picture of which this is a variant; `children` are those whose parent this is.
        rating: "general", "sensitive", "questionable" or "explicit"; None where no one has rated it.
        rating_by: "person", "import" or "model".
        ratings: what the latest model gives each rating, best first; empty for a model that does not rate.
        tags: those it carries, best first: persons' and imports', then by falling score.
        refused: those to which a person said no.
        model: the name of the model that tagged it last; empty for none.
    """

    id: int
    path: Path
    width: int
    height: int
    bytes: int
    filetype: str
    md5: str
    sha256: str
    added: str
    date: str
    missing: str | None
    removed: bool
    source: str | None
    parent: int | None
    children: tuple[int, ...]
    rating: str | None
    rating_by: str | None
    ratings: dict[str, float]
    tags: list[TagOn]
    refused: list[TagOn]
    model: str


@dataclass(slots=True)
class _Said:
    """What is said of one picture, by number of tag: name, category, and the sources in turn."""

    model: str = ""
    scores: dict[int, int] = field(default_factory=dict)  # of the latest model
    best: set[int] = field(default_factory=set)  # what that model finds present
    present: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # tag → by, source, at
    refused: dict[int, tuple[str, str, str]] = field(default_factory=dict)


def pictures_of(db: apsw.Connection, ids: Iterable[int]) -> list[Picture]:
    """These pictures, in this order.

    Raises:
        CollectionError: one of them is not there.
    """
    wanted = iter(ids)
    found: list[Picture] = []
    while some := list(islice(wanted, _AT_ONCE)):
        read = _Read(db, some)
        found += [_picture(read, number) for number in some]
    return found


def path_of(db: apsw.Connection, number: int) -> Path:
    """`Picture.path` alone, which is quick."""
    path = db.execute("SELECT path FROM files WHERE picture = ? ORDER BY missing, path LIMIT 1", (number,)).get
    return Path() if path is None else real_path(path)


class _Read:
    """The rows of some pictures, read together: one statement for all of them takes about as long as for one."""

    def __init__(self, db: apsw.Connection, ids: Sequence[int]) -> None:
        self._db, self._ids = db, json.dumps([int(number) for number in ids])
        self.pictures = {row[0]: row[1:] for row in rows(db, _PICTURES, (self._ids,))}
        self.files = self._by_picture(_FILES)
        self.taggings = self._by_picture(_TAGGINGS)
        self.words = self._by_picture(_WORDS)
        self.children = self._by_picture(_CHILDREN)
        self._implied: dict[int, list[int]] = {}
        self._tags: dict[int, tuple[str, Category]] = {}

    def tag(self, number: int) -> tuple[str, Category]:
        """Name and category."""
        if number not in self._tags:
            name, category = rows(self._db, "SELECT name, category FROM tags WHERE id = ?", (number,))[0]
            self._tags[number] = name, Category(category)
        return self._tags[number]

    def implied(self, number: int) -> list[int]:
        """What a tag implies at once."""
        if number not in self._implied:
            self._implied[number] = [other for (other,) in rows(self._db, _IMPLIED, (number,))]
        return self._implied[number]

    def _by_picture(self, statement: str) -> dict[int, list[tuple[Any, ...]]]:
        found: dict[int, list[tuple[Any, ...]]] = {}
        for row in rows(self._db, statement, (self._ids,)):
            found.setdefault(row[0], []).append(row[1:])
        return found


def _picture(read: _Read, number: int) -> Picture:
    if number not in read.pictures:
        raise CollectionError(f"There is no picture {number} in the collection. Search for those that are there.")
    width, height, size, filetype, md5, sha256, added, date, removed, source, parent = read.pictures[number]
    files = read.files.get(number, [])
    said = _said(read, number)
    tags = _named(read, said, said.present | _implied(read, said))
    rating = _rating(tags)
    return Picture(
        id=number,
        path=real_path(files[0][0]) if files else Path(),
        width=width,
        height=height,
        bytes=size,
        filetype=filetype,
        md5="" if md5 is None else md5.hex(),
        sha256=sha256.hex(),
        added=added,
        date=date,
        missing=_missing([since for _, since in files], added),
        removed=bool(removed),
        source=source,
        parent=parent,
        children=tuple(one for (one,) in read.children.get(number, ())),
        rating=None if rating is None else rating.name.removeprefix(RATING_PREFIX),
        rating_by=None if rating is None else rating.by,
        ratings=_ratings(read, said),
        tags=sorted((tag for tag in tags if tag.category is not Category.RATING), key=_best_first),
        refused=sorted(_named(read, said, said.refused), key=_best_first),
        model=said.model,
    )


def _missing(since: list[str | None], added: str) -> str | None:
    """When the last of its files went; a picture whose files are forgotten has been without since it was added."""
    return None if None in since else max((one for one in since if one), default=added)


def _said(read: _Read, picture: int) -> _Said:
    said, latest = _Said(), True
    for kind, name, identity, at, blob in read.taggings.get(picture, ()):
        if kind == "model" and not latest:
            continue
        tags, scores, present = unpacked_scores(blob)
        if kind == "model":
            latest, said.model = False, name
            said.scores = dict(zip(tags.tolist(), scores.tolist(), strict=True))
            said.best = set(tags[present].tolist())
        origin = (kind, identity if kind == "model" else name, at)
        for tag in tags[present].tolist():
            if kind == "import" or tag not in said.present:
                said.present[tag] = origin
    for tag, verdict, name, at in read.words.get(picture, ()):
        (said.present if verdict > 0 else said.refused)[tag] = ("person", name, at)
    said.present = {tag: origin for tag, origin in said.present.items() if tag not in said.refused}
    return said


def _implied(read: _Read, said: _Said) -> dict[int, tuple[str, str, str]]:
    """What the carried tags imply, step by step, and by which tag."""
    implied: dict[int, tuple[str, str, str]] = {}
    ahead = list(said.present)
    while ahead:
        step = sorted((read.tag(tag)[0], tag, other) for tag in ahead for other in read.implied(tag))
        ahead = []
        for by, tag, other in step:
            if not (other in said.present or other in said.refused or other in implied):
                at = (said.present.get(tag) or implied[tag])[2]
                implied[other] = ("implied", by, at)
                ahead.append(other)
    return implied


def _named(read: _Read, said: _Said, origins: dict[int, tuple[str, str, str]]) -> list[TagOn]:
    found = []
    for tag, (by, source, at) in origins.items():
        name, category = read.tag(tag)
        score = said.scores.get(tag)
        found.append(TagOn(name, category, None if score is None else score / 255, by, source, at))  # type: ignore[arg-type]
    return found


def _best_first(tag: TagOn) -> tuple[int, float, str]:
    return (0 if tag.by in ("person", "import") else 1 if tag.by == "model" else 2, -(tag.score or 0), tag.name)


def _rating(tags: list[TagOn]) -> TagOn | None:
    """A person's rating, else an import's, else the model's best."""
    rank = ("person", "import", "model")
    ratings = [tag for tag in tags if tag.category is Category.RATING and tag.by in rank]
    return min(ratings, key=lambda tag: (rank.index(tag.by), tag.name), default=None)


def _ratings(read: _Read, said: _Said) -> dict[str, float]:
    named = [(tag, read.tag(tag)[0]) for tag in said.scores if read.tag(tag)[1] is Category.RATING]
    named.sort(key=lambda one: (-said.scores[one[0]], one[0] not in said.best, one[1]))
    return {name.removeprefix(RATING_PREFIX): said.scores[tag] / 255 for tag, name in named}


_PICTURES: Final = """
SELECT id, width, height, bytes, filetype, md5, sha256, added, date, removed, source, parent FROM pictures
WHERE id IN (SELECT value FROM json_each(?))
"""
_FILES: Final = """
SELECT picture, path, missing FROM files WHERE picture IN (SELECT value FROM json_each(?)) ORDER BY missing, path
"""
_CHILDREN: Final = "SELECT parent, id FROM pictures WHERE parent IN (SELECT value FROM json_each(?)) ORDER BY id"
_TAGGINGS: Final = """
SELECT picture, kind, name, identity, taggings.at, scores FROM taggings JOIN sources ON sources.id = taggings.source
WHERE picture IN (SELECT value FROM json_each(?)) AND NOT withdrawn ORDER BY taggings.id DESC
"""
_WORDS: Final = """
SELECT picture, tag, verdict, name, words.at FROM words JOIN sources ON sources.id = words.source
WHERE picture IN (SELECT value FROM json_each(?))
"""
_IMPLIED: Final = "SELECT implied FROM implications WHERE tag = ?"
