"""The vector by which a picture is compared with others: what its tagger saw, or, where it does not say, its scores.

    vectors = Vectors(tagger)
    vectors.of(tagged)          # float16 [features] of length 1: the product of two is how alike they are, at most 1

A tagger without an embedding has one made of its scores. Every tag stands for a direction of 256 dimensions whose
signs are the bits of the SHA-256 of its name, so it is the same in every collection for ever; a picture's vector is the
sum of its tags' directions, each as long as its score and as the tag is rare in the tagger's list (ln of how many times
rarer than the most frequent, 1 where the list has no counts). Such projections keep angles (Johnson and Lindenstrauss;
Achlioptas 2003, "Database-friendly random projections"): at 256 dimensions a cosine is off by about 0.06. Ratings and
scores below `FLOOR` are left out.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.collection.record import Writing
from efuda.tagging import Tagged, Tagger
from efuda.tagging.tagged import unit
from efuda.vocabulary import Category

__all__ = ["PROJECTED", "Vectors", "put_vector"]

PROJECTED: Final = 256


class Vectors:
    """Makes the vectors of one tagger's results."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def of(self, tagged: Tagged) -> NDArray[np.float16] | None:
        """None where the tagger embeds and this was not asked for, or where no tag was seen."""
        if self._tagger.embeds:
            return tagged.embedding
        weights: NDArray[np.float32] = self._weights[tagged.rows] * tagged.scores
        summed = weights @ _signs(self._bits[tagged.rows])
        return unit(summed) if summed.any() else None

    @cached_property
    def _bits(self) -> NDArray[np.uint8]:
        """[tags, 32]"""
        digests = b"".join(hashlib.sha256(tag.name.encode()).digest() for tag in self._tagger.vocabulary)
        return np.frombuffer(digests, np.uint8).reshape(-1, PROJECTED // 8)

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        tags = list(self._tagger.vocabulary)
        named = np.array([tag.category is not Category.RATING for tag in tags])
        counts = np.array([tag.count for tag in tags], dtype=np.float64) + 1
        most = counts[named].max(initial=1)
        rarity = np.log(most / counts, where=named, out=np.zeros(len(tags))) if most > 1 else np.ones(len(tags))
        return np.where(named, rarity, 0).astype(np.float32)


def put_vector(writing: Writing, picture: int, source: int, vector: NDArray[np.float16]) -> None:
    """Write a picture's vector by this source, in place of the one it had; a new row, so it is seen to be new."""
    writing.db.execute(
        "INSERT OR REPLACE INTO embeddings (picture, source, vector) VALUES (?, ?, ?)",
        (picture, source, vector.astype("<f2").tobytes()),
    )
    writing.touch([picture])


def _signs(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 32] → [n, 256] of 1 where a bit is set, the highest of each byte first, and −1 where it is not."""
    return 2 * np.unpackbits(bits, axis=1).astype(np.float32) - 1
