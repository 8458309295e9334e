"""What tags imply: read from files, closed over chains and circles, applied to many pictures at once.

Files: Danbooru's `tag_implications` as JSON lines, a JSON array or CSV (`antecedent_name`, `consequent_name`), and
plain CSV without a header, `antecedent,consequent` a line. A `tag_implications*` in a model's directory is its own.

    implications = Implications.of(read_pairs(path), vocabulary)
    implications.closed(present)        # with what they imply added
    implications.reduced(present)       # without what others there imply
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import InputError
from efuda.vocabulary import Vocabulary, all_implied

__all__ = ["Implications", "Present", "find_file", "read_pairs"]

Integers = NDArray[np.int64]
_FROM: Final = ("antecedent_name", "antecedent")
_TO: Final = ("consequent_name", "consequent")


class Present(NamedTuple):
    """Tags of several pictures, as columns int64 [n]: which picture, which output, its score in steps of 1/65,535."""

    pictures: Integers
    rows: Integers
    steps: Integers

    def where(self, kept: NDArray[np.bool_]) -> Present:
        """Those for which `kept` is true."""
        return Present(self.pictures[kept], self.rows[kept], self.steps[kept])


@dataclass(frozen=True)
class Implications:
    """Of each output, what it implies, directly or not, itself never.

    Attributes:
        counts: int64 [tags], how many.
        starts: int64 [tags], where its own begin in `implied`.
        implied: int64, outputs.
        strict: bool, beside `implied`: not the other way round as well, as in a circle.
    """

    counts: Integers
    starts: Integers
    implied: Integers
    strict: NDArray[np.bool_]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]], vocabulary: Vocabulary) -> Self:
        """Chains may lead over tags that the vocabulary lacks."""
        direct: dict[str, set[str]] = {}
        for name, implied in pairs:
            direct.setdefault(name, set()).add(implied)
        index = vocabulary.index
        closed = {name: all_implied(name, direct) for name in direct if name in index}
        lists = [sorted(index[one] for one in closed.get(name, ()) if one in index) for name in vocabulary.names]
        counts = np.array([len(one) for one in lists], dtype=np.int64)
        names = vocabulary.names
        strict = [names[row] not in closed.get(names[one], ()) for row, own in enumerate(lists) for one in own]
        return cls(
            counts,
            np.cumsum(counts) - counts,
            np.array([one for own in lists for one in own], dtype=np.int64),
            np.array(strict, dtype=np.bool_),
        )

    def closed(self, present: Present) -> Present:
        """With all that they imply; an implied tag is at least as likely as the likeliest one that implies it."""
        source, place = self._expand(present.rows)
        pictures = np.concatenate([present.pictures, present.pictures[source]])
        rows = np.concatenate([present.rows, self.implied[place]])
        steps = np.concatenate([present.steps, present.steps[source]])
        order = np.lexsort((steps, rows, pictures))
        pictures, rows, steps = pictures[order], rows[order], steps[order]
        last = np.ones(len(rows), dtype=np.bool_)
        last[:-1] = (pictures[1:] != pictures[:-1]) | (rows[1:] != rows[:-1])
        return Present(pictures, rows, steps).where(last)

    def reduced(self, present: Present) -> Present:
        """Without what another tag of the same picture implies; tags that imply each other all stay."""
        source, place = self._expand(present.rows)
        strict = self.strict[place]
        tags = len(self.counts)
        gone = present.pictures[source[strict]] * tags + self.implied[place[strict]]
        return present.where(~np.isin(present.pictures * tags + present.rows, gone))

    def _expand(self, rows: Integers) -> tuple[Integers, Integers]:
        """For every (tag, implied) of these tags: the tag's place in `rows`, and the place in `implied`."""
        counts = self.counts[rows]
        source = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        return source, self.starts[rows][source] + within


def find_file(model: Path) -> Path | None:
    """The model's own implications."""
    return next((path for path in sorted(model.glob("tag_implications*")) if path.is_file()), None)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(tag, what it implies), as they stand in a file.

    Raises:
        InputError: it cannot be read, or holds no implication.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = list(_pairs(text))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). Check the path and the file.") from error
    if not pairs:
        raise InputError(
            f"{path} holds no implications. Expected lines antecedent,consequent, or Danbooru's tag_implications."
        )
    return pairs


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    if text.lstrip()[:1] in ("[", "{"):
        yield from _named(_objects(text))
        return
    rows = csv.reader(io.StringIO(text, newline=""))
    header = next(rows, [])
    if set(_FROM) & set(header):
        yield from _named(dict(zip(header, row, strict=False)) for row in rows)
        return
    for row in [header, *rows]:
        words = [word.strip() for word in row]
        if len(words) >= 2 and words[0] and words[1]:
            yield words[0], words[1]


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    lines = [text] if text.lstrip().startswith("[") else text.splitlines()
    for line in lines:
        if line.strip():
            value = json.loads(line)
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict))


def _named(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for record in records:
        name = next((record[key] for key in _FROM if record.get(key)), None)
        other = next((record[key] for key in _TO if record.get(key)), None)
        if name and other and record.get("status", "active") == "active":
            yield str(name), str(other)
