"""Pictures: tag them, keep them in a collection, search it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from efuda.cli.console import output
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.tagging import Failed, Tagged, Tagger

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
    app.command()(tag)
    collection = typer.Typer(no_args_is_help=True, help="Keep tagged pictures in one searchable file.")
    collection.command()(add)
    collection.command()(status)
    app.add_typer(collection, name="collection")
    app.command()(search)


def tag(
    paths: Paths,
    model: ModelOption,
    to: Annotated[str, typer.Option(help="txt or json beside each picture; jsonl or csv in one file.")] = "txt",
    out: Annotated[Path | None, typer.Option(help="The file for jsonl or csv; standard output by default.")] = None,
    threshold: Threshold = None,
    replace: Annotated[bool, typer.Option(help="Write anew what exists; old files are kept as .bak.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures the model sees at once.")] = 16,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many pictures would be tagged.")] = False,
    json: Json = False,
) -> None:
    """Tag pictures: captions for training tools, or one file of results.

    Folders are searched to any depth. A picture that cannot be read is reported and skipped. A sidecar that exists
    is left alone and a file of results is continued, so the same command goes on where it was stopped.
    """
    from efuda.images import find_pictures
    from efuda.tagging import Tagged, open_sink
    from efuda.tagging import tag as stage

    if json and out is None and to in ("jsonl", "csv"):
        raise UsageError(f"--json and --to {to} would both print to standard output: name a file with --out.")
    tagger = _tagger(model, threshold)
    failed: list[Failed] = []
    tagged = 0
    with open_sink(to, tagger, out=out, replace=replace) as sink:
        found = list(find_pictures(paths))
        todo = [path for path in found if sink.wants(path)]
        if not dry_run:
            with output.progress() as progress:
                for result in _counted(stage(tagger, todo, batch=batch), len(todo), progress):
                    if isinstance(result, Tagged):
                        sink.write(result)
                        tagged += 1
                    else:
                        failed.append(result)
    kept = len(found) - len(todo)
    text = _done(
        f"{len(todo):,} pictures would be tagged" if dry_run else f"{tagged:,} pictures tagged", kept, "had one already"
    )
    counts = {"found": len(found), "tagged": tagged, "to_tag": len(todo), "kept": kept}
    _finish(counts, text, failed, json, quiet=out is None and to in ("jsonl", "csv"))


def add(
    collection: CollectionPath,
    paths: Paths,
    model: ModelOption,
    threshold: Threshold = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures the model sees at once.")] = 16,
    json: Json = False,
) -> None:
    """Tag pictures and add them to a collection, which is created if need be.

    Pictures stay where they are. Those that the collection already has from this model, unchanged, are left alone,
    so the same command goes on where it was stopped, and picks up what is new.
    """
    from efuda.collection import Collection
    from efuda.images import find_pictures
    from efuda.tagging import tag as stage

    tagger = _tagger(model, threshold)
    with Collection.open(collection, create=True) as opened, output.progress() as progress:
        found = list(find_pictures(paths))
        todo = list(opened.untagged(found, tagger.identity))
        done = opened.add(_counted(stage(tagger, todo, batch=batch), len(todo), progress), tagger)
    kept = len(found) - len(todo)
    text = _done(f"{done.added:,} pictures added, {done.updated:,} updated", kept, "unchanged")
    counts = {"found": len(found), "added": done.added, "updated": done.updated, "kept": kept}
    _finish(counts, f'{text}\nSearch them: efuda search {collection} "TAG -TAG"', done.failed, json)


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


def _tagger(model: Path, threshold: float | None) -> Tagger:
    from efuda.tagging import Tagger

    tagger = Tagger.open(model)
    return tagger if threshold is None else tagger.with_threshold(threshold)


def _counted(results: Iterable[Tagged | Failed], total: int, progress: Any) -> Iterator[Tagged | Failed]:
    from efuda.tagging import Failed

    failed = 0
    for done, result in enumerate(results, start=1):
        failed += isinstance(result, Failed)
        progress("tag", done, total, unit="images", note=f"{failed:,} unreadable" if failed else "")
        yield result


def _done(what: str, kept: int, kept_why: str) -> str:
    return f"{what}, {kept:,} {kept_why}." if kept else f"{what}."


def _finish(counts: dict[str, int], text: str, failed: list[Failed], as_json: bool, *, quiet: bool = False) -> None:
    """Print the summary; exit with 1 when something failed."""
    problems = [{"path": str(one.path), "reason": one.reason} for one in failed]
    if quiet:
        output.say(text)
    else:
        output.result({**counts, "failed": problems}, as_json=as_json, text=text)
    for problem in problems[:20]:
        output.say(f"skipped {problem['path']}: {problem['reason']}")
    if len(problems) > 20:
        output.say(f"… and {len(problems) - 20:,} more; --json lists them all.")
    if failed:
        raise typer.Exit(1)


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
