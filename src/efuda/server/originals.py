"""Files of the collection, sent as they are: opened with care, named by what they hold, in parts where that is asked.

    return send(request, picture.path, picture.bytes)

Whoever may write among the pictures could put a link or another file in a picture's place: links are not followed, and
what has another size than the collection knows is not sent.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from efuda.images.reasons import HEAD, kind_of
from efuda.server.refusals import Refusal

__all__ = ["send", "type_of"]

_POLICY: Final = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
_CHUNK: Final = 1 << 18
_TYPES: Final = {
    **{kind: f"image/{kind}" for kind in ("jpeg", "png", "gif", "webp", "avif", "heic", "jxl", "tiff")},
    "mov": "video/mp4",
    "matroska": "video/webm",
}
_FLAGS: Final = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def type_of(head: bytes) -> str | None:
    """What a file is by its first bytes; None for what a browser should rather keep than show, SVG among it."""
    if head.startswith(b"BM") and len(head) >= 26:
        return "image/bmp"
    return _TYPES.get(kind_of(head))


def send(request: Request, path: Path, size: int) -> Response:
    """The file, or the part of it that was asked for.

    Raises:
        Refusal: 404 where it is gone, 409 where it is another file than the collection knows.
    """
    file = _opened(path, size)
    try:
        kind = type_of(file.read(HEAD))
        tag = f'"{os.fstat(file.fileno()).st_mtime_ns:x}-{size:x}"'
        headers = {
            "Content-Security-Policy": _POLICY,
            "Content-Disposition": "inline" if kind else 'attachment; filename="picture"',
            "Accept-Ranges": "bytes",
            "ETag": tag,
            "Cache-Control": "private, max-age=0, must-revalidate",
        }
        kind = kind or "application/octet-stream"
        if request.headers.get("if-none-match") == tag:
            file.close()
            return Response(status_code=304, headers=headers)
        part = _part(request, size, tag)
        if part is None:
            headers["Content-Length"] = str(size)
            return StreamingResponse(_read(file, 0, size), headers=headers, media_type=kind)
        start, end = part
        if start >= end:
            raise Refusal(416, "range", "There are no such bytes.", headers={"Content-Range": f"bytes */{size}"})
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)}
        return StreamingResponse(_read(file, start, end), 206, headers, kind)
    except BaseException:
        file.close()
        raise


def _opened(path: Path, size: int) -> IO[bytes]:
    """A regular file of this size, no link, no device."""
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        raise Refusal(404, "not_found", "The picture's file is not where it was.") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        os.close(descriptor)
        raise Refusal(409, "changed", "The picture's file has changed since it was added. Scan the collection.")
    return os.fdopen(descriptor, "rb")


def _part(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """[start, end) of a Range; None for all of it, also where several ranges are asked for, as the standard allows."""
    wanted = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if wanted is None or wanted[1] == wanted[2] == "" or request.headers.get("if-range", tag) != tag:
        return None
    if wanted[1] == "":
        return max(0, size - int(wanted[2])), size
    start, last = int(wanted[1]), int(wanted[2] or size - 1)
    return None if last < start and wanted[2] else (start, min(last + 1, size))


def _read(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
