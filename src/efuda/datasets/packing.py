"""Open each picture completely, check it, hash it, and keep it in place or pack a smaller copy in a shard.

The work is cut in chunks of `CHUNK` pictures. A chunk is one tar shard (names as WebDataset has them: `<id>.jpg`) and
one small Parquet file that says what became of each picture, written last: a killed job goes on at the first chunk that
lacks it, and a chunk whose files did not change is not decoded again. A worker returns a chunk, the parent writes it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from efuda.errors import ImageError
from efuda.files import make_folder, replacing
from efuda.images import examine, is_single_colour, is_small_jpeg, phash, read_rgb
from efuda.places import join, read_bytes
from efuda.progress import Progress, silent
from efuda.recipes import ImagesRecipe
from efuda.workers import Workers

__all__ = ["CHUNK", "PACKED", "Known", "pack", "read_known"]

CHUNK: Final = 500
MAX_BYTES: Final = 1 << 30
PACKED: Final[Any] = arrow.schema(
    [
        ("id", arrow.int64()),
        ("path", arrow.string()),
        ("reason", arrow.string()),
        ("width", arrow.int32()),
        ("height", arrow.int32()),
        ("md5", arrow.string()),
        ("phash", arrow.uint64()),
        ("shard", arrow.int32()),
        ("offset", arrow.int64()),
        ("length", arrow.int64()),
    ]
)
_STORED: Final[Any] = PACKED.append(arrow.field("size", arrow.int64())).append(arrow.field("stamp", arrow.string()))
_KEY: Final = b"efuda"
_EMPTY: Final = {"width": 0, "height": 0, "md5": "", "phash": 0, "shard": -1, "offset": 0, "length": 0}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """Pictures of an earlier dataset.

    Attributes:
        recipe: the keys by which they were judged, as JSON.
        rows: what became of each, as its shards' indices say; `names`: its whole place, size and stamp, in one string.
    """

    root: Path
    recipe: str
    rows: Any
    names: Any

    def find(self, first: str, found: Any) -> NDArray[np.int64]:
        """For each picture found, its row here, −1 where it is new or has changed since."""
        at = compute.index_in(_names(first, found), value_set=self.names)
        return np.asarray(compute.fill_null(at, -1)).astype(np.int64)

    def results(self, rows: NDArray[np.int64]) -> list[tuple[Row, bytes] | None]:
        """What became of these pictures and the bytes of their copies; None for −1, or where the copy is gone."""
        listed = self.rows.take(arrow.array(rows[rows >= 0])).to_pylist()
        before = iter(listed)
        with ExitStack() as opened:
            shards: dict[int, int | None] = {row["shard"]: None for row in listed if row["shard"] >= 0}
            for number in shards:
                with suppress(OSError):
                    shards[number] = opened.enter_context(_tar(self.root / "shards", number).open("rb")).fileno()
            return [self._result(next(before), shards) if row >= 0 else None for row in rows.tolist()]

    def _result(self, before: Row, shards: Mapping[int, int | None]) -> tuple[Row, bytes] | None:
        if before["shard"] < 0:
            return before, b""
        shard = shards[before["shard"]]
        copy = b"" if shard is None else os.pread(shard, before["length"], before["offset"])
        return (before, copy) if len(copy) == before["length"] else None


@dataclass(frozen=True)
class _Chunk:
    """What a worker needs.

    Attributes:
        earlier: for pictures that an earlier dataset knows, its row and its copy.
        shards: the folder to write the shard to; None where the worker cannot see it, and the bytes travel.
    """

    number: int
    key: str
    first: str
    rows: Sequence[Row]
    recipe: ImagesRecipe
    earlier: Sequence[tuple[Row, bytes] | None]
    shards: Path | None

    @property
    def name(self) -> str:
        """For an error: which pictures these are."""
        return f"the pictures {self.rows[0]['path']} to {self.rows[-1]['path']}"


@dataclass
class _Tally:
    """The chunks that are done, whoever did them, in whatever order."""

    total: int
    progress: Progress
    tables: dict[int, Any] = field(default_factory=dict)
    done: int = 0
    rejected: int = 0

    def add(self, number: int, table: Any) -> None:
        self.tables[number] = table.select(PACKED.names).replace_schema_metadata()
        self.done += len(table)
        self.rejected += len(table) - table["reason"].to_pylist().count("")
        self.progress("images", self.done, self.total, unit="images", note=f"{self.rejected:,} rejected")


def pack(
    images: Sequence[str],
    found: Any,
    out: Path,
    recipe: ImagesRecipe,
    *,
    workers: Workers,
    known: Known | None = None,
    progress: Progress = silent,
) -> Any:
    """Verify and pack pictures; the result does not depend on who does it.

    Args:
        images: the folders; paths are relative to the first, or whole.
        found: a table of `locating.FOUND`.
        out: the dataset; shards go to `out/shards`.
        known: the pictures of the dataset that is extended; those that did not change are not decoded again.

    Returns:
        A table `PACKED`, a row a picture in the same order; `reason` is empty where it was accepted. `shard` is −1 and
        `offset`, `length` are 0 where the picture stays in place; `md5` is that of the original file.

    Raises:
        OutputError: `out` cannot be written, or the disk is full.
    """
    shards = make_folder(out / "shards")
    first = images[0] if images else ""
    chunks = -(-len(found) // CHUNK)
    tally = _Tally(len(found), progress)
    usable = known is not None and known.recipe == recipe.model_dump_json()
    before = known.find(first, found) if known and usable else np.full(len(found), -1, np.int64)

    def to_do() -> Iterator[_Chunk]:
        for number in range(chunks):
            rows = found.slice(number * CHUNK, CHUNK)
            key = _key(first, rows, number, recipe)
            if (table := _read_back(shards, number, key)) is not None:
                tally.add(number, table)
                continue
            some = before[number * CHUNK : (number + 1) * CHUNK]
            earlier = known.results(some) if known else [None] * len(rows)
            chunk = _Chunk(number, key, first, rows.to_pylist(), recipe, earlier, shards if workers.local else None)
            if None in earlier:
                yield chunk
            else:  # only to be copied: not worth a way to a worker and back
                tally.add(number, _store(shards, *_pack_chunk(chunk)))

    for result in workers.map(_pack_chunk, to_do()):
        tally.add(result[0], _store(shards, *result))
    _remove_stale(shards, chunks, packed=recipe.pack is not None)
    tables = [PACKED.empty_table(), *(tally.tables[number] for number in range(chunks))]
    return arrow.concat_tables(tables).combine_chunks()


def read_known(root: Path, first: str, recipe: ImagesRecipe) -> Known:
    """The pictures of an earlier dataset, from its shards; `first` and `recipe` are its images folder and its keys."""
    indices = sorted((root / "shards").glob("*.parquet"))
    rows = arrow.concat_tables([_STORED.empty_table(), *map(_read_index, indices)]).combine_chunks()
    return Known(root, recipe.model_dump_json(), rows, _names(first, rows))


def _names(first: str, rows: Any) -> Any:
    """Each picture as one string that no other picture, nor itself when changed, has."""
    whole = compute.match_substring_regex(rows["path"], r"^(/|[A-Za-z][A-Za-z0-9+.-]+://)")
    beneath = compute.binary_join_element_wise(join(first, "x")[:-1], rows["path"], "")
    sizes = compute.cast(rows["size"], arrow.string())
    return compute.binary_join_element_wise(compute.if_else(whole, rows["path"], beneath), sizes, rows["stamp"], "\0")


def _pack_chunk(chunk: _Chunk) -> tuple[int, bytes, bytes]:
    """Done in a worker: the number, the bytes of the shard where they have to travel, those of the index."""
    copies = b""
    if chunk.recipe.pack is None:
        results = [_result(row, _judge(chunk, place)[0]) for place, row in enumerate(chunk.rows)]
        size = 0
    elif chunk.shards is not None:
        with _replacing_shard(chunk.shards, chunk.number) as beside, beside.open("wb") as file:
            results, size = _write_shard(chunk, file)
    else:
        held = io.BytesIO()
        results, size = _write_shard(chunk, held)
        copies = held.getvalue()
    index = io.BytesIO()
    table = arrow.Table.from_pylist(results, schema=_STORED)
    table = table.replace_schema_metadata({_KEY: f"{chunk.key} {size}".encode()})
    parquet.write_table(table, index, compression="zstd")
    return chunk.number, copies, index.getvalue()


def _write_shard(chunk: _Chunk, file: BinaryIO) -> tuple[list[dict[str, Any]], int]:
    """The rows of the chunk, and how many bytes were written."""
    results, offset = [], 0
    for place, row in enumerate(chunk.rows):
        about, copy = _judge(chunk, place)
        result = _result(row, about)
        if copy:
            header = tarfile.TarInfo(f"{row['id']}.jpg")
            header.size = len(copy)
            offset += file.write(header.tobuf(tarfile.USTAR_FORMAT))
            result |= {"shard": chunk.number, "offset": offset, "length": len(copy)}
            offset += file.write(copy)
            offset += file.write(bytes(-len(copy) % tarfile.BLOCKSIZE))
        results.append(result)
    offset += file.write(bytes(2 * tarfile.BLOCKSIZE))  # which end an archive, and then it fills its last record
    return results, offset + file.write(bytes(-offset % tarfile.RECORDSIZE))


def _judge(chunk: _Chunk, place: int) -> tuple[Row, bytes]:
    """What becomes of a picture, and its copy."""
    earlier = chunk.earlier[place]
    return _verify(chunk, chunk.rows[place]) if earlier is None else earlier


def _verify(chunk: _Chunk, row: Row) -> tuple[Row, bytes]:
    """Check one picture; the bytes are those of the copy to pack, empty when rejected or kept in place."""
    recipe = chunk.recipe
    if row["size"] > MAX_BYTES:
        return {"reason": f"too large ({row['size'] / 1e9:.1f} GB)"}, b""
    try:
        data = read_bytes(join(chunk.first, row["path"]))
        return _verify_in_place(data, recipe) if recipe.pack is None else _verify_and_copy(data, recipe)
    except ImageError as error:
        return {"reason": error.reason}, b""
    except OSError as error:
        return {"reason": f"cannot be read ({error.strerror or error})"}, b""


def _verify_in_place(data: bytes, recipe: ImagesRecipe) -> tuple[Row, bytes]:
    seen = examine(data)
    _check(seen.width, seen.height, seen.single_colour, recipe)
    return _about(data, seen.width, seen.height, seen.phash), b""


def _verify_and_copy(data: bytes, recipe: ImagesRecipe) -> tuple[Row, bytes]:
    assert recipe.pack is not None
    if is_small_jpeg(data, recipe.pack):  # as it is: encoding it again would cost time and quality
        return _verify_in_place(data, recipe)[0], data
    picture = read_rgb(data)
    _check(*picture.size, not recipe.single_colour and is_single_colour(picture), recipe)
    about = _about(data, *picture.size, phash(picture))
    picture.thumbnail((recipe.pack, recipe.pack), reducing_gap=None)
    copy = io.BytesIO()
    picture.save(copy, "JPEG", quality=recipe.quality, subsampling=0)
    return about, copy.getvalue()


def _check(width: int, height: int, single_colour: bool, recipe: ImagesRecipe) -> None:
    size = recipe.exact_size
    if size is not None and (width, height) != (size, size):
        raise ImageError(f"{width}×{height} instead of {size}×{size}")
    if min(width, height) < recipe.minimum_side:
        raise ImageError(f"{width}×{height}, smaller than {recipe.minimum_side}")
    if single_colour and not recipe.single_colour:
        raise ImageError("a single colour")


def _about(data: bytes, width: int, height: int, perceptual: int) -> Row:
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return {"reason": "", "width": width, "height": height, "md5": digest, "phash": perceptual}


def _result(row: Row, about: Row) -> dict[str, Any]:
    return {**_EMPTY, **about, **row, "shard": -1, "offset": 0, "length": 0}


@contextmanager
def _replacing_shard(shards: Path, number: int) -> Iterator[Path]:
    """Its index, which vouches for the shard, is gone before the shard is replaced."""
    _index(shards, number).unlink(missing_ok=True)
    with replacing(_tar(shards, number)) as beside:
        yield beside


def _store(shards: Path, number: int, tar: bytes, index: bytes) -> Any:
    """Write a chunk, but for a shard that its worker wrote."""
    if tar:
        with _replacing_shard(shards, number) as beside:
            beside.write_bytes(tar)
    with replacing(_index(shards, number)) as beside:
        beside.write_bytes(index)
    return parquet.read_table(io.BytesIO(index))


def _read_back(shards: Path, number: int, key: str) -> Any | None:
    """The table of a chunk that was done with this key, None where there is none or its shard is not whole."""
    try:
        table = _read_index(_index(shards, number))
        done, size = (table.schema.metadata or {})[_KEY].decode().split()
        whole = int(size) == 0 or _tar(shards, number).stat().st_size == int(size)
    except (OSError, arrow.ArrowException, KeyError, ValueError):
        return None
    return table if done == key and whole else None


def _read_index(path: Path) -> Any:
    return parquet.read_table(arrow.BufferReader(path.read_bytes()), use_threads=False)


def _key(first: str, rows: Any, number: int, recipe: ImagesRecipe) -> str:
    columns = ["\0".join(map(str, rows[name].to_pylist())) for name in rows.column_names]
    return hashlib.sha256("\n".join([first, recipe.model_dump_json(), str(number), *columns]).encode()).hexdigest()


def _tar(shards: Path, number: int) -> Path:
    return shards / f"{number:06d}.tar"


def _index(shards: Path, number: int) -> Path:
    return shards / f"{number:06d}.parquet"


def _remove_stale(shards: Path, chunks: int, *, packed: bool) -> None:
    """What an earlier dataset in the same place left, and what a killed job had half written."""
    endings = {".parquet", ".tar"} if packed else {".parquet"}
    for path in shards.iterdir():
        current = path.suffix in endings and path.stem.isdigit() and int(path.stem) < chunks
        if path.suffix in (".tar", ".parquet", ".json", ".part") and not current:
            path.unlink()
