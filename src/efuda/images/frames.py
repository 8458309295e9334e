"""Some frames of whatever moves: of an animation or a video, evenly spaced; of a picture, the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image

from efuda.errors import ImageError
from efuda.images.archives import read_member
from efuda.images.opening import MAX_PIXELS, check_size, finished, opened
from efuda.images.reasons import HEAD, VIDEO_KINDS, kind_of, named, one_reason
from efuda.images.video import video_frames

__all__ = ["MAX_WORK", "read_frames", "spread"]

MAX_WORK: Final = 2**30  # pixels decoded on the way to the last frame: animations can only be decoded in order
_MAX_KEPT: Final = 2**27  # pixels in the frames that are returned; they take four bytes each
_ANIMATED: Final = frozenset({"GIF", "PNG", "WEBP", "AVIF"})  # pages of a TIFF and the pictures of a HEIC do not move


def read_frames(
    source: Path | bytes, *, count: int = 1, max_pixels: int = MAX_PIXELS, reduce_to: int | None = None
) -> list[Image.Image]:
    """Decode a picture, or some frames of an animation or a video: one at least, `count` at most.

    Args:
        source: a file, a member of an archive, or the bytes of one.
        count: 1 takes the first frame. More are taken from the middles of so many equal parts, since the first and the
            last are often blank. Of an animation so long or large that decoding it all would be more than `MAX_WORK`
            pixels, the parts are those of its beginning.
        max_pixels, reduce_to: as for `read_rgb`; frames of a video are reduced too.

    Raises:
        ImageError: with a reason; an animation that breaks off after its first frame gives what came before.
    """
    head = source[:HEAD] if isinstance(source, bytes) else _head(source)
    if head is None:
        assert isinstance(source, Path)
        if (member := read_member(source)) is not None:
            with named(str(source)):
                return read_frames(member, count=count, max_pixels=max_pixels, reduce_to=reduce_to)
    elif kind_of(head) in VIDEO_KINDS:  # before Pillow is asked, which would search a long file for a picture
        with one_reason(source):
            return video_frames(source, count, max_pixels, reduce_to)
    with opened(source, max_pixels) as picture:
        total = getattr(picture, "n_frames", 1) if count > 1 and picture.format in _ANIMATED else 1
        if total == 1:
            return [finished(picture, reduce_to)]
        within = max(1, min(total, MAX_WORK // (picture.width * picture.height)))
        most = max(1, min(count, _MAX_KEPT // (picture.width * picture.height)))
        return _some(picture, spread(within, most), max_pixels, reduce_to)


def _some(picture: Image.Image, wanted: list[int], max_pixels: int, reduce_to: int | None) -> list[Image.Image]:
    """These frames of an open animation, or those before it breaks off or becomes too much.

    A GIF may grow as it goes on: a frame beyond its edges makes it larger, so every step is looked at.
    """
    frames: list[Image.Image] = []
    work = 0
    try:
        for number in range(wanted[-1] + 1):
            picture.seek(number)
            check_size(picture.size, max_pixels)
            work += picture.width * picture.height
            if frames and work > MAX_WORK:
                break
            if number in wanted:
                frame = finished(picture, reduce_to)
                frames.append(frame.copy() if frame.im is picture.im else frame)
            elif work > MAX_WORK:
                raise ImageError("an animation that takes too long to decode")
    except Exception:
        if not frames:
            raise
    return frames


def spread(total: int, count: int) -> list[int]:
    """The middles of `count` equal parts of `total` frames; all of them where they are fewer; the first for 1."""
    if count == 1:
        return [0]
    return list(range(total)) if total <= count else [(2 * part + 1) * total // (2 * count) for part in range(count)]


def _head(path: Path) -> bytes | None:
    """None where it is no file that can be opened: a member of an archive, or whatever `opened` says of it."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return None
