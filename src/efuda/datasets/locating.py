"""Find each post's picture in the layouts that people have.

Bucketed by the id's last three digits (`0148/263148.jpg`, in four, three or no fixed digits), flat by id, or by md5
(`ab/cd/abcd….jpg`, `ab/abcd….jpg`, `abcd….jpg`). A post whose metadata lies beside its picture says where it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as arrow
from numpy.typing import NDArray

from efuda.errors import InputError
from efuda.places import Stat, is_folder, is_remote, join, stat, walk
from efuda.progress import Progress, silent

__all__ = ["FOUND", "locate"]

FOUND: Final[Any] = arrow.schema(
    [("id", arrow.int64()), ("path", arrow.string()), ("size", arrow.int64()), ("stamp", arrow.string())]
)
_EXTENSIONS: Final = ("png", "webp", "jpeg", "gif", "avif")
_BATCH: Final = 10_000
_LAYOUTS: Final = ("four", "three", "plain", "flat", "md5 twice", "md5 once", "md5")


def locate(images: Sequence[str], posts: Any, *, progress: Progress = silent) -> tuple[Any, NDArray[np.bool_]]:
    """Look for the picture of each post.

    Args:
        images: folders (or URLs), searched in turn.
        posts: a table with id, ext, md5 and path; where `path` is set, that file is the picture.

    Returns:
        A table `FOUND` of the pictures, in the order of the posts, and a mask of the posts that have one. `path` is
        relative to the first folder, or whole where the picture lies elsewhere.

    Raises:
        InputError: a folder does not exist or is empty.
    """
    folders = [_Folder(place) for place in images]
    mask = np.zeros(len(posts), dtype=bool)
    tables: list[Any] = [FOUND.empty_table()]
    place = 0
    for batch in posts.to_batches(max_chunksize=_BATCH):
        rows: list[tuple[int, str, int, str]] = []
        columns = [batch.column(name).to_pylist() for name in ("id", "ext", "md5", "path")]
        for post, ext, md5, path in zip(*columns, strict=True):
            found = _beside(path, images) if path else _find(folders, post, ext, md5)
            if found is not None:
                rows.append((post, *found))
                mask[place] = True
            place += 1
        by_column = zip(*rows, strict=True) if rows else ([] for _ in FOUND)
        arrays = [arrow.array(list(one), field.type) for one, field in zip(by_column, FOUND, strict=True)]
        tables.append(arrow.Table.from_arrays(arrays, schema=FOUND))
        progress("find", place, len(posts), unit="pictures", note=f"{int(mask.sum()):,} found")
    return arrow.concat_tables(tables), mask


class _Folder:
    """One folder of pictures: asked file by file on this machine; a remote one is listed once."""

    def __init__(self, place: str) -> None:
        if not is_folder(place):
            raise InputError(
                f"--images {place} is not a folder. Name the folder that holds the buckets, for example 512px/"
            )
        self.place = place
        self._listing: dict[str, Stat] | None = None
        if is_remote(place):
            self._listing = dict(walk(place))
            self._folders = {path.partition("/")[0] for path in self._listing if "/" in path}
            self._files = any("/" not in path for path in self._listing)
        else:
            self._base = join(place, "x")[:-1]
            with os.scandir(self._base) as entries:
                kinds = [(entry.name, entry.is_dir()) for entry in entries]
            self._folders = {name for name, is_dir in kinds if is_dir}
            self._files = len(kinds) > len(self._folders)
        if not self._folders and not self._files:
            raise InputError(f"--images {place} is empty. Name the folder that holds the buckets: 512px/")
        self._layouts = list(_LAYOUTS)

    def find(self, post: int, endings: Sequence[str], md5: str) -> tuple[str, Stat] | None:
        """The picture's path within; the layout that last matched is tried first."""
        for layout in self._layouts:
            stem = _stem(layout, post, md5)
            top, slash, _ = stem.partition("/")
            if not stem or (top not in self._folders if slash else not self._files):
                continue  # most posts of a dump have no picture: a folder that is not there is not asked
            for ending in endings:
                path = f"{stem}.{ending}"
                if (told := self._look(path)) is not None:
                    if self._layouts[0] != layout:
                        self._layouts.remove(layout)
                        self._layouts.insert(0, layout)
                    return path, told
        return None

    def _look(self, relative: str) -> Stat | None:
        if self._listing is not None:
            return self._listing.get(relative)
        try:
            told = os.stat(self._base + relative)
        except (OSError, ValueError):
            return None
        return Stat(told.st_size, str(told.st_mtime_ns))


def _stem(layout: str, post: int, md5: str) -> str:
    """The path without its ending; empty where the layout goes by md5 and the post has none."""
    if layout == "four":
        return f"{post % 1000:04d}/{post}"
    if layout == "three":
        return f"{post % 1000:03d}/{post}"
    if layout == "plain":
        return f"{post % 1000}/{post}"
    if layout == "flat":
        return str(post)
    if not md5:
        return ""
    return {"md5 twice": f"{md5[:2]}/{md5[2:4]}/{md5}", "md5 once": f"{md5[:2]}/{md5}", "md5": md5}[layout]


def _find(folders: Sequence[_Folder], post: int, extension: str | None, md5: str | None) -> tuple[str, int, str] | None:
    own = (extension,) if extension and extension.isalnum() else ()
    endings = tuple(dict.fromkeys(("jpg", *own, *_EXTENSIONS)))
    digest = md5.lower() if md5 and len(md5) == 32 and md5.isalnum() else ""
    for number, folder in enumerate(folders):
        if (found := folder.find(post, endings, digest)) is not None:
            path, told = found
            return (join(folder.place, path) if number else path), told.size, told.stamp
    return None


def _beside(path: str, images: Sequence[str]) -> tuple[str, int, str] | None:
    try:
        told = stat(path)
    except OSError:
        return None
    first = f"{images[0].rstrip('/')}/" if images else ""
    return (path.removeprefix(first) if first else path), told.size, told.stamp
