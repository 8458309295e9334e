"""Many short texts in one piece of memory, searched by one regular expression: paths and sources of pictures.

    texts = Texts.of([7, 9], ["/art/Hat.png", "/photos/9.jpg"])
    texts.containing("hat")                     # array([7])
    texts.matching("/art/*.png")                # array([7]); the whole of it
    texts.beginning("pixiv.net/*")              # a scheme and "www." may be left out

Texts are casefolded here unless told otherwise; what is looked for is for those who ask to fold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.collection.engine.bitmaps import sorted_once

__all__ = ["Texts"]

_SCHEME: Final = rb"(?:(?>[^\0]*?://)(?:www\.)?)?"


@dataclass(frozen=True, eq=False)
class Texts:
    """The texts with a NUL before, between and after them; `starts` says where each begins, `ids` whose it is."""

    buffer: bytes
    starts: NDArray[np.int64]
    ids: NDArray[np.uint32]

    @classmethod
    def of(cls, ids: Sequence[int], texts: Sequence[str], *, fold: bool = True) -> Self:
        """These texts; with `fold`, case makes no difference."""
        whole = "\0".join(texts)
        if whole.count("\0") >= max(len(texts), 1):  # one has a NUL in it
            whole = "\0".join(text.replace("\0", "\x01") for text in texts)
        buffer = b"\0" + (whole.casefold() if fold else whole).encode("utf-8", "surrogatepass") + b"\0"
        starts = np.flatnonzero(np.frombuffer(buffer, dtype=np.uint8) == 0)[:-1] + 1
        return cls(buffer, starts[: len(ids)], np.array(ids, dtype=np.uint32))

    def containing(self, text: str) -> NDArray[np.uint32]:
        """Whose text has this somewhere in it."""
        return self._found(re.escape(_encoded(text)))

    def matching(self, pattern: str) -> NDArray[np.uint32]:
        """Whose whole text this is, `*` standing for any characters."""
        return self._found(rb"\0" + _pattern(pattern, rb"[^\0]", whole=True) + rb"(?=\0)")

    def beginning(self, pattern: str) -> NDArray[np.uint32]:
        """Whose text, or what follows its scheme or the "www." after that, begins so."""
        return self._found(rb"\0" + _SCHEME + _pattern(pattern, rb"[^\0]", whole=False))

    def _found(self, pattern: bytes) -> NDArray[np.uint32]:
        if not len(self.ids):
            return self.ids
        places = np.fromiter((match.end() for match in re.finditer(pattern, self.buffer, re.DOTALL)), dtype=np.int64)
        # A match ends inside its text or right behind it.
        return sorted_once(self.ids[np.searchsorted(self.starts, places, side="right") - 1])


def _pattern(pattern: str, anything: bytes = b".", *, whole: bool) -> bytes:
    """A regular expression for a text with `*` in it.

    Each part between stars is taken where it first occurs, for good: no pattern can take exponential time.
    """
    first, *others = (re.escape(_encoded(part)) for part in pattern.split("*"))
    if not others:
        return first
    *middle, last = others
    steps = b"".join(rb"(?>" + anything + rb"*?" + part + rb")" for part in middle if part)
    return first + steps + (anything + rb"*" if whole else anything + rb"*?") + last


def _encoded(text: str) -> bytes:
    """UTF-8, also of the surrogates that stand for bytes of file names that are not; NUL is ours."""
    return text.encode("utf-8", "surrogatepass").replace(b"\0", b"\x01")
