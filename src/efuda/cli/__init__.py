"""The command line: flags in, stages called, results printed; every `EfudaError` becomes one sentence and an exit code.

Exit codes: 0 done, 1 done with items that failed, 2 usage, 3 bad input; 130 interrupted, 70 a bug in efuda.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import signal
import sys
import traceback
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from efuda.cli import (
    about,
    collection,
    explain,
    keeping,
    likeness,
    measuring,
    pictures,
    pushing,
    searching,
    serve,
    stages,
    tagging,
)
from efuda.cli.console import output
from efuda.errors import EfudaError, Stopped

__all__ = ["app", "main"]

_ANYWHERE: Final = ("-q", "--quiet", "-v", "--verbose")


class _Efuda(TyperGroup):
    """Takes the global flags anywhere, and meets an interruption before typer, which would leave without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        general = [word for word in args[:end] if word in _ANYWHERE]
        return super().parse_args(ctx, [*general, *(word for word in args[:end] if word not in _ANYWHERE), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped("what was finished is kept", "run the same command again") from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left; say nothing
            raise typer.Exit(0) from None


app = typer.Typer(
    name="efuda",
    cls=_Efuda,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn to tag anime-style illustrations and search large art collections.\n\n"
    "The whole way: prepare → train → export → calibrate → evaluate → tag → collection add → search. "
    "Try it all on pictures drawn on the spot: efuda demo",
)
stages.register(app)
measuring.register(app)
tagging.register(app)
collection.register(app)
likeness.register()
pictures.register(app)
searching.register(app)
keeping.register(app)
pushing.register(app)
explain.register(app)
serve.register(app)
about.register(app)


def _flowing(group: typer.Typer) -> None:
    """Help in paragraphs as wide as the terminal, instead of the lines of the docstring."""
    for command in group.registered_commands:
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command.callback) or "")
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _flowing(inner.typer_instance)


_flowing(app)


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=about.version)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error came from.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
) -> None:
    output.verbosity = 1 if verbose else -1 if quiet else 0


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path comes out as the bytes it is
    try:
        app(prog_name="efuda")
    except EfudaError as error:
        _fail(error, error.exit_code)
    except Exception as error:
        _fail(
            error,
            70,
            f"This is a bug in efuda ({type(error).__name__}: {error}). Run again with efuda -v and report it.",
        )
    sys.exit(0)


def _fail(error: BaseException, code: int, text: str | None = None) -> NoReturn:
    if output.verbosity > 0:
        traceback.print_exception(error, file=sys.stderr)
    print(f"efuda: {text or error}", file=sys.stderr)
    sys.exit(code)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
