"""Pictures that are the same, or nearly: found by their pixels and perceptual hashes, told apart by their tags, merged.

    duplicates = Duplicates(record)
    total, groups = duplicates.groups("near", limit=20)
    groups[0].verdict                                   # "duplicate", or "variant": another expression, say
    merge(record, keep=3, drop=[9], by="me")            # one operation, which can be undone; no file is touched

Pictures are compared once `previews` has looked at them. A group is what hashes within 4 of 64 bits connect; of those,
pictures whose tags differ are variants of one another: another expression, outfit or eye colour, which a perceptual
hash does not see. Tags of the meta category do not tell variants apart (`highres` is what a larger copy is), and
neither does one that the model finds on one picture and all but finds on the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import apsw
import numpy as np
from numpy.typing import NDArray

from efuda.collection.hamming import DISTANCE, distances, near
from efuda.collection.history import Operation, operation_of
from efuda.collection.pictures import Picture, pictures_of
from efuda.collection.record import Record, Writing, number, rows
from efuda.collection.taggings import put_tagging, unpacked_scores
from efuda.errors import CollectionError
from efuda.vocabulary import Category

__all__ = ["Duplicates", "Group", "Member", "merge"]

Kind = Literal["pixels", "near"]
_FEW: Final = 128  # changed pictures are compared one by one with all; more, all anew
_WAVERING: Final = 0.2  # a model's score must differ by so much for a tag to be on one picture and not on another


@dataclass(frozen=True, slots=True)
class Member:
    """One of several pictures that are alike, and what it carries that not all of them do."""

    id: int
    only_tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that are alike, the best to keep first: the largest, of equal ones that with the most bytes.

    Attributes:
        kind: "pixels" where all show the very same, else "near".
        verdict: "variant" where their tags differ, else "duplicate".
        shared_tags: how many tags all of them carry.
    """

    kind: Kind
    verdict: Literal["duplicate", "variant"]
    pictures: tuple[Member, ...]
    shared_tags: int


@dataclass(frozen=True, slots=True)
class _Hashes:
    """Of every picture that can be found and was looked at: number, both halves of the pixel hash, perceptual hash."""

    ids: NDArray[np.int64]
    pixels: NDArray[np.uint64]  # [n, 2]
    phash: NDArray[np.uint64]
    hashed: NDArray[np.bool_]  # whether there is a perceptual one: a picture of one colour has none

    @classmethod
    def of(cls, found: Sequence[tuple[Any, ...]]) -> _Hashes:
        """Of rows: number, pixels, phash."""
        pixels = np.frombuffer(b"".join(row[1] for row in found), "<u8").reshape(-1, 2)
        hashed = np.array([row[2] is not None for row in found], dtype=np.bool_)
        signed = np.array([row[2] or 0 for row in found], dtype=np.int64)
        return cls(np.array([row[0] for row in found], dtype=np.int64), pixels, signed.view(np.uint64), hashed)

    def only(self, mask: NDArray[np.bool_]) -> _Hashes:
        return _Hashes(self.ids[mask], self.pixels[mask], self.phash[mask], self.hashed[mask])

    def row(self, at: int) -> tuple[int, bytes, int | None]:
        phash = int(self.phash[at].view(np.int64)) if self.hashed[at] else None
        return int(self.ids[at]), self.pixels[at].astype("<u8").tobytes(), phash

    def like(self, at: int) -> NDArray[np.bool_]:
        """Those that are the same as one, or nearly; with itself."""
        same: NDArray[np.bool_] = (self.pixels == self.pixels[at]).all(axis=1)
        if self.hashed[at]:
            same |= self.hashed & (distances(self.phash, int(self.phash[at])) <= DISTANCE)
        return same

    def same_pixels(self) -> NDArray[np.int64]:
        """A number for each group of pictures with the same pixels."""
        order = np.lexsort((self.pixels[:, 1], self.pixels[:, 0]))
        ordered = self.pixels[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        groups = np.empty(len(order), dtype=np.int64)
        groups[order] = np.cumsum(new) - 1
        return groups

    def counts(self) -> NDArray[np.int64]:
        """How many others are like each."""
        groups = self.same_pixels()
        counts: NDArray[np.int64] = np.bincount(groups, minlength=1)[groups] - 1
        counts[self.hashed] = near(self.phash[self.hashed]).counts
        return counts

    def near_groups(self) -> NDArray[np.int64]:
        """A number for each group of pictures that are connected; of one colour, those with the same pixels."""
        groups = self.same_pixels() + len(self.ids)
        groups[self.hashed] = near(self.phash[self.hashed]).groups
        return groups


class Duplicates:
    """What is the same as what in one collection; any thread may ask. Kept until a picture comes, goes or changes."""

    def __init__(self, record: Record) -> None:
        self._record, self._lock = record, threading.Lock()
        self._revision = -1
        self._hashes = _Hashes.of([])
        self._counts: NDArray[np.int64] | None = None
        self._groups: dict[Kind, list[NDArray[np.int64]]] = {}

    def counts(self) -> dict[int, int]:
        """Of every picture that has any, how many others are the same or nearly."""
        with self._lock:
            self._refresh()
            if self._counts is None:
                self._counts = self._hashes.counts()
            some = self._counts > 0
            return dict(zip(self._hashes.ids[some].tolist(), self._counts[some].tolist(), strict=True))

    def groups(self, kind: Kind = "pixels", *, offset: int = 0, limit: int = 50) -> tuple[int, list[Group]]:
        """How many groups there are, and some of them, those with the newest pictures first.

        Args:
            kind: "pixels" for the very same pixels; "near" for groups in which not all are the same.
        """
        with self._lock:
            self._refresh()
            if kind not in self._groups:
                self._groups[kind] = self._grouped(kind)
            found = self._groups[kind]
        with self._record.read() as db:
            return len(found), [_group(db, kind, ids.tolist()) for ids in found[offset : offset + limit]]

    def _grouped(self, kind: Kind) -> list[NDArray[np.int64]]:
        same = self._hashes.same_pixels()
        label = same if kind == "pixels" else self._hashes.near_groups()
        order = np.argsort(label, kind="stable")
        starts = np.flatnonzero(np.r_[True, label[order][1:] != label[order][:-1]]) if len(order) else order
        groups = [
            rows_
            for rows_ in np.split(order, starts[1:])
            if len(rows_) > 1 and (kind == "pixels" or np.ptp(same[rows_]))
        ]
        return sorted((self._hashes.ids[one] for one in groups), key=lambda ids: -int(ids.max()))

    def _refresh(self) -> None:
        """Bring what is kept to the record's revision; what does not concern hashes changes nothing."""
        with self._record.read() as db:
            revision = number(db, "SELECT value FROM state WHERE key = 'revision'")
            if revision == self._revision:
                return
            if self._revision < 0:
                self._set(_Hashes.of(rows(db, f"{_FOUND} ORDER BY id")), None)
            else:
                self._follow(rows(db, f"{_CHANGED} ORDER BY id", (self._revision,)))
            self._revision = revision

    def _set(self, hashes: _Hashes, counts: NDArray[np.int64] | None) -> None:
        self._hashes, self._counts, self._groups = hashes, counts, {}

    def _follow(self, changed: list[tuple[Any, ...]]) -> None:
        """Take in pictures that were touched: (number, pixels or None where it cannot be found, phash)."""
        hashes, counts = self._hashes, self._counts
        places = np.searchsorted(hashes.ids, [row[0] for row in changed])
        old = {
            row[0]: hashes.row(at)
            for row, at in zip(changed, places.tolist(), strict=True)
            if at < len(hashes.ids) and hashes.ids[at] == row[0]
        }
        differ = [row for row in changed if old.get(row[0]) != (row if row[1] is not None else None)]
        if not differ:
            return
        leaving = [row[0] for row in differ if row[0] in old]
        coming = _Hashes.of([row for row in differ if row[1] is not None])
        few = counts is not None and len(differ) <= _FEW
        if few and counts is not None:
            counts = counts.copy()
            for one in leaving:
                at = int(np.searchsorted(hashes.ids, one))
                counts[hashes.like(at)] -= 1
                keep = np.arange(len(hashes.ids)) != at
                hashes, counts = hashes.only(keep), counts[keep]
        else:
            hashes = hashes.only(~np.isin(hashes.ids, leaving))
        joined = _joined(hashes, coming)
        order = np.argsort(joined.ids)
        if few and counts is not None:
            counts = np.concatenate([counts, np.zeros(len(coming.ids), np.int64)])
            for at in range(len(hashes.ids), len(joined.ids)):
                like = joined.like(at) & (np.arange(len(joined.ids)) < at)
                counts[like] += 1
                counts[at] += int(like.sum())
            counts = counts[order]
        self._set(
            _Hashes(joined.ids[order], joined.pixels[order], joined.phash[order], joined.hashed[order]),
            counts if few else None,
        )


def _joined(one: _Hashes, other: _Hashes) -> _Hashes:
    return _Hashes(
        np.concatenate([one.ids, other.ids]),
        np.concatenate([one.pixels, other.pixels]),
        np.concatenate([one.phash, other.phash]),
        np.concatenate([one.hashed, other.hashed]),
    )


_THERE: Final = (
    "NOT removed AND EXISTS (SELECT 1 FROM files WHERE files.picture = pictures.id AND files.missing IS NULL)"
)
_FOUND: Final = f"SELECT id, pixels, phash FROM pictures WHERE pixels IS NOT NULL AND {_THERE}"
_CHANGED: Final = f"SELECT id, CASE WHEN {_THERE} THEN pixels END, phash FROM pictures WHERE revision > ?"


# Telling variants apart


def _group(db: apsw.Connection, kind: Kind, ids: Iterable[int]) -> Group:
    pictures = sorted(pictures_of(db, ids), key=lambda one: (-one.width * one.height, -one.bytes, one.id))
    carried = {one.id: {tag.name: tag for tag in one.tags if tag.category is not Category.META} for one in pictures}
    scores = {one.id: _scores(db, one) for one in pictures}

    def lacks(other: Picture, name: str, score: float | None) -> bool:
        """Whether a tag of another picture is not on this one, and not nearly."""
        if name in carried[other.id]:
            return False
        refused = any(tag.name == name for tag in other.refused)
        return refused or score is None or score - scores[other.id].get(name, 0.0) >= _WAVERING

    members = []
    for one in pictures:
        only = [
            name
            for name, tag in carried[one.id].items()
            if tag.by != "implied"
            and any(lacks(other, name, tag.score if tag.by == "model" else None) for other in pictures)
        ]
        members.append(Member(one.id, tuple(only)))
    differ = any(one.only_tags for one in members)
    shared = len(set[str].intersection(*(set(tags) for tags in carried.values())))
    return Group(kind, "variant" if differ else "duplicate", tuple(members), shared)


def _scores(db: apsw.Connection, picture: Picture) -> dict[str, float]:
    """What the latest model gives each tag that it kept."""
    found = rows(db, _LATEST, (picture.id,))
    if not found:
        return {}
    tags, scores, _ = unpacked_scores(found[0][0])
    marks = ",".join("?" * len(tags))
    names = dict(rows(db, f"SELECT id, name FROM tags WHERE id IN ({marks})", tags.tolist()))
    return {names[tag]: score / 255 for tag, score in zip(tags.tolist(), scores.tolist(), strict=True)}


_LATEST: Final = """
SELECT scores FROM taggings JOIN sources ON sources.id = taggings.source
WHERE picture = ? AND kind = 'model' AND NOT withdrawn ORDER BY taggings.id DESC LIMIT 1
"""


# Merging


def merge(record: Record, keep: int, drop: Sequence[int], *, by: str) -> Operation:
    """Keep one of several pictures, as one operation that can be undone.

    What persons said of the dropped ones, and what imports say, joins the kept one, whose own words stand; so does the
    address where they came from, if it has none. Their children become its children. The dropped ones are found no
    more, with the kept one as their parent. Files are not touched, and what models say of the kept one stays.

    Raises:
        CollectionError: a picture is not there, or is to be kept and dropped.
    """
    dropped = list(dict.fromkeys(drop))
    with record.write() as writing:
        _check(writing, keep, dropped)
        count = "1 picture" if len(dropped) == 1 else f"{len(dropped):,} pictures"
        operation = writing.operation("merge", by, f"merged {count} into {keep}")
        for one in dropped:
            _join_words(writing, operation, keep, one)
            _join_imports(writing, operation, keep, one)
            _join_relatives(writing, operation, keep, one)
        return operation_of(writing.db, operation)


def _check(writing: Writing, keep: int, drop: Sequence[int]) -> None:
    if not drop:
        raise CollectionError("Nothing is to be merged. Name the picture to keep, then those to drop.")
    if keep in drop:
        raise CollectionError(f"Picture {keep} cannot be kept and dropped. Name it once.")
    for one in (keep, *drop):
        state = writing.db.execute("SELECT removed FROM pictures WHERE id = ?", (one,)).get
        if state is None:
            raise CollectionError(f"There is no picture {one} in the collection. Search for those that are there.")
        if state:
            raise CollectionError(f"Picture {one} was removed from the collection. Undo that first.")


def _join_words(writing: Writing, operation: int, keep: int, drop: int) -> None:
    """Each with the person and the time it had; where persons have spoken of the kept one, they have spoken."""
    said = rows(writing.db, "SELECT tag, verdict, operation FROM words WHERE picture = ?", (drop,))
    known = {tag for (tag,) in rows(writing.db, "SELECT tag FROM words WHERE picture = ?", (keep,))}
    rated = _is_rated(writing.db, keep)
    for tag, verdict, origin in said:
        if tag not in known and not (rated and _is_rating(writing.db, tag)):
            writing.word(operation, keep, tag, verdict, origin)


def _is_rating(db: apsw.Connection, tag: int) -> bool:
    return bool(db.execute("SELECT category FROM tags WHERE id = ?", (tag,)).get == Category.RATING)


def _is_rated(db: apsw.Connection, picture: int) -> bool:
    """Whether a person has rated it: two ratings by persons would contradict each other."""
    statement = (
        "SELECT 1 FROM words JOIN tags ON tags.id = tag WHERE picture = ? AND category = ? AND verdict = 1 LIMIT 1"
    )
    return db.execute(statement, (picture, int(Category.RATING))).get is not None


def _join_imports(writing: Writing, operation: int, keep: int, drop: int) -> None:
    """What the same import says of both becomes one tagging; a rating of the kept one stays the only one."""
    for source, blob in rows(writing.db, _IMPORTS, (drop,)):
        own = rows(writing.db, f"{_IMPORTS} AND source = ?", (keep, source))
        mine = np.frombuffer(own[0][1] if own else b"", "<u4")
        theirs = np.frombuffer(blob, "<u4")
        if _rated_by_import(writing.db, keep):
            theirs = np.array([one for one in theirs if not _is_rating(writing.db, int(one) >> 9)], dtype="<u4")
        new = theirs[~np.isin(theirs >> 9, mine >> 9)]
        if len(new):
            put_tagging(writing, operation, keep, source, np.sort(np.r_[mine, new]).astype("<u4").tobytes())


def _rated_by_import(db: apsw.Connection, picture: int) -> bool:
    blobs = [blob for _, blob in rows(db, _IMPORTS, (picture,))]
    return any(_is_rating(db, int(one) >> 9) for blob in blobs for one in np.frombuffer(blob, "<u4"))


def _join_relatives(writing: Writing, operation: int, keep: int, drop: int) -> None:
    facts = "SELECT source, parent FROM pictures WHERE id = ?"
    ((source, parent),) = rows(writing.db, facts, (drop,))
    ((own_source, own_parent),) = rows(writing.db, facts, (keep,))
    if own_source is None and source is not None:
        writing.set(operation, keep, "source", source)
    if own_parent == drop or (own_parent is None and parent not in (None, keep)):
        writing.set(operation, keep, "parent", None if parent == keep else parent)
    for (child,) in rows(writing.db, "SELECT id FROM pictures WHERE parent = ? AND id != ?", (drop, keep)):
        writing.set(operation, child, "parent", keep)
    writing.set(operation, drop, "parent", keep)
    writing.set(operation, drop, "removed", 1)


_IMPORTS: Final = """
SELECT source, scores FROM taggings JOIN sources ON sources.id = taggings.source
WHERE picture = ? AND kind = 'import' AND NOT withdrawn
"""
