"""Read Danbooru metadata of either generation into one table, in file order.

Two shapes are both "Danbooru20xx" to people (FORMATS: Danbooru metadata); the first records of each file tell which:

* 2017–2020: every integer is a string, `tags` is a list of `{id, name, category}`.
* 2021 and the live API: integers are integers, `tag_string_general`, `tag_string_artist`, … are space-separated.

DuckDB parses; a line that is not JSON becomes an empty row, is counted, and its file and line number are found after.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from efuda.errors import MetadataError, MissingExtra, OutputError
from efuda.progress import Progress, silent

__all__ = ["CATEGORIES", "BadLine", "Connection", "connect", "find_metadata", "read_aliases", "read_entries"]

Connection = Any  # duckdb has no type stubs

CATEGORIES: Final = ("general", "artist", "copyright", "character", "meta")
_NOT_POSTS: Final = ("tag", "artists", "pools", "notes")
_ENDINGS: Final = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".json.zst", ".jsonl.zst")
_CODES: Final = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}

_SHARED_COLUMNS: Final = {
    "id": "BIGINT",
    "parent_id": "BIGINT",
    "rating": "VARCHAR",
    "is_deleted": "BOOLEAN",
    "md5": "VARCHAR",
    "file_ext": "VARCHAR",
}
_API_COLUMNS: Final = {
    **_SHARED_COLUMNS,
    "tag_string": "VARCHAR",
    **{f"tag_string_{category}": "VARCHAR" for category in CATEGORIES},
}
_OLD_COLUMNS: Final = {**_SHARED_COLUMNS, "tags": "STRUCT(name VARCHAR, category VARCHAR)[]"}
_API_SELECT: Final = ", ".join(
    f"string_split(nullif(trim(tag_string_{category}), ''), ' ') AS {category}" for category in CATEGORIES
)
_OLD_SELECT: Final = ", ".join(
    f"list_transform(list_filter(tags, lambda t: t.category = '{_CODES[category]}'), lambda t: t.name) AS {category}"
    for category in CATEGORIES
)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a JSON object, counted from 1."""

    file: Path
    line: int
    text: str


def connect(database: Path, *, memory: str = "1GB") -> Connection:
    """A DuckDB scratch database on disk, so that metadata of any size fits; a damaged one is made anew.

    Raises:
        MissingExtra: DuckDB is not installed.
        OutputError: another process is using it.
    """
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingExtra("Preparing a dataset", "train", "duckdb") from error
    try:
        connection = duckdb.connect(str(database))
    except duckdb.Error as error:
        if "lock" in str(error).lower():
            raise OutputError(
                f"{database} is in use: another efuda prepare is at work there. Wait for it, or choose another --out."
            ) from error
        for stale in database.parent.glob(f"{database.name}*"):  # and its write-ahead log
            stale.unlink()
        connection = duckdb.connect(str(database))
    connection.execute(f"SET memory_limit = '{memory}'; SET preserve_insertion_order = true")
    connection.execute("SET enable_progress_bar = false")
    return connection


def find_metadata(paths: Sequence[Path]) -> list[Path]:
    """The metadata files at `paths`: files as named; in a folder (or its `metadata/`) the `posts*` files, or else all.

    Raises:
        MetadataError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            inside = list(_in_folder(path)) or list(_in_folder(path / "metadata"))
            if not inside:
                raise MetadataError(f"{path} holds no metadata: expected posts*.json files, one post a line.")
            found += inside
        else:
            raise MetadataError(f"{path} does not exist. Name the files or the folder of posts*.json.")
    if not found:
        raise MetadataError("No metadata file was named. Name the files or the folder of posts*.json.")
    return found


def read_entries(
    connection: Connection, files: Sequence[Path], *, max_bad_lines: float, progress: Progress = silent
) -> tuple[int, list[BadLine]]:
    """Fill the table `entries` (id, parent_id, rating, deleted, md5, ext, one list of names a category), in file order.

    `rowid` is the entry's number from 0. Lines that are not JSON objects are left out.

    Returns:
        How many lines were bad, and the first hundred of them a file.

    Raises:
        MetadataError: a file is of neither generation, or more than `max_bad_lines` of all lines are bad.
    """
    lists = ", ".join(f"{category} VARCHAR[]" for category in CATEGORIES)
    connection.execute(
        f"CREATE OR REPLACE TABLE entries (id BIGINT, parent_id BIGINT, rating VARCHAR, deleted BOOLEAN, "
        f"md5 VARCHAR, ext VARCHAR, {lists})"
    )
    bad: list[BadLine] = []
    bad_count = 0
    for done, file in enumerate(files, start=1):
        missing = _read_file(connection, file)
        bad_count += missing
        if missing:
            bad += islice(_find_bad_lines(file), 100)
        progress("metadata", done, len(files), unit="files", note=f"{_count(connection):,} entries")
    total = _count(connection) + bad_count
    if bad_count > max_bad_lines * total:
        shown = "; ".join(f"{one.file.name}, line {one.line}: {one.text!r}" for one in bad[:3])
        raise MetadataError(
            f"{bad_count:,} of {total:,} lines are not JSON objects, more than {max_bad_lines:.1%}: {shown}. "
            "Mend the files, or allow more with --set posts.max_bad_lines=0.5"
        )
    if total == bad_count:
        raise MetadataError(f"{files[0]} and the other metadata files hold no posts.")
    return bad_count, bad


def read_aliases(files: Sequence[Path]) -> dict[str, str]:
    """Active aliases, antecedent → tag, from `tag_aliases*.json` beside the metadata, chains followed to their end."""
    beside = sorted({alias for file in files for alias in file.parent.glob("tag_aliases*.json*")})
    direct: dict[str, str] = {}
    for file in beside:
        for record in _records(_lines(file)):
            if record.get("status", "active") == "active" and "antecedent_name" in record:
                direct[record["antecedent_name"]] = record["consequent_name"]
    return {name: _end_of_chain(name, direct) for name in direct}


def _in_folder(folder: Path) -> Iterator[Path]:
    named = [path for path in sorted(folder.glob("*")) if path.name.endswith(_ENDINGS) and path.is_file()]
    posts = [path for path in named if path.name.startswith("posts")]
    yield from posts or (path for path in named if not path.name.startswith(_NOT_POSTS))


def _read_file(connection: Connection, file: Path) -> int:
    """Append one file to `entries`; returns how many lines are no JSON objects."""
    old = _is_old_generation(file)
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in (_OLD_COLUMNS if old else _API_COLUMNS).items())
    wanted = "tags" if old else "tag_string, " + ", ".join(f"tag_string_{category}" for category in CATEGORIES)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE lines AS SELECT * FROM read_json(?, format = 'newline_delimited', "
        f"ignore_errors = true, maximum_object_size = 67108864, columns = {{{columns}}})",
        [str(file)],
    )
    something = f"coalesce(id::VARCHAR, rating, md5, {'tags::VARCHAR' if old else wanted}) IS NOT NULL"
    connection.execute(
        f"INSERT INTO entries SELECT id, nullif(parent_id, 0), rating, coalesce(is_deleted, false), md5, "
        f"coalesce(file_ext, 'jpg'), {_OLD_SELECT if old else _API_SELECT} FROM lines WHERE {something}"
    )
    (missing,) = connection.execute(f"SELECT count(*) FROM lines WHERE NOT ({something})").fetchone()
    connection.execute("DROP TABLE lines")
    return int(missing)


def _is_old_generation(file: Path) -> bool:
    for record in islice(_records(islice(_lines(file), 1000)), 50):
        if isinstance(record.get("tags"), list):
            return True
        if "tag_string" in record or "tag_string_general" in record:
            return False
    raise MetadataError(
        f"{file} does not look like Danbooru posts: none of its first lines is a JSON object with tags or tag_string."
    )


def _find_bad_lines(file: Path) -> Iterator[BadLine]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip() and not any(_records([line])):
            yield BadLine(file, number, line.strip()[:60])


def _lines(file: Path) -> Iterator[str]:
    import pyarrow  # reads plain, .gz and .zst by their ending, as DuckDB does

    try:
        with pyarrow.input_stream(str(file), compression="detect") as raw:
            yield from io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="\n")
    except (OSError, EOFError) as error:
        raise MetadataError(f"{file} cannot be read: {error}.") from error


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _end_of_chain(name: str, direct: dict[str, str]) -> str:
    seen = {name}
    while (following := direct.get(name)) is not None and following not in seen:
        seen.add(following)
        name = following
    return name


def _count(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
