"""An index in one file beside the collection, so that starting takes a moment: `art.efuda` has `art.efuda.index`.

    write_snapshot(path, version)           # False where it cannot be written: it can always be made again
    held = read_snapshot(path, db)          # None unless it is whole and belongs to what the tables say

    8 bytes     "efudaidx"
    4           the CRC-32 of all that follows; little-endian, as all is
    4           the length of the head
    head        JSON: format, revision, relations, the last operation, and where each array lies
    arrays      each from a multiple of 64 bytes on

A damaged file, one of another format, one that is ahead of the tables or in whose past the tables had another last
operation (a backup was restored) is as good as none.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.grouped import Grouped
from efuda.collection.engine.segments import COLUMNS, Segment
from efuda.collection.engine.sets import Sets
from efuda.collection.engine.version import Version
from efuda.collection.record import rows
from efuda.errors import OutputError
from efuda.files import replacing

__all__ = ["Snapshot", "read_snapshot", "snapshot_path", "write_snapshot"]

_FORMAT: Final = 1  # raise it whenever what is written, or what it is made from, changes its meaning
_MAGIC: Final = b"efudaidx"
_NUMBER: Final = struct.Struct("<I")
_CHECKED: Final = len(_MAGIC) + _NUMBER.size  # what is checked begins here
_HEAD: Final = _CHECKED + _NUMBER.size
_ALIGN: Final = 64
_Arrays = Mapping[str, NDArray[Any]]


class Snapshot:
    """What a file holds: revision, relations, segments and sets."""

    def __init__(self, head: dict[str, Any], arrays: _Arrays) -> None:
        self.revision, self.relations = int(head["revision"]), int(head["relations"])
        self.segments = tuple(_segment(arrays, place) for place in range(head["segments"]))
        bitmaps = _bitmaps(arrays)
        size, said, latest = head["tags"], head["said"], head["latest"]
        tags, (missing, removed), rest = bitmaps[:size], bitmaps[size : size + 2], bitmaps[size + 2 :]
        self.sets = Sets(
            tags,
            arrays["counts"],
            missing,
            removed,
            dict(zip(said, rest, strict=False)),
            dict(zip(latest, rest[len(said) :], strict=True)),
        )


def snapshot_path(collection: Path) -> Path:
    """Where the snapshot of a collection lies."""
    return collection.with_name(f"{collection.name}.index")


def write_snapshot(collection: Path, version: Version) -> bool:
    """Write what a version holds; False where that is impossible."""
    with version.record.read() as db:
        last = _last_operation(db, version.revision)
    arrays, sets = _arrays(version), version.sets
    head: dict[str, Any] = {
        "format": _FORMAT,
        "columns": list(COLUMNS),
        "revision": version.revision,
        "relations": version.relations,
        "last": last,
        "segments": len(version.segments),
        "tags": len(sets.tags),
        "said": list(sets.said),
        "latest": list(sets.latest),
        "arrays": _laid_out(arrays),
    }
    try:
        with replacing(snapshot_path(collection), durable=False) as beside:
            _write(beside, json.dumps(head).encode(), arrays)
    except OutputError:
        return False
    return True


def read_snapshot(collection: Path, db: apsw.Connection) -> Snapshot | None:
    """What the snapshot of a collection holds, if it holds for what the tables say; else None."""
    try:
        whole = snapshot_path(collection).read_bytes()
        checksum, length = _NUMBER.unpack_from(whole, len(_MAGIC))[0], _NUMBER.unpack_from(whole, _CHECKED)[0]
    except (OSError, struct.error):
        return None
    if not whole.startswith(_MAGIC) or zlib.crc32(memoryview(whole)[_CHECKED:]) != checksum:
        return None
    head = json.loads(whole[_HEAD : _HEAD + length])
    return Snapshot(head, _read(whole, head, _HEAD + length)) if _holds(head, db) else None


def _holds(head: dict[str, Any], db: apsw.Connection) -> bool:
    if (head["format"], head["columns"]) != (_FORMAT, list(COLUMNS)):
        return False
    revision, relations = (rows(db, f"SELECT value FROM state WHERE key = '{key}'")[0][0] for key in _STATE)
    same = head["relations"] == relations and head["revision"] <= revision
    return bool(same) and (head["last"] is None or head["last"] in _operations(db, head["last"][0]))


_STATE: Final = ("revision", "relations")
_OPERATION: Final = "SELECT id, at, source, kind, summary FROM operations WHERE id = "


def _operations(db: apsw.Connection, number: int) -> list[list[Any]]:
    return [list(row) for row in rows(db, f"{_OPERATION} ?", (number,))]


def _last_operation(db: apsw.Connection, revision: int) -> list[Any] | None:
    found = rows(db, f"{_OPERATION} (SELECT max(id) FROM operations)")
    return list(found[0]) if found else None


def _arrays(version: Version) -> dict[str, NDArray[Any]]:
    sets = version.sets
    kinds: Iterable[BitMap] = [*sets.tags, sets.missing, sets.removed, *sets.said.values(), *sets.latest.values()]
    blobs = [bitmap.serialize() for bitmap in kinds]
    arrays: dict[str, NDArray[Any]] = {
        "counts": sets.counts,
        "bitmaps": np.frombuffer(b"".join(blobs), dtype=np.uint8),
        "bitmap_ends": np.cumsum([len(blob) for blob in blobs], dtype=np.int64),
    }
    for place, segment in enumerate(version.segments):
        arrays[f"{place}.ids"] = segment.ids
        arrays |= {f"{place}.{name}": segment.columns[name] for name in COLUMNS}
        arrays |= _grouped_arrays(f"{place}.tags", segment.tags) | _grouped_arrays(f"{place}.scores", segment.scores)
    return arrays


def _grouped_arrays(name: str, grouped: Grouped) -> dict[str, NDArray[Any]]:
    values = {f"{name}.{place}": value for place, value in enumerate(grouped.values)}
    return {f"{name}.keys": grouped.keys, f"{name}.starts": grouped.starts, **values}


def _segment(arrays: _Arrays, place: int) -> Segment:
    columns = {name: arrays[f"{place}.{name}"] for name in COLUMNS}
    tags, scores = _grouped(arrays, f"{place}.tags", 1), _grouped(arrays, f"{place}.scores", 2)
    return Segment(arrays[f"{place}.ids"], columns, tags, scores)


def _grouped(arrays: _Arrays, name: str, values: int) -> Grouped:
    parts = tuple(arrays[f"{name}.{place}"] for place in range(values))
    return Grouped(arrays[f"{name}.keys"], arrays[f"{name}.starts"], parts)


def _bitmaps(arrays: _Arrays) -> list[BitMap]:
    ends, whole = arrays["bitmap_ends"].tolist(), arrays["bitmaps"].tobytes()
    return [BitMap.deserialize(whole[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


# The file


def _laid_out(arrays: _Arrays) -> dict[str, tuple[str, int, int]]:
    """For each array its kind, its length and where it begins, counted from the first."""
    places, at = {}, 0
    for name, array in arrays.items():
        places[name] = (array.dtype.newbyteorder("<").str, len(array), at)
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    return places


def _write(path: Path, head: bytes, arrays: _Arrays) -> None:
    head = head.ljust(-(-(_HEAD + len(head)) // _ALIGN) * _ALIGN - _HEAD)
    with path.open("wb") as file:
        file.seek(_CHECKED)
        checksum = 0
        for piece in _pieces(head, arrays):
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
        file.seek(0)
        file.write(_MAGIC + _NUMBER.pack(checksum))


def _pieces(head: bytes, arrays: _Arrays) -> Iterator[bytes]:
    yield _NUMBER.pack(len(head))
    yield head
    for array in arrays.values():
        piece = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        yield piece
        yield bytes(-len(piece) % _ALIGN)


def _read(whole: bytes, head: dict[str, Any], start: int) -> _Arrays:
    return {
        name: np.frombuffer(whole, dtype=kind, count=count, offset=start + at)
        for name, (kind, count, at) in head["arrays"].items()
    }
