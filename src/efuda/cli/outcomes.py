"""How a command that works through pictures shows its progress and ends: with a summary, and a 1 where some failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from efuda.cli.console import output

if TYPE_CHECKING:
    from efuda.tagging import Failed, Written

__all__ = ["complain", "counted", "finish", "number_of", "shown", "summary"]

Result = TypeVar("Result")


def counted(results: Iterable[Result], total: int | None, progress: Any) -> Iterator[Result]:
    """The results, each shown as it comes."""
    from efuda.tagging import Failed

    failed = 0
    for done, result in enumerate(results, start=1):
        failed += isinstance(result, Failed)
        progress("tag", done, total, unit="images", note=f"{failed:,} failed" if failed else "")
        yield result


def shown(handfuls: Iterable[Written], total: int | None, progress: Any) -> Iterator[Written]:
    """What was written, each handful shown as it comes."""
    done = failed = 0
    for written in handfuls:
        done += len(written.chosen) + len(written.failed)
        failed += len(written.failed)
        progress("tag", done, total, unit="images", note=f"{failed:,} failed" if failed else "")
        yield written


def number_of(count: int, what: str) -> str:
    """1 picture, 1,000 pictures."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def summary(what: str, kept: int, kept_why: str) -> str:
    """One sentence."""
    return f"{what}, {kept:,} {kept_why}." if kept else f"{what}."


def complain(failed: Failed) -> None:
    """Name one picture that was skipped, and why."""
    output.complain(f"skipped {failed.path}: {failed.reason}")


def finish(
    facts: Mapping[str, Any],
    text: str,
    failed: Sequence[Failed],
    as_json: bool,
    *,
    quiet: bool = False,
    named: bool = False,
) -> None:
    """Print the summary; exit with 1 when something failed.

    Args:
        quiet: standard output carries results, so the summary is a remark.
        named: what failed was named as it happened.
    """
    problems = [{"path": str(one.path), "reason": one.reason} for one in failed]
    if quiet:
        output.say(text)
    else:
        output.result({**facts, "failed": problems}, as_json=as_json, text=text)
    for one in failed[:20] if not named else ():
        complain(one)
    if len(problems) > 20 and not named:
        output.complain(f"… and {len(problems) - 20:,} more; --json lists them all.")
    if failed:
        raise typer.Exit(1)
