"""What is known about tags beside the posts: aliases, implications, and categories where a source has none.

Read from Danbooru's own `tag_aliases*` and `tag_implications*` (JSON lines, a JSON array or CSV, as the API gives them)
and from a1111 tag lists (`name,category,count,"alias,alias"`, no header). Files beside the metadata are found by name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from efuda.datasets.sources.unpacking import BROKEN, open_unpacked
from efuda.errors import MetadataError
from efuda.places import is_remote
from efuda.vocabulary import all_implied

__all__ = ["Relations", "find_relations", "read_relations", "read_tag_names"]

_BESIDE: Final = ("tag_aliases*", "tag_implications*")
_ANTECEDENT, _CONSEQUENT = "antecedent_name", "consequent_name"


@dataclass(frozen=True)
class Relations:
    """Everything is resolved: an alias leads to its last tag, a tag names all that it implies, directly or not."""

    aliases: Mapping[str, str]
    implications: Mapping[str, tuple[str, ...]]
    categories: Mapping[str, int]

    @classmethod
    def resolve(
        cls,
        aliases: Mapping[str, str],
        implications: Iterable[tuple[str, str]] = (),
        categories: Mapping[str, int] | None = None,
    ) -> Relations:
        """Follow chains of aliases to their end, and close implications over tags that are no aliases; circles end."""
        ends = {name: _end_of_chain(name, aliases) for name in aliases}
        direct: dict[str, set[str]] = {}
        for name, implied in implications:
            direct.setdefault(ends.get(name, name), set()).add(ends.get(implied, implied))
        closed = {name: tuple(sorted(all_implied(name, direct))) for name in direct}
        return cls(
            {name: end for name, end in ends.items() if name != end},
            {name: implied for name, implied in closed.items() if implied},
            dict(categories or {}),
        )

    @cached_property
    def digest(self) -> str:
        """Changes when any of it does."""
        parts = [sorted(self.aliases.items()), sorted(self.implications.items()), sorted(self.categories.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_relations(files: Iterable[str]) -> list[str]:
    """The files of aliases and implications in the folders of these metadata files, on this machine."""
    folders = sorted({Path(file).parent for file in files if not is_remote(file)})
    return [str(path) for folder in folders for pattern in _BESIDE for path in sorted(folder.glob(pattern))]


def read_relations(files: Sequence[str]) -> Relations:
    """Read and resolve files of aliases, implications and tag lists; what a file is, its name and contents tell.

    Raises:
        MetadataError: a file cannot be read, or is none of them.
    """
    aliases: dict[str, str] = {}
    implications: list[tuple[str, str]] = []
    categories: dict[str, int] = {}
    for file in files:
        text = _read_text(file)
        if pairs := list(_pairs(text)):
            if "implication" in Path(file).name:
                implications += pairs
            else:
                aliases.update(pairs)
        elif rows := list(_tag_list(text)):
            categories.update({name: category for name, category, _ in rows})
            aliases.update({alias: name for name, _, others in rows for alias in others if alias != name})
        elif text.strip():
            raise MetadataError(
                f"{file} holds neither aliases nor implications (antecedent_name, consequent_name) nor a tag list "
                "(name,category,count,aliases). Take it out of vocabulary.relations, or mend it."
            )
    names = set(categories)
    return Relations.resolve({a: b for a, b in aliases.items() if a not in names}, implications, categories)


def read_tag_names(file: str) -> set[str]:
    """The names in a list of tags: one a line, a tag list, or a WD `selected_tags.csv`.

    Raises:
        MetadataError: the file cannot be read or names no tag.
    """
    lines = list(csv.reader(io.StringIO(_read_text(file))))
    header = lines[0] if lines else []
    column = header.index("name") if "name" in header else 0
    rows = lines[1:] if "name" in header else lines
    names = {row[column].strip() for row in rows if len(row) > column and row[column].strip()}
    if not names:
        raise MetadataError(f"{file} names no tag: expected one a line, or a CSV with a column name.")
    return names


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for record in _records(text):
        name, other = record.get(_ANTECEDENT), record.get(_CONSEQUENT)
        if name and other and record.get("status", "active") == "active":
            yield str(name), str(other)


def _records(text: str) -> Iterator[Mapping[str, Any]]:
    start = text.lstrip()[:1]
    if start == "[":
        try:
            yield from (record for record in json.loads(text) if isinstance(record, dict))
        except ValueError:
            return
    elif start == "{":
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
    elif _ANTECEDENT in text.partition("\n")[0]:
        yield from csv.DictReader(io.StringIO(text))


def _tag_list(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Rows of `name,category,count,aliases`; nothing where the first rows are not of that shape."""
    for row in csv.reader(io.StringIO(text)):
        if len(row) < 3 or not row[1].strip().isdigit():
            continue
        others = row[3].split(",") if len(row) > 3 else []
        yield row[0], int(row[1]), [alias.strip() for alias in others if alias.strip()]


def _read_text(file: str) -> str:
    try:
        with open_unpacked(file) as stream:
            data = stream.read()
    except (MetadataError, *BROKEN) as error:
        raise MetadataError(
            f"{file} cannot be read: {error.__cause__ or error}. Check the path and the file."
        ) from error
    return data.decode("utf-8-sig", errors="replace")


def _end_of_chain(name: str, direct: Mapping[str, str]) -> str:
    seen = {name}
    while (following := direct.get(name)) is not None and following not in seen:
        seen.add(following)
        name = following
    return name
