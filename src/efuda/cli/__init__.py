"""The command line: flags in, stages called, results printed; every `EfudaError` becomes one sentence and an exit code.

Exit codes: 0 done, 1 done with items that failed, 2 usage, 3 bad input; 130 interrupted, 70 a bug in efuda.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from efuda.cli import about, explain, measuring, pictures, stages, tagging
from efuda.cli.console import output
from efuda.errors import EfudaError, Stopped

__all__ = ["app", "main"]


class _Efuda(TyperGroup):
    """Meets an interruption before typer does, which would leave without a word."""

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
pictures.register(app)
explain.register(app)
about.register(app)


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
