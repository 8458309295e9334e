"""What the documents say is so: commands, recipes, files and columns that they name exist, and all are named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import typer.main

from efuda.artifacts import Dataset, Model, Run
from efuda.cli import app
from efuda.recipes import Recipe, load_recipe, recipe_names, recipe_text

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def commands() -> set[str]:
    group = typer.main.get_command(app)
    return set(group.commands)  # type: ignore[attr-defined]


def test_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"\befuda ([a-z]+)\b(?! learns)", README)) - {"learns", "is", "needs"}
    assert named == commands()


def test_make_help_lists_the_targets_that_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert f"\n{target}:" in makefile


def test_readme_tree_is_the_repository() -> None:
    tree = README.split("## The repository")[1].split("```")[1]
    for line in tree.strip().splitlines():
        name = line.split()[0]
        assert (ROOT / name).exists() or (ROOT / "src" / "efuda" / name).exists(), name


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_links_into_a_page_lead_to_a_heading() -> None:
    pages = {
        page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    }
    for name, text in pages.items():
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            headings = re.findall(r"^#+ (.+)$", pages[Path(target).name or name], re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{name} → {target}#{anchor}"


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_open_with_command_hardware_and_expectation(name: str) -> None:
    head = recipe_text(name).split("[", 1)[0]
    assert head.startswith(f"# {name}: ")
    for word in ("command", "hardware", "cost", "expected"):
        assert re.search(rf"^# {word} ", head, re.MULTILINE), word
    tomllib.loads(load_recipe(name).to_toml())


def test_the_page_on_recipes_names_every_key_of_training() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for section in ("model", "labels", "augment", "loss", "train"):
        for key in Recipe.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            assert f"`{key}`" in page, f"{section}.{key}"
    for name in recipe_names():
        assert f"`{name}`" in page


def test_formats_name_every_file_and_column(dataset: Dataset, run: Run, model: Model) -> None:
    for root in (dataset.root, run.root, model.root):
        for path in root.iterdir():
            name = path.name.split("-")[0]
            assert name in FORMATS, f"{path} is not in docs/formats.md"
    for table in ("posts", "tags", "rejected"):
        for column in parquet.read_schema(dataset.root / f"{table}.parquet").names:
            assert f"`{column}`" in FORMATS, f"{table}.{column}"
    for step in dataset.funnel:
        assert f"`{step}`" in FORMATS
