"""Serve a collection and a tagger: the gallery, the HTTP API, and the services that other programs ask."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from efuda.cli.console import output
from efuda.errors import InputError, UsageError

if TYPE_CHECKING:
    from efuda.server import Settings
    from efuda.server.access import Secret

__all__ = ["register", "serve"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    collection: Annotated[
        Path | None, typer.Argument(help="The collection's file; without one, only the tagger.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model directory of any known layout, hf://OWNER/NAME, or a name of efuda models; without one, "
            "nothing is tagged.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; any but this machine's own needs a password or a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8420,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A host name under which a reverse proxy serves it; may be given several times."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Ask for the password whose hash is in this file; see --set-password.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Ask for the token in this file, which is made if it is missing.")
    ] = None,
    set_password: Annotated[
        bool, typer.Option("--set-password", help="Only ask for a new password, and keep its hash in the file.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing in the collection can be changed.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes; one a core by default.")] = None,
) -> None:
    """Serve a collection in the browser, and tags to other programs, until Ctrl-C.

    Only this machine reaches it, unless --host says otherwise. Other programs may ask it as they ask Danbooru, its
    autotagger or the webui tagger; docs/serving.md says how.
    """
    from efuda.server import Settings
    from efuda.server import serve as run

    if set_password:
        _new_password(password_file)
        return
    settings = Settings(host, port, _secret(host, password_file, token_file), tuple(name or ()), read_only, workers)
    what = collection or model
    run(settings, collection=collection, model=model, ready=lambda address: _say(settings, address, str(what)))
    output.say("Stopped.")


def _say(settings: Settings, address: str, what: str) -> None:
    print(address, flush=True)
    asked = f", which asks for its {'password' if settings.secret.is_password else 'token'}" if settings.secret else ""
    output.say(f"Serving {what}{asked}. Ctrl-C stops it.")


def _secret(host: str, password_file: Path | None, token_file: Path | None) -> Secret | None:
    from efuda.server import new_token, read_secret
    from efuda.server.settings import is_loopback

    if password_file is not None and token_file is not None:
        raise UsageError("--password-file and --token-file: choose one.")
    if token_file is not None and not token_file.exists():
        new_token(token_file)
        output.say(f"Wrote a new token to {token_file}.")
    if token_file is None and password_file is None and not is_loopback(host) and _usual_file().exists():
        password_file = _usual_file()
    chosen = token_file or password_file
    return read_secret(chosen) if chosen is not None else None


def _new_password(path: Path | None) -> None:
    from efuda.server import new_password

    path = path or _usual_file()
    if sys.stdin.isatty():
        password = getpass.getpass("New password: ")
        if getpass.getpass("Once more: ") != password:
            raise InputError("The two are not the same. Run it again.")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    new_password(path, password)
    print(f"Kept a hash of it in {path}.")


def _usual_file() -> Path:
    """Where people keep what programs are told, unless the system says otherwise."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "efuda" / "password"
