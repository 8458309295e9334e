"""Tags in text that lies beside pictures: captions, and Hydrus' lists with namespaces.

    read_caption("1girl, long hair, blue eyes")            # ["1girl", "long_hair", "blue_eyes"]
    read_list("character:hatsune miku\nrating:safe")       # [("hatsune_miku", Category.CHARACTER)], "safe"

A caption with a comma is comma separated; else one with several lines is a tag a line; else words are separated by
spaces. Each is judged alone, so one whose only tag is written `long hair` says two. Spaces within a tag become
underscores, `\\(` and `\\)` lose their backslash; weights such as `(tag:1.2)` stay part of the name.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from efuda.vocabulary import Category

__all__ = ["LONGEST", "decoded", "read_caption", "read_list", "spelled_as_tag", "with_category"]

LONGEST: Final = 16 << 20  # bytes of a file that are read
_NAMESPACES: Final = {
    "character": Category.CHARACTER,
    "series": Category.COPYRIGHT,
    "copyright": Category.COPYRIGHT,
    "creator": Category.ARTIST,
    "artist": Category.ARTIST,
    "meta": Category.META,
}
_NOT_TAGS: Final = frozenset(  # what Hydrus says of a file in the same list
    {"title", "page", "chapter", "volume", "source", "url", "filename", "date", "uploader", "pool", "note", "site"}
)
_ESCAPED: Final = re.compile(r"\\([()\[\]\\])")


def read_caption(text: str) -> list[str]:
    """The tags of a caption file, in Danbooru's spelling; none where it is empty."""
    text = text.strip()
    if "," in text:
        words = text.replace("\n", ",").split(",")
    elif "\n" in text:
        words = text.split("\n")
    else:
        words = text.split()
    return [tag for word in words if (tag := spelled_as_tag(word))]


def read_list(text: str) -> tuple[list[tuple[str, Category]], str]:
    """The tags of a Hydrus sidecar, a tag a line, and what it says of the rating, "" for nothing."""
    tags, rating = list[tuple[str, Category]](), ""
    for line in text.split("\n"):
        namespace, colon, name = line.strip().partition(":")
        if colon and namespace in _NOT_TAGS:
            continue
        if colon and namespace in ("rating", "booru rating"):
            rating = name
        elif line.strip():
            tags.append(with_category(line))
    return tags, rating


def with_category(text: str) -> tuple[str, Category]:
    """A tag as it is written, with the category that a namespace in front says: `character:`, `series:`, …"""
    namespace, colon, name = text.strip().partition(":")
    if colon and namespace in _NAMESPACES and name.strip():
        return spelled_as_tag(name.lstrip(" _")), _NAMESPACES[namespace]
    return spelled_as_tag(text), Category.GENERAL


def spelled_as_tag(word: str) -> str:
    """With underscores for spaces, and parentheses without backslashes."""
    return re.sub(r"\s+", "_", _ESCAPED.sub(r"\1", word.strip()))


def decoded(data: bytes) -> str:
    """The text of a file's bytes; raises ValueError with the reason in words."""
    if len(data) > LONGEST:
        raise ValueError(f"longer than {LONGEST:,} bytes")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Windows' editor may write it
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not valid UTF-8") from error
