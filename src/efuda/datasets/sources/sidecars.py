"""Metadata that lies beside its picture: gallery-dl's JSON, caption files (.txt), and Hydrus' sidecars.

* gallery-dl: `name.ext.json` beside `name.ext`, the API fields of the site.
* captions, as people have for fine-tuning image generators: `name.txt` (or `name.caption`) beside `name.ext`
  (`tagging.reading` says how they are read). An empty file has no tags.
* Hydrus: `name.ext.txt` beside `name.ext`, a tag a line, namespaces `character:`, `series:`, `creator:`, `meta:`,
  `rating:`; what it says of the file, not of the picture (`title:`, `page:`, `url:`, …), is left out.

A post without an id of its own has the number that its picture is named by, or else (also where two pictures are named
by the same number) a stable hash of its path within the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as arrow
import pyarrow.compute as compute

from efuda.datasets.entries import CATEGORIES, BadLine, Job, Parsed, entry_table
from efuda.datasets.sources.records import Kind, kind_of, rating_letter
from efuda.images import SUFFIXES
from efuda.places import Stat, join, open_binary
from efuda.tagging.reading import LONGEST, decoded, read_caption, read_list

__all__ = ["FORMATS", "SidecarJob", "find_sidecars", "path_id", "sidecar_jobs", "site_of"]

FORMATS: Final = {
    "gallery-dl": "gallery-dl sidecars",
    "hydrus": "Hydrus sidecars",
    "captions": "caption files",
}
_BATCH: Final = 2000
_CAPTIONS: Final = (".txt", ".caption")


@dataclass(frozen=True)
class SidecarJob:
    """Some sidecars of a folder: `names` are (sidecar, picture, id), relative to it; `file` is the folder."""

    file: str
    key: str
    format: str
    names: tuple[tuple[str, str, int], ...]

    def read(self) -> Parsed:
        """Read each file; one that cannot be read is a bad line."""
        texts: list[Mapping[str, Any]] = []
        records: list[tuple[Kind, Any, Mapping[str, Any]]] = []
        bad = []
        for sidecar, picture, number in self.names:
            place = join(self.file, sidecar)
            about = {"id": number, "path": join(self.file, picture), "ext": _ending(picture)}
            try:
                text = _text(place)
            except OSError as error:
                bad.append(BadLine(place, 0, f"cannot be read ({error.strerror or error})"))
            except ValueError as error:
                bad.append(BadLine(place, 0, str(error)))
            else:
                if self.format == "captions":
                    texts.append(about | {"general": read_caption(text)})
                elif self.format == "hydrus":
                    texts.append(about | _hydrus(text))
                elif (found := _record(text)) is None:
                    bad.append(BadLine(place, 0, "not a JSON object with the tags of a post"))
                else:
                    records.append((*found, about))
        tables = [_table_of_records(list(run)) for _, run in groupby(records, key=lambda one: one[0].name)]
        if texts:
            tables.append(_table(texts))
        return Parsed(arrow.concat_tables(tables) if tables else entry_table(0, {}), tuple(bad))


def find_sidecars(files: Sequence[tuple[str, Stat]]) -> tuple[str, list[tuple[str, str, Stat]]]:
    """Which format of sidecars a folder holds, and (sidecar, picture, stat of the sidecar) for each; "" if none.

    Args:
        files: every file of the folder, relative.
    """
    pictures: dict[str, str] = {}  # by name without ending
    whole: set[str] = set()
    for name, _ in files:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            pictures.setdefault(name[: name.rindex(".")], name)
            whole.add(name)
    found: dict[str, list[tuple[str, str, Stat]]] = {name: [] for name in FORMATS}
    for name, told in files:
        ending = PurePosixPath(name).suffix.lower()
        beside = name[: len(name) - len(ending)]
        if ending == ".json" and beside in whole:
            found["gallery-dl"].append((name, beside, told))
        elif ending == ".txt" and beside in whole:
            found["hydrus"].append((name, beside, told))
        elif ending in _CAPTIONS and beside in pictures:
            found["captions"].append((name, pictures[beside], told))
    best = max(FORMATS, key=lambda name: len(found[name]))
    return (best, found[best]) if found[best] else ("", [])


def site_of(folder: str, sidecars: Sequence[tuple[str, str, Stat]]) -> str:
    """Which site gallery-dl's files are of, by the first that can be read; "" where none of some can."""
    for sidecar, _, _ in sidecars[:50]:
        try:
            found = _record(_text(join(folder, sidecar)))
        except (OSError, ValueError):
            continue
        if found:
            return found[0].name.partition(" ")[0]
    return ""


def sidecar_jobs(folder: str, format: str, sidecars: Sequence[tuple[str, str, Stat]]) -> Iterator[Job]:
    """Batches of sidecars."""
    numbers = _numbers([picture for _, picture, _ in sidecars])
    for start in range(0, len(sidecars), _BATCH):
        some = sidecars[start : start + _BATCH]
        ids = numbers[start : start + _BATCH]
        told = "\n".join(f"{name} {picture} {one.size} {one.stamp}" for name, picture, one in some)
        key = hashlib.sha256(f"{folder} {ids}\n{told}".encode(errors="surrogateescape")).hexdigest()
        names = tuple((name, picture, number) for (name, picture, _), number in zip(some, ids, strict=True))
        yield SidecarJob(folder, key, format, names)


def path_id(picture: str) -> int:
    """The number that a picture is named by, or else 62 bits of the SHA-256 of its relative path, never 0."""
    stem = PurePosixPath(picture).stem
    if stem.isascii() and stem.isdigit() and len(stem) <= 18 and int(stem):
        return int(stem)
    return _hashed(picture)


def _hashed(picture: str) -> int:
    return (int.from_bytes(hashlib.sha256(picture.encode(errors="surrogateescape")).digest()[:8], "big") >> 2) or 1


def _numbers(pictures: Sequence[str]) -> list[int]:
    """The ids of pictures; `1.png` in two folders is two pictures, so both have a hash instead."""
    numbers = [path_id(picture) for picture in pictures]
    times = Counter(numbers)
    return [_hashed(one) if times[number] > 1 else number for one, number in zip(pictures, numbers, strict=True)]


def _hydrus(text: str) -> dict[str, Any]:
    tags, rating = read_list(text)
    row: dict[str, Any] = {category: [] for category in CATEGORIES} | {"rating": rating_letter(rating)}
    for name, category in tags:
        row[category.label].append(name)
    return row


def _text(place: str) -> str:
    """The text of a small file; raises OSError, or ValueError with the reason in words."""
    with open_binary(place) as file:
        return decoded(file.read(LONGEST + 1))


def _record(text: str) -> tuple[Kind, Any] | None:
    """The kind of post that gallery-dl wrote, and the post; None where it is none."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    record = _flat_tags(record)
    kind = kind_of(record)
    row = kind.lenient(record) if kind else None
    return None if kind is None or row is None else (kind, row)


def _flat_tags(record: dict[str, Any]) -> dict[str, Any]:
    """gallery-dl's own split of tags (`tags_general`, `tags_character`, …), where it made one, in the API's names."""
    if any(key.startswith("tag_string") for key in record):
        return record
    flat = {}
    for category in CATEGORIES:
        value = record.get(f"tags_{category}")
        if isinstance(value, list):
            value = " ".join(one for one in value if isinstance(one, str))
        if isinstance(value, str) and value:
            flat[f"tag_string_{category}"] = value
    return record | flat | ({"tag_string_general": flat.get("tag_string_general", "")} if flat else {})


def _table_of_records(records: Sequence[tuple[Kind, Any, Mapping[str, Any]]]) -> Any:
    """Posts of one kind as a table; what lies beside them is known better from the pictures."""
    table = records[0][0].table([row for _, row, _ in records])
    for name in ("path", "ext"):
        known = arrow.array([about[name] for _, _, about in records], arrow.string())
        table = table.set_column(table.schema.get_field_index(name), name, known)
    numbers = arrow.array([about["id"] for _, _, about in records], arrow.int64())
    return table.set_column(0, "id", compute.coalesce(table["id"].combine_chunks(), numbers)).cast(table.schema)


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    lists = arrow.list_(arrow.string())
    columns = {
        "id": arrow.array([row["id"] for row in rows], arrow.int64()),
        "rating": arrow.array([row.get("rating") for row in rows], arrow.string()),
        "ext": arrow.array([row["ext"] for row in rows], arrow.string()),
        "path": arrow.array([row["path"] for row in rows], arrow.string()),
    }
    columns |= {name: arrow.array([row.get(name) or [] for row in rows], lists) for name in CATEGORIES}
    return entry_table(len(rows), columns)


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower().lstrip(".")
