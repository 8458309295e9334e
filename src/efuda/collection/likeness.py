"""Similar pictures: those whose vectors point the same way, found exactly among few and through a graph among many.

    likeness = Likeness(record)
    likeness.build()                                    # for a large collection; picks up what is new, and goes on
    likeness.nearest(7, count=60)                       # [(12, 0.97), (40, 0.93), …]
    likeness.nearest(7, count=60, within=bitmap)        # among what a search found
    likeness.duplicates()                               # {12: 1, …}: `duplicates.Duplicates`

Pictures are compared by the vectors of one tagger, that of which there are most. Up to `EXACT` bytes of them (125,000
of 512 numbers) are compared with all, in memory. More are found by an HNSW graph of usearch in `art.efuda.vectors`,
which is mapped, not loaded, with a byte a number; what it finds is then compared by the vectors of the record, so that
figures are exact. What came after the graph was built is compared as few are. The file may be deleted at any time: one
that is damaged, or of another collection, is passed over, and everything is compared with all until `build` has made
another.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.duplicates import Duplicates, Group
from efuda.collection.record import Record, rows
from efuda.errors import CollectionError
from efuda.files import replacing
from efuda.progress import Progress, silent
from efuda.workers import cores

__all__ = ["EXACT", "Likeness"]

EXACT: Final = 128 << 20  # bytes of vectors in memory that are compared with all: about 25 ms
_MOST: Final = 10_000  # of the nearest, that a search by similarity looks at
_AGAIN: Final = 2  # times as many are taken from the graph as are wanted: one byte a number is not exact
_SCANNED: Final = 20_000  # so few in the graph are compared with all rather than searched for
_STEP: Final = 10_000  # vectors added at a time
_SAVE_EVERY: Final = 120.0  # seconds of building that a kill may cost
_VERSION: Final = 1
_MAGIC: Final = b"efudavec"
_TAIL: Final = 512  # bytes at the end of the file that say what it holds
Ids = NDArray[np.int64]


class Likeness:
    """What resembles what in one collection; any thread may ask."""

    def __init__(self, record: Record, *, exact: int | None = None) -> None:
        """`exact`: so many vectors need no graph; as many as `EXACT` holds by default."""
        self._record, self._exact = record, exact
        self._path = record.path.with_name(record.path.name + ".vectors")
        self._lock, self._building = threading.Lock(), threading.Lock()
        self._held: _Held | None = None
        self._duplicates = Duplicates(record)

    def nearest(
        self, picture: int, *, count: int | None = 60, least: float | None = None, within: BitMap | None = None
    ) -> list[tuple[int, float]]:
        """The most similar pictures, the nearest first, without the picture itself, each with its cosine, 0 to 1.

        Args:
            count: at most so many; None for up to 10,000.
            least: only those at least so similar.
            within: only of these.

        Raises:
            CollectionError: there is no such picture, or no vector of it.
        """
        held = self._current()
        with self._record.read() as db:
            vector = _vector(db, picture, held.source)
            wanted = _MOST if count is None else min(count, _MOST)
            mask = None if within is None else np.frombuffer(within.to_array(), dtype=np.uint32).astype(np.int64)
            found = held.nearest(db, vector, wanted + 1, mask)
        pairs = [(number, alike) for number, alike in found if number != picture and (least is None or alike >= least)]
        return pairs[:wanted]

    def duplicates(self) -> dict[int, int]:
        """Of every picture that has any, how many others are the same or nearly."""
        return self._duplicates.counts()

    def groups(
        self, kind: Literal["pixels", "near"] = "pixels", *, offset: int = 0, limit: int = 50
    ) -> tuple[int, list[Group]]:
        """Groups of duplicates; see `Duplicates.groups`."""
        return self._duplicates.groups(kind, offset=offset, limit=limit)

    def build(self, progress: Progress = silent) -> int:
        """Bring the graph up to date, where there are so many vectors that one is needed and some are new.

        Killed at any moment, it goes on from what was saved, some minutes back at most.

        Returns:
            How many vectors were added to it.
        """
        with self._building:
            held = self._current()
            new = len(held.ids)
            few = EXACT // max(1, 2 * held.dimensions) if self._exact is None else self._exact
            if new <= few // 10 or new + held.graph_size <= few:
                return 0
            source, last = held.source, held.last
            index, covered = held.graph_to_extend(self._path)
            saved, done = time.monotonic(), 0
            while part := self._part(source, covered, last):
                numbers, ids, vectors = part
                _put(index, ids, vectors)
                covered, done = int(numbers[-1]), done + len(ids)
                progress("similar pictures", done, new, unit="pictures")
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._save(index, source, covered)
                    saved = time.monotonic()
            self._save(index, source, covered)
            with self._lock:
                self._held = None
            return new

    def _part(self, source: int, after: int, until: int) -> tuple[Ids, Ids, NDArray[np.float16]] | None:
        """The next vectors, read and let go of: a long build must not keep the record from tidying up."""
        with self._record.read() as db:
            return next(_vectors(db, source, after, until, _STEP), None)

    def _save(self, index: Any, source: int, covered: int) -> None:
        with self._record.read() as db:
            about = _About.of(db, source, covered, index)
        _save(self._path, index, about)

    def _current(self) -> _Held:
        """The graph and what came after it, brought to what the record holds now."""
        with self._lock, self._record.read() as db:
            last = _last(db)
            if self._held is None or self._held.last != last:
                self._held = _Held.read(db, self._path, last, self._held)
            return self._held


@dataclass(frozen=True, slots=True)
class _About:
    """What the end of the file says of its beginning."""

    version: int
    source: str
    dimensions: int
    vectors: int
    covered: int  # the last row of `embeddings` that is in it
    digest: str  # of that row
    bytes: int = 0
    xxh3: str = ""

    @classmethod
    def of(cls, db: apsw.Connection, source: int, covered: int, index: Any) -> _About:
        """Of a graph that is about to be saved."""
        return cls(
            _VERSION,
            str(db.execute("SELECT identity FROM sources WHERE id = ?", (source,)).get),
            int(index.ndim),
            len(index),
            covered,
            _digest(db, covered),
        )

    def agrees(self, db: apsw.Connection, source: int, dimensions: int) -> bool:
        """Whether it is of these vectors."""
        identity = db.execute("SELECT identity FROM sources WHERE id = ?", (source,)).get
        same = (self.version, self.source, self.dimensions) == (_VERSION, identity, dimensions)
        return same and self.digest == _digest(db, self.covered)


@dataclass(frozen=True, slots=True)
class _Held:
    """A moment: a graph, and the vectors that are not in it. Never changes.

    Attributes:
        last: the row of `embeddings` that was the last.
        source: whose vectors these are; 0 where there are none.
        graph: usearch's, or None.
        covered: the last row in the graph.
        ids, vectors: [n] and float16 [n, dimensions], of what is not.
        stale: pictures whose vector in the graph is no longer theirs.
    """

    last: int
    source: int
    dimensions: int
    graph: Any
    covered: int
    ids: Ids
    vectors: NDArray[np.float16]
    stale: Ids

    @classmethod
    def read(cls, db: apsw.Connection, path: Path, last: int, before: _Held | None) -> _Held:
        source, dimensions = _chosen(db)
        if before is not None and before.source == source and before.last <= last:
            graph, covered, known = before.graph, before.covered, before
            start = before.last
        else:
            graph, covered = _view(db, path, source, dimensions)
            known, start = None, covered
        parts = list(_vectors(db, source, start, last, _STEP)) if source else []
        ids = np.concatenate([known.ids if known else _NONE, *(one for _, one, _ in parts)])
        empty = known.vectors if known else np.zeros((0, dimensions), np.float16)
        vectors = np.concatenate([empty, *(one for _, _, one in parts)])
        # Of a picture that was looked at again, the last vector counts.
        _, newest = np.unique(ids[::-1], return_index=True)
        keep = np.sort(len(ids) - 1 - newest)
        ids, vectors = ids[keep], vectors[keep]
        stale = ids[_contains(graph, ids)] if graph else _NONE
        return cls(last, source, dimensions, graph, covered, ids, vectors, stale)

    @property
    def graph_size(self) -> int:
        return len(self.graph) if self.graph else 0

    def graph_to_extend(self, path: Path) -> tuple[Any, int]:
        """One that may be written to, and the last row that it holds."""
        index = _new_graph(self.dimensions)
        if not self.graph:
            return index, 0
        index.load(str(path))
        return index, self.covered

    def nearest(self, db: apsw.Connection, vector: NDArray[np.float16], count: int, mask: Ids | None) -> _Pairs:
        """The nearest that can be found in the collection, with their cosines."""
        wanted = count
        while True:
            candidates = np.concatenate([self._few(vector, wanted, mask), self._many(vector, wanted, mask)])
            found = _compared(db, self.source, candidates, vector)
            exhausted = len(candidates) < wanted or wanted >= _MOST
            if len(found) >= count or exhausted:
                return found[:count]
            wanted = min(_MOST, 2 * wanted)

    def _few(self, vector: NDArray[np.float16], count: int, mask: Ids | None) -> Ids:
        """Of those beside the graph, by comparing with all."""
        ids, vectors = self.ids, self.vectors
        if mask is not None:
            there = np.isin(ids, mask, kind="sort")
            ids, vectors = ids[there], vectors[there]
        return ids[_exactly(vectors, vector, count)]

    def _many(self, vector: NDArray[np.float16], count: int, mask: Ids | None) -> Ids:
        """Of those in the graph; of so few that it would find mostly others, by comparing with all of them."""
        if not self.graph:
            return _NONE
        many = _AGAIN * count + len(self.stale)
        if mask is not None:
            many = round(many * self.graph_size / max(1, len(mask)))
        if mask is None or (len(mask) > _SCANNED and many <= _MOST):
            matches = self.graph.search(vector, min(many, self.graph_size), threads=1)
            found: Ids = matches.keys.astype(np.int64)
            found = found[~np.isin(found, self.stale)]
            found = found if mask is None else found[np.isin(found, mask)]
            if mask is None or len(found) >= count:
                return found
        return self._scanned(vector, _AGAIN * count, mask)

    def _scanned(self, vector: NDArray[np.float16], count: int, mask: Ids) -> Ids:
        """The nearest of these in the graph, by comparing with all of them as the graph keeps them."""
        here = mask[_contains(self.graph, mask)]
        here = here[~np.isin(here, self.stale)]
        parts = [here[at : at + _STEP] for at in range(0, len(here), _STEP)]
        best = [part[_exactly(np.stack(self.graph.get(part.astype(np.uint64))), vector, count)] for part in parts]
        return np.concatenate([_NONE, *best])


_Pairs = list[tuple[int, float]]
_NONE: Final[Ids] = np.zeros(0, dtype=np.int64)
_THERE: Final = "NOT removed AND EXISTS (SELECT 1 FROM files WHERE files.picture = p.id AND files.missing IS NULL)"


# The record's vectors


def _last(db: apsw.Connection) -> int:
    found = db.execute("SELECT max(rowid) FROM embeddings").get
    return found if isinstance(found, int) else 0


def _chosen(db: apsw.Connection) -> tuple[int, int]:
    """The source with the most vectors, of equal ones the latest, and their dimensions."""
    counts = rows(db, "SELECT source, count(*) FROM embeddings GROUP BY source")
    if not counts:
        return 0, 0
    source = max(counts, key=lambda row: (row[1], row[0]))[0]
    size = db.execute(
        "SELECT length(vector) FROM embeddings WHERE source = ? ORDER BY rowid DESC LIMIT 1", (source,)
    ).get
    assert isinstance(size, int)
    return source, size // 2


def _contains(graph: Any, ids: Ids) -> NDArray[np.bool_]:
    return np.asarray(graph.contains(ids.astype(np.uint64)), np.bool_) if len(ids) else np.zeros(0, np.bool_)


def _put(index: Any, ids: Ids, vectors: NDArray[np.float16]) -> None:
    """Add vectors, in place of those that the pictures had."""
    known = ids[_contains(index, ids)]
    if len(known):
        index.remove(known.astype(np.uint64))
    index.add(ids.astype(np.uint64), vectors, threads=cores())


def _digest(db: apsw.Connection, row: int) -> str:
    """Of one row: another collection, or one that was restored, has another there."""
    import xxhash

    found = db.execute("SELECT picture, vector FROM embeddings WHERE rowid = ?", (row,)).fetchone()
    return "" if found is None else xxhash.xxh3_128(b"%d " % found[0] + found[1]).hexdigest()


def _vectors(
    db: apsw.Connection, source: int, after: int, until: int, step: int
) -> Iterator[tuple[Ids, Ids, NDArray[np.float16]]]:
    """Row numbers, pictures and vectors in the order of the rows, `step` at a time."""
    while found := rows(db, _SOME, (source, after, until, step)):
        after = found[-1][0]
        vectors = np.frombuffer(b"".join(row[2] for row in found), "<f2").reshape(len(found), -1)
        yield np.array([row[0] for row in found]), np.array([row[1] for row in found]), vectors.astype(np.float16)


_SOME: Final = """
SELECT rowid, picture, vector FROM embeddings WHERE source = ? AND rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?
"""


def _vector(db: apsw.Connection, picture: int, source: int) -> NDArray[np.float16]:
    stored = db.execute("SELECT vector FROM embeddings WHERE picture = ? AND source = ?", (picture, source)).get
    if stored is None:
        if db.execute("SELECT 1 FROM pictures WHERE id = ?", (picture,)).get is None:
            raise CollectionError(f"There is no picture {picture} in the collection. Search for those that are there.")
        raise CollectionError(
            f"Picture {picture} cannot be compared: the collection has no vector of it. Tag it once more with: "
            "efuda collection add"
        )
    return np.frombuffer(stored, "<f2").astype(np.float16)


def _compared(db: apsw.Connection, source: int, ids: Ids, vector: NDArray[np.float16]) -> _Pairs:
    """Those that can be found, with their exact cosines, the nearest first, of equal ones the newest."""
    found: list[tuple[int, bytes]] = []
    wanted = ids.tolist()
    for at in range(0, len(wanted), 500):
        some = wanted[at : at + 500]
        marks = ",".join("?" * len(some))
        found += rows(
            db,
            f"SELECT p.id, vector FROM embeddings JOIN pictures p ON p.id = picture "
            f"WHERE embeddings.source = ? AND picture IN ({marks}) AND {_THERE}",
            (source, *some),
        )
    if not found:
        return []
    vectors = np.frombuffer(b"".join(one for _, one in found), "<f2").reshape(len(found), -1).astype(np.float32)
    alike = vectors @ vector.astype(np.float32)
    numbers = np.array([number for number, _ in found])
    order = np.lexsort((-numbers, -alike))
    return list(zip(numbers[order].tolist(), np.clip(alike[order], 0, 1).tolist(), strict=True))


def _exactly(vectors: NDArray[Any], vector: NDArray[np.float16], count: int) -> NDArray[np.int64]:
    """The rows of the nearest, by comparing with all; of bytes, as the graph keeps them, about."""
    if not len(vectors):
        return np.zeros(0, dtype=np.int64)
    if vectors.dtype == np.int8:
        products = np.asarray(vectors, np.float32) @ vector.astype(np.float32)
        return np.argpartition(-products, min(count, len(products) - 1))[:count].astype(np.int64)
    from usearch.compiled import MetricKind
    from usearch.index import search

    matches = search(vectors, vector, min(count, len(vectors)), MetricKind.Cos, exact=True, threads=1)
    return np.asarray(matches.keys, dtype=np.int64)


# The file


def _new_graph(dimensions: int) -> Any:
    from usearch.index import Index

    return Index(ndim=dimensions, metric="cos", dtype="i8", connectivity=16, expansion_add=128, expansion_search=1024)


def _save(path: Path, index: Any, about: _About) -> None:
    """The graph, then what it is, in one file."""
    with replacing(path, durable=False) as beside:
        index.save(str(beside))
        size, digest = beside.stat().st_size, _checksum(beside, beside.stat().st_size)
        said = asdict(about) | {"bytes": size, "xxh3": digest}
        with beside.open("ab") as file:
            file.write((_MAGIC + json.dumps(said).encode()).ljust(_TAIL))


def _view(db: apsw.Connection, path: Path, source: int, dimensions: int) -> tuple[Any, int]:
    """The graph, mapped, and the last row that it holds; none where the file is not sound or not of this record."""
    about = _said(path)
    if about is None or not source or not about.agrees(db, source, dimensions):
        return None, 0
    graph = _new_graph(dimensions)
    try:
        graph.view(str(path))
    except RuntimeError:
        return None, 0
    return graph, about.covered


def _said(path: Path) -> _About | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
        if not tail.startswith(_MAGIC):
            return None
        about = _About(**json.loads(tail[len(_MAGIC) :]))
        sound = about.bytes == size - _TAIL and about.xxh3 == _checksum(path, about.bytes)
    except (OSError, ValueError, TypeError):
        return None
    return about if sound else None


def _checksum(path: Path, size: int) -> str:
    """Of the beginning: read, for a graph that is damaged would lead astray in memory."""
    import xxhash

    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 22))):
            state.update(block)
            size -= len(block)
    return state.hexdigest()
