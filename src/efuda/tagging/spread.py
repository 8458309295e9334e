"""Tag with many hands: each worker opens the model once and scores some files at a time; results in the files' order.

    with RayWorkers("auto") as workers:
        for results in tag_spread(workers, "model", places, looking=Looking(tagger.preprocess)): ...

Files are paths that all workers see, or URLs such as `s3://bucket/art/1.png`. What a worker that died had in hand is
scored again by another; the results are those of one machine, to the last digit where the processors are alike.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from efuda.errors import MismatchError
from efuda.tagging.decoding import Looking
from efuda.tagging.pipeline import Pipeline
from efuda.tagging.tagged import Failed, Tagged
from efuda.tagging.tagger import Tagger
from efuda.workers import Workers

__all__ = ["FILES_A_JOB", "tag_spread"]

FILES_A_JOB: Final = 64
_Sent = tuple[tuple[int, int], bytes, bytes] | str


@dataclass(frozen=True)
class _Job:
    """Some files, named by the first of them."""

    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        return f"{self.paths[0]} and the {len(self.paths) - 1} files after it"


@dataclass(frozen=True)
class _Score:
    """What a worker does with a job."""

    model: str
    identity: str
    looking: Looking
    batch: int

    def __call__(self, job: _Job) -> list[_Sent]:
        pipeline = _pipeline(self.model, self.looking, self.batch)
        if pipeline.tagger.identity != self.identity:
            raise MismatchError(
                f"{self.model} is {pipeline.tagger.identity} on a worker and {self.identity} here. Put the same model "
                "there, or name one by hf://OWNER/NAME@REVISION."
            )
        return [_packed(result) for results in pipeline.run(job.paths) for result in results]


def tag_spread(
    workers: Workers,
    model: str,
    pictures: Iterable[Path],
    *,
    looking: Looking,
    identity: str,
    batch: int = 8,
) -> Iterator[list[Tagged | Failed]]:
    """Tag pictures, in order, a job's at a time.

    Args:
        workers: processes of this machine, or a cluster.
        model: what `Tagger.open` takes, and every worker sees.
        looking: how pictures are looked at, the same everywhere.
        identity: of the model here; a worker that has another refuses.

    Raises:
        MismatchError: a worker has another model there.
        ArtifactError: it has none.
        OutputError: a job's workers died again and again.
    """
    todo = iter(pictures)
    jobs = iter(lambda: _Job(tuple(islice(todo, FILES_A_JOB))), _Job(()))
    sent: list[_Job] = []

    def noted() -> Iterator[_Job]:
        for job in jobs:
            sent.append(job)
            yield job

    for results in workers.map(_Score(model, identity, looking, batch), noted()):
        job = sent.pop(0)
        yield [_unpacked(path, result) for path, result in zip(job.paths, results, strict=True)]


def _packed(result: Tagged | Failed) -> _Sent:
    if isinstance(result, Failed):
        return result.reason
    return result.size, result.rows.tobytes(), result.scores.tobytes()


def _unpacked(path: Path, sent: _Sent) -> Tagged | Failed:
    if isinstance(sent, str):
        return Failed(path, sent)
    size, rows, scores = sent
    return Tagged(path, size, np.frombuffer(rows, np.uint32), np.frombuffer(scores, np.float32))


@lru_cache(maxsize=1)
def _pipeline(model: str, looking: Looking, batch: int) -> Pipeline:
    """In a worker: one for all its jobs."""
    pipeline = Pipeline(Tagger.open(model, threads=1), batch=batch, workers=1, lanes=1, looking=looking)
    pipeline.__enter__()
    atexit.register(pipeline.__exit__, None, None, None)
    return pipeline
