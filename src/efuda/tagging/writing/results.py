"""One file for the whole job: JSON lines and CSV, a line a picture, and the files of kohya's `--output_path`.

A file that holds an earlier job's results is continued: pictures that it has are not wanted again, and a last line that
a kill cut off is taken away. One job at a time writes a file.

| kind | a picture in it |
|---|---|
| `jsonl` | `{"path", "width", "height", "tags": {name: score}, "rating": {name: score}, "model"}` |
| `csv` | `path,width,height,tags,scores,rating`; tags and scores separated by spaces |
| `kohya`, a name in `.jsonl` | `{"image_path", "caption", "image_size": [width, height]}` |
| `kohya`, else | `{path: {"tags": caption, "image_size": [width, height]}, …}`, written at the end or when stopped |
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import UsageError
from efuda.tagging.chosen import DIGITS, Choices, Chosen, Lexicon, Said
from efuda.tagging.tagged import Failed
from efuda.tagging.writing.places import Locked, cannot_write, keep_spare, write_all, write_over
from efuda.tagging.writing.weaving import Ragged, Texts, paired, woven

__all__ = ["Format", "KohyaDocument", "Lines", "OneFile", "csv_lines", "json_lines", "kohya_lines", "not_ours"]

_encode: Final = json.JSONEncoder(ensure_ascii=False).encode
_QUOTED: Final = re.compile('[,"\r\n]').search
_COLUMNS: Final = ["path", "width", "height", "tags", "scores", "rating"]


@dataclass(frozen=True)
class Format:
    """How pictures become lines, and a line the path of its picture.

    Attributes:
        header: what stands first in a file.
        lines: of pictures, each with its end.
        path: of a whole line; raises ValueError, KeyError or TypeError where it is none of this format.
    """

    name: str
    header: str
    lines: Callable[[Choices], str]
    path: Callable[[str], str]


def json_lines(model: str) -> Format:
    """`jsonl`."""
    names, end = _Names(lambda name: f"{_json(name)}: "), f'}}, "model": {_json(model)}}}\n'
    scores = _between(", ", lambda score: repr(score / DIGITS))

    def pairs(batch: Choices, said: Said) -> Ragged:
        return paired(said.counts, names.of(batch.lexicon).take(said.words), scores(said))

    def lines(batch: Choices) -> str:
        pictures = zip(batch.paths, batch.sizes, strict=True)
        heads = [
            f'{{"path": {_json(str(path))}, "width": {width}, "height": {height}, "tags": {{'
            for path, (width, height) in pictures
        ]
        return woven(len(batch), heads, pairs(batch, batch.tags), '}, "rating": {', pairs(batch, batch.ratings), end)

    return Format("jsonl", "", lines, lambda line: str(json.loads(line)["path"]))


def csv_lines() -> Format:
    """`csv`."""
    names = _Names(lambda name: name.replace(" ", "_").replace('"', '""') + " ")
    last = _Names(lambda name: name.replace(" ", "_").replace('"', '""'))
    marks = _Names(lambda name: '"' if _QUOTED(name) else "")
    scores = _between(" ", lambda score: f"{score / DIGITS:.4f}")

    def lines(batch: Choices) -> str:
        said, heads = batch.tags, []
        ends, quoted = said.last(), np.full(len(batch), "", dtype=object)
        odd = marks.of(batch.lexicon).take(said.words) == '"'
        quoted[np.repeat(np.arange(len(batch)), said.counts)[odd]] = '"'
        words = np.where(ends, last.of(batch.lexicon).take(said.words), names.of(batch.lexicon).take(said.words))
        for path, (width, height) in zip(batch.paths, batch.sizes, strict=True):
            heads.append(f"{_field(str(path))},{width},{height},")
        rating = [f"{best or ''}\n" for best in batch.best]
        scored = Ragged(said.counts, scores(said))
        return woven(len(batch), heads, quoted, Ragged(said.counts, words), quoted, ",", scored, ",", rating)

    return Format("csv", _csv(_COLUMNS), lines, _csv_path)


def kohya_lines(separator: str) -> Format:
    """`kohya` with a name in `.jsonl`."""

    def line(path: Path | str, caption: str, size: tuple[int, int]) -> str:
        return _json({"image_path": str(path), "caption": caption, "image_size": list(size)}) + "\n"

    def lines(batch: Choices) -> str:
        captions = [separator.join(names) for names in batch.names()]
        return "".join(map(line, batch.paths, captions, batch.sizes))

    return Format("kohya", "", lines, lambda line: str(json.loads(line)["image_path"]))


class _Names:
    """The names of a lexicon as a format writes them, kept while the lexicon is the same."""

    def __init__(self, write: Callable[[str], str]) -> None:
        self._write = write
        self._lexicon: Lexicon | None = None
        self._texts: Texts

    def of(self, lexicon: Lexicon) -> Texts:
        if self._lexicon is not lexicon:
            write, names = self._write, lexicon.names
            self._lexicon, self._texts = lexicon, Texts(lambda word: write(names[word]))
        return self._texts


def _between(separator: str, write: Callable[[int], str]) -> Callable[[Said], NDArray[Any]]:
    """What writes scores: each with a separator behind it, but for a picture's last."""
    texts = Texts(lambda number: write(number // 2) + ("" if number % 2 else separator))
    return lambda said: texts.take(2 * said.scores + said.last())


def not_ours(path: Path, kind: str) -> UsageError:
    """For a file that a job must neither continue nor overwrite."""
    return UsageError(
        f"{path} exists and does not hold {kind} results of efuda. Choose another --out, or --replace it."
    )


class OneFile:
    """What all have in common: an own file that is locked, and pictures that it has already."""

    def __init__(self, out: Path | None, replace: bool) -> None:
        self.out, self.replace = out, replace
        self._known: set[str] = set()
        self._stack = ExitStack()

    def wants(self, picture: Path | str) -> bool:
        """Whether the file does not have it yet."""
        return str(picture) not in self._known

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.out is not None:
                stack.enter_context(Locked(self.out))
                try:
                    self._open(self.out, stack)
                except OSError as error:
                    raise cannot_write(self.out, error) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                self._close()
            except OSError as failure:
                if self.out is None:
                    raise
                raise cannot_write(self.out, failure) from failure

    def _open(self, out: Path, stack: ExitStack) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class Lines(OneFile):
    """A line a picture, to standard output or to a file; a stopped job keeps what it did."""

    def __init__(self, form: Format, out: Path | None, *, replace: bool) -> None:
        super().__init__(out, replace)
        self.form = form
        self._file: io.FileIO | None = None  # unbuffered: what could not be written must not be tried again later
        self._empty = True

    def write_many(self, batch: Sequence[Chosen]) -> list[Failed]:
        """Write a line each.

        Raises:
            OutputError: the disk is full; the file ends with a whole line.
        """
        header = self.form.header if self._empty and batch else ""
        text = header + self.form.lines(Choices.of(batch))
        self._empty = self._empty and not text
        if self.out is None:
            sys.stdout.write(text if _is_text(text) else text.encode("utf-8", "backslashreplace").decode())
            return []
        end = 0
        try:
            self._file = self._file or self._fresh(self.out)
            end = self._file.tell()
            write_all(self._file, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            if self._file is not None:
                self._file.truncate(end)
                self._file.seek(end)
            raise cannot_write(self.out, error) from error
        return []

    def _open(self, out: Path, stack: ExitStack) -> None:
        if not self.replace and out.exists() and out.stat().st_size:
            self._known = self._continue(out)
            self._empty = False
            self._file = out.open("ab", buffering=0)

    def _close(self) -> None:
        if self.out is None:
            sys.stdout.flush()
        elif self._file is not None:
            self._file.close()

    def _fresh(self, out: Path) -> io.FileIO:
        """The file, begun with the first result: a job that has none leaves what is there."""
        keep_spare(out)
        out.unlink(missing_ok=True)
        return out.open("ab", buffering=0)

    def _continue(self, path: Path) -> set[str]:
        """The pictures that the file has; a last line that was cut off by a kill is taken away."""
        known, whole, header = set(), 0, self.form.header
        try:
            for line in _whole_lines(path, quoted=bool(header)):
                text = line.decode("utf-8", "surrogateescape")
                if header and not whole and text != header:
                    raise ValueError("another header")
                if text not in ("\n", header):
                    known.add(self.form.path(text))
                whole += len(line)
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise not_ours(path, self.form.name) from error
        if not known and not (header and whole):
            raise not_ours(path, self.form.name)
        os.truncate(path, whole)
        return known


class KohyaDocument(OneFile):
    """One JSON object, by path."""

    def __init__(self, separator: str, out: Path, *, replace: bool) -> None:
        super().__init__(out, replace)
        self.separator = separator
        self._pictures: dict[str, Any] = {}

    def write_many(self, batch: Sequence[Chosen]) -> list[Failed]:
        """Keep them until the end."""
        choices = Choices.of(batch)
        for path, size, names in zip(choices.paths, choices.sizes, choices.names(), strict=True):
            self._pictures[str(path)] = {"tags": self.separator.join(names), "image_size": list(size)}
        return []

    def _open(self, out: Path, stack: ExitStack) -> None:
        if self.replace or not out.exists() or not out.stat().st_size:
            return
        try:
            there = json.loads(out.read_bytes())
            if not there or not all("tags" in one for one in there.values()):
                raise ValueError("another form")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise not_ours(out, "kohya") from error
        self._pictures, self._known = there, set(there)

    def _close(self) -> None:
        assert self.out is not None
        if self._pictures.keys() != self._known:
            write_over(self.out, _json(self._pictures).encode(), spare=self.replace)


def _json(value: Any) -> str:
    text = _encode(value)
    return text if text.isascii() or _is_text(text) else json.dumps(value)


def _is_text(text: str) -> bool:
    """Whether it can be UTF-8: a file's name may be bytes that are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _field(text: str) -> str:
    return _csv([text, ""])[:-2] if _QUOTED(text) else text


def _csv_path(line: str) -> str:
    (row,) = csv.reader(io.StringIO(line, newline=""))
    if len(row) != len(_COLUMNS) or not row[1].isdigit():
        raise ValueError("another table")
    return row[0]


def _whole_lines(path: Path, *, quoted: bool) -> Iterator[bytes]:
    """Lines with their ends; one with quoted line breaks within is one, one that was cut off is none."""
    begun = b""
    with path.open("rb") as file:
        for line in file:
            begun += line
            if line.endswith(b"\n") and (not quoted or begun.count(b'"') % 2 == 0):
                yield begun
                begun = b""
