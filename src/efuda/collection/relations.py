"""What is known of tags themselves: other names for them, what they imply, and their categories.

    found = read_relations([Path("danbooru.csv"), Path("tag_implications.json")])
    done = relate(record, found)
    print(done.aliases, done.implications, done.categories)

Files: tag lists (`name,category,count,"alias,alias"`, as autocompletion add-ons have them, or a model's
`selected_tags.csv`), and Danbooru's `tag_aliases…` and `tag_implications…` as JSON or CSV, told apart by their names.
Only what concerns tags of the collection is taken, unless everything is asked for: a list has many more.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from efuda.collection.record import Record, Writing, rows
from efuda.errors import InputError
from efuda.tagging.implications import read_pairs
from efuda.vocabulary import Category

__all__ = ["Related", "Relations", "read_relations", "relate"]

_HEADER: Final = {"name", "category"}


@dataclass(slots=True)
class Relations:
    """As files say: alias → tag, (tag, what it implies), tag → category."""

    aliases: dict[str, str] = field(default_factory=dict)
    implications: list[tuple[str, str]] = field(default_factory=list)
    categories: dict[str, Category] = field(default_factory=dict)

    def end(self, name: str) -> str:
        """The tag at the end of a chain of aliases; a circle ends where it is entered."""
        seen = {name}
        while (following := self.aliases.get(name)) is not None and following not in seen:
            seen.add(following)
            name = following
        return name


@dataclass(slots=True)
class Related:
    """What came new into the record.

    Attributes:
        aliases: other names.
        implications: pairs.
        categories: tags whose category was another.
        tags: tags that the collection did not have.
        own: aliases left out because they are tags of their own here.
    """

    aliases: int = 0
    implications: int = 0
    categories: int = 0
    tags: int = 0
    own: list[str] = field(default_factory=list)


def read_relations(paths: Sequence[Path]) -> Relations:
    """Read files of relations.

    Raises:
        InputError: a file cannot be read, or is of no known kind.
    """
    found = Relations()
    for path in paths:
        if "alias" in path.name.lower():
            found.aliases.update(read_pairs(path))
        elif "implication" in path.name.lower():
            found.implications += read_pairs(path)
        else:
            _read_list(path, found)
    return found


def relate(record: Record, found: Relations, *, everything: bool = False, dry_run: bool = False) -> Related:
    """Take relations into the record, beside those that it has.

    Args:
        everything: also what concerns no tag of the collection, so that it is known when such tags come.
        dry_run: only say what would be taken.
    """
    with record.write() as writing:
        taking = _Taking(writing, found, everything)
        taking.categories()
        taking.implications()
        taking.aliases()
        taking.end()
        writing.discarded = dry_run
        return taking.sum


class _Taking:
    """The relations that are being taken, and what is known meanwhile."""

    def __init__(self, writing: Writing, found: Relations, everything: bool) -> None:
        self.writing, self.found, self.everything = writing, found, everything
        self.tags: dict[str, int] = dict(rows(writing.db, "SELECT name, id FROM tags"))
        self.sum = Related()

    def categories(self) -> None:
        held: dict[str, int] = dict(rows(self.writing.db, "SELECT name, category FROM tags"))
        for name, category in self.found.categories.items():
            if name not in held:
                if self.everything and self.found.end(name) == name:
                    self._make(name)
            elif held[name] not in (category, Category.RATING):
                statement = "UPDATE tags SET category = ? WHERE id = ?"
                self.writing.db.execute(statement, (int(category), self.tags[name]))
                self.sum.categories += 1

    def implications(self) -> None:
        """Of known tags, and then of those that they imply, which become known."""
        direct: dict[str, list[str]] = {}
        for name, implied in self.found.implications:
            direct.setdefault(self.found.end(name), []).append(self.found.end(implied))
        ahead = list(direct) if self.everything else [name for name in direct if name in self.tags]
        seen = set(ahead)
        while ahead:
            name = ahead.pop()
            for implied in direct.get(name, ()):
                if implied == name:
                    continue
                pair = (self._make(name), self._make(implied))
                self.sum.implications += self._insert("INSERT OR IGNORE INTO implications VALUES (?, ?)", pair)
                if implied not in seen:
                    seen.add(implied)
                    ahead.append(implied)

    def aliases(self) -> None:
        for name in self.found.aliases:
            end = self.found.end(name)
            if end == name or not (self.everything or end in self.tags):
                continue
            if name in self.tags:
                self.sum.own.append(name)
                continue
            self.sum.aliases += self._insert(_ALIAS, (name, self._make(end)))

    def end(self) -> None:
        done = self.sum
        if done.aliases or done.implications or done.categories:
            self.writing.relations_changed()

    def _make(self, name: str) -> int:
        """The number of a tag, which is made where it is not known."""
        if name not in self.tags:
            self.tags[name] = self.writing.tag(name, self.found.categories.get(name))
            self.sum.tags += 1
        return self.tags[name]

    def _insert(self, statement: str, values: tuple[object, ...]) -> int:
        """How many rows a statement changed."""
        self.writing.db.execute(statement, values)
        return self.writing.db.changes()


_ALIAS: Final = """
INSERT INTO tag_aliases (name, tag) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET tag = excluded.tag
WHERE tag != excluded.tag
"""


def _read_list(path: Path, found: Relations) -> None:
    try:
        text = path.read_text(encoding="utf-8-sig")
        before = len(found.categories)
        for name, category, aliases in _tags(csv.reader(io.StringIO(text, newline=""))):
            found.categories[name] = category
            found.aliases.update((alias, name) for alias in aliases if alias != name)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). Check the path and the file.") from error
    if len(found.categories) == before:
        raise InputError(
            f'{path} is no tag list. Expected lines name,category,count,"alias,alias", or a file whose name says '
            "tag_aliases or tag_implications."
        )


def _tags(lines: Iterator[list[str]]) -> Iterator[tuple[str, Category, list[str]]]:
    """(name, category, aliases) of each line that has a name and the number of a category."""
    first = next(lines, [])
    header = {name: place for place, name in enumerate(first)} if set(first) >= _HEADER else None
    places = (header["name"], header["category"], header.get("aliases", -1)) if header else (0, 1, 3)
    for line in lines if header else (first, *lines):
        name, category, aliases = (line[place].strip() if 0 <= place < len(line) else "" for place in places)
        if name and category.isdecimal() and int(category) != Category.RATING:
            known = Category(int(category)) if int(category) in list(Category) else Category.GENERAL
            yield name, known, [alias.strip() for alias in aliases.split(",") if alias.strip()]
