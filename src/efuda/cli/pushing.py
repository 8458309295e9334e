"""Push decided tags to Hydrus or szurubooru."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from efuda.cli.console import output
from efuda.cli.outcomes import finish, number_of
from efuda.errors import InputError, UsageError

if TYPE_CHECKING:
    from efuda.pushing import Pushed, Target

__all__ = ["register"]

CollectionPath = Annotated[Path, typer.Argument(help="The collection's file.", show_default=False)]
Query = Annotated[str, typer.Argument(help="Which pictures; all by default.", show_default=False)]
Certificate = Annotated[
    Path | None, typer.Option(help="The server's own certificate (PEM), where it signed itself.", show_default=False)
]
Models = Annotated[bool, typer.Option("--models", help="Push models' tags above their thresholds, too.")]
Again = Annotated[bool, typer.Option("--again", help="Also pictures that have not changed since they were pushed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only ask what is there, and say what would be pushed.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_HYDRUS_KEY, _SZURUBOORU_LOGIN = "EFUDA_HYDRUS_KEY", "EFUDA_SZURUBOORU_LOGIN"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    push = typer.Typer(no_args_is_help=True, help="Push decided tags to Hydrus or szurubooru.")
    push.command()(hydrus)
    push.command()(szurubooru)
    app.add_typer(push, name="push")


def hydrus(
    collection: CollectionPath,
    query: Query = "",
    url: Annotated[
        str, typer.Option(help="Of the client API, for example http://127.0.0.1:45869.", show_default=False)
    ] = "",
    service: Annotated[
        str | None,
        typer.Option(help="The local tag service, by name or key; without, those that there are are listed."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the access key; the environment's {_HYDRUS_KEY} by default."),
    ] = None,
    certificate: Certificate = None,
    models: Models = False,
    again: Again = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Add decided tags to a tag service of Hydrus; what was deleted there is never brought back.

    Pictures are found by content. Tags that a person refused are taken away where efuda had added them. The key needs
    the permissions to edit file tags and to search for and fetch files.
    """
    from efuda.pushing import Hydrus

    key = _secret(key_file, _HYDRUS_KEY, "the access key")
    _push(Hydrus(_address(url), key, service, certificate=certificate), collection, query, models, again, dry_run, json)


def szurubooru(
    collection: CollectionPath,
    query: Query = "",
    url: Annotated[
        str, typer.Option(help="Of its API, for example https://booru.example/api.", show_default=False)
    ] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with USER:TOKEN; the environment's {_SZURUBOORU_LOGIN} by default."),
    ] = None,
    certificate: Certificate = None,
    models: Models = False,
    again: Again = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Add decided tags to szurubooru's posts; what others write meanwhile is kept, what they took away stays away.

    Posts are found by content. Safety follows a person's rating; a model's can only raise it, with --models.
    """
    from efuda.pushing import Szurubooru

    login = _secret(key_file, _SZURUBOORU_LOGIN, "USER:TOKEN")
    _push(Szurubooru(_address(url), login, certificate=certificate), collection, query, models, again, dry_run, json)


def _push(
    connecting: AbstractContextManager[Target],
    collection: Path,
    query: str,
    models: bool,
    again: bool,
    dry_run: bool,
    json: bool,
) -> None:
    from efuda.collection import Collection
    from efuda.pushing import Source, push

    with Collection.open(collection) as opened, connecting as target, output.progress() as progress:
        source = Source(opened, target.identity, models=models, again=again)
        pictures = [int(number) for number in opened.ids(query)]
        todo = source.todo(pictures)
        done = push(
            source.items(todo), target, remember=source.remember, dry_run=dry_run, total=len(todo), progress=progress
        )
    _finish(done, len(pictures) - len(todo), dry_run, json)


def _finish(done: Pushed, passed: int, dry_run: bool, json: bool) -> None:
    from efuda.tagging import Failed

    facts: dict[str, Any] = {
        "pushed": done.pushed,
        "unchanged": done.unchanged,
        "absent": done.absent,
        "pushed_before": passed,
        "tags_added": done.added,
        "tags_removed": done.removed,
        "tags_left": done.left,
        "notes": done.notes,
    }
    would = "would be " if dry_run else ""
    text = f"{number_of(done.pushed, 'picture')} {would}changed there: {number_of(done.added, 'tag')} {would}added"
    text += f", {done.removed:,} {would}taken away" if done.removed else ""
    rest = {
        "were as they should be": done.unchanged,
        "have not changed since they were pushed": passed,
        "are not there": done.absent,
    }
    text += ". " + ", ".join(f"{count:,} {words}" for words, count in rest.items() if count)
    text = text.rstrip(". ") + "."
    if done.left:
        text += f"\n{number_of(done.left, 'tag')} had been deleted there and stayed so."
    text = "\n".join([text, *done.notes])
    finish(facts, text, [Failed(Path(f"picture {one.id}"), one.reason) for one in done.failed], json)


def _address(url: str) -> str:
    from efuda.pushing import is_local

    if not url:
        raise UsageError("--url is missing: the address to push to, such as http://127.0.0.1:45869.")
    if not is_local(url) and url.startswith("http:"):
        output.say("The connection is not encrypted: whoever sees the network's traffic sees the key. Prefer https.")
    return url


def _secret(file: Path | None, variable: str, what: str) -> str:
    """From a file or the environment: what is typed as a flag, others see in the list of processes."""
    if file is None:
        if not (found := os.environ.get(variable, "").strip()):
            raise UsageError(
                f"{what[0].upper()}{what[1:]} is missing: put it into a file and name that with --key-file."
            )
        return found
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read. It should hold {what}, and nothing else.") from error
    if "\n" in text or not text:
        raise InputError(f"{file} should hold {what} in one line, and nothing else.")
    return text
