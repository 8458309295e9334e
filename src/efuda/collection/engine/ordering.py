"""A page of what was found, in the order that was asked for.

page_of(version, found, Order("width"), {}, limit=60, offset=0)         # ids
"""

from __future__ import annotations

import os
import random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.conditions import Order
from efuda.collection.engine.bitmaps import first_by, numbers_of
from efuda.collection.engine.version import Version
from efuda.collection.record import rows

__all__ = ["page_of"]

_NEWEST: Final = Order()
_OLDEST: Final = Order("id", False)


def page_of(version: Version, found: BitMap, order: Order, similar: list[int], *, limit: int, offset: int) -> list[int]:
    """The ids of one page; `similar` are the pictures that `like:` found, the nearest first."""
    total = len(found)
    if limit <= 0 or offset >= total:
        return []
    if order == _NEWEST:
        stop = total - offset
        return list(reversed(found[max(stop - limit, 0) : stop]))
    if order == _OLDEST:
        return list(found[offset : offset + limit])
    ids = numbers_of(found)
    if order.column == "random" and order.seed is None:
        return [int(ids[place]) for place in random.sample(range(total), min(limit, total))]
    keys = _keys(version, ids, order, similar)
    return [int(picture) for picture in first_by(ids, keys, offset + limit)[offset:]]


def _keys(version: Version, ids: NDArray[np.uint32], order: Order, similar: list[int]) -> NDArray[Any]:
    """A key for every picture: the largest come first."""
    match order.column:
        case "random":
            return _mixed(ids, order.seed or 0)
        case "custom":
            return _listed(ids, order.ids)
        case "like":
            return _listed(ids, similar)
        case "md5" | "path":
            keys = _text_ranks(version, ids, order.column)
        case column:
            keys = version.values(column, ids)
    return keys if order.falling else -keys


def _mixed(ids: NDArray[np.uint32], seed: int) -> NDArray[np.int64]:
    """A number for each picture that looks random and depends on nothing but its id and the seed (splitmix64)."""
    mixed = ids.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(2)).astype(np.int64)


def _listed(ids: NDArray[np.uint32], wanted: tuple[int, ...] | list[int]) -> NDArray[np.int64]:
    """Those of a list in its order, then all others."""
    keys = np.zeros(len(ids), dtype=np.int64)
    places = {picture: place for place, picture in reversed(list(enumerate(wanted)))}
    held = np.flatnonzero(np.isin(ids, np.array(list(places), dtype=np.int64)))
    keys[held] = [len(wanted) - places[picture] for picture in ids[held].tolist()]
    return keys


def _text_ranks(version: Version, ids: NDArray[np.uint32], kind: str) -> NDArray[np.int64]:
    """Where each picture's hash or least path stands among those of all; equal ones stand in one place."""
    statement = {"md5": "SELECT id, md5 FROM pictures", "path": "SELECT picture, path FROM files"}[kind]
    least: dict[int, bytes] = {}
    with version.record.read() as db:
        for picture, text in rows(db, statement):
            encoded = os.fsencode(text or b"")
            if picture not in least or encoded < least[picture]:
                least[picture] = encoded
    mine = [least.get(picture, b"") for picture in ids.tolist()]
    places = {text: place for place, text in enumerate(sorted(set(mine)))}
    return np.array([places[text] for text in mine], dtype=np.int64)
