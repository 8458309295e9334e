"""Run a command and watch it: how long it takes, and how much memory it and all its children hold at most."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PAUSE = 0.05


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        seconds: of the whole process, start-up included.
        memory_mb: the largest sum over all processes at one moment; what several share is counted once (PSS).
        private_mb: the same of memory that no file backs: what the kernel could not take back at once.
        answer: the JSON object that the command printed last; empty where it printed none.
    """

    seconds: float
    memory_mb: float
    private_mb: float
    answer: dict[str, Any]


def watch(command: Sequence[str | Path]) -> Run:
    """Run `command`, looking every 50 ms at all its processes."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most = most_private = 0.0
    while child.poll() is None:
        held = [_memory(process) for process in _tree(child.pid)]
        most = max(most, sum(pss for pss, _ in held))
        most_private = max(most_private, sum(private for _, private in held))
        time.sleep(PAUSE)
    seconds = time.perf_counter() - began
    printed = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {child.returncode}: {printed[-500:]}")
    last = printed.strip().splitlines()[-1:] or [""]
    answer = json.loads(last[0]) if last[0].startswith("{") else {}
    return Run(seconds, most / 1e6, most_private / 1e6, answer)


def _tree(process: int) -> Iterator[int]:
    """A process and all beneath it."""
    yield process
    try:
        lists = [children.read_text() for children in PROC.glob(f"{process}/task/*/children")]
    except OSError:  # ended meanwhile
        return
    for number in " ".join(lists).split():
        yield from _tree(int(number))


def _memory(process: int) -> tuple[float, float]:
    """PSS and its anonymous part in bytes; 0 for a process that ended meanwhile."""
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0.0, 0.0
    values = {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return values.get("Pss", 0), values.get("Pss_Anon", 0)
