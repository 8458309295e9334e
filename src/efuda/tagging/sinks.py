"""Where tags go: sidecar files beside the pictures, or one file for all of them.

`txt` is the caption that fine-tuning tools read (kohya: `<stem>.txt`, UTF-8, one line, ", " between tags); `json` is a
file beside each picture with every score that counts; `jsonl` and `csv` are one file for the whole job.

A caption that is already there may be a person's: it is left alone unless `replace` says otherwise, and then kept as
`.bak`. A file of results is continued where an earlier job stopped.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self

from efuda.errors import OutputError, UsageError
from efuda.files import write_text
from efuda.tagging.tagged import Tagged
from efuda.tagging.tagger import Tagger

__all__ = ["SINKS", "Sink", "open_sink"]

SINKS: Final = ("txt", "json", "jsonl", "csv")
_BESIDE: Final = ("txt", "json")
_COLUMNS: Final[list[object]] = ["path", "width", "height", "tags", "scores"]


class Sink(Protocol):
    """Takes results one by one."""

    def wants(self, picture: Path) -> bool:
        """Whether this picture still needs tagging; ask once a picture."""

    def write(self, result: Tagged) -> None:
        """Keep one picture's tags."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_sink(kind: str, tagger: Tagger, *, out: Path | None = None, replace: bool = False) -> Sink:
    """Open a sink.

    Args:
        kind: one of `SINKS`.
        tagger: names the tags and their thresholds.
        out: for `jsonl` and `csv`, the file (standard output when None); `txt` and `json` go beside the pictures.
        replace: write anew what exists, keeping the old files as `.bak`.

    Raises:
        UsageError: an unknown kind, or `out` with sidecars; on entering, `out` holds something else.
        OutputError: on entering, `out` cannot be written.
    """
    if kind not in SINKS:
        raise UsageError(f"--to {kind} is not known; choose one of {', '.join(SINKS)}.")
    if kind in _BESIDE:
        if out is not None:
            raise UsageError(f"--to {kind} writes beside each picture; --out goes with jsonl and csv.")
        return _Sidecars(kind, _caption if kind == "txt" else _json, tagger, replace)
    return _OneFile(kind, tagger, out, replace)


def _record(result: Tagged, tagger: Tagger) -> dict[str, object]:
    return {
        "path": str(result.path),
        "width": result.size[0],
        "height": result.size[1],
        "tags": {name: round(score, 4) for name, score in result.present(tagger)},
        "rating": {name: round(score, 4) for name, score in result.ratings(tagger).items()},
        "model": tagger.name,
    }


def _caption(result: Tagged, tagger: Tagger) -> str:
    return ", ".join(name for name, _ in result.present(tagger)) + "\n"


def _json(result: Tagged, tagger: Tagger) -> str:
    return json.dumps(_record(result, tagger), ensure_ascii=False, indent=1) + "\n"


class _Sidecars:
    """One file beside each picture, its suffix replaced; of pictures that share a stem the first has it."""

    def __init__(self, kind: str, form: Callable[[Tagged, Tagger], str], tagger: Tagger, replace: bool) -> None:
        self.kind, self.form, self.tagger, self.replace = kind, form, tagger, replace
        self._taken: set[Path] = set()

    def wants(self, picture: Path) -> bool:
        sidecar = picture.with_suffix(f".{self.kind}")
        if sidecar in self._taken or (sidecar.exists() and not self.replace):
            return False
        self._taken.add(sidecar)
        return True

    def write(self, result: Tagged) -> None:
        sidecar = result.path.with_suffix(f".{self.kind}")
        _set_aside(sidecar)
        write_text(sidecar, self.form(result, self.tagger))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class _OneFile:
    """JSON lines or CSV, to standard output or to a file, a line at a time, so that a stopped job keeps what it did.

    A file that holds an earlier job's results is continued: pictures that it has are not wanted again.
    """

    def __init__(self, kind: str, tagger: Tagger, out: Path | None, replace: bool) -> None:
        self.kind, self.tagger, self.out, self.replace = kind, tagger, out, replace
        self._file: IO[str] = sys.stdout
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        if self.out is not None:
            try:
                if self.replace:
                    _set_aside(self.out)
                elif self.out.exists() and self.out.stat().st_size:
                    self._known = self._continue(self.out)
                self._file = self.out.open("a", encoding="utf-8", newline="")
            except OSError as error:
                raise OutputError(f"{self.out} cannot be written: {error.strerror}. Choose another --out.") from error
        self._empty = self.out is None or self._file.tell() == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.out is None:
            self._file.flush()
            return
        self._file.close()
        if self._empty:
            self.out.unlink()

    def wants(self, picture: Path) -> bool:
        return str(picture) not in self._known

    def write(self, result: Tagged) -> None:
        if self.kind == "csv":
            tags = result.present(self.tagger)
            names, scores = " ".join(name for name, _ in tags), " ".join(f"{score:.4f}" for _, score in tags)
            header = _row(_COLUMNS) if self._empty else ""
            self._file.write(header + _row([result.path, *result.size, names, scores]))
        else:
            self._file.write(json.dumps(_record(result, self.tagger), ensure_ascii=False) + "\n")
        self._empty = False
        if self.out is not None:
            self._file.flush()

    def _continue(self, path: Path) -> set[str]:
        """The pictures that the file has; a last line that was cut off by a kill is taken away."""
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        try:
            text = data[:whole].decode()
            if self.kind == "jsonl":
                known = {str(json.loads(line)["path"]) for line in text.split("\n") if line}
            else:
                header, *rows = csv.reader(io.StringIO(text, newline=""))
                known = {row[0] for row in rows} if header == _COLUMNS else set()
        except (ValueError, KeyError, TypeError):
            known = set()
        if not known:
            raise UsageError(
                f"{path} exists and does not hold {self.kind} results of efuda. Choose another --out, or --replace it."
            )
        os.truncate(path, whole)
        return known


def _row(values: list[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _set_aside(path: Path) -> None:
    """Keep a file that is about to be replaced, as `.bak`, or `.bak2`, … where earlier ones are kept already."""
    if path.exists():
        number = 1
        while (spare := path.with_name(f"{path.name}.bak{number if number > 1 else ''}")).exists():
            number += 1
        os.replace(path, spare)
