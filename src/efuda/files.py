"""Write beside and rename: no reader ever sees half a file, and a failure to write names the place.

with replacing(folder / "report.json") as beside:
    beside.write_text(text)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from efuda.errors import OutputError

__all__ = ["make_folder", "remove_unfinished", "replacing", "sha256", "write_json", "write_text"]


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a new path in the same folder to write to; on leaving, flush it to disk and rename it to `path`.

    Args:
        durable: whether it must outlast a power cut; what can be made again need not wait for the disk.

    Raises:
        OutputError: the folder cannot be written, or the disk is full. `path` is then as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        if durable:
            _flush(beside)
        os.replace(beside, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing in this folder, which no other one may be at work in."""
    for beside in folder.glob(".*.part"):
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that reads well in a diff, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def make_folder(path: Path) -> Path:
    """Create `path` and prove that it can be written, before hours of work depend on it.

    Raises:
        OutputError: it cannot be created or written.
    """
    probe = path / f".efuda-probe.{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}. Choose another place or free it, and run again."
    )
