"""Which output of a model answers for which tag of a dataset: by name, and through aliases where names differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from efuda.errors import InputError
from efuda.vocabulary import Category, Tag, Vocabulary

__all__ = ["Matched", "common", "match", "pick"]

_Key = tuple[bool, str]


@dataclass(frozen=True)
class Matched:
    """A model's outputs beside a dataset's tags.

    Attributes:
        columns: int64 [tags of the dataset], the model's output for each, −1 where it has none.
        by_alias: how many were found by an alias alone.
    """

    columns: NDArray[np.int64]
    by_alias: int

    @property
    def found(self) -> NDArray[np.bool_]:
        """bool [tags of the dataset]."""
        return self.columns >= 0


def match(dataset: Vocabulary, model: Vocabulary, aliases: Mapping[str, str] | None = None) -> Matched:
    """Find the dataset's tags among the model's; spaces and underscores are alike, ratings match ratings only.

    Args:
        aliases: other name → tag, to any depth. A tag of the very name is preferred, and no output answers twice.
    """
    ends = {_spelled(name): _spelled(tag) for name, tag in (aliases or {}).items()}
    columns = np.full(len(dataset), -1, dtype=np.int64)
    exact = _first(model, {})
    for row, tag in enumerate(dataset):
        columns[row] = exact.get(_key(tag, {}), -1)
    taken, by_alias = {*columns.tolist()}, 0
    if ends:
        resolved = _first(model, ends)
        for row in np.flatnonzero(columns < 0).tolist():
            column = resolved.get(_key(dataset[row], ends), -1)
            if column >= 0 and column not in taken:
                columns[row] = column
                taken.add(column)
                by_alias += 1
    return Matched(columns, by_alias)


def common(dataset: Vocabulary, models: Mapping[str, Matched]) -> NDArray[np.int64]:
    """The rows of the dataset's tags that every model has, int64 [common].

    Raises:
        InputError: there is none; it names the model that has the fewest.
    """
    rows: NDArray[np.int64] = np.flatnonzero(np.all([one.found for one in models.values()], axis=0))
    if not len(rows):
        least = min(models, key=lambda name: int(models[name].found.sum()))
        raise InputError(
            f"No tag of the dataset is known to all models; {least} knows {int(models[least].found.sum())} of "
            f"{len(dataset):,}. If they are named otherwise there, give a list of aliases with --aliases FILE."
        )
    return rows


def _first(model: Vocabulary, ends: Mapping[str, str]) -> dict[_Key, int]:
    """Key → the first output that has it."""
    found: dict[_Key, int] = {}
    for column, tag in enumerate(model):
        found.setdefault(_key(tag, ends), column)
    return found


def _key(tag: Tag, ends: Mapping[str, str]) -> _Key:
    name, seen = _spelled(tag.name), set[str]()
    while name in ends and name not in seen:
        seen.add(name)
        name = ends[name]
    return tag.category is Category.RATING, name


def _spelled(name: str) -> str:
    return name.strip().replace(" ", "_")


def pick(vocabulary: Vocabulary, rows: Sequence[int] | NDArray[np.int64]) -> Vocabulary:
    """Some tags of a vocabulary, in the order given."""
    return Vocabulary(vocabulary[int(row)] for row in rows)
