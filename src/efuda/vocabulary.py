"""The tags a model predicts, in the order of its outputs, with their categories and counts.

Reads and writes `selected_tags.csv`, the tag list of the WD family (`tag_id,name,category,count`), whose clients rely
on the row order: ratings, then all general tags, then all characters. Categories that those clients do not know
(artist, copyright, meta) come after, so that their index arithmetic holds for the rows before.

    vocabulary = Vocabulary.in_wd_order([Tag("glasses", Category.GENERAL, 812), …])
    vocabulary.index["glasses"]      # the output that predicts it
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from efuda.errors import ArtifactError

__all__ = ["RATINGS", "Category", "Tag", "Vocabulary", "all_implied", "is_tag_name"]


class Category(IntEnum):
    """Danbooru's category numbers; 9 is the taggers' own, for ratings."""

    GENERAL = 0
    ARTIST = 1
    COPYRIGHT = 3
    CHARACTER = 4
    META = 5
    RATING = 9

    @property
    def label(self) -> str:
        """The word people use: "general", "artist", …"""
        return self.name.lower()


RATINGS: Final = ("general", "sensitive", "questionable", "explicit")
_WD_ORDER: Final = (
    Category.RATING,
    Category.GENERAL,
    Category.CHARACTER,
    Category.COPYRIGHT,
    Category.ARTIST,
    Category.META,
)
# Danbooru's rule: printable ASCII, at most 170 characters, no '*' or ',', and none of these in front.
_TAG_NAME: Final = re.compile(r"(?![-~_`%(){}\[\]/])[!-)+\-.-~]{1,170}")


def is_tag_name(name: str) -> bool:
    """Whether Danbooru would accept `name` (FORMATS: Danbooru metadata)."""
    return _TAG_NAME.fullmatch(name) is not None


def all_implied(name: str, direct: Mapping[str, set[str]]) -> set[str]:
    """What a tag implies through any number of steps of `direct`, itself left out; circles end."""
    found: set[str] = set()
    ahead = list(direct.get(name, ()))
    while ahead:
        implied = ahead.pop()
        if implied not in found and implied != name:
            found.add(implied)
            ahead += direct.get(implied, ())
    return found


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag: its Danbooru spelling, its category, and how many posts of the dataset carry it."""

    name: str
    category: Category = Category.GENERAL
    count: int = 0


class Vocabulary:
    """Tags in output order. Two vocabularies are equal when names and categories agree in order."""

    def __init__(self, tags: Iterable[Tag]) -> None:
        self.tags = tuple(tags)

    @classmethod
    def in_wd_order(cls, tags: Iterable[Tag]) -> Vocabulary:
        """Sorted as WD clients expect: by category, then by falling count, then by name; ratings in their own order."""

        def key(tag: Tag) -> tuple[int, int, str]:
            rank = RATINGS.index(tag.name) if tag.category is Category.RATING else -tag.count
            return _WD_ORDER.index(tag.category), rank, tag.name

        return cls(sorted(tags, key=key))

    @classmethod
    def read_csv(cls, path: Path, *, category: Callable[[str], Category] | None = None) -> Vocabulary:
        """Read a `selected_tags.csv`; raises ArtifactError naming the file and the line.

        Args:
            category: what the category column means, raising ValueError; Danbooru's numbers by default.
        """
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return cls(_rows(csv.DictReader(file), path, category or (lambda text: Category(int(text)))))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ArtifactError(f"{path}: the tag list cannot be read ({error}).") from error

    def write_csv(self, path: Path) -> None:
        """Write a `selected_tags.csv`; `tag_id` is the row number, since tags of any source have no id of their own."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["tag_id", "name", "category", "count"])
            writer.writerows((row, tag.name, int(tag.category), tag.count) for row, tag in enumerate(self.tags))

    @cached_property
    def index(self) -> dict[str, int]:
        """Name → output."""
        return {tag.name: row for row, tag in enumerate(self.tags)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names, in output order."""
        return tuple(tag.name for tag in self.tags)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and categories in order: what must agree between a dataset, a run and a model."""
        lines = "".join(f"{tag.name}\t{int(tag.category)}\n" for tag in self.tags)
        return hashlib.sha256(lines.encode()).hexdigest()

    def rows(self, *categories: Category) -> list[int]:
        """The outputs of these categories, in order."""
        return [row for row, tag in enumerate(self.tags) if tag.category in categories]

    def difference(self, other: Vocabulary) -> str:
        """What differs, in words for an error message."""
        ours, theirs = set(self.names), set(other.names)
        if ours == theirs:
            return f"the same {len(self)} tags in another order or category"
        only = [*sorted(ours - theirs)[:2], *sorted(theirs - ours)[:2]]
        return f"{len(self)} tags against {len(other)}, for example {', '.join(only)} in only one of them"

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, row: int) -> Tag:
        return self.tags[row]

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tags, {self.digest[:12]})"


def _rows(reader: csv.DictReader[str], path: Path, category: Callable[[str], Category]) -> Iterator[Tag]:
    missing = {"name", "category"} - set(reader.fieldnames or ())
    if missing:
        raise ArtifactError(
            f"{path}: the header lacks {', '.join(sorted(missing))}; expected tag_id,name,category,count."
        )
    for row in reader:
        try:
            if not row["name"]:
                raise ValueError("no name")
            yield Tag(row["name"], category(row["category"]), int(row.get("count") or 0))
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}, line {reader.line_num}: not a tag row ({error}).") from error
