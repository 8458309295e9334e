"""What in a collection is like what: similar pictures, duplicates, and merging these."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from efuda.cli.collection import By, CollectionPath, Json, collection
from efuda.cli.console import output
from efuda.cli.outcomes import number_of

if TYPE_CHECKING:
    from efuda.collection import Collection
    from efuda.collection.duplicates import Group

__all__ = ["register"]


def register() -> None:
    """Add the commands to the group."""
    collection.command(rich_help_panel="Look")(similar)
    collection.command(rich_help_panel="Look")(duplicates)
    collection.command(rich_help_panel="Decide")(merge)


def similar(
    collection: CollectionPath,
    picture: Annotated[int, typer.Argument(help="Its number, as a search shows it.", show_default=False)],
    query: Annotated[str, typer.Option("--among", help="Only among what this query finds.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 20,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")] = False,
    json: Json = False,
) -> None:
    """List the pictures that a model sees as most alike to one, the nearest first.

    In a search, like:NUMBER finds the same.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        with output.progress() as progress:
            opened.build_likeness(progress=progress)
        found = [
            (one, alike, opened.picture(one).path) for one, alike in opened.similar(picture, limit=limit, query=query)
        ]
    if json:
        pictures = [{"id": one, "similarity": round(alike, 4), "path": str(path)} for one, alike, path in found]
        output.result({"picture": picture, "pictures": pictures}, as_json=True, text="")
    elif paths:
        for _, _, path in found:
            print(path)
    else:
        for one, alike, path in found:
            print(f"{one:>7}  {alike:.2f}  {path}")


def duplicates(
    collection: CollectionPath,
    near: Annotated[
        bool, typer.Option("--near", help="Also resized, recompressed and retouched copies, told from variants.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many groups to list.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Skip so many first.")] = 0,
    json: Json = False,
) -> None:
    """List groups of pictures that show the same, the best to keep first in each.

    A group is of duplicates where their tags agree, and of variants where not; what only some carry is listed.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        with output.progress() as progress:
            opened.make_previews(progress=progress)
        total, groups = opened.duplicates("near" if near else "pixels", offset=offset, limit=limit)
        if json:
            output.result({"total": total, "groups": [_facts(opened, one) for one in groups]}, as_json=True, text="")
            return
        print(number_of(total, "group"))
        for group in groups:
            print("\n".join(_described(opened, group)))
    if groups:
        best, *others = groups[0].pictures
        output.say(
            f"Merge one: efuda collection merge {collection} {best.id} {' '.join(str(one.id) for one in others)}"
        )


def merge(
    collection: CollectionPath,
    keep: Annotated[int, typer.Argument(help="The picture to keep.", show_default=False)],
    drop: Annotated[list[int], typer.Argument(help="Those that are found no more.", show_default=False)],
    by: By = "me",
    json: Json = False,
) -> None:
    """Keep one of several pictures, with what persons and imports said of the others; their files are not touched.

    What persons said of the kept one stands. efuda collection undo takes it back.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.merge(keep, drop, by=by)
    text = f"{done.summary[0].upper()}{done.summary[1:]}.\nTo take it back: efuda collection undo {collection}"
    output.result(asdict(done), as_json=json, text=text)


def _facts(opened: Collection, group: Group) -> dict[str, object]:
    pictures = [
        {
            "id": one.id,
            "path": str(picture.path),
            "width": picture.width,
            "height": picture.height,
            "bytes": picture.bytes,
            "only_tags": list(one.only_tags),
        }
        for one, picture in ((one, opened.picture(one.id)) for one in group.pictures)
    ]
    return {"kind": group.kind, "verdict": group.verdict, "shared_tags": group.shared_tags, "pictures": pictures}


def _described(opened: Collection, group: Group) -> list[str]:
    lines = [f"{group.verdict}s, {number_of(group.shared_tags, 'tag')} in common"]
    for one in group.pictures:
        picture = opened.picture(one.id)
        only = f"  only here: {' '.join(one.only_tags)}" if one.only_tags else ""
        lines.append(f"{one.id:>7}  {picture.width}×{picture.height}  {picture.bytes:,} bytes  {picture.path}{only}")
    return lines
