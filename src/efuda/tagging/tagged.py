"""What a model says of one picture: every score worth keeping, in few bytes; computed and stored ones are the same.

    tagged = Tagged.of(Path("miku.png"), (1200, 900), scores)      # float32 [tags], as a tagger gives them
    tagged.present(tagger)                                          # [("1girl", 0.99), …], best first

Scores below `FLOOR` are forgotten and the others are rounded to 1/65,535, so a hundred thousand tags cost a picture a
few hundred bytes, and a second look with another threshold sees the very numbers of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, overload

import numpy as np
from numpy.typing import NDArray

from efuda.vocabulary import Category

if TYPE_CHECKING:
    from efuda.tagging.tagger import Tagger

__all__ = ["FLOOR", "STEPS", "Failed", "Handful", "Tagged", "as_path", "quantise", "rounded", "unit"]

FLOOR: Final = 0.01
STEPS: Final = 65_535


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """One picture's scores.

    Attributes:
        path: the file, or `archive.cbz/page.png` for a picture within an archive.
        size: (width, height) in pixels, upright.
        rows: uint32 [kept], the outputs whose score is at least `FLOOR`, ascending.
        scores: float32 [kept], multiples of 1/65,535.
        embedding: float16 [features] of length 1, near for like pictures; None where it was not asked for, or the
            model gives none.
    """

    path: Path
    size: tuple[int, int]
    rows: NDArray[np.uint32]
    scores: NDArray[np.float32]
    embedding: NDArray[np.float16] | None = None

    @classmethod
    def of(
        cls,
        path: Path,
        size: tuple[int, int],
        scores: NDArray[np.float32],
        embedding: NDArray[np.float32] | None = None,
    ) -> Self:
        """Of a score for every tag, float32 [tags], and of features, float32 [features] of any length."""
        rows, steps = quantise(scores)
        seen = None if embedding is None else unit(embedding)
        return cls(path, size, rows, steps.astype(np.float32) / np.float32(STEPS), seen)

    def dense(self, tags: int) -> NDArray[np.float32]:
        """float32 [tags], 0 where a score was below `FLOOR`."""
        scores = np.zeros(tags, dtype=np.float32)
        scores[self.rows] = self.scores
        return scores

    def present(self, tagger: Tagger) -> list[tuple[str, float]]:
        """(tag, score) at or above its threshold, best first; ratings are not tags and are left out."""
        reached = self.scores >= rounded(tagger.thresholds)[self.rows]
        rows, scores = self.rows[reached], self.scores[reached]
        best, tags = np.argsort(-scores, kind="stable"), tagger.vocabulary
        found = ((tags[row], score) for row, score in zip(rows[best].tolist(), scores[best].tolist(), strict=True))
        return [(tag.name, score) for tag, score in found if tag.category is not Category.RATING]

    def ratings(self, tagger: Tagger) -> dict[str, float]:
        """Rating → score, empty for a model that does not rate."""
        scores = self.dense(len(tagger.vocabulary))
        return {tagger.vocabulary[row].name: float(scores[row]) for row in tagger.vocabulary.rows(Category.RATING)}


@dataclass(frozen=True, eq=False)
class Handful(Sequence[Tagged]):
    """Many pictures' scores in columns; a sequence of `Tagged`, each made when asked for.

    Attributes:
        paths: as they were given.
        counts: int64 [pictures], how many scores each has.
        rows, scores: those of all pictures, one picture after another.
    """

    paths: Sequence[Path | str]
    sizes: Sequence[tuple[int, int]]
    counts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    scores: NDArray[np.float32]
    embeddings: Sequence[NDArray[np.float16] | None]

    @classmethod
    def of(cls, tagged: Sequence[Tagged]) -> Handful:
        """That very handful, or single ones in columns."""
        if isinstance(tagged, Handful):
            return tagged
        return cls(
            [one.path for one in tagged],
            [one.size for one in tagged],
            np.array([len(one.rows) for one in tagged], dtype=np.int64),
            np.concatenate([np.empty(0, np.uint32), *(one.rows for one in tagged)]),
            np.concatenate([np.empty(0, np.float32), *(one.scores for one in tagged)]),
            [one.embedding for one in tagged],
        )

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> Tagged: ...
    @overload
    def __getitem__(self, at: slice) -> Handful: ...
    def __getitem__(self, at: int | slice) -> Tagged | Handful:
        if not isinstance(at, slice):
            one = self[at : at + 1 or None]
            return Tagged(as_path(one.paths[0]), one.sizes[0], one.rows, one.scores, one.embeddings[0])
        first, last, step = at.indices(len(self))
        assert step == 1
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        inside = slice(ends[first], ends[max(first, last)])
        rows, scores = self.rows[inside], self.scores[inside]
        return Handful(self.paths[at], self.sizes[at], self.counts[at], rows, scores, self.embeddings[at])

    def __iter__(self) -> Iterator[Tagged]:
        columns = zip(self.paths, self.sizes, self.counts.tolist(), self.embeddings, strict=True)
        start = 0
        for path, size, count, embedding in columns:
            inside = slice(start, start + count)
            yield Tagged(as_path(path), size, self.rows[inside], self.scores[inside], embedding)
            start += count


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture that could not be tagged, and why: a short phrase that groups well in a report."""

    path: Path
    reason: str


def as_path(name: Path | str) -> Path:
    """Of a name that was left a text, since a million of paths take long to make."""
    return Path(name) if isinstance(name, str) else name


def rounded(thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thresholds as scores are rounded, so that a score on the edge stays on it; never below `FLOOR`."""
    steps = np.rint(np.maximum(thresholds, np.float32(FLOOR)) * np.float32(STEPS))
    return (steps / np.float32(STEPS)).astype(np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Rows at the length 1, so that a product of two is their cosine; a row of zeros, or not of numbers, is zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    if not (np.isfinite(length) & (length > 0)).all():
        vectors = np.nan_to_num(vectors.astype(np.float64), posinf=0.0, neginf=0.0)
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        length = np.where(length > 0, length, 1)
    found: NDArray[np.float16] = (vectors / length).astype(np.float16)
    return found


def quantise(scores: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """float32 [tags] → the outputs at or above `FLOOR`, and their scores in steps of 1/65,535; NaN counts as 0."""
    rows = np.flatnonzero(scores >= FLOOR)
    steps = np.rint(np.minimum(scores[rows], 1) * np.float32(STEPS)).astype(np.uint16)
    return rows.astype(np.uint32), steps
