"""How tags are spelled in captions, by the conventions of kohya's `tag_images_by_wd14_tagger.py`.

spelled("long_hair")                        # "long hair"
spelled("^_^")                              # "^_^"
expanded("saber_(swimsuit)_(fate)")         # ("saber_(swimsuit)", "fate")
split_tags("1girl, solo")                   # ["1girl", "solo"]
split_replacements(r"1girl,girl;:\\,),smile")  # {"1girl": "girl", ":,)": "smile"}
"""

from __future__ import annotations

import re
from typing import Final

from efuda.errors import UsageError

__all__ = ["expanded", "spelled", "split_replacements", "split_tags"]

_SHORT: Final = 3  # names of so many characters are faces: ^_^, o_o, @_@
_WORD: Final = re.compile(r"[^\W_]{2}")


def spelled(name: str) -> str:
    """With spaces for underscores, except in faces: names of three characters or fewer, or without two letters or
    digits in a row, such as `(o)_(o)` and `||_||`."""
    return name.replace("_", " ") if len(name) > _SHORT and _WORD.search(name) else name


def expanded(name: str) -> tuple[str, str] | None:
    """A character's name and the series in its last parentheses; None where there are none."""
    if not name.endswith(")") or "(" not in name:
        return None
    character, _, series = name[:-1].rpartition("(")
    character, series = character.removesuffix("_"), series.replace(")", "")
    return (character, series) if character and series else None


def split_tags(text: str, separator: str = ",") -> list[str]:
    """A list of tags as a person types it, split where captions are; spaces around a tag and empty ones count not."""
    return [tag.strip() for tag in text.split(separator.strip() or ",") if tag.strip()]


def split_replacements(text: str) -> dict[str, str]:
    r"""`source,target;source,target`, with `\,` and `\;` for a comma and a semicolon within a tag.

    Raises:
        UsageError: a part has no source or no comma, or more than one.
    """
    found: dict[str, str] = {}
    for pair in re.split(r"(?<!\\);", text):
        if not pair.strip():
            continue
        words = [re.sub(r"\\([,;])", r"\1", word).strip() for word in re.split(r"(?<!\\),", pair)]
        if len(words) != 2 or not words[0]:
            raise UsageError(
                f"--tag-replacement: {pair!r} is not source,target. Write source,target;source,target, "
                r"with \, and \; for a comma or semicolon within a tag."
            )
        found[words[0]] = words[1]
    return found
