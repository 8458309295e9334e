"""Who said what of which picture: persons' words, and the taggings of models and imports, also earlier ones.

said_by(version, "human", None, no=False)           # pictures of which a person said anything
said_by(version, "wd-v3", [7], no=True)             # pictures that this model looked at without finding tag 7
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pyroaring import BitMap

from efuda.collection.engine.bitmaps import NOTHING, bitmap_of, numbers_of, union_of
from efuda.collection.engine.version import Version
from efuda.collection.record import rows

__all__ = ["known_sources", "said_by"]

_KINDS: Final = {"human": "person", "model": "model", "import": "import"}


def said_by(version: Version, source: str, tags: list[int] | None, no: bool) -> BitMap | None:
    """The pictures of which a source said that they have any of these tags (`no`: have not); None: no such source."""
    found = _sources(version, source)
    if not found and source not in _KINDS:
        return None
    parts = [_said(version, number, kind, tags, no) for number, kind in found]
    return union_of(parts)


def known_sources(version: Version) -> list[str]:
    """Names that `said_by` knows."""
    return [*_KINDS, *dict.fromkeys(_short(name)[1] for name in version.sources)]


def _sources(version: Version, name: str) -> list[tuple[int, str]]:
    """Number and kind of the sources that a name stands for."""
    with version.record.read() as db:
        known = rows(db, "SELECT id, kind, identity, name FROM sources")
    if name in _KINDS:
        return [(number, kind) for number, kind, _, _ in known if kind == _KINDS[name]]
    return [(number, kind) for number, kind, *names in known if name in {part for one in names for part in _short(one)}]


def _short(name: str) -> tuple[str, str]:
    """A name as it may be written: whole, or up to an "@"."""
    folded = name.casefold()
    return folded, folded.partition("@")[0]


def _said(version: Version, source: int, kind: str, tags: list[int] | None, no: bool) -> BitMap:
    said = version.sets.said.get(source, NOTHING)
    if tags is None:
        return said
    if kind == "person":
        return _words(version, source, tags, -1 if no else 1)
    found = _present(version, source, said, set(tags))
    return said - found if no else found


def _words(version: Version, source: int, tags: list[int], verdict: int) -> BitMap:
    statement = "SELECT picture FROM words WHERE tag = ? AND source = ? AND verdict = ?"
    with version.record.read() as db:
        return BitMap(number for tag in tags for (number,) in rows(db, statement, (tag, source, verdict)))


def _present(version: Version, source: int, said: BitMap, tags: set[int]) -> BitMap:
    """The pictures in whose tagging by this source any of the tags is present.

    What the latest models say is in memory; of the others each tagging is read, which takes seconds for a million.
    """
    latest = version.sets.latest.get(source, NOTHING)
    found = [
        bitmap_of(np.concatenate([segment.predicted(tag) for tag in tags])) & live & latest
        for segment, live in version.layers
    ]
    earlier = said - latest
    if earlier:
        found.append(_read(version, source, earlier, tags))
    return union_of(found)


def _read(version: Version, source: int, among: BitMap, tags: set[int]) -> BitMap:
    statement = "SELECT picture, scores FROM taggings WHERE source = ? AND NOT withdrawn"
    values: tuple[Any, ...] = (source,)
    if len(among) < 10_000:
        statement += " AND picture = ?"
    wanted = np.array(sorted(tags), dtype=np.uint32)
    found = []
    with version.record.read() as db:
        for picture in numbers_of(among).tolist() if len(among) < 10_000 else (None,):
            for number, blob in rows(db, statement, values if picture is None else (*values, picture)):
                packed = np.frombuffer(blob, dtype="<u4")
                present = packed[(packed & np.uint32(256)) != 0] >> np.uint32(9)
                if np.isin(wanted, present).any():
                    found.append(number)
    return BitMap(found) & among
