"""Taggings: all that one model or import says of one picture, as a blob of packed scores.

    scores = packed_scores(tags, scores, present)       # four bytes a tag, ascending
    put_tagging(writing, operation, picture, source, scores)
    tags, scores, present = unpacked_scores(scores)

A picture has one tagging of each source. What a new one replaces goes into the log, so that undoing brings it back.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efuda.collection.record import Writing, rows

__all__ = ["Tagging", "packed_scores", "put_tagging", "restore_tagging", "tagging_of", "unpacked_scores"]

_HEAD: Final = struct.Struct("<qqq20s")


def packed_scores(tags: NDArray[np.int64], scores: NDArray[np.int64], present: NDArray[np.bool_]) -> bytes:
    """Little-endian uint32 each, tag << 9 | present << 8 | score, ascending by tag.

    Args:
        tags: numbers of tags, below 2^23, each once.
        scores: 0 to 255.
        present: whether the picture carries the tag.
    """
    packed: NDArray[np.int64] = tags << 9 | present.astype(np.int64) << 8 | scores
    return np.sort(packed).astype("<u4").tobytes()


def unpacked_scores(blob: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """Tags ascending, their scores from 0 to 255, and whether each is present."""
    packed = np.frombuffer(blob, dtype="<u4")
    return (packed >> 9).astype(np.int64), (packed & 0xFF).astype(np.uint8), (packed >> 8 & 1).astype(np.bool_)


class Tagging(NamedTuple):
    """A row of `taggings`, without whose it is."""

    id: int
    at: str
    operation: int
    withdrawn: int
    scores: bytes

    def to_bytes(self) -> bytes:
        """As the log keeps it: id, operation, withdrawn, time, scores."""
        return _HEAD.pack(self.id, self.operation, self.withdrawn, self.at.encode()) + self.scores

    @classmethod
    def from_bytes(cls, blob: bytes) -> Tagging:
        """As `to_bytes` wrote it."""
        number, operation, withdrawn, at = _HEAD.unpack_from(blob)
        return cls(number, at.decode(), operation, withdrawn, blob[_HEAD.size :])


def tagging_of(writing: Writing, picture: int, source: int) -> Tagging | None:
    """What a source says of a picture now."""
    statement = "SELECT id, at, operation, withdrawn, scores FROM taggings WHERE picture = ? AND source = ?"
    found = rows(writing.db, statement, (picture, source))
    return Tagging(*found[0]) if found else None


def put_tagging(writing: Writing, operation: int, picture: int, source: int, scores: bytes) -> None:
    """Write what a source says of a picture as the latest tagging, in place of what it said before."""
    before = tagging_of(writing, picture, source)
    if before is not None:
        writing.db.execute("DELETE FROM taggings WHERE id = ?", (before.id,))
    writing.db.execute(
        "INSERT INTO taggings (picture, source, at, operation, scores) VALUES (?, ?, ?, ?, ?)",
        (picture, source, writing.at, operation, scores),
    )
    writing.log(operation, picture, "tagging", source, before and before.to_bytes(), None)


def restore_tagging(writing: Writing, picture: int, source: int, tagging: Tagging) -> None:
    """Put a row back as it was, its number included, in place of the present one."""
    writing.db.execute("DELETE FROM taggings WHERE picture = ? AND source = ?", (picture, source))
    writing.db.execute(
        "INSERT INTO taggings (id, picture, source, at, operation, withdrawn, scores) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (tagging.id, picture, source, tagging.at, tagging.operation, tagging.withdrawn, tagging.scores),
    )
