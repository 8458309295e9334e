"""Fetch a large file so that a later run goes on where this one was killed.

huggingface-hub itself resumes only within one call; a model of a gigabyte over a slow line deserves better. The file
grows beside the cache's blobs, is checked against the SHA-256 that the hub gives, and becomes the blob that
huggingface-hub would have made.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["Damaged", "fetch_large"]

LARGE: Final = 32_000_000  # bytes; below it, beginning anew costs nothing
_CHUNK: Final = 1 << 20
_TIMEOUT_S: Final = 30
_TRIES: Final = 5  # without a single new byte
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Damaged(Exception):
    """What came is not what the hub says the file is."""


def fetch_large(hub: Any, blobs: Path, url: str, endpoint: str | None, tell: Callable[[int, int], None]) -> None:
    """Put the file at `url` among the blobs, if it is not there yet; small ones are left to the hub's own client.

    Args:
        hub: the module huggingface_hub.
        blobs: the repository's folder of blobs in the cache.
        tell: called with the bytes that are here, and all.

    Raises:
        Damaged: its digest is another; it is removed, so that the next try begins anew.
        OSError: the connection broke off for good; what came is kept.
    """
    about = hub.get_hf_file_metadata(url, endpoint=endpoint)
    if not about.etag or about.size is None or about.size < LARGE:
        return
    whole, part = blobs / about.etag, blobs / f"{about.etag}.efuda.incomplete"
    blobs.mkdir(parents=True, exist_ok=True)
    with hub.utils.WeakFileLock(blobs / f"{about.etag}.efuda.lock"):
        if not whole.exists():
            same_host = urlsplit(about.location).netloc == urlsplit(url).netloc
            headers = dict(hub.utils.build_hf_headers()) if same_host else {}  # others must not see the token
            _grow(part, about.location, headers, about.size, tell)
            _check(part, about.etag)
            os.replace(part, whole)
    (blobs / f"{about.etag}.efuda.lock").unlink(missing_ok=True)


def _grow(part: Path, url: str, headers: dict[str, str], size: int, tell: Callable[[int, int], None]) -> None:
    failed = 0
    with part.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
        while (before := file.seek(0, os.SEEK_END)) < size:
            try:
                asked = {**headers, "Range": f"bytes={before}-", "Accept-Encoding": "identity"}
                with urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=_TIMEOUT_S) as answer:
                    if answer.status != 206:
                        file.truncate(0)
                    while chunk := answer.read1(_CHUNK):
                        file.write(chunk)
                        tell(file.tell(), size)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                    raise
                failed = 0 if file.tell() > before else failed + 1
                if failed == _TRIES:
                    raise OSError(str(error) or type(error).__name__) from error
                continue
            failed = 0 if file.tell() > before else failed + 1
            if failed == _TRIES:
                raise OSError("the connection breaks off again and again")


def _check(part: Path, etag: str) -> None:
    if not _SHA256.fullmatch(etag):
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != etag:
        part.unlink()
        raise Damaged(f"its SHA-256 is {found[:12]}…, not {etag[:12]}…")
