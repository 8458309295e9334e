"""One Parquet file for the whole job, for pandas, DuckDB and the like; needs pyarrow.

A row a picture: `path`, `width`, `height`, `tags` and `scores` (lists, best first), `rating`, `ratings` (a map to
scores) and `model`. The file is complete when the job ends or is stopped by hand, and is then continued by the same
command; a killed job leaves what was there before it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from efuda.errors import MissingExtra
from efuda.tagging.chosen import DIGITS, Choices, Chosen, Lexicon, Said
from efuda.tagging.tagged import Failed
from efuda.tagging.writing.places import cannot_write, keep_spare, new_name
from efuda.tagging.writing.results import OneFile, not_ours

__all__ = ["Parquet"]

_GROUP: Final = 20_000


class Parquet(OneFile):
    """`parquet`.

    Raises:
        MissingExtra: pyarrow is not installed.
    """

    def __init__(self, model: str, out: Path, *, replace: bool) -> None:
        super().__init__(out, replace)
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise MissingExtra("--to parquet", "train", "pyarrow") from error
        self.model, self._arrow = model, pyarrow
        self._schema = _schema(pyarrow)
        self._made = new_name(out.parent)
        self._waiting: list[Any] = []
        self._lexicon: Lexicon | None = None
        self._names: Any = None
        self._fresh = False
        self._writer: Any = None

    def write_many(self, batch: Sequence[Chosen]) -> list[Failed]:
        """Add a row each.

        Raises:
            OutputError: the disk is full.
        """
        assert self.out is not None
        if batch:
            self._waiting.append(self._table(Choices.of(batch)))
            self._fresh = True
        if sum(map(len, self._waiting)) >= _GROUP:
            try:
                self._flush()
            except OSError as error:
                raise cannot_write(self.out, error) from error
        return []

    def _open(self, out: Path, stack: ExitStack) -> None:
        self._writer = self._arrow.parquet.ParquetWriter(self._made, self._schema, compression="zstd")
        stack.callback(self._drop)
        if self.replace or not out.exists() or not out.stat().st_size:
            return
        try:
            with self._arrow.parquet.ParquetFile(out) as there:
                if not there.schema_arrow.equals(self._schema):
                    raise not_ours(out, "parquet")
                for rows in there.iter_batches(_GROUP):
                    self._known.update(rows.column("path").to_pylist())
                    self._writer.write_batch(rows)
        except self._arrow.ArrowInvalid as error:
            raise not_ours(out, "parquet") from error

    def _close(self) -> None:
        assert self.out is not None
        self._flush()
        self._writer.close()
        if self._fresh:
            if self.replace:
                keep_spare(self.out)
            os.replace(self._made, self.out)

    def _drop(self) -> None:
        with suppress(OSError):
            self._writer.close()
        self._made.unlink(missing_ok=True)

    def wants(self, picture: Path | str) -> bool:
        """Whether the file does not have it yet."""
        return _text(picture) not in self._known

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.concat_tables(self._waiting).combine_chunks())
            self._waiting = []

    def _table(self, batch: Choices) -> Any:
        """A row each."""
        arrow = self._arrow
        if batch.lexicon is not self._lexicon:
            self._lexicon, self._names = batch.lexicon, arrow.array(batch.lexicon.names, arrow.string())

        def lists(said: Said) -> tuple[Any, Any, Any]:
            ends = np.concatenate([[0], said.ends()]).astype(np.int32)
            scores = (said.scores / DIGITS).astype(np.float32)
            return arrow.array(ends), self._names.take(arrow.array(said.words)), arrow.array(scores)

        ends, tags, scores = lists(batch.tags)
        columns = [
            [_text(path) for path in batch.paths],
            [width for width, _ in batch.sizes],
            [height for _, height in batch.sizes],
            arrow.ListArray.from_arrays(ends, tags),
            arrow.ListArray.from_arrays(ends, scores),
            list(batch.best),
            arrow.MapArray.from_arrays(*lists(batch.ratings)),
            [self.model] * len(batch),
        ]
        return arrow.table(columns, self._schema)


def _schema(arrow: Any) -> Any:
    text, score = arrow.string(), arrow.float32()
    fields = [("path", text), ("width", arrow.int32()), ("height", arrow.int32()), ("tags", arrow.list_(text))]
    fields += [("scores", arrow.list_(score)), ("rating", text), ("ratings", arrow.map_(text, score)), ("model", text)]
    return arrow.schema(fields)


def _text(path: Path | str) -> str:
    r"""A name that is not UTF-8 is written with `\xff` for its odd bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
