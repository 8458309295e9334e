"""What a collection shows and compares of a picture, from one decode: a thumbnail, hashes, the time that it moves.

    seen = look(Path("miku.png"), side=320)                # or look_at(Wanted(path, sha256, side)), which makes sure
    seen.thumbnail                          # WebP, at most 320 pixels a side, and not a word of the file's metadata
    seen.pixels, seen.phash                 # the same pixels in any format have the same hash; like pictures near ones
    seen.duration_ms                        # of an animation or a video; None for a picture

Of what moves five frames are looked at; the middle one is shown.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from efuda.errors import ImageError
from efuda.images.archives import read_bytes
from efuda.images.frames import MAX_WORK, read_frames
from efuda.images.hashing import is_single_colour, phash, thumbnail
from efuda.images.opening import MAX_PIXELS, full_size, opened
from efuda.images.reasons import HEAD, VIDEO_KINDS, kind_of
from efuda.images.video import video_duration

__all__ = ["CHANGED", "Looked", "Wanted", "look", "look_at", "preview_of", "webp"]

CHANGED: Final = "no longer what it was when it was added"

_FRAMES: Final = 5
_QUALITY: Final = 80


@dataclass(frozen=True, slots=True)
class Looked:
    """What one decode tells.

    Attributes:
        size: (width, height), upright.
        pixels: XXH3-128 of the size and every pixel; of what moves, of the frames that were looked at, and how long.
        phash: signed, 64 bits; None for a picture of one colour, which is like every other of one colour.
        thumbnail: a WebP.
    """

    size: tuple[int, int]
    pixels: bytes
    phash: int | None
    duration_ms: int | None
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to be what it was: its path, and the SHA-256 of its bytes."""

    path: Path
    sha256: bytes
    side: int


def look_at(wanted: Wanted) -> Looked:
    """`look`, at the very bytes that were hashed.

    Raises:
        ImageError: also `CHANGED`, where other bytes are there now.
    """
    return look(_checked(wanted), side=wanted.side)


def preview_of(wanted: Wanted) -> bytes:
    """A WebP of at most this side, of the middle one of five frames.

    Raises:
        ImageError: as `look_at`.
    """
    frames = read_frames(_checked(wanted), count=_FRAMES, reduce_to=wanted.side)
    return webp(frames[len(frames) // 2], wanted.side)


def look(source: Path | bytes, *, side: int = 320, max_pixels: int = MAX_PIXELS) -> Looked:
    """Decode a picture, an animation or a video wholly.

    Raises:
        ImageError: with a reason, as `read_frames`.
    """
    frames = read_frames(source, count=_FRAMES, max_pixels=max_pixels)
    shown = frames[len(frames) // 2]
    duration = duration_of(source, max_pixels)
    signed = None if is_single_colour(shown) else phash(shown)
    return Looked(
        full_size(shown),
        _pixels(frames, duration),
        signed if signed is None or signed < 1 << 63 else signed - (1 << 64),
        duration,
        webp(shown, side),
    )


def webp(picture: Image.Image, side: int) -> bytes:
    """A WebP of at most `side` pixels a side, smaller pictures as they are; nothing but pixels goes into it."""
    small = thumbnail(picture, side) if max(picture.size) > side else picture
    plain = small.copy()
    plain.info = {}
    file = io.BytesIO()
    plain.save(file, "WEBP", quality=_QUALITY, method=4)
    return file.getvalue()


def duration_of(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> int | None:
    """Milliseconds that an animation or a video takes; None for what does not move, or does not say."""
    if _is_video(source):
        return video_duration(source)
    with opened(source, max_pixels) as picture:
        total = getattr(picture, "n_frames", 1)
        if total == 1 or picture.format not in ("GIF", "PNG", "WEBP", "AVIF"):
            return None
        lasting, work = 0.0, 0
        with suppress(Exception):  # one that breaks off lasts until there
            for number in range(total):
                work += picture.width * picture.height
                if work > MAX_WORK:
                    break
                picture.seek(number)
                picture.load()
                lasting += float(picture.info.get("duration", 0))
        return round(lasting)


def _is_video(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return kind_of(source[:HEAD]) in VIDEO_KINDS
    with source.open("rb") as file:
        return kind_of(file.read(HEAD)) in VIDEO_KINDS


def _pixels(frames: list[Image.Image], duration: int | None) -> bytes:
    import xxhash

    state: Any = xxhash.xxh3_128()
    for frame in frames:
        state.update(f"{frame.width}x{frame.height};".encode())
        state.update(frame.tobytes())
    if duration is not None:
        state.update(f"{duration} ms".encode())
    digest: bytes = state.digest()
    return digest


def _checked(wanted: Wanted) -> Path | bytes:
    """The file's bytes; of a video, which may be larger than memory, its path."""
    try:
        with wanted.path.open("rb") as file:
            if kind_of(file.read(HEAD)) in VIDEO_KINDS:
                file.seek(0)
                _check(hashlib.file_digest(file, "sha256").digest(), wanted)
                return wanted.path
    except OSError:
        pass  # `read_bytes` has the words for it
    data = read_bytes(wanted.path)
    _check(hashlib.sha256(data).digest(), wanted)
    return data


def _check(digest: bytes, wanted: Wanted) -> None:
    if digest != wanted.sha256:
        raise ImageError(CHANGED, str(wanted.path))
