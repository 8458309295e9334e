"""The tag lists of all families: any of their files in, a vocabulary in output order or one `ArtifactError` out.

Names come out in Danbooru's spelling, with underscores; ratings as general, sensitive, questionable and explicit where
the family means these (the older "safe", which is two of them, stays); what Danbooru has no category for becomes meta.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError
from efuda.vocabulary import Category, Tag, Vocabulary

__all__ = [
    "best_thresholds",
    "category_thresholds",
    "read_camie",
    "read_class_json",
    "read_deepdanbooru",
    "read_json",
    "read_selected_tags",
    "read_tag_mapping",
    "read_top_tags",
    "read_vocabulary_json",
    "spelled",
]

_CATEGORIES: Final = {
    **{category.label: category for category in Category},
    **dict.fromkeys(("model", "quality", "year", "system", "metadata"), Category.META),
}
# Camie's year has the number 10 in the ONNX copies; the others are Danbooru's.
_NUMBERS: Final = {**{int(category): category for category in Category}, 10: Category.META}


def spelled(name: str, category: Category = Category.GENERAL) -> str:
    """A name as Danbooru writes it: "Rating: General" as a rating is general, "long hair" is long_hair."""
    joined = "_".join(name.split())
    if category is Category.RATING:
        joined = joined.lower().removeprefix("rating").lstrip(":_") or joined
    return joined


def read_selected_tags(path: Path, categories: Path | None = None) -> Vocabulary:
    """`selected_tags.csv` of WD and animetimm.

    Args:
        categories: animetimm's `categories.json`, which names the numbers.

    Raises:
        ArtifactError: naming the file and the line.
    """
    numbers = dict(_NUMBERS)
    if categories is not None:
        for entry in _list(categories, read_json(categories)):
            if not isinstance(entry, dict) or not isinstance(entry.get("category"), int):
                raise _bad(categories, 'an entry is not {"category": number, "name": text}')
            numbers[entry["category"]] = _category(entry.get("name"), categories)

    def numbered(text: str) -> Category:
        try:
            return numbers[int(text)]
        except KeyError:
            raise ValueError(f"{text} is not a category; known are {', '.join(map(str, sorted(numbers)))}") from None

    found = Vocabulary.read_csv(path, category=numbered)
    return _vocabulary(path, ((tag.name, tag.category, tag.count) for tag in found))


def best_thresholds(path: Path) -> NDArray[np.float32]:
    """float32 [tags] of the column `best_threshold`; NaN where there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return np.array([_share(row.get("best_threshold")) for row in csv.DictReader(file)], dtype=np.float32)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path}: the tag list cannot be read ({error}).") from error


def category_thresholds(path: Path) -> dict[Category, float]:
    """animetimm's `thresholds.csv`: category → its threshold, for the alpha nearest to 1 (precision as recall)."""
    nearest: dict[Category, tuple[float, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                alpha, threshold = _share(row.get("alpha")), _share(row.get("threshold"))
                category = _CATEGORIES.get(str(row.get("name")).lower())
                off = 0.0 if math.isnan(alpha) else abs(alpha - 1)
                if category is not None and not math.isnan(threshold) and off < nearest.get(category, (math.inf,))[0]:
                    nearest[category] = off, threshold
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Fetch the model again.") from error
    return {category: threshold for category, (_, threshold) in nearest.items()}


def read_tag_mapping(path: Path) -> Vocabulary:
    """`tag_mapping.json` of cl_tagger v1: {"0": {"tag": …, "category": …}, …}, or the keys of v2."""
    loaded = _dict(path, read_json(path))
    if "idx_to_tag" in loaded:
        return read_vocabulary_json(path)
    entries = {key: _dict(path, value) for key, value in loaded.items()}
    names = _in_order(path, {key: value.get("tag") for key, value in entries.items()})
    by_number = {_index(path, key): value.get("category") for key, value in entries.items()}
    return _vocabulary(path, ((name, _category(by_number[row], path), 0) for row, name in enumerate(names)))


def read_vocabulary_json(path: Path) -> Vocabulary:
    """`model_vocabulary.json` of cl_tagger v2: {"idx_to_tag": …, "tag_to_category": …}."""
    return _indexed(path, _dict(path, read_json(path)))


def read_camie(path: Path) -> tuple[Vocabulary, int]:
    """`camie-tagger-v2-metadata.json`: its tags, and the side of its input."""
    loaded = _dict(path, read_json(path))
    mapping = _dict(path, _dict(path, loaded.get("dataset_info")).get("tag_mapping"))
    side = _dict(path, loaded.get("model_info", {})).get("img_size", 512)
    if not isinstance(side, int) or not 16 <= side <= 4096:
        raise _bad(path, f"model_info.img_size is {side!r}")
    return _indexed(path, mapping), side


def read_top_tags(path: Path) -> Vocabulary:
    """JoyTag's `top_tags.txt`: one a line, without categories."""
    return _vocabulary(path, ((name, Category.GENERAL, 0) for name in _lines(path)))


def read_deepdanbooru(path: Path, categories: Path | None, characters: Path | None) -> Vocabulary:
    """DeepDanbooru's `tags.txt`, one a line; `categories.json` says where each category begins.

    Args:
        characters: `tags-character.txt`, used where there is no `categories.json`.
    """
    names = _lines(path)
    known = set(_lines(characters)) if characters is not None and categories is None else set()
    kinds = [Category.CHARACTER if name in known else Category.GENERAL for name in names]
    if categories is not None:
        for entry in _list(categories, read_json(categories)):
            start = entry.get("start_index") if isinstance(entry, dict) else None
            if not isinstance(start, int) or not 0 <= start <= len(names):
                raise _bad(categories, 'an entry is not {"name": text, "start_index": number of a tag}')
            kinds[start:] = [_category(entry.get("name"), categories)] * (len(names) - start)
    rated = (Category.RATING if name.startswith("rating:") else kind for name, kind in zip(names, kinds, strict=True))
    return _vocabulary(path, ((name, kind, 0) for name, kind in zip(names, rated, strict=True)))


def read_class_json(path: Path) -> Vocabulary:
    """ML-Danbooru's `class.json`: a list, or {"0": name, …}, without categories."""
    loaded = read_json(path)
    names = loaded if isinstance(loaded, list) else _in_order(path, _dict(path, loaded))
    return _vocabulary(path, ((name, Category.GENERAL, 0) for name in names))


def read_json(path: Path) -> Any:
    """What a JSON file holds; ArtifactError where it holds none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"{path} cannot be read ({why}). Fetch or copy the model again.") from error


def _indexed(path: Path, mapping: Mapping[str, Any]) -> Vocabulary:
    listed = mapping.get("idx_to_tag")
    names = listed if isinstance(listed, list) else _in_order(path, _dict(path, listed))
    categories = _dict(path, mapping.get("tag_to_category"))
    return _vocabulary(path, ((name, _category(categories.get(str(name)), path), 0) for name in names))


def _in_order(path: Path, names: Mapping[str, Any]) -> list[Any]:
    by_number = {_index(path, key): name for key, name in names.items()}
    for wanted, found in enumerate(sorted(by_number)):
        if wanted != found:
            raise _bad(path, f"it names no tag for output {wanted}, but one for output {found}")
    return [by_number[row] for row in range(len(by_number))]


def _index(path: Path, key: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise _bad(path, f"{key[:40]!r} is not the number of an output") from None


def _vocabulary(path: Path, tags: Iterable[tuple[Any, Category, int]]) -> Vocabulary:
    listed = []
    for row, (name, category, count) in enumerate(tags):
        if not isinstance(name, str) or not name.strip():
            raise _bad(path, f"the tag of output {row} has no name")
        listed.append(Tag(spelled(name, category), category, count))
    if not listed:
        raise _bad(path, "it names no tags")
    return Vocabulary(listed)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: the tag list cannot be read ({error}).") from error


def _category(name: Any, path: Path) -> Category:
    found = _CATEGORIES.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise _bad(path, f"{name!r} is not a category; known are {', '.join(_CATEGORIES)}")
    return found


def _share(text: str | None) -> float:
    try:
        value = float(text) if text else math.nan
    except (ValueError, TypeError):
        return math.nan
    return value if 0 <= value <= 1 else math.nan


def _dict(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, "a table is expected where there is something else")
    return value


def _list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(path, "a list is expected where there is something else")
    return value


def _bad(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path}: the tag list makes no sense: {why}. Fetch or copy the model again.")
