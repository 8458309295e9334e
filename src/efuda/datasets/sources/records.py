"""Posts as JSON records, of three kinds, to columns: Danbooru 2021 and its API, Danbooru 2017–2020, Gelbooru.

A `Kind` decodes a block of lines in one call; where a line is at fault, line by line, so that the others are kept. Each
field is forgiving on its own: a number may be a string, and a value that makes no sense is null, not the end of a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

from efuda.datasets.entries import CATEGORIES, entry_table, split_words

__all__ = ["API", "GELBOORU", "KINDS", "OLD", "RATINGS", "Kind", "kind_of", "rating_letter"]

_NUMBERS: Final = {0: 0, 1: 1, 3: 2, 4: 3, 5: 4}  # Danbooru's category → its place in CATEGORIES
_CODES: Final[dict[Any, int]] = {**_NUMBERS, **{str(number): code for number, code in _NUMBERS.items()}}
RATINGS: Final = {
    **{letter: letter for letter in "gsqe"},
    "general": "g",
    "safe": "s",
    "sensitive": "s",
    "questionable": "q",
    "explicit": "e",
}
_NEVER: Final = "1970-01-01 00:00:00 UTC"
_INT64: Final = 2**63 - 1
_OF_A_TAG: Final = frozenset({"name", "category"})  # part of a broken post, or a list of tags
_TAG_FIELDS: Final = frozenset({"tags", "tag_string", *(f"tag_string_{name}" for name in CATEGORIES)})
_HALVES: Final = re.compile("[\ud800-\udfff]")  # of a character that JSON may name alone, and Arrow refuses
_WHOLE: Final = re.compile(r"[+-]?\d{1,19}(\.0*)?")


class _Api(msgspec.Struct, gc=False):
    id: int | None = None
    parent_id: int | None = None
    rating: str | None = None
    is_deleted: bool | None = None
    is_banned: bool | None = None
    md5: str | None = None
    file_ext: str | None = None
    score: int | None = None
    created_at: str | None = None
    updated_at: str | None = None
    tag_string: str | None = None
    tag_string_general: str | None = None
    tag_string_artist: str | None = None
    tag_string_copyright: str | None = None
    tag_string_character: str | None = None
    tag_string_meta: str | None = None


class _OldTag(msgspec.Struct, gc=False):
    name: str | None = None
    category: str | int | None = None


class _Old(msgspec.Struct, gc=False):
    id: str | int | None = None
    parent_id: str | int | None = None
    rating: str | None = None
    is_deleted: bool | None = None
    is_banned: bool | None = None
    md5: str | None = None
    file_ext: str | None = None
    score: str | int | None = None
    created_at: str | None = None
    updated_at: str | None = None
    tags: list[_OldTag] | None = None


class _Gelbooru(msgspec.Struct, gc=False):
    id: int | None = None
    parent_id: int | None = None
    rating: str | None = None
    status: str | None = None
    hash: str | None = None
    md5: str | None = None
    image: str | None = None
    file_url: str | None = None
    score: int | None = None
    created_at: str | int | None = None
    change: str | int | None = None
    tags: str | None = None


class _Brief(msgspec.Struct, gc=False):
    """What sampling asks of a record of any kind, and `name`, which no post has."""

    id: int | None = None
    parent_id: int | None = None
    name: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_BRIEF: Final = msgspec.json.Decoder(_Brief, strict=False)


@dataclass(frozen=True, slots=True)
class Kind:
    """One shape of record; `marks` are fields of which a record of this kind has at least one."""

    name: str
    struct: type[msgspec.Struct]
    marks: frozenset[str]
    columns: Callable[[Sequence[Any]], Mapping[str, Any]]

    def table(self, rows: Sequence[Any]) -> Any:
        """Decoded rows as a table `ENTRY`."""
        return entry_table(len(rows), dict(self.columns(rows)))

    def brief(self, text: memoryview, lines: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Ids and parents of so many lines, 0 for no parent; None where not each of them plainly is a post."""
        try:
            rows = _BRIEF.decode_lines(text)
            ids = np.array([row.id for row in rows], np.int64)
            parents = np.array([row.parent_id or 0 for row in rows], np.int64)
            if np.frombuffer(text, np.uint8).max(initial=0) > 127:  # nobody else asks whether what is skipped is sound
                str(text, "utf-8")
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        plain = len(rows) == lines and (ids > 0).all() and all(row.name is msgspec.UNSET for row in rows)
        return (ids, np.maximum(parents, 0)) if plain else None

    def has_tags(self, row: Any) -> bool:
        """Whether a row has any field of tags, empty or not."""
        return any(getattr(row, name, None) is not None for name in ("tags", "tag_string", "tag_string_general"))

    def sound(self, row: Any) -> bool:
        """Whether Arrow can hold its strings: JSON may name half a character."""
        try:
            msgspec.json.encode(row)
        except UnicodeError:
            return False
        return True

    def lenient(self, record: Mapping[str, Any]) -> Any | None:
        """A row of a record that the strict decoder refused; None where it is no post."""
        if not self.marks & record.keys() or (record.keys() >= _OF_A_TAG and not record.keys() & _TAG_FIELDS):
            return None
        values = {}
        for field in msgspec.structs.fields(self.struct):
            try:
                values[field.name] = msgspec.convert(_mended(record.get(field.name), field.type), field.type)
            except (msgspec.ValidationError, ValueError, OverflowError):
                values[field.name] = None
        return self.struct(**values)


def kind_of(record: Mapping[str, Any]) -> Kind | None:
    """Which kind a record is of, judged by its fields; None where it is no post."""
    if any(key.startswith("tag_string") for key in record):  # gallery-dl adds a list `tags` to these
        return API
    if isinstance(record.get("tags"), list):
        return OLD
    return GELBOORU if isinstance(record.get("tags"), str) else None


def _mended(value: Any, wanted: Any) -> Any:
    """A value in the type that its field has, where it says the same."""
    text = str(wanted)
    if "list" in text:
        return None if value is None else [tag for one in _several(value) if (tag := _named(one)) is not None]
    if isinstance(value, bool) or value is None:
        return value if "bool" in text else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, list) and "str" in text and all(isinstance(one, str) for one in value):
        value = " ".join(value)
    if isinstance(value, str):
        whole = "int" in text and "str" not in text and _WHOLE.fullmatch(value.strip())
        return int(value.strip().partition(".")[0]) if whole else _HALVES.sub("\ufffd", value)
    if "str" in text and isinstance(value, (int, float)):
        return value if "int" in text and isinstance(value, int) else str(value)
    return value


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _named(tag: Any) -> dict[str, str] | None:
    """A tag of the old dumps; a bare name is a general one."""
    if isinstance(tag, str):
        tag = {"name": tag}
    if not isinstance(tag, dict) or not isinstance(tag.get("name"), str):
        return None
    return {"name": _HALVES.sub("\ufffd", tag["name"]), "category": _HALVES.sub("", str(tag.get("category", "0")))}


def _api_columns(rows: Sequence[_Api]) -> Mapping[str, Any]:
    columns = {
        "id": _positive([row.id for row in rows]),
        "parent_id": _positive([row.parent_id for row in rows]),
        **_danbooru_columns(rows),
        "score": _integers([row.score for row in rows]),
        "created": arrow.array([row.created_at for row in rows], arrow.string()),
        "updated": arrow.array([row.updated_at for row in rows], arrow.string()),
    }
    tags = {
        "general": [row.tag_string_general for row in rows],
        "artist": [row.tag_string_artist for row in rows],
        "copyright": [row.tag_string_copyright for row in rows],
        "character": [row.tag_string_character for row in rows],
        "meta": [row.tag_string_meta for row in rows],
    }
    if None in tags["general"]:  # a record that says only tag_string: what its categories do not name is general
        tags["general"] = [row.tag_string_general if row.tag_string_general is not None else _rest(row) for row in rows]
    for category, strings in tags.items():
        columns[category] = split_words(arrow.array(strings, arrow.string()))
    return columns


def _danbooru_columns(rows: Sequence[_Api] | Sequence[_Old]) -> Mapping[str, Any]:
    """What both generations write alike."""
    return {
        "rating": _ratings([row.rating for row in rows]),
        "deleted": arrow.array([row.is_deleted for row in rows], arrow.bool_()),
        "banned": arrow.array([row.is_banned for row in rows], arrow.bool_()),
        "md5": arrow.array([row.md5 for row in rows], arrow.string()),
        "ext": _endings([row.file_ext for row in rows]),
    }


def _rest(row: _Api) -> str | None:
    if row.tag_string is None:
        return None
    if not any((row.tag_string_artist, row.tag_string_copyright, row.tag_string_character, row.tag_string_meta)):
        return row.tag_string
    named = {word for name in CATEGORIES[1:] for word in (getattr(row, f"tag_string_{name}") or "").split(" ")}
    return " ".join(word for word in row.tag_string.split(" ") if word not in named)


def _old_columns(rows: Sequence[_Old]) -> Mapping[str, Any]:
    columns = {
        "id": _positive([_integer(row.id) for row in rows]),
        "parent_id": _positive([_integer(row.parent_id) for row in rows]),
        **_danbooru_columns(rows),
        "score": _integers([_integer(row.score) for row in rows]),
        "created": arrow.array([_time(row.created_at) for row in rows], arrow.string()),
        "updated": arrow.array([_time(row.updated_at) for row in rows], arrow.string()),
    }
    return columns | _old_tags(rows)


def _old_tags(rows: Sequence[_Old]) -> dict[str, Any]:
    """The tags of each category as lists; those of an unknown category are general."""
    several = [row.tags or () for row in rows]
    names = arrow.array([tag.name for tags in several for tag in tags], arrow.string())
    codes = np.array([_CODES.get(tag.category, 0) for tags in several for tag in tags], np.int8)
    codes[compute.fill_null(compute.equal(names, ""), True).to_numpy(zero_copy_only=False)] = -1
    row_of = np.repeat(np.arange(len(rows)), [len(tags) for tags in several])
    none = arrow.array([row.tags is None for row in rows], arrow.bool_())
    columns = {}
    for code, category in enumerate(CATEGORIES):
        these = codes == code
        counts = np.bincount(row_of[these], minlength=len(rows))
        starts = arrow.array(np.concatenate(([0], np.cumsum(counts))), arrow.int32())
        columns[category] = arrow.ListArray.from_arrays(starts, names.filter(arrow.array(these)), mask=none)
    return columns


def _gelbooru_columns(rows: Sequence[_Gelbooru]) -> Mapping[str, Any]:
    names = [row.image or row.file_url or "" for row in rows]
    return {
        "id": _positive([row.id for row in rows]),
        "parent_id": _positive([row.parent_id for row in rows]),
        "rating": _ratings([row.rating for row in rows]),
        "deleted": arrow.array([row.status == "deleted" for row in rows], arrow.bool_()),
        "md5": arrow.array([row.md5 or row.hash for row in rows], arrow.string()),
        "ext": arrow.array([_ending(name) for name in names], arrow.string()),
        "score": _integers([row.score for row in rows]),
        "created": arrow.array([_written(row.created_at) for row in rows], arrow.string()),
        "updated": arrow.array([_written(row.change) for row in rows], arrow.string()),
        "general": split_words(arrow.array([row.tags for row in rows], arrow.string())),
    }


def _positive(numbers: Sequence[int | None]) -> Any:
    """Numbers that can be an id; everything else is null."""
    return arrow.array([n if n is not None and 0 < n <= _INT64 else None for n in numbers], arrow.int64())


def _integers(numbers: Sequence[int | None]) -> Any:
    try:
        return arrow.array(numbers, arrow.int64())
    except (OverflowError, arrow.ArrowInvalid):
        return arrow.array([n if n is not None and abs(n) <= _INT64 else None for n in numbers], arrow.int64())


def _integer(written: str | int | None) -> int | None:
    if isinstance(written, str):
        return int(written.partition(".")[0]) if _WHOLE.fullmatch(written) else None
    return written


def _ratings(written: Sequence[str | None]) -> Any:
    letters = {one: rating_letter(one) for one in set(written)}
    return arrow.array([letters[one] for one in written], arrow.string())


def rating_letter(written: str | None) -> str | None:
    """g, s, q or e, for a letter or a word of any site; None where it is neither."""
    return RATINGS.get(written.strip().lower()) if written else None


def _endings(written: Sequence[str | None]) -> Any:
    """Kinds of file in lower case and without a dot; few differ."""
    plain = {one: one.lower().lstrip(".") or None if one else None for one in set(written)}
    return arrow.array([plain[one] for one in written], arrow.string())


def _time(text: str | None) -> str | None:
    return None if text is None or text == _NEVER else text


def _written(value: str | int | None) -> str | None:
    """Unix seconds as they are; Gelbooru's "Sat Sep 13 11:30:22 -0500 2025" as ISO 8601."""
    if not isinstance(value, str) or not value[:1].isalpha():
        return None if value is None else str(value)
    try:
        return datetime.strptime(value, "%a %b %d %H:%M:%S %z %Y").isoformat()
    except ValueError:
        return value


def _ending(name: str) -> str | None:
    ending = name.partition("?")[0].rpartition(".")[2].lower()
    return ending if 0 < len(ending) <= 4 else None


API: Final = Kind(
    "Danbooru 2021",
    _Api,
    frozenset({"id", "rating", "md5"} | (_TAG_FIELDS - {"tags"})),
    _api_columns,
)
OLD: Final = Kind("Danbooru 2017–2020", _Old, frozenset({"id", "rating", "md5", "tags"}), _old_columns)
GELBOORU: Final = Kind("Gelbooru", _Gelbooru, frozenset({"id", "rating", "md5", "hash", "tags"}), _gelbooru_columns)
KINDS: Final = {kind.name: kind for kind in (API, OLD, GELBOORU)}
