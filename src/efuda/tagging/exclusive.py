"""Groups of tags of which a picture of one person has one, such as eye colours: the likeliest one stays.

A file of groups is TOML, as `exclusive.toml` beside this file, which `--exclusive danbooru` means.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import InputError
from efuda.metrics import Calibration
from efuda.tagging.implications import Present
from efuda.tagging.tagged import STEPS
from efuda.vocabulary import Vocabulary

__all__ = ["DANBOORU", "Exclusive", "Group", "read_groups"]

DANBOORU: Final = "danbooru"
_ONE: Final = frozenset({"1girl", "1boy", "1other"})
_SEVERAL: Final = re.compile(r"(?:[2-9]\d*|1\d+)\+?(?:girls|boys|others)|multiple_(?:girls|boys|others)|crowd|everyone")


@dataclass(frozen=True)
class Group:
    """One group of a file.

    Attributes:
        one_of: the alternatives, each of one tag or of several that go together.
        unless: tags that lift it.
    """

    name: str
    one_of: tuple[tuple[str, ...], ...]
    unless: frozenset[str] = frozenset()


def read_groups(source: str | Path) -> list[Group]:
    """The groups of a file, or the shipped ones for "danbooru".

    Raises:
        InputError: the file cannot be read, or is not of this form.
    """
    path = Path(__file__).with_name("exclusive.toml") if str(source) == DANBOORU else Path(source)
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a TOML file of groups, or say --exclusive {DANBOORU}.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        groups = [_group(name, table) for name, table in tables.items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no exclusive groups ({error}). Expected TOML: [name], one_of = [tags], unless = [tags]; "
            f"or say --exclusive {DANBOORU}."
        ) from error
    return groups


def _group(name: str, table: Any) -> Group:
    if not isinstance(table, dict) or set(table) - {"one_of", "unless"}:
        raise ValueError(f"{name} is not a table of one_of and unless")
    one_of = tuple(tuple([one] if isinstance(one, str) else one) for one in table["one_of"])
    unless = frozenset(table.get("unless", ()))
    if not all(isinstance(tag, str) for tag in (*unless, *(tag for one in one_of for tag in one))):
        raise ValueError(f"{name}: tags are text")
    return Group(name, one_of, unless)


@dataclass(frozen=True)
class _Compiled:
    """A group in a vocabulary.

    Attributes:
        column: int64 [tags], the tag's place in the group, −1 outside.
        alternative: int64 [members], which alternative each belongs to.
        lifts: bool [tags], whose presence lifts it.
        members: int64 [members], outputs.
    """

    column: NDArray[np.int64]
    alternative: NDArray[np.int64]
    lifts: NDArray[np.bool_]
    members: NDArray[np.int64]
    calibration: Calibration | None


@dataclass(frozen=True)
class Exclusive:
    """Groups, ready for a vocabulary; `people` counts a picture's persons, as far as its tags tell."""

    people: NDArray[np.int64]
    groups: tuple[_Compiled, ...]

    @classmethod
    def of(cls, groups: Sequence[Group], vocabulary: Vocabulary, calibration: Calibration | None) -> Self:
        """Without a calibration, scores are compared as they are; tags that the vocabulary lacks are left out."""
        people = [1 if name in _ONE else 2 if _SEVERAL.fullmatch(name) else 0 for name in vocabulary.names]
        compiled = (_compile(group, vocabulary, calibration) for group in groups)
        return cls(np.array(people, dtype=np.int64), tuple(one for one in compiled if one is not None))

    def apply(self, present: Present, pictures: int) -> Present:
        """Without what loses within its group."""
        if not len(present.rows):
            return present
        alone = np.bincount(present.pictures, self.people[present.rows], pictures) < 2
        for group in self.groups:
            present = present.where(~_loses(group, present, alone))
        return present


def _compile(group: Group, vocabulary: Vocabulary, calibration: Calibration | None) -> _Compiled | None:
    index = vocabulary.index
    found = [(index[tag], number) for number, tags in enumerate(group.one_of) for tag in tags if tag in index]
    if len({number for _, number in found}) < 2:
        return None
    members = np.array([row for row, _ in found], dtype=np.int64)
    column = np.full(len(vocabulary), -1, dtype=np.int64)
    column[members] = np.arange(len(members))
    lifts = np.array([name in group.unless for name in vocabulary.names], dtype=np.bool_)
    own = calibration and Calibration(
        tuple(vocabulary.names[row] for row in members),
        calibration.method[members],
        calibration.knots,
        calibration.logits[members],
    )
    return _Compiled(column, np.array([number for _, number in found], dtype=np.int64), lifts, members, own)


def _loses(group: _Compiled, present: Present, alone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [present]: belongs to an alternative that is not its picture's likeliest."""
    single = alone.copy()
    single[present.pictures[group.lifts[present.rows]]] = False
    column = group.column[present.rows]
    inside = np.flatnonzero((column >= 0) & single[present.pictures])
    loses = np.zeros(len(column), dtype=np.bool_)
    if not len(inside):
        return loses
    there, place = np.unique(present.pictures[inside], return_inverse=True)
    scores = np.zeros((len(there), len(group.members)), dtype=np.float32)
    scores[place, column[inside]] = present.steps[inside] / np.float32(STEPS)
    likely = (group.calibration.apply(scores) if group.calibration else scores)[place, column[inside]]
    order = np.lexsort((group.members[column[inside]] * -1, present.steps[inside], likely, place))
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = place[order][1:] != place[order][:-1]
    winner = np.empty(len(there), dtype=np.int64)
    winner[place[order][last]] = group.alternative[column[inside]][order][last]
    loses[inside] = group.alternative[column[inside]] != winner[place]
    return loses
