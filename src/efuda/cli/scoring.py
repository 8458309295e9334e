"""How a command has pictures scored: on this machine, by stored scores, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from efuda.cli.console import output
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.tagging import Failed, Looking, Tagged, Tagger

__all__ = ["FEW", "Scored", "Scoring", "scored"]

FEW: Final = 8  # so many pictures are sooner done by all cores together than by each for itself


@dataclass(frozen=True, slots=True)
class Scoring:
    """What the flags say.

    Attributes:
        scores: the folder of kept scores, None for none.
        ray: a cluster's address, None for this machine.
        embeddings: whether results carry what the model sees before it names it; on a cluster they do not.
    """

    frames: int
    reduced_decode: bool
    scores: Path | None
    batch: int | None
    workers: int | None
    ray: str | None
    embeddings: bool = False


class Scored(Protocol):
    """What a command asks; `reused` is how many pictures had kept scores. A `Pipeline` is one."""

    @property
    def reused(self) -> int: ...

    def run(self, pictures: Iterable[Path | str | None]) -> Iterator[Sequence[Tagged | Failed]]:
        """Handfuls of results, in order; a None among the pictures: those before it must not wait."""
        ...


@contextmanager
def scored(tagger: Tagger, model: str, how: Scoring) -> Iterator[Scored]:
    """What scores pictures, for as long as the statement lasts."""
    from efuda.tagging import Looking, Pipeline

    looking = Looking(tagger.preprocess, frames=how.frames, reduced=how.reduced_decode)
    if how.ray is not None:
        with _on_a_cluster(tagger, model, how, looking) as cluster:
            yield cluster
        return
    with Pipeline(
        tagger,
        batch=how.batch,
        workers=how.workers,
        looking=looking,
        scores=how.scores,
        embeddings=how.embeddings,
        notice=output.complain,
    ) as pipeline:
        yield pipeline


@contextmanager
def _on_a_cluster(tagger: Tagger, model: str, how: Scoring, looking: Looking) -> Iterator[Scored]:
    from efuda.cluster import RayWorkers
    from efuda.tagging import tag_spread

    if how.workers is not None:
        raise UsageError("--workers goes with this machine; a cluster has what its nodes have.")
    place = str(Path(model).resolve()) if Path(model).exists() else model

    class Far:
        reused = 0

        def run(self, pictures: Iterable[Path | str | None]) -> Iterator[Sequence[Tagged | Failed]]:
            here = (Path(path) if isinstance(path, str) else path for path in pictures if path is not None)
            return tag_spread(workers, place, here, looking=looking, identity=tagger.identity, batch=how.batch or 4)

    with RayWorkers(how.ray) as workers:
        yield Far()
