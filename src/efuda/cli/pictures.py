"""Collections of pictures: add to them, look into them, search them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from efuda.cli.console import output
from efuda.cli.outcomes import counted, finish, summary

__all__ = ["register"]

Paths = Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.", show_default=False)]
ModelOption = Annotated[Path, typer.Option("--model", "-m", help="A model directory: efuda's own or a WD tagger.")]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="One threshold for all tags instead of the model's own.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CollectionPath = Annotated[Path, typer.Argument(help="The collection's file.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    collection = typer.Typer(no_args_is_help=True, help="Keep tagged pictures in one searchable file.")
    collection.command()(add)
    collection.command()(status)
    app.add_typer(collection, name="collection")
    app.command()(search)


def add(
    collection: CollectionPath,
    paths: Paths,
    model: ModelOption,
    threshold: Threshold = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures the model sees at once.")] = None,
    no_scores: Annotated[
        bool, typer.Option("--no-scores", help="Neither keep scores nor use those that efuda tag kept.")
    ] = False,
    json: Json = False,
) -> None:
    """Tag pictures and add them to a collection, which is created if need be.

    Pictures stay where they are. Those that the collection already has from this model, unchanged, are left alone,
    so the same command goes on where it was stopped, and picks up what is new.
    """
    from efuda.collection import Collection
    from efuda.images import find_pictures
    from efuda.tagging import Tagger, default_folder
    from efuda.tagging import tag as stage

    tagger = Tagger.open(model, threads=1)
    if threshold is not None:
        tagger = tagger.with_threshold(threshold)
    with Collection.open(collection, create=True) as opened, output.progress() as progress:
        found = list(find_pictures(paths, archives=False))
        todo = list(opened.untagged(found, tagger.identity))
        results = stage(tagger, todo, batch=batch, scores=None if no_scores else default_folder())
        done = opened.add(counted(results, len(todo), progress), tagger)
    kept = len(found) - len(todo)
    text = summary(f"{done.added:,} pictures added, {done.updated:,} updated", kept, "unchanged")
    counts = {"found": len(found), "added": done.added, "updated": done.updated, "kept": kept}
    finish(counts, f'{text}\nSearch them: efuda search {collection} "TAG -TAG"', done.failed, json)


def status(collection: CollectionPath, json: Json = False) -> None:
    """Say what a collection holds."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        facts = opened.status()
        tags = opened.tags()[:20]
    text = "\n".join(f"{name:<10} {value}" for name, value in facts.items() if not isinstance(value, list))
    common = ", ".join(f"{name} ({count:,})" for name, _, count in tags)
    output.result(facts, as_json=json, text=f"{text}\nmost used  {common}")


def search(
    collection: CollectionPath,
    query: Annotated[str, typer.Argument(help='For example "glasses -hat"; see docs/query.md.', show_default=False)],
    limit: Annotated[int, typer.Option(min=0, help="How many pictures to list.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Skip so many first.")] = 0,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")] = False,
    json: Json = False,
) -> None:
    """Find pictures by their tags, as on Danbooru: a space for AND, or, -, ~, parentheses, wildcards, ranges."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        found = opened.search(query, limit=limit, offset=offset)
    if json:
        output.result(
            {"query": query, "total": found.total, "pictures": [_picture(one) for one in found.pictures]},
            as_json=True,
            text="",
        )
    elif paths:
        for picture in found.pictures:
            print(picture.path)
    else:
        print(f"{found.total:,} pictures")
        for picture in found.pictures:
            names = " ".join(name for name, _, _ in picture.tags)
            print(f"{picture.id:>7}  {picture.path}\n         {names}")


def _picture(picture: Any) -> dict[str, Any]:
    return {
        "id": picture.id,
        "path": str(picture.path),
        "width": picture.width,
        "height": picture.height,
        "tags": {name: score for name, _, score in picture.tags},
        "rating": picture.rating,
        "added": str(picture.added),
    }
