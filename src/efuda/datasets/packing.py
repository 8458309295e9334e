"""Find each post's picture, open it completely, check its size, and keep it in place or pack a smaller copy in a shard.

The work is cut in chunks of `CHUNK` posts. A chunk is one tar shard (names as WebDataset has them: `<id>.jpg`) and one
JSON file that says what became of each post, written last: a killed job goes on at the first chunk that lacks it, and a
chunk whose files did not change is not decoded again.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from efuda.errors import ImageError, InputError
from efuda.files import make_folder, replacing, write_json
from efuda.images import read_rgb
from efuda.progress import Progress, silent
from efuda.recipes import ImagesRecipe

__all__ = ["CHUNK", "Located", "Packed", "locate", "pack"]

CHUNK: Final = 500
_EXTENSIONS: Final = ("jpg", "png", "webp", "jpeg", "gif")


@dataclass(frozen=True, slots=True)
class Located:
    """A post whose picture was found; `path` is relative to the images folder."""

    id: int
    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of one picture: `reason` is empty when it was accepted.

    `shard` is −1 and `offset`, `length` 0 where the picture stays in place; `md5` is that of the original file.
    """

    id: int
    path: str
    reason: str
    width: int = 0
    height: int = 0
    md5: str = ""
    shard: int = -1
    offset: int = 0
    length: int = 0


def locate(
    images: Path, ids: Sequence[int], extensions: Sequence[str], *, progress: Progress = silent
) -> Iterator[Located | int]:
    """For each post its picture, or its bare id where there is none.

    Bucketed (`0148/263148.jpg`, in four, three or no fixed digits) and flat layouts are tried; the one that last
    matched is tried first.

    Raises:
        InputError: `images` is no folder, or is empty.
    """
    if not images.is_dir():
        raise InputError(
            f"--images {images} is not a folder. Name the folder that holds the buckets, for example 512px/"
        )
    if not any(images.iterdir()):
        raise InputError(f"--images {images} is empty. Name the folder that holds the buckets: 512px/")
    layouts = ["{bucket:04d}/{id}", "{bucket:03d}/{id}", "{bucket}/{id}", "{id}"]
    for done, (post, extension) in enumerate(zip(ids, extensions, strict=True), start=1):
        yield _find(images, post, extension, layouts)
        if done % 1000 == 0 or done == len(ids):
            progress("find", done, len(ids), unit="pictures")


def pack(
    images: Path,
    found: Sequence[Located],
    out: Path,
    recipe: ImagesRecipe,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[Packed]:
    """Verify and pack pictures in worker processes; the result does not depend on their number.

    Args:
        images: the folder that `found` is relative to.
        out: the dataset; shards go to `out/shards`.
        workers: processes, one a core by default.
    """
    shards = make_folder(out / "shards")
    chunks = [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]
    jobs = [(images, chunk, shards, number, recipe) for number, chunk in enumerate(chunks)]
    results: list[Packed] = []
    rejected = 0
    with ProcessPoolExecutor(
        min(workers or os.cpu_count() or 1, max(len(jobs), 1)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
    ) as pool:
        futures = [pool.submit(_pack_chunk, *job) for job in jobs]
        try:
            for future in futures:
                results += (packed := future.result())
                rejected += sum(1 for one in packed if one.reason)
                progress("images", len(results), len(found), unit="images", note=f"{rejected:,} rejected")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    _remove_stale(shards, len(chunks), packed=recipe.pack is not None)
    return results


def _begin_worker() -> None:
    _leave_interrupts_to_the_parent()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would otherwise wait for its next chunk for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches every process of the terminal; a worker finishes its chunk, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _find(images: Path, post: int, extension: str, layouts: list[str]) -> Located | int:
    for layout in layouts:
        stem = layout.format(bucket=post % 1000, id=post)
        for ending in dict.fromkeys(("jpg", extension, *_EXTENSIONS)):
            path = f"{stem}.{ending}"
            try:
                stat = (images / path).stat()
            except OSError:
                continue
            layouts.remove(layout)
            layouts.insert(0, layout)
            return Located(post, path, stat.st_size, stat.st_mtime_ns)
    return post


def _pack_chunk(
    images: Path, found: Sequence[Located], shards: Path, number: int, recipe: ImagesRecipe
) -> list[Packed]:
    index, tar = shards / f"{number:06d}.json", shards / f"{number:06d}.tar"
    key = _key(images, found, recipe)
    known = _read_index(index, key)
    if known is not None and (recipe.pack is None or tar.is_file()):
        return known
    if recipe.pack is None:
        results = [_verify(images, one, recipe)[0] for one in found]
    else:
        with replacing(tar) as beside, tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as archive:
            results = [_append(archive, images, one, number, recipe) for one in found]
    write_json(index, {"key": key, "posts": [asdict(one) for one in results]})
    return results


def _verify(images: Path, one: Located, recipe: ImagesRecipe) -> tuple[Packed, bytes]:
    """Check one picture; the bytes are those of the copy to pack, empty when rejected or kept in place."""
    try:
        data = (images / one.path).read_bytes()
        picture = read_rgb(data)
    except ImageError as error:
        return Packed(one.id, one.path, error.reason), b""
    except OSError as error:
        return Packed(one.id, one.path, f"cannot be read ({error.strerror})"), b""
    size = recipe.exact_size
    if size is not None and picture.size != (size, size):
        return Packed(one.id, one.path, f"{picture.width}×{picture.height} instead of {size}×{size}"), b""
    packed = Packed(one.id, one.path, "", picture.width, picture.height, hashlib.md5(data).hexdigest())
    if recipe.pack is None:
        return packed, b""
    picture.thumbnail((recipe.pack, recipe.pack), reducing_gap=None)
    copy = io.BytesIO()
    picture.save(copy, "JPEG", quality=recipe.quality, subsampling=0)
    return packed, copy.getvalue()


def _append(archive: tarfile.TarFile, images: Path, one: Located, number: int, recipe: ImagesRecipe) -> Packed:
    packed, copy = _verify(images, one, recipe)
    if not copy:
        return packed
    header = tarfile.TarInfo(f"{one.id}.jpg")
    header.size = len(copy)
    archive.addfile(header, io.BytesIO(copy))
    offset = archive.offset - -(-len(copy) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return Packed(**{**asdict(packed), "shard": number, "offset": offset, "length": len(copy)})


def _key(images: Path, found: Sequence[Located], recipe: ImagesRecipe) -> str:
    parts = [str(images.resolve()), recipe.model_dump_json(), *(repr(one) for one in found)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read_index(index: Path, key: str) -> list[Packed] | None:
    try:
        stored = json.loads(index.read_text(encoding="utf-8"))
        return [Packed(**post) for post in stored["posts"]] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_stale(shards: Path, chunks: int, *, packed: bool) -> None:
    """What an earlier dataset in the same place left, and what a killed job had half written."""
    endings = {".json", ".tar"} if packed else {".json"}
    for path in shards.iterdir():
        current = path.suffix in endings and path.stem.isdigit() and int(path.stem) < chunks
        if path.suffix in (".tar", ".json", ".part") and not current:
            path.unlink()
