"""Files beside pictures, one each, and tags within the pictures' own files.

A file that is there may be a person's: it is left alone, or its tags are added to (`merge`), or it is written anew and
the old one kept as `.bak` (`replace`). What cannot be written is one picture's failure, and the job goes on.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from PIL import Image, ImageSequence

from efuda.errors import ImageError
from efuda.images import FORMATS
from efuda.tagging.chosen import Chosen
from efuda.tagging.tagged import Failed
from efuda.tagging.writing.containers import parts, read_xmp, with_xmp
from efuda.tagging.writing.forms import Form, xmp_tags
from efuda.tagging.writing.places import Refused, beside, reason, write_new, write_over
from efuda.tagging.writing.xmp import read_tags, with_tags

__all__ = ["EXISTING", "Embedded", "Sidecars", "same_pixels"]

EXISTING: Final = ("skip", "merge", "replace")


class _Each:
    """What both have in common: pictures are written one by one, and fail one by one."""

    def write_many(self, batch: Sequence[Chosen]) -> list[Failed]:
        """Write a file each; those that could not be, with the reason."""
        return list(self._failed(batch))

    def _failed(self, batch: Iterable[Chosen]) -> Iterator[Failed]:
        for chosen in batch:
            try:
                self._write(chosen)
            except OSError as error:
                yield Failed(chosen.path, reason(error))
            except (Refused, ImageError) as error:
                yield Failed(chosen.path, str(error))

    def _write(self, chosen: Chosen) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Sidecars(_Each):
    """One file beside each picture; of pictures whose file would be the same one, the first has it."""

    def __init__(self, form: Form, existing: str) -> None:
        self.form, self.existing = form, existing
        self._taken: set[str] = set()
        self._folders: dict[str, bool] = {}

    def wants(self, picture: Path | str) -> bool:
        """Whether it has no file yet, or that one is to be changed; ask once a picture."""
        try:
            place = self._place(picture)
        except Refused:
            return True  # writing says why not
        if place in self._taken or (self.existing == "skip" and _has_content(place)):
            return False
        self._taken.add(place)
        return True

    def _place(self, picture: Path | str) -> str:
        folder, name = os.path.split(picture)
        if (plain := self._folders.get(folder)) is None:
            plain = self._folders[folder] = Path(folder).is_dir()
        if not plain:
            folder, name = os.path.split(beside(Path(picture)))
        return os.path.join(folder, self.form.name(name))  # noqa: PTH118  (a million of them are looked up)

    def _write(self, chosen: Chosen) -> None:
        place = Path(self._place(chosen.path))
        if self.existing == "skip" or not _has_content(place):
            if not place.parent.is_dir() and place.parent != chosen.path.parent:
                place.parent.mkdir(parents=True, exist_ok=True)  # an archive's pages
            write_new(place, self.form.fresh(chosen))
            return
        old = place.read_bytes()
        if self.existing == "replace":
            write_over(place, self.form.replaced(old, chosen), spare=True)
        elif (new := self.form.merged(old, chosen)) != old:
            write_over(place, new, spare=False)


class Embedded(_Each):
    """XMP within the picture's file. The pixels are decoded before and after, and the file changes only if they agree.

    Args:
        keep_mtime: the file keeps its time of change.
    """

    def __init__(self, existing: str, *, keep_mtime: bool = False) -> None:
        self.existing, self.keep_mtime = existing, keep_mtime

    def wants(self, picture: Path | str) -> bool:
        """Whether it holds no tags yet, or those are to be changed."""
        if self.existing != "skip":
            return True
        try:
            packet = read_xmp(Path(picture).read_bytes())
            return packet is None or not read_tags(packet)
        except (OSError, Refused):
            return True  # writing says why not

    def _write(self, chosen: Chosen) -> None:
        if any(folder.is_file() for folder in chosen.path.parents):
            raise Refused("not written: XMP is not embedded into pages of archives")
        data, before = chosen.path.read_bytes(), chosen.path.stat()
        packet = read_xmp(data)
        has = packet is not None and bool(read_tags(packet))
        if has and self.existing == "skip":
            return
        new = with_tags(packet, xmp_tags(chosen), replace=self.existing == "replace")
        if new == packet:
            return
        changed = with_xmp(data, new)
        if parts(changed) != parts(data) or read_xmp(changed) != new or not same_pixels(data, changed):
            raise Refused("not written: the picture would not have stayed the same")
        write_over(chosen.path, changed, spare=has and self.existing == "replace")
        if self.keep_mtime:
            os.utime(chosen.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def same_pixels(one: bytes, other: bytes) -> bool:
    """Whether two files of one format hold the same frames, colour profile and Exif data.

    Raises:
        ImageError: one of them cannot be decoded.
    """
    return list(_frames(one)) == list(_frames(other))


def _frames(data: bytes) -> Iterator[object]:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            warnings.simplefilter("ignore")  # about odd Exif data and palettes: the pixels are what counts
            yield picture.format, picture.size, picture.info.get("icc_profile"), picture.info.get("exif")
            for frame in ImageSequence.Iterator(picture):
                pixels = hashlib.sha256(frame.tobytes()).digest()
                yield frame.mode, frame.size, frame.info.get("duration"), frame.getpalette(), pixels
    except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:
        raise ImageError("not written: it cannot be decoded") from error


def _has_content(path: str | Path) -> bool:
    """Not so of a folder, which has a size: it is in the way, and writing says so."""
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    return state.st_size > 0 and not stat.S_ISDIR(state.st_mode)
