"""Posts as CSV or Parquet, with the columns that Danbooru's API has fields for.

CSV is cut into jobs at the ends of rows, which the number of quotes before them tells: a value may hold newlines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from efuda.datasets.entries import CATEGORIES, BadLine, Job, Parsed, entry_table, split_words
from efuda.datasets.sources.lines import LONGEST, BrokenJob
from efuda.datasets.sources.records import RATINGS
from efuda.datasets.sources.unpacking import BOM, open_unpacked, read_some, stamp
from efuda.errors import MetadataError

__all__ = ["CsvJob", "ParquetJob", "is_parquet", "is_table", "table_jobs"]

_NAMES: Final = {
    "id": "id",
    "parent_id": "parent_id",
    "rating": "rating",
    "deleted": "is_deleted",
    "banned": "is_banned",
    "md5": "md5",
    "ext": "file_ext",
    "score": "score",
    "created": "created_at",
    "updated": "updated_at",
}
_TAGS: Final = ("tags", "tag_string", *(f"tag_string_{category}" for category in CATEGORIES))
_KNOWN: Final = (*_NAMES.values(), *_TAGS)
_NEEDED: Final = "expected columns as in Danbooru's API: id, rating, md5, tag_string or tag_string_general, …"
_NEVER: Final = "1970-01-01 00:00:00 UTC"
_ROWS: Final = 1 << 17  # of Parquet at once
_BLOCK: Final = 32 << 20
_QUOTE: Final = b'"'


@dataclass(frozen=True)
class CsvJob:
    """Some rows of a CSV file; `first` says that the file begins with them, after its header."""

    file: str
    key: str
    header: bytes
    first: bool
    data: bytes = field(repr=False)

    def read(self) -> Parsed:
        """Read the columns that are known; rows that do not fit are bad lines."""
        bad: list[BadLine] = []
        before = 1 if self.first else 0  # lines ahead of the data within this job
        data = self.data
        try:
            table = _read_csv(self.file, self.header, data, before, bad)
        except arrow.ArrowException:
            bad.clear()
            data = _mended(self.file, data, before, bad)
            try:
                table = _read_csv(self.file, self.header, data, before, bad)
            except arrow.ArrowException as error:
                bad.append(BadLine(self.file, 0, f"rows that cannot be read as CSV ({error})"))
                table = entry_table(0, {})
        lines = before + self.data.count(b"\n") + (not self.data.endswith(b"\n"))
        return Parsed(table, tuple(sorted(bad, key=lambda one: one.line)), lines)


@dataclass(frozen=True)
class ParquetJob:
    """Rows of some row groups of a Parquet file: `count` of them, after the first `start`."""

    file: str
    key: str
    groups: tuple[int, ...]
    start: int
    count: int

    def read(self) -> Parsed:
        """Read the columns that are known."""
        tables: list[Any] = []
        place, end = 0, self.start + self.count
        try:
            with open_unpacked(self.file) as stream:
                opened = parquet.ParquetFile(stream)
                wanted = [name for name in opened.schema_arrow.names if name in _KNOWN]
                for batch in opened.iter_batches(1 << 16, row_groups=list(self.groups), columns=wanted):
                    some = batch.slice(max(0, self.start - place), min(len(batch), end - place))
                    some = some.slice(0, max(0, end - max(place, self.start)))
                    place += len(batch)
                    if len(some):
                        tables.append(_entries(arrow.Table.from_batches([some])))
                    if place >= end:
                        break
        except (arrow.ArrowException, OSError) as error:
            reason = f"rows that cannot be read as Parquet ({error})"
            return Parsed(_joined(tables), (BadLine(self.file, 0, reason),), self.count)
        return Parsed(_joined(tables), (), self.count)


def is_parquet(file: str) -> bool:
    """Whether the name says Parquet."""
    return _plain(file).endswith(".parquet")


def is_table(file: str) -> bool:
    """Whether the name says CSV or Parquet."""
    return _plain(file).endswith((".csv", ".parquet"))


def table_jobs(file: str, *, block: int = _BLOCK, longest: int = LONGEST, rows: int = _ROWS) -> Iterator[Job]:
    """The jobs of one table, found as they are asked for.

    Raises:
        MetadataError: it cannot be read, or has no column of tags.
    """
    if is_parquet(file):
        yield from _parquet_jobs(file, rows)
    else:
        yield from _csv_jobs(file, block, longest)


def _plain(file: str) -> str:
    return file.lower().removesuffix(".gz").removesuffix(".xz").removesuffix(".zst")


def _parquet_jobs(file: str, rows: int) -> Iterator[Job]:
    if not file.lower().endswith(".parquet"):
        raise MetadataError(f"{file} is a compressed Parquet file, which cannot be read in parts. Unpack it first.")
    told = stamp(file)
    try:
        with open_unpacked(file) as stream:
            opened = parquet.ParquetFile(stream)
            names = opened.schema_arrow.names
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    except (arrow.ArrowException, OSError) as error:
        raise MetadataError(f"{file} cannot be read as Parquet: {error}. Check the file.") from error
    _check(file, names)
    groups: list[int] = []
    for group in range(len(sizes)):
        groups.append(group)
        have = sum(sizes[one] for one in groups)
        if have < rows and group < len(sizes) - 1:
            continue
        for start in range(0, have, 2 * rows):
            count = min(2 * rows, have - start)
            yield ParquetJob(file, f"{told} {groups} {start}+{count}", tuple(groups), start, count)
        groups = []


def _csv_jobs(file: str, block: int, longest: int) -> Iterator[Job]:
    told = stamp(file)
    number = 0
    with open_unpacked(file) as stream:
        head, error = read_some(stream, block)
        head = head.removeprefix(BOM)
        end = head.find(b"\n") + 1 or len(head)
        header, carry = head[:end], head[end:]
        _check(file, _columns(header))
        while True:
            cut = _row_end(carry)
            if cut:
                yield CsvJob(file, f"{told} {number}", header, number == 0, carry[:cut])
                number, carry = number + 1, carry[cut:]
            elif len(carry) > longest:  # a quote without its partner, or one line without end
                cut = carry.find(b"\n") + 1
                reason = f"a row longer than {longest:,} bytes"
                yield BrokenJob(file, f"{told} {number}", reason, 1 if cut else 0)
                number, carry = number + 1, carry[cut:] if cut else _after_line(stream)
                continue
            if error is not None:
                break
            data, error = read_some(stream, block)
            if not data:
                break
            carry += data
    if carry and error is None:
        yield CsvJob(file, f"{told} {number}", header, number == 0, carry)
    if error is not None:
        yield BrokenJob(file, f"{told} end", f"the file ends early or is damaged ({error}); what came before is used")


def _row_end(data: bytes) -> int:
    """The place after the last row that ends here: its newline has an even number of quotes before it; 0 if none."""
    end = data.rfind(b"\n") + 1
    quotes = data.count(_QUOTE, 0, end)
    while end and quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(_QUOTE, before, end)
        end = before
    return end


def _after_line(stream: Any) -> bytes:
    """Pass over the rest of a line; what follows it, as far as it was read."""
    while True:
        data, error = read_some(stream, 1 << 20)
        end = data.find(b"\n") + 1
        if end or not data or error is not None:
            return data[end:] if end else b""


def _columns(header: bytes) -> list[str]:
    text = header.decode("utf-8", errors="replace").strip("\r\n")
    return next(csv.reader([text], delimiter=_delimiter(header)), [])


def _delimiter(header: bytes) -> str:
    return max(",\t;", key=lambda one: header.count(one.encode()))


def _check(file: str, names: list[str]) -> None:
    if not set(names) & set(_TAGS):
        have = ", ".join(names[:6])[:200]
        raise MetadataError(f"{file} has no column of tags; {_NEEDED} It has: {have}.")


def _read_csv(file: str, header: bytes, data: bytes, before: int, bad: list[BadLine]) -> Any:
    def refuse(row: Any) -> str:
        text = (row.text or "")[:60]
        line = (row.number or 1) - 1 + before
        bad.append(BadLine(file, line, f"{row.actual_columns} columns, not {row.expected_columns}", text))
        return "skip"

    names = _columns(header)
    names = [f"{name} {place}" if name in names[:place] else name for place, name in enumerate(names)]
    table = arrow_csv.read_csv(
        io.BytesIO(header + data),
        arrow_csv.ReadOptions(
            use_threads=False, block_size=len(header) + len(data) + 16, column_names=names, skip_rows=1
        ),
        arrow_csv.ParseOptions(
            delimiter=_delimiter(header), newlines_in_values=True, invalid_row_handler=refuse, ignore_empty_lines=True
        ),
        arrow_csv.ConvertOptions(
            column_types={name: arrow.string() for name in _KNOWN},
            include_columns=[name for name in names if name in _KNOWN],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=["", "NULL", "\\N"],
        ),
    )
    return _entries(table)


def _mended(file: str, data: bytes, before: int, bad: list[BadLine]) -> bytes:
    """The lines that are valid UTF-8."""
    good = []
    for number, line in enumerate(data.split(b"\n"), start=1 + before):
        try:
            line.decode()
            good.append(line)
        except UnicodeDecodeError:
            bad.append(BadLine(file, number, "not valid UTF-8", line[:60].decode(errors="replace")))
    return b"\n".join(good)


def _entries(table: Any) -> Any:
    table = table.combine_chunks()
    present = {name: table[name] for name in table.column_names if table[name].null_count < table.num_rows}
    columns: dict[str, Any] = {}
    for ours, theirs in _NAMES.items():
        column = present.get(theirs)
        if column is None:
            continue
        if ours in ("id", "parent_id", "score"):
            columns[ours] = _integers(column, positive=ours != "score")
        elif ours in ("deleted", "banned"):
            columns[ours] = _flags(column)
        elif ours == "rating":
            columns[ours] = _ratings(column)
        elif ours == "ext":
            columns[ours] = compute.utf8_ltrim(compute.utf8_lower(_strings(column)), ".")
        else:
            text = _strings(column)
            columns[ours] = compute.if_else(compute.equal(text, _NEVER), None, text) if "ated" in ours else text
    for category in CATEGORIES:
        name = f"tag_string_{category}"
        if category == "general":
            name = next((one for one in (name, "tag_string", "tags") if one in present), name)
        if name in present:
            columns[category] = _words(present[name])
    columns = {
        name: column.combine_chunks() if isinstance(column, arrow.ChunkedArray) else column
        for name, column in columns.items()
    }
    return entry_table(table.num_rows, columns)


def _words(column: Any) -> Any:
    if arrow.types.is_list(column.type) or arrow.types.is_large_list(column.type):
        return column.cast(arrow.list_(arrow.string()))
    text = _strings(column)
    return split_words(text.combine_chunks() if isinstance(text, arrow.ChunkedArray) else text)


def _strings(column: Any) -> Any:
    if arrow.types.is_timestamp(column.type):
        utc = column.cast(arrow.timestamp(column.type.unit, "UTC"))
        return compute.strftime(utc, format="%Y-%m-%dT%H:%M:%SZ")
    return column.cast(arrow.string())


def _integers(column: Any, *, positive: bool) -> Any:
    if arrow.types.is_floating(column.type):  # as Pandas writes integers with gaps
        wide = column.cast(arrow.float64())
        sound = compute.and_(compute.less(compute.abs(wide), 2.0**53), compute.equal(compute.floor(wide), wide))
        numbers = compute.if_else(sound, wide, None).cast(arrow.int64())
    else:
        text = compute.replace_substring_regex(compute.utf8_trim(_strings(column), " "), r"\.0*$", "")
        good = compute.match_substring_regex(text, r"^-?\d{1,18}$")
        numbers = compute.if_else(good, text, None).cast(arrow.int64())
    return compute.if_else(compute.greater(numbers, 0), numbers, None) if positive else numbers


def _flags(column: Any) -> Any:
    if arrow.types.is_boolean(column.type):
        return column
    text = compute.utf8_lower(_strings(column))
    yes = compute.is_in(text, value_set=arrow.array(["true", "t", "1", "yes"]))
    return compute.if_else(compute.is_valid(text), yes, None)


def _ratings(column: Any) -> Any:
    text = compute.utf8_trim(compute.utf8_lower(_strings(column)), " ")
    words = arrow.array(list(RATINGS))
    return arrow.array(list(RATINGS.values())).take(
        compute.index_in(text.combine_chunks() if isinstance(text, arrow.ChunkedArray) else text, value_set=words)
    )


def _joined(tables: list[Any]) -> Any:
    return arrow.concat_tables(tables) if tables else entry_table(0, {})
