"""What stands in a file beside a picture, by kind, and how tags are added to one that is there.

| kind | file | holds |
|---|---|---|
| `txt` | `a.txt` | the caption that training tools read: one line, ", " between tags |
| `json` | `a.json` | every tag and rating with its score |
| `xmp` | `a.jpg.xmp` | XMP: digiKam:TagsList, lr:hierarchicalSubject, dc:subject |
| `hydrus` | `a.jpg.txt` | a tag a line, `character:`, `series:`, `creator:`, `rating:`, `meta:` before those |
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

from efuda.tagging.chosen import Chosen
from efuda.tagging.wording import spelled
from efuda.tagging.writing.places import Refused
from efuda.tagging.writing.xmp import with_tags
from efuda.vocabulary import Category

__all__ = [
    "Caption",
    "Form",
    "Hydrus",
    "Json",
    "Xmp",
    "hydrus_tag",
    "hydrus_tags",
    "merged_caption",
    "record",
    "xmp_tags",
]

_NAMESPACES: Final = {"character": "character", "copyright": "series", "artist": "creator", "meta": "meta"}


class Form(Protocol):
    """One kind of file."""

    def name(self, picture: str) -> str:
        """The file's name, of the picture's."""

    def fresh(self, chosen: Chosen) -> bytes:
        """What stands in a new file."""

    def merged(self, old: bytes, chosen: Chosen) -> bytes:
        """What is there and, behind it, the tags that it lacks; the very same bytes where it lacks none.

        Raises:
            Refused: what is there cannot be read.
        """

    def replaced(self, old: bytes, chosen: Chosen) -> bytes:
        """What stands there instead."""


def record(chosen: Chosen, model: str) -> dict[str, Any]:
    """One picture as JSON has it."""
    return {
        "path": str(chosen.path),
        "width": chosen.size[0],
        "height": chosen.size[1],
        "tags": {name: score for name, score, _ in chosen.tags},
        "rating": chosen.ratings,
        "model": model,
    }


def merged_caption(text: str, tags: Iterable[str], separator: str) -> str:
    """A caption with the tags that it lacks behind it; the text itself where it lacks none.

    Capitals, underscores and line breaks make no difference in whether a tag is there. A second time changes nothing.
    """
    splitter = separator.strip()
    pieces = re.compile(f"{re.escape(splitter)}|[\r\n]" if splitter else r"\s")

    def parts(tag: str) -> list[str]:
        found = (part.strip().strip("\ufeff").strip().replace("_", " ").casefold() for part in pieces.split(tag))
        return [part for part in found if part]

    known = set(parts(text))
    missing = []
    for tag in tags:
        if not known.issuperset(own := parts(tag)):
            missing.append(tag.strip())
            known.update(own)
    if not missing:
        return text
    kept = text.rstrip()
    while splitter and kept.endswith(splitter):
        kept = kept.removesuffix(splitter).rstrip()
    between = separator if kept.strip("\ufeff") else ""
    return f"{kept}{between}{separator.join(missing)}\n"


@dataclass(frozen=True)
class Caption:
    """`txt`."""

    separator: str = ", "
    extension: str = ".txt"

    def name(self, picture: str) -> str:
        return _stem(picture) + self.extension

    def fresh(self, chosen: Chosen) -> bytes:
        return (self.separator.join(name for name, _, _ in chosen.tags) + "\n").encode()

    def merged(self, old: bytes, chosen: Chosen) -> bytes:
        return merged_caption(_text(old), [name for name, _, _ in chosen.tags], self.separator).encode()

    def replaced(self, old: bytes, chosen: Chosen) -> bytes:
        return self.fresh(chosen)


@dataclass(frozen=True)
class Json:
    """`json`; merging adds the tags that an object's `tags` lacks, and the keys that the object lacks."""

    model: str

    def name(self, picture: str) -> str:
        return _stem(picture) + ".json"

    def fresh(self, chosen: Chosen) -> bytes:
        return self._dump(record(chosen, self.model))

    def merged(self, old: bytes, chosen: Chosen) -> bytes:
        try:
            there = json.loads(_text(old).removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            raise Refused("not written: what is there is no JSON") from error
        if not isinstance(there, dict) or not isinstance(there.get("tags", {}), dict):
            raise Refused("not written: what is there is JSON of another form")
        ours = record(chosen, self.model)
        whole = {**ours, **there, "tags": {**there.get("tags", {})}}
        whole["tags"].update((name, score) for name, score in ours["tags"].items() if name not in whole["tags"])
        return old if whole == there else self._dump({**there, **whole})

    def replaced(self, old: bytes, chosen: Chosen) -> bytes:
        return self.fresh(chosen)

    def _dump(self, value: Any) -> bytes:
        try:
            return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
        except UnicodeEncodeError:  # a name that is not text
            return (json.dumps(value, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Xmp:
    """`xmp`; what other programs keep in the file stays, whether merged or replaced."""

    def name(self, picture: str) -> str:
        return picture + ".xmp"

    def fresh(self, chosen: Chosen) -> bytes:
        return with_tags(None, xmp_tags(chosen))

    def merged(self, old: bytes, chosen: Chosen) -> bytes:
        return with_tags(old, xmp_tags(chosen))

    def replaced(self, old: bytes, chosen: Chosen) -> bytes:
        return with_tags(old, xmp_tags(chosen), replace=True)


@dataclass(frozen=True)
class Hydrus:
    """`hydrus`."""

    def name(self, picture: str) -> str:
        return picture + ".txt"

    def fresh(self, chosen: Chosen) -> bytes:
        return "".join(f"{tag}\n" for tag in hydrus_tags(chosen)).encode()

    def merged(self, old: bytes, chosen: Chosen) -> bytes:
        return merged_caption(_text(old), hydrus_tags(chosen), "\n").encode()

    def replaced(self, old: bytes, chosen: Chosen) -> bytes:
        return self.fresh(chosen)


def hydrus_tags(chosen: Chosen) -> list[str]:
    """Tags as Hydrus spells them: with spaces, a namespace before a colon, and a colon before a tag that has one."""
    tags = [hydrus_tag(name, category) for name, _, category in chosen.tags if category is not Category.RATING]
    return [*filter(None, tags), *([f"rating:{chosen.rating}"] if chosen.rating else [])]


@lru_cache(200_000)
def hydrus_tag(name: str, category: Category) -> str:
    """One tag as Hydrus spells it; empty for a name that it would not take."""
    name = " ".join(spelled(name).split()).lstrip("-")
    space = _NAMESPACES.get(category.label, "")
    return f"{space}:{name}" if name and (space or ":" in name) else name


def xmp_tags(chosen: Chosen) -> list[tuple[str, str]]:
    """(kind, name) of every tag, and the rating."""
    tags = [(category.label, name) for name, _, category in chosen.tags if category is not Category.RATING]
    return [*tags, *([("rating", chosen.rating)] if chosen.rating else [])]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  (a million of them are looked up)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused("not written: what is there is not UTF-8") from error
