"""What is true of the posts that are measured: the dataset's labels on all of them or on the well-labelled ones, or
clean labels of some posts from a file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Posts
from efuda.errors import InputError
from efuda.vocabulary import Vocabulary

__all__ = ["Harness", "audited", "diligent", "standard"]

_DILIGENT: Final = 0.8  # quantile of the number of labels above which a post counts as well labelled
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Harness:
    """Which posts are measured, bool [posts], and against what: the dataset's labels, or `clean` ones by row.

    Attributes:
        unknown: names in the file of clean labels that the model does not know, and posts that are not in the split.
    """

    name: str
    posts: Posts
    wanted: NDArray[np.bool_]
    clean: Mapping[int, NDArray[np.int64]] | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)

    def labels(self, rows: Sequence[int]) -> Pairs:
        """(place within `rows`, tag), the pairs that are true."""
        tags = [np.asarray(self.tags(row), dtype=np.int64) for row in rows]
        sizes = [len(some) for some in tags]
        return np.repeat(np.arange(len(rows)), sizes), np.concatenate([np.empty(0, np.int64), *tags])

    def tags(self, row: int) -> NDArray[np.int64] | NDArray[np.int32]:
        """The tags of one post."""
        return self.posts.tags(row) if self.clean is None else self.clean[row]


def standard(posts: Posts) -> Harness:
    """All posts, as they are labelled."""
    return Harness("standard", posts, np.ones(len(posts), dtype=np.bool_))


def diligent(posts: Posts) -> Harness:
    """The fifth of the posts with the most labels: most errors of labels are tags left out, and few are here."""
    labels = np.diff(posts.starts)
    return Harness("diligent", posts, labels >= np.quantile(labels, _DILIGENT))


def audited(posts: Posts, vocabulary: Vocabulary, path: Path) -> Harness:
    """Only the posts of a file of clean labels.

    Args:
        path: CSV with the columns `id` and `tags`, the tags separated by spaces: all of a post's true tags.

    Raises:
        InputError: it cannot be read, or has none of these posts.
    """
    rows = {int(post): row for row, post in enumerate(posts.ids)}
    clean: dict[int, NDArray[np.int64]] = {}
    unknown = {"tags": 0, "posts": 0}
    for post, names in _read(path):
        known = sorted({vocabulary.index[name] for name in names if name in vocabulary.index})
        unknown["tags"] += sum(name not in vocabulary.index for name in names)
        unknown["posts"] += post not in rows
        if post in rows:
            clean[rows[post]] = np.array(known, dtype=np.int64)
    if not clean:
        raise InputError(f"{path}: none of its posts is in the split that is measured. Name a file of these posts.")
    wanted = np.zeros(len(posts), dtype=np.bool_)
    wanted[list(clean)] = True
    return Harness("audited", posts, wanted, clean, unknown)


def _read(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := {"id", "tags"} - set(reader.fieldnames or ()):
                raise InputError(f"{path}: the header lacks {', '.join(sorted(missing))}; expected id,tags.")
            return [(int(row["id"]), (row["tags"] or "").split()) for row in reader]
    except ValueError as error:
        raise InputError(f"{path}: not a file of labels ({error}); expected a post's number and its tags.") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
