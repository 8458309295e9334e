"""Frames of a video by PyAV (extra `video`); the container is known by its first bytes, never by ffmpeg's guess."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image

from efuda.errors import ImageError
from efuda.images.opening import check_size, with_full_size
from efuda.images.reasons import HEAD, kind_of, where_is

__all__ = ["video_duration", "video_frames"]

# ffmpeg's names. Playlists and other formats that make it open more files or addresses are not among them.
_DEMUXERS: Final = {
    "mov": "mov",
    "matroska": "matroska",
    "avi": "avi",
    "ogg": "ogg",
    "flv": "flv",
    "mpeg": "mpeg",
    "asf": "asf",
}
_SIDEWAYS: Final = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
_MAX_DECODED: Final = 600  # frames, on the way from a key frame to the wanted one
_MAX_PACKETS: Final = 20_000  # without a frame: sound, or nothing but damage


def video_frames(source: Path | bytes, count: int, max_pixels: int, reduce_to: int | None) -> list[Image.Image]:
    """`count` frames from the middles of equal parts of the time; the first alone for 1.

    Raises:
        ImageError: PyAV is not installed, or there is no frame in it.
    """
    where = where_is(source)
    try:
        import av
    except ImportError as error:
        raise ImageError('videos need pip install "efuda[video]"', where) from error
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        kind = kind_of(file.read(HEAD))
        file.seek(0)
        with (
            _as_broken(where, av.error.FFmpegError),
            av.open(file, format=_DEMUXERS[kind], metadata_errors="replace") as container,
        ):
            if not container.streams.video:
                raise ImageError("a video without pictures", where)
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.thread_count = 1
            check_size((stream.width, stream.height), max_pixels, where)
            frames = [_picture(frame, reduce_to) for frame in _some(container, stream, count)]
    if not frames:
        raise ImageError("cannot be decoded", where)
    return frames


def video_duration(source: Path | bytes) -> int | None:
    """Milliseconds, by the container; None where it does not say, or PyAV is not installed."""
    try:
        import av
    except ImportError:
        return None
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        kind = kind_of(file.read(HEAD))
        file.seek(0)
        try:
            opened: Any = av.open(file, format=_DEMUXERS[kind], metadata_errors="replace")
            with opened as container:
                return None if container.duration is None else round(container.duration / 1000)
        except av.error.FFmpegError:
            return None


@contextmanager
def _as_broken(where: str, broken: type[Exception]) -> Iterator[None]:
    """ffmpeg's errors have the numbers of the disk's, and are not the disk's."""
    try:
        yield
    except broken as error:
        raise ImageError("cannot be decoded", where) from error


def _some(container: Any, stream: Any, count: int) -> Iterator[Any]:
    """Frames at the wanted times. What breaks after the first is the end."""
    import av

    last = None
    try:
        for time in _times(container, stream, count):
            if time is not None:
                container.seek(time, stream=stream)
            frame = _at(container, stream, time)
            if frame is not None and (last is None or frame.pts != last):
                last = frame.pts
                yield frame
    except (av.error.FFmpegError, EOFError, ValueError):
        if last is None:
            raise


def _times(container: Any, stream: Any, count: int) -> list[int | None]:
    """In the stream's units; None is wherever it stands. Without a length there is only the beginning."""
    length = stream.duration
    if length is None and container.duration is not None and stream.time_base:
        length = int(container.duration / 1_000_000 / stream.time_base)
    if count == 1 or not length or length <= 0:
        return [None]
    start = stream.start_time or 0
    return [start + (2 * part + 1) * length // (2 * count) for part in range(count)]


def _at(container: Any, stream: Any, time: int | None) -> Any:
    """The first frame that is not before the time; else the last that could be had for the work."""
    best, decoded = None, 0
    for number, packet in enumerate(container.demux(stream)):
        for frame in packet.decode():
            best, decoded = frame, decoded + 1
            if time is None or frame.pts is None or frame.pts >= time:
                return frame
        if decoded >= _MAX_DECODED or number >= _MAX_PACKETS:
            break
    return best


def _picture(frame: Any, reduce_to: int | None) -> Image.Image:
    """RGB, upright: telephones write on which side they lay. Scaled while it is converted."""
    width, height = frame.width, frame.height
    factor = max(1, max(width, height) // reduce_to) if reduce_to else 1
    picture: Image.Image = frame.to_image(width=max(1, width // factor), height=max(1, height // factor))
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(int(getattr(frame, "rotation", 0)) % 360)
    if turn is not None:
        picture = picture.transpose(turn)
    return with_full_size(picture, (height, width) if turn in _SIDEWAYS else (width, height))
