"""docs/schema.md names every table, column with its type, index, kind of operation and kind of change, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from efuda.collection import Collection
from efuda.collection.schema import VERSION

PAGE = (Path(__file__).parent.parent / "docs" / "schema.md").read_text(encoding="utf-8")
SOURCE = Path(__file__).parent.parent / "src" / "efuda" / "collection"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    Collection.open(tmp_path / "art.efuda", create=True).close()
    db = apsw.Connection(str(tmp_path / "art.efuda"), flags=apsw.SQLITE_OPEN_READONLY)
    yield db
    db.close()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_names_every_table_and_column(db: apsw.Connection) -> None:
    named = {}
    for part in section("The tables").split("\n### ")[1:]:
        table = part.split("\n")[0]
        columns = part.split("| column | type | meaning |")[1].split("\n\n")[0]
        named[table] = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \|", columns, re.MULTILINE)
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    found = {
        str(table): [(column, kind) for _, column, kind, *_ in db.execute(f"PRAGMA table_info({table})")]
        for (table,) in db.execute(tables)
    }
    assert named == found


def test_the_page_names_every_index_and_the_version(db: apsw.Connection) -> None:
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section("Indexes"), re.MULTILINE))))
    assert named == {
        name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql != ''")
    }
    assert f"schema version {VERSION} " in PAGE


def test_the_page_names_every_kind_of_operation_and_change() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    operations = PAGE.split("| `kind` | TEXT | `add`")[1].split("\n")[0] + "`add`"
    for kind in re.findall(r'\.operation\(\s*"(\w+)"', source):
        assert f"`{kind}`" in operations, kind
    changes = PAGE.split("| `what` | `before`, `after` |")[1].split("\n\n")[0]
    for what in re.findall(r'\.log\(\w+, [\w.]+, "(\w+)"', source):
        assert f"`{what}`" in changes, what
    for column in re.findall(r"Column = Literal\[(.*?)\]", source):
        assert all(f"`{name}`" in changes for name in re.findall(r'"(\w+)"', column))
