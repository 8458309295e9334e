"""What the command line shows: one bar with rate and remaining time, plain sentences for errors, data on request.

Results go to standard output; progress, warnings and errors to standard error, so that a pipe carries results alone.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

__all__ = ["Output", "output", "stop_on_signal"]

_PLAIN_EVERY_S: Final = 30.0
_FOLDED: Final = 8  # so narrow a column of text may become


class Output:
    """Set once by the global flags: −1 quiet, 0 normal, 1 verbose."""

    def __init__(self) -> None:
        self.verbosity = 0

    def result(self, value: Any, *, as_json: bool, text: str) -> None:
        """Print a stage's result: as data, or as the sentence for people."""
        if as_json:
            print(_json(value))
        elif self.verbosity >= 0:
            print(text)

    def table(self, title: str, header: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> None:
        """Print a table, on standard output.

        Text folds where the terminal is narrow, columns of numbers never do. In a pipe nothing folds.

        Args:
            right: columns of numbers.
        """
        from rich.console import Console
        from rich.table import Table

        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        least = sum(width if at in right else min(width, _FOLDED) for at, width in enumerate(widths))
        console = Console()
        console.width = max(console.width, least + 2 * len(header)) if sys.stdout.isatty() else 3 * sum(widths) + 80

        table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for column, name in enumerate(header):
            table.add_column(
                name, justify="right" if column in right else "left", overflow="fold", no_wrap=column in right
            )
        for row in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        if sys.stdout.isatty():
            console.print(table)
            return
        with console.capture() as shown:
            console.print(table)
        print("\n".join(line.rstrip() for line in shown.get().splitlines()))

    def say(self, text: str) -> None:
        """A remark for people."""
        if self.verbosity >= 0:
            print(text, file=sys.stderr)

    def complain(self, text: str) -> None:
        """What went wrong, said also when quiet."""
        print(text, file=sys.stderr)

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """A `Progress` that draws a bar on a terminal, and prints a line now and then elsewhere."""
        if self.verbosity < 0:
            from efuda.progress import silent

            yield silent
        elif sys.stderr.isatty():
            bar = _Bar()
            try:
                yield bar
            finally:
                bar.close()
        else:
            lines = _Lines()
            yield lines
            lines.close()


def _json(value: Any) -> str:
    """Readable, or in ASCII where a path is not valid Unicode."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


class _Bar:
    """One line a step: bar, count, rate, remaining time, note."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}", style="cyan"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, tuple[float, int]] = {}

    def __call__(self, step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=total, count="", rate="", note="")
            self._started[step] = (time.monotonic(), done)
        began, first = self._started[step]
        elapsed = time.monotonic() - began
        rate = f"{(done - first) / elapsed:,.1f} {unit}/s" if elapsed > 0.5 and done > first else ""
        count = f"{done:,}/{total:,}" if total is not None else f"{done:,}"
        self._bar.update(self._tasks[step], completed=done, total=total, count=count, rate=rate, note=note)

    def close(self) -> None:
        self._bar.stop()


class _Lines:
    """For logs: a line when a step begins, every half minute, and when it is done."""

    def __init__(self) -> None:
        self._step, self._began, self._first, self._last, self._pending = "", 0.0, 0, 0.0, ""

    def __call__(self, step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        now = time.monotonic()
        fresh = step != self._step
        if fresh:
            self._step, self._began, self._first = step, now, done
        count = f"{done:,} of {total:,}" if total is not None else f"{done:,}"
        self._pending = f"{step}: {count} {unit}{self._pace(now, done, total)}  {note}".rstrip()
        if fresh or done == total or now - self._last > _PLAIN_EVERY_S:
            self.close()
            self._last = now

    def _pace(self, now: float, done: int, total: int | None) -> str:
        elapsed = now - self._began
        if elapsed < 1 or done <= self._first:
            return ""
        rate = (done - self._first) / elapsed
        left = "" if total is None or done >= total else f", {(total - done) / rate:,.0f} s left"
        return f", {rate:,.1f} a second{left}"

    def close(self) -> None:
        if self._pending:
            sys.stderr.write(f"{self._pending}\n")  # whole: a signal could come between print's text and its newline
            sys.stderr.flush()
            self._pending = ""


class stop_on_signal:  # noqa: N801  # reads as the statement it is
    """`with stop_on_signal() as stop:` → `stop()` is True after Ctrl-C or SIGTERM; a second one interrupts at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Mapping[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> stop_on_signal:
        self._before = {number: signal.signal(number, self._obey) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _obey(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        output.say("\nStopping after this step; once more to stop at once.")


output = Output()
