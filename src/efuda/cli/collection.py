"""Collections: what they hold, what persons decide about pictures, and taking that back.

Other modules add their commands to the group: `collection.command()(scan)`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from efuda.cli.console import output
from efuda.cli.outcomes import finish, number_of
from efuda.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from efuda.collection import Operation, Picture, TagOn

__all__ = ["CollectionPath", "Json", "collection", "facts_of", "register"]

collection = typer.Typer(no_args_is_help=True, help="Keep pictures and their tags in one searchable file.")

CollectionPath = Annotated[Path, typer.Argument(help="The collection's file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]
By = Annotated[str, typer.Option(help="The person who says so.")]
Pictures = Annotated[
    list[str],
    typer.Argument(help="Numbers of pictures, or one query: all that it finds.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    collection.command(rich_help_panel="Look")(status)
    collection.command(rich_help_panel="Look")(show)
    collection.command(rich_help_panel="Decide")(edit)
    collection.command(rich_help_panel="Decide")(remove)
    collection.command(rich_help_panel="Decide")(undo)
    collection.command(rich_help_panel="Decide")(redo)
    collection.command(rich_help_panel="Decide")(history)
    collection.command(name="import-tags", rich_help_panel="Fill")(import_tags)
    collection.command(rich_help_panel="Fill")(relations)
    app.add_typer(collection, name="collection")


def status(collection: CollectionPath, json: Json = False) -> None:
    """Say what a collection holds."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        facts = opened.status()
        tags = opened.tags()[:20]
    lines = [f"{name:<10} {value}" for name, value in facts.items() if not isinstance(value, list)]
    lines += [f"model      {one['name']}: {number_of(one['pictures'], 'picture')}" for one in facts["models"]]
    lines += [f"folder     {path}" for path in facts["folders"]]
    lines += [f"import     {one['name']}: {number_of(one['pictures'], 'picture')}" for one in facts["imports"]]
    common = ", ".join(f"{name} ({count:,})" for name, _, count in tags)
    output.result(facts, as_json=json, text="\n".join([*lines, f"most used  {common}"]))


def show(
    collection: CollectionPath,
    picture: Annotated[int, typer.Argument(help="Its number, as a search shows it.", show_default=False)],
    json: Json = False,
) -> None:
    """Show a picture's tags and where each comes from: a person, a model, an import, or another tag that implies it."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        found = opened.picture(picture)
    output.result(facts_of(found), as_json=json, text="\n".join(_described(found)))


def edit(
    collection: CollectionPath,
    pictures: Pictures,
    add: Annotated[list[str] | None, typer.Option("--add", "-a", help="A tag that they show; may be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", help="A tag that is wrong, and is not to come back.")
    ] = None,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", "-f", help="A tag of which models are to decide again.")
    ] = None,
    rating: Annotated[
        str | None, typer.Option(help="general, sensitive, questionable or explicit; or the first letter.")
    ] = None,
    by: By = "me",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Say what pictures show and what not, one or thousands as one step.

    What a person says beats every model and import for ever, until a person says otherwise. Aliases are followed;
    a tag that is new to the collection is made, and said to be new. Name a category before it, as in
    character:my_own_character.

    Example: efuda collection edit art.efuda 12 15 --add hat --remove glasses

    Example: efuda collection edit art.efuda "cat_ears -animal_ears" --add animal_ears --dry-run
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        wish = {"add": add or (), "remove": remove or (), "forget": forget or ()}
        done = opened.edit(_chosen(pictures), **wish, rating=rating, by=by, dry_run=dry_run)
    _tell(done, collection, dry_run, json)


def remove(
    collection: CollectionPath,
    pictures: Pictures,
    back: Annotated[bool, typer.Option("--back", help="Bring back pictures that were taken out.")] = False,
    by: By = "me",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take pictures out of a collection; their files are not touched.

    They are not found and not added again, but all that was said of them is kept. A search for is:removed finds them.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.remove(_chosen(pictures), back=back, by=by, dry_run=dry_run)
    _tell(done, collection, dry_run, json)


def undo(
    collection: CollectionPath,
    operation: Annotated[
        int | None, typer.Argument(help="Its number in the history; the latest by default.", show_default=False)
    ] = None,
    by: By = "me",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Undo an edit, a merge, an import, or a whole run of a model over pictures that were known.

    What was changed again since is left alone and counted as skipped. Adding pictures is undone only by its number:
    what the model said of them is withdrawn, the pictures stay.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.undo(operation, by=by, dry_run=dry_run)
    _tell(done, collection, dry_run, json)


def redo(collection: CollectionPath, by: By = "me", dry_run: DryRun = False, json: Json = False) -> None:
    """Take back the latest undo, as long as nothing else was done since."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.redo(by=by, dry_run=dry_run)
    _tell(done, collection, dry_run, json)


def history(
    collection: CollectionPath,
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 20,
    before: Annotated[int | None, typer.Option(help="List what came before this operation.")] = None,
    json: Json = False,
) -> None:
    """List what was done to a collection, the latest first: by whom, what, and to how many pictures."""
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        found = opened.history(limit=limit, before=before)
    if json:
        output.result({"operations": [asdict(one) for one in found]}, as_json=True, text="")
        return
    lines = [
        [str(one.id), one.at, one.by, one.kind, f"{one.changed:,}", one.summary + (" (undone)" if one.undone else "")]
        for one in found
    ]
    output.table("", ["id", "when", "by", "kind", "pictures", "what"], lines, right=(0, 4))


def import_tags(
    collection: CollectionPath,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders or pictures; all of the collection by default.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the import; the same name replaces what it said before.")] = "sidecars",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take in tags that lie in files beside the pictures of a collection.

    Read are gallery-dl's picture.jpg.json (with rating, source, date and parent), Hydrus' picture.jpg.txt, captions
    (picture.txt, picture.caption: with commas, a tag a line, or words), and picture.jpg.xmp. Imports stand beside what
    models say; what a person says beats both. Pictures come into a collection by efuda collection add or scan.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened, output.progress() as progress:
        done = opened.import_tags(paths or (), name=name, dry_run=dry_run, progress=progress)
    facts = asdict(done) | {"new_tags": dict(done.new_tags), "left_out": dict(done.left_out)}
    del facts["failed"]
    text = f"{number_of(done.changed, 'picture')} of {done.found:,} {'would be changed' if dry_run else 'changed'}: "
    text += number_of(done.tags, "tag")
    if not done.found:
        text = "nothing lies beside the collection's pictures there"
        text += f"\nPictures come into it by: efuda collection scan {collection} FOLDER"
    text += f"\nnew to the collection: {_counted(done.new_tags)}" if done.new_tags else ""
    text += f"\ncannot be tags, left out: {_counted(done.left_out)}" if done.left_out else ""
    text += f"\nTake it back: efuda collection undo {collection}" if done.operation else ""
    finish(facts, text, done.failed, json)


def relations(
    collection: CollectionPath,
    files: Annotated[list[Path], typer.Argument(help="Tag lists, aliases, implications.", show_default=False)],
    everything: Annotated[
        bool, typer.Option("--all", help="Also what concerns no tag of the collection, for those to come.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take in what is known of tags: other names for them, what they imply, their categories.

    Read are tag lists (name,category,count,"alias,alias"), and Danbooru's tag_aliases… and tag_implications… as JSON
    or CSV, told apart by their names. A search for an alias finds its tag; an implied tag is carried along.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.relate(files, everything=everything, dry_run=dry_run)
    counts = f"new aliases: {done.aliases:,}, new implications: {done.implications:,}, "
    counts += f"changed categories: {done.categories:,}, new tags: {done.tags:,}"
    text = f"would be taken in: {counts}" if dry_run else f"taken in: {counts}"
    text += f"\nleft out, since they are tags of their own here: {_some(done.own)}" if done.own else ""
    output.result(asdict(done), as_json=json, text=text)


def _chosen(words: list[str]) -> list[int] | str:
    """Numbers of pictures, or a query."""
    if all(word.isdecimal() for word in words):
        return [int(word) for word in words]
    if len(words) > 1:
        raise UsageError("Name pictures by their numbers, or by one query in quotes, not both.")
    return words[0]


def _tell(done: Operation, path: Path, dry_run: bool, json: bool) -> None:
    text = f"{done.summary}: {number_of(done.changed, 'picture')} {'would be changed' if dry_run else 'changed'}"
    text += f", {number_of(done.skipped, 'change')} skipped, since they have moved on" if done.skipped else ""
    if done.id:
        text += f"\nTake it back: efuda collection {'undo' if done.kind != 'undo' else 'redo'} {path}"
    output.result(asdict(done) | {"dry_run": dry_run}, as_json=json, text=text)


def facts_of(picture: Picture) -> Mapping[str, Any]:
    """All that is known of a picture, as data."""
    facts = asdict(picture) | {"path": str(picture.path)}
    for tags in (*facts["tags"], *facts["refused"]):
        tags["category"] = tags["category"].label
    return facts


def _described(picture: Picture) -> list[str]:
    size = f"{picture.width}×{picture.height} {picture.filetype}, {picture.bytes:,} bytes"
    facts = {
        "picture": f"{picture.id}{' (taken out)' if picture.removed else ''}",
        "file": f"{picture.path}{f' (missing since {picture.missing})' if picture.missing else ''}",
        "size": size,
        "added": picture.added,
        "date": picture.date,
        "source": picture.source,
        "parent": picture.parent,
        "children": " ".join(map(str, picture.children)),
        "rating": picture.rating,
        "model": picture.model,
    }
    lines = [f"{name:<9} {value}" for name, value in facts.items() if value]
    return [*lines, *(_origin("+", tag) for tag in picture.tags), *(_origin("-", tag) for tag in picture.refused)]


def _origin(sign: str, tag: TagOn) -> str:
    score = "    " if tag.score is None else f"{tag.score:.2f}"
    by = {"person": "", "model": "", "import": "import ", "implied": "implied by "}[tag.by]
    return f"{sign} {score} {tag.name}  ({tag.category.label}; {by}{tag.source}, {tag.at})"


def _counted(words: Mapping[str, int]) -> str:
    return _some([f"{word} ({count:,})" for word, count in sorted(words.items(), key=lambda one: (-one[1], one[0]))])


def _some(words: list[str], shown: int = 10) -> str:
    return ", ".join(words[:shown]) + (f" and {len(words) - shown:,} more" if len(words) > shown else "")
