"""Decided tags, pushed to the programs that people keep their pictures in: Hydrus and szurubooru.

    with Hydrus("http://127.0.0.1:45869", key, "AI tags") as target:
        source = Source(collection, target.identity)
        done = push(source.items(source.todo(pictures)), target, remember=source.remember)

What was pushed is remembered after the other side has confirmed it, so a push that is cut off goes on where it was, and
nothing is taken away there that efuda had not put there. Files are XMP's matter: `efuda collection export --to xmp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from efuda.progress import Progress, silent
from efuda.pushing.collecting import Source
from efuda.pushing.hydrus import Hydrus
from efuda.pushing.items import Item, Outcome, Target
from efuda.pushing.szurubooru import Szurubooru
from efuda.pushing.talking import is_local

__all__ = ["Hydrus", "Item", "Outcome", "Pushed", "Source", "Szurubooru", "Target", "is_local", "push"]


@dataclass(slots=True)
class Pushed:
    """What a push did, or in a dry run would do: pictures by what came of them, and tags."""

    pushed: int = 0
    unchanged: int = 0
    absent: int = 0
    added: int = 0
    removed: int = 0
    left: int = 0
    failed: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        """Count one picture."""
        if outcome.state == "failed":
            self.failed.append(outcome)
        else:
            setattr(self, outcome.state, getattr(self, outcome.state) + 1)
        self.added += len(outcome.added)
        self.removed += len(outcome.removed)
        self.left += len(outcome.left)


def push(
    items: Iterable[Item],
    target: Target,
    *,
    remember: Callable[[Sequence[Outcome]], None],
    dry_run: bool = False,
    total: int | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Push pictures' tags, some at a time.

    Args:
        items: with what was pushed of each before.
        remember: told of each batch once the target has confirmed it; not in a dry run.
        dry_run: only ask what is there.
        total: how many items there are.
        progress: told of every batch.

    Raises:
        OutputError: the target cannot be reached any more; what was pushed until then is remembered.
    """
    done, seen, todo = Pushed(), 0, iter(items)
    while batch := list(islice(todo, target.batch)):
        outcomes = target.push(batch, dry_run=dry_run)
        if not dry_run:
            remember(outcomes)
        for outcome in outcomes:
            done.take(outcome)
        seen += len(batch)
        progress("push", seen, total, unit="pictures", note=f"{done.added:,} tags")
    done.notes = target.notes()
    return done
