"""Where tags go: files beside the pictures, the pictures' own files, or one file for all of them.

    with open_sink("txt", tagger.name) as sink:
        pictures = [path for path in find_pictures(paths) if sink.wants(path)]
        for written in write(tag(tagger, pictures), chooser, sink):
            ...                                             # a Chosen, or a Failed

Sinks write what `choosing` chose; `forms`, `results` and `parquet` say what the files hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, cast

from efuda.errors import UsageError
from efuda.images import SUFFIXES
from efuda.tagging.choosing import Chooser
from efuda.tagging.chosen import Chosen
from efuda.tagging.tagged import Failed, Handful, Tagged
from efuda.tagging.writing.forms import Caption, Form, Hydrus, Json, Xmp
from efuda.tagging.writing.parquet import Parquet
from efuda.tagging.writing.results import KohyaDocument, Lines, csv_lines, json_lines, kohya_lines
from efuda.tagging.writing.sidecars import EXISTING, Embedded, Sidecars

__all__ = ["EXISTING", "SINKS", "Sink", "Style", "Written", "open_sink", "write", "write_batches"]

_BESIDE: Final = ("txt", "json", "xmp", "hydrus", "embed")
_STREAMS: Final = ("jsonl", "csv")
SINKS: Final = ("txt", "json", "jsonl", "csv", "parquet", "xmp", "hydrus", "embed", "kohya")


class Sink(Protocol):
    """Takes what was chosen, in batches."""

    def wants(self, picture: Path | str) -> bool:
        """Whether this picture still needs tagging; ask once a picture."""

    def write_many(self, batch: Sequence[Chosen], /) -> list[Failed]:
        """Keep these pictures' tags; returns those that could not be kept, each with its reason.

        Raises:
            OutputError: no more can be kept at all, for example as the disk with the one file is full.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Written(NamedTuple):
    """What came of some pictures: those whose tags are kept, and those that failed, each with its reason."""

    chosen: Sequence[Chosen]
    failed: Sequence[Failed]


@dataclass(frozen=True, slots=True)
class Style:
    """How captions look and files are changed.

    Attributes:
        separator: between the tags of a caption.
        extension: of `txt` files.
        keep_mtime: pictures that tags are embedded into keep their time of change.
    """

    separator: str = ", "
    extension: str = ".txt"
    keep_mtime: bool = False


def open_sink(
    kind: str, model: str, *, out: Path | None = None, existing: str = "skip", style: Style | None = None
) -> Sink:
    """Open a sink.

    Args:
        kind: one of `SINKS`.
        model: the tagger's name, which results mention.
        out: for `jsonl`, `csv`, `parquet` and `kohya`, the file (standard output for the first two when None); the
            others go beside or into the pictures.
        existing: what becomes of tags that are there: "skip" leaves them and their pictures alone, "merge" adds what is
            missing, "replace" writes anew and keeps the old file as `.bak`. One file for all is continued by "skip".

    Raises:
        UsageError: an unknown kind, or what does not go together; on entering, `out` holds something else or is being
            written by another job.
        OutputError: on entering, `out` cannot be written.
        MissingExtra: `parquet` without pyarrow.
    """
    style = style or Style()
    _check(kind, out, existing, style)
    if kind == "embed":
        return Embedded(existing, keep_mtime=style.keep_mtime)
    if kind in _BESIDE:
        forms: dict[str, Callable[[], Form]] = {
            "txt": lambda: Caption(style.separator, style.extension),
            "json": lambda: Json(model),
            "xmp": Xmp,
            "hydrus": Hydrus,
        }
        return Sidecars(forms[kind](), existing)
    replace = existing == "replace"
    if kind in _STREAMS:
        return Lines(csv_lines() if kind == "csv" else json_lines(model), out, replace=replace)
    assert out is not None
    if kind == "parquet":
        return Parquet(model, out, replace=replace)
    if out.suffix == ".jsonl":
        return Lines(kohya_lines(style.separator), out, replace=replace)
    return KohyaDocument(style.separator, out, replace=replace)


def _check(kind: str, out: Path | None, existing: str, style: Style) -> None:
    if kind not in SINKS:
        raise UsageError(f"--to {kind} is not known; choose one of {', '.join(SINKS)}.")
    assert existing in EXISTING, existing
    if kind in _BESIDE and out is not None:
        raise UsageError(f"--to {kind} writes beside each picture; --out goes with jsonl, csv, parquet and kohya.")
    if kind not in (*_BESIDE, *_STREAMS) and out is None:
        raise UsageError(f"--to {kind} writes one file: name it with --out.")
    if kind not in _BESIDE and existing == "merge":
        raise UsageError(f"--merge goes with files beside the pictures; --to {kind} goes on where it stopped anyway.")
    if not style.extension.startswith(".") or "/" in style.extension or style.extension.lower() in SUFFIXES:
        raise UsageError(f"--caption-extension {style.extension} is none; for example .txt or .caption.")
    if style.keep_mtime and kind != "embed":
        raise UsageError("--keep-mtime goes with --embed.")
    if not style.separator:
        raise UsageError('--caption-separator is empty; for example ", ".')


def write(
    results: Iterable[Tagged | Failed], chooser: Chooser, sink: Sink, *, batch: int = 16
) -> Iterator[Chosen | Failed]:
    """Choose and write results, and yield each once it is written, or has failed.

    Args:
        batch: so many are written at once, and held back until then.

    Raises:
        OutputError: nothing more can be written at all.
    """
    todo = iter(results)
    for written in write_batches(iter(lambda: list(islice(todo, batch)), []), chooser, sink):
        yield from written.failed
        yield from written.chosen


def write_batches(batches: Iterable[Sequence[Tagged | Failed]], chooser: Chooser, sink: Sink) -> Iterator[Written]:
    """As `write`, by the handful as results come; hundreds at once are faster where they need no inference.

    Raises:
        OutputError: nothing more can be written at all.
    """
    for results in batches:
        unread = [] if isinstance(results, Handful) else [one for one in results if isinstance(one, Failed)]
        tagged = [one for one in results if isinstance(one, Tagged)] if unread else results
        chosen = chooser.choose(cast(Sequence[Tagged], tagged))
        failed = sink.write_many(chosen) if chosen else []
        lost = {one.path for one in failed}
        yield Written([one for one in chosen if one.path not in lost] if lost else chosen, [*unread, *failed])
