"""The arrows between modules, and what importing efuda must not bring along (CONTRIBUTING.md draws them)."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import efuda

SOURCE = Path(efuda.__file__).parent
ROWS = {
    1: {"errors", "progress", "files"},
    2: {"images", "vocabulary", "metrics", "places", "workers"},
    3: {"preprocess", "recipes", "reports"},
    4: {"artifacts"},
    5: {"tagging"},
    6: {"datasets", "training", "evaluation", "collection", "cluster"},
    7: {"demo", "pushing", "server"},
    8: {"cli", "__init__"},
    9: {"__main__"},
}
# Within row 1 there is an order of its own: files raise errors.
ALLOWED = {("files", "errors")}
ROW = {module: row for row, modules in ROWS.items() for module in modules}
GATES: dict[str, set[str]] = {
    "torch": {"training", "tagging/weights.py"},
    "torchvision": {"training"},
    "timm": {"training", "tagging/weights.py"},
    "safetensors": {"training", "tagging/weights.py"},
    "huggingface_hub": {"tagging/hub.py"},
    "onnxruntime": {"tagging", "cli"},  # cli: doctor asks which devices it has
    "duckdb": set(),  # only the benchmark compares with it
    "msgspec": {"datasets"},
    "isal": {"datasets"},
    "fsspec": {"places"},
    "ray": {"cluster"},
    "pyarrow": {"artifacts", "datasets", "tagging"},
    "apsw": {"collection", "tagging"},  # tagging: the store of scores
    "xxhash": {"collection", "images", "tagging"},
    "pyroaring": {"collection"},
    "usearch": {"collection"},
    "rapidfuzz": {"collection"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "argon2": {"server"},
    "prometheus_client": {"server"},
    "av": {"images"},
    "pi_heif": {"images"},
    "pillow_jxl": {"images"},
    "typer": {"cli"},
    "matplotlib": {"reports"},
    "dicebear": {"demo"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def part(file: Path) -> str:
    """The module or package directly beneath efuda that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_downwards(file: Path) -> None:
    own = part(file)
    for name in imports(file):
        if name == "efuda":
            assert own in ("__init__",), "never `from efuda import …`"
        if not name.startswith("efuda."):
            continue
        other = name.split(".")[1]
        same = other == own or (own, other) in ALLOWED
        assert same or ROW[other] < ROW[own], f"{own} (row {ROW[own]}) imports {other} (row {ROW[other]})"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_heavy_libraries_stay_behind_their_gates(file: Path) -> None:
    for name in imports(file):
        library = name.split(".")[0]
        own = part(file)
        if library in GATES and own != "cli":
            allowed = {own, file.relative_to(SOURCE).as_posix()} & GATES[library]
            assert allowed, f"{library} belongs in {GATES[library]}, not in {file.relative_to(SOURCE)}"


def test_importing_the_command_line_is_light() -> None:
    heavy = ["torch", "onnxruntime", "fastapi", "sklearn", "msgspec", "pyarrow", "matplotlib", "timm", "numpy"]
    heavy += ["huggingface_hub", "httpx", "httpx2", "requests"]
    code = f"import sys, efuda, efuda.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_file_says_what_it_is_for_and_what_it_offers(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    name = ".".join(["efuda", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    assert all(hasattr(module, offered) for offered in module.__all__)


def test_efuda_offers_its_verbs() -> None:
    for name in efuda.__all__:
        assert getattr(efuda, name)
