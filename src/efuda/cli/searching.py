"""Looking for pictures: what a search finds, what its pictures have in common, and how its words go on."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from efuda.cli.collection import CollectionPath, Json, facts_of
from efuda.cli.console import output
from efuda.cli.outcomes import number_of
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.collection import Collection

__all__ = ["register"]


class _TakesQueries(TyperCommand):
    """Takes a query that begins with a minus for what it is: whatever is no flag of the command is not one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        takes = {name: not getattr(one, "is_flag", True) for one in self.get_params(ctx) for name in one.opts}
        flags, words, rest = list[str](), list[str](), iter(args)
        for arg in rest:
            if arg == "--":
                words += rest
            elif arg.partition("=")[0] in takes and arg.startswith("-"):
                flags += [arg, *([next(rest, "")] if takes[arg.partition("=")[0]] and "=" not in arg else [])]
            else:
                words.append(arg)
        return super().parse_args(ctx, [*flags, "--", *words])


Query = Annotated[str, typer.Argument(help='For example "glasses -hat"; see docs/query.md.', show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=_TakesQueries)(search)
    app.command(cls=_TakesQueries)(complete)


def search(
    collection: CollectionPath,
    query: Query,
    limit: Annotated[
        int | None, typer.Option(min=0, help="How many to list; 20 by default, all with --ids and --paths0.")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Skip so many first.")] = 0,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")] = False,
    paths0: Annotated[
        bool, typer.Option("--paths0", "-0", help="Print the paths of all, a NUL after each: for xargs -0.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print the numbers of all that is found, one a line.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    facets: Annotated[bool, typer.Option("--facets", help="Print the tags of what is found, with counts.")] = False,
    json: Json = False,
) -> None:
    """Find pictures as on Danbooru: by tags, or, -, ~, parentheses, wildcards, ranges, dates, and much besides.

    Example: efuda search art.efuda "1girl (hat or ribbon) -glasses order:mpixels"

    Example: efuda search art.efuda "-hat ai:hat>=0.8" --ids

    Example: efuda search art.efuda "rating:g date:2026" --paths0 | xargs -0 cp -t chosen
    """
    from efuda.collection import Collection

    chosen = [flag for flag, given in _ways(paths, paths0, ids, count, facets).items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} print different things; choose one.")
    with Collection.open(collection) as opened:
        match chosen:
            case ["--count"]:
                total = opened.count(query)
                output.result({"query": query, "total": total}, as_json=json, text=str(total))
            case ["--facets"]:
                _print_facets(opened, query, 40 if limit is None else limit, json)
            case ["--ids"]:
                _print_ids(opened, query, offset, limit, json)
            case ["--paths0"]:
                _print_paths(opened, query, offset, limit, b"\0")
            case ["--paths"]:
                _print_paths(opened, query, offset, 20 if limit is None else limit, b"\n")
            case _:
                _print_pictures(opened, query, offset, 20 if limit is None else limit, json)


def _ways(paths: bool, paths0: bool, ids: bool, count: bool, facets: bool) -> dict[str, bool]:
    return {"--paths": paths, "--paths0": paths0, "--ids": ids, "--count": count, "--facets": facets}


def _print_pictures(collection: Collection, query: str, offset: int, limit: int, as_json: bool) -> None:
    found = collection.search(query, limit=limit, offset=offset)
    if as_json:
        facts = {"query": query, "total": found.total, "pictures": [facts_of(one) for one in found.pictures]}
        output.result(facts, as_json=True, text="")
        return
    print(number_of(found.total, "picture"))
    for picture in found.pictures:
        names = " ".join(tag.name for tag in picture.tags)
        print(f"{picture.id:>7}  {picture.path}\n         {names}")


def _print_ids(collection: Collection, query: str, offset: int, limit: int | None, as_json: bool) -> None:
    found = collection.ids(query)[offset:][:limit].tolist()
    text = "\n".join(map(str, found))
    if found or as_json:
        output.result({"query": query, "ids": found}, as_json=as_json, text=text)


def _print_paths(collection: Collection, query: str, offset: int, limit: int | None, end: bytes) -> None:
    """Names may hold any bytes but NUL, so they are written as they are."""
    sys.stdout.flush()
    for path in islice(collection.paths(query), offset, None if limit is None else offset + limit):
        sys.stdout.buffer.write(os.fsencode(path) + end)
    sys.stdout.buffer.flush()


def _print_facets(collection: Collection, query: str, limit: int, as_json: bool) -> None:
    found = collection.facets(query, limit=limit)
    tags = [{"name": name, "category": category.label, "count": number} for name, category, number in found.tags]
    if as_json:
        output.result(
            {"query": query, "total": found.total, "ratings": found.ratings, "tags": tags}, as_json=True, text=""
        )
        return
    rows = [[f"rating:{name}", "rating", f"{number:,}"] for name, number in found.ratings.items()]
    rows += [[str(tag["name"]), str(tag["category"]), f"{tag['count']:,}"] for tag in tags]
    print(number_of(found.total, "picture"))
    if rows:
        output.table("", ["tag", "category", "pictures"], rows, right=(2,))


def complete(
    collection: CollectionPath,
    text: Annotated[str, typer.Argument(help="A search that is being written.", show_default=False)],
    at: Annotated[
        int | None, typer.Option(min=0, help="How many characters stand before the cursor; all by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many suggestions, at most.")] = 20,
    json: Json = False,
) -> None:
    """Say how the last word of a search may go on, and how many pictures it would then find.

    It knows tags by their beginning, by any of their words, by initials (/evth), by their other names and with slips.

    Example: efuda complete art.efuda "1girl -gla"
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened:
        done = opened.complete(text, at, limit=limit)
    if json:
        output.result(asdict(done), as_json=True, text="")
        return
    rows = [
        [one.value, one.category or "", "" if one.count is None else f"{one.count:,}", one.antecedent or ""]
        for one in done.suggestions
    ]
    if rows:
        output.table("", ["word", "category", "pictures", "by"], rows, right=(2,))
