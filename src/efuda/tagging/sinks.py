"""Where tags go: sidecar files beside the pictures, or one file for all of them.

`txt` is the caption that fine-tuning tools read (kohya: `<stem>.txt`, UTF-8, one line, ", " between tags); `json` is a
file beside each picture with every score that counts; `jsonl` and `csv` are one file for the whole job.

A caption that is already there may be a person's: it is left alone unless `replace` says otherwise, and then kept
as `.bak`.
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
from efuda.files import replacing, write_text
from efuda.tagging.pipeline import Tagged
from efuda.tagging.tagger import Tagger

__all__ = ["SINKS", "Sink", "open_sink"]

SINKS: Final = ("txt", "json", "jsonl", "csv")
_BESIDE: Final = ("txt", "json")


class Sink(Protocol):
    """Takes results one by one; nothing is complete before the `with` block ends."""

    def wants(self, picture: Path) -> bool:
        """Whether this picture still needs tagging."""

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
        replace: overwrite sidecars that exist, keeping each old one as `.bak`.

    Raises:
        UsageError: an unknown kind, or `out` with sidecars.
    """
    if kind not in SINKS:
        raise UsageError(f"--to {kind} is not known; choose one of {', '.join(SINKS)}.")
    if kind in _BESIDE:
        if out is not None:
            raise UsageError(f"--to {kind} writes beside each picture; --out goes with jsonl and csv.")
        return _Sidecars(kind, _caption if kind == "txt" else _json, tagger, replace)
    return _OneFile(kind, tagger, out)


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
    """One file beside each picture, its suffix replaced."""

    def __init__(self, kind: str, form: Callable[[Tagged, Tagger], str], tagger: Tagger, replace: bool) -> None:
        self.kind, self.form, self.tagger, self.replace = kind, form, tagger, replace

    def wants(self, picture: Path) -> bool:
        return self.replace or not picture.with_suffix(f".{self.kind}").exists()

    def write(self, result: Tagged) -> None:
        sidecar = result.path.with_suffix(f".{self.kind}")
        if sidecar.exists():
            os.replace(sidecar, sidecar.with_name(sidecar.name + ".bak"))
        write_text(sidecar, self.form(result, self.tagger))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class _OneFile:
    """JSON lines or CSV: to standard output as they come, or to a file that appears when the job ends."""

    def __init__(self, kind: str, tagger: Tagger, out: Path | None) -> None:
        self.kind, self.tagger, self.out = kind, tagger, out

    def __enter__(self) -> Self:
        self._file: IO[str] = sys.stdout
        if self.out is not None:
            try:
                self._replacing = replacing(self.out)
                self._file = self._replacing.__enter__().open("w", encoding="utf-8", newline="")
            except OSError as error:
                raise OutputError(f"{self.out} cannot be written: {error.strerror}. Choose another --out.") from error
        if self.kind == "csv":
            self._row(["path", "width", "height", "tags", "scores"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.out is None:
            self._file.flush()
        else:
            self._file.close()
            self._replacing.__exit__(kind, error, trace)

    def wants(self, picture: Path) -> bool:
        return True

    def write(self, result: Tagged) -> None:
        if self.kind == "csv":
            tags = result.present(self.tagger)
            names, scores = " ".join(name for name, _ in tags), " ".join(f"{score:.4f}" for _, score in tags)
            self._row([result.path, *result.size, names, scores])
        else:
            self._file.write(json.dumps(_record(result, self.tagger), ensure_ascii=False) + "\n")

    def _row(self, values: list[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self._file.write(line.getvalue())
