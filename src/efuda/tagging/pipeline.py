"""Tag files: processes decode, threads infer, what was scored before is not scored again; results in the files' order.

    for result in tag(tagger, find_pictures([Path("pictures")])):
        print(result.path, result.present(tagger) if isinstance(result, Tagged) else result.reason)

On a CPU every inference thread runs the model on one core (open the tagger with `threads=1` for that), so no core waits
for another; a device has one such thread. A picture that cannot be read becomes a `Failed` and never stops the rest.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.errors import OutputError
from efuda.images import on_white
from efuda.tagging.decoding import Decoded, Decoders, Known, Looking
from efuda.tagging.scores import Looked, ScoreStore, Seen, Stamp, handful, stamp_of
from efuda.tagging.scoring import score
from efuda.tagging.tagged import Failed, Handful, Tagged, as_path
from efuda.tagging.tagger import Tagger
from efuda.workers import cores

__all__ = ["Pipeline", "tag", "tag_images"]

_CHUNK: Final = 1024  # files that are looked up together
_KEEP_EVERY: Final = 1.0  # seconds of scores that a kill may cost
_Answer = Decoded | Known | str
_Name = Path | str
_Asked = tuple[_Name, Stamp | None, Future[_Answer]]
_Read = tuple[_Name, Stamp | None, _Answer]
_Scores = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def tag(
    tagger: Tagger,
    pictures: Iterable[Path],
    *,
    batch: int | None = None,
    workers: int | None = None,
    looking: Looking | None = None,
    scores: Path | None = None,
    embeddings: bool = False,
) -> Iterator[Tagged | Failed]:
    """Tag pictures, in order.

    Args:
        pictures: files, and pages of archives such as `comic.cbz/003.png`; some are taken ahead.
        batch: pictures the model sees at once; by default 4 on a CPU, where more gain nothing, 16 elsewhere.
        workers: decoding processes, one a core by default.
        looking: frames, limits and whether large JPEGs are decoded at a fraction; by default five frames and no.
        scores: a folder where scores are kept and found again; None for neither.
        embeddings: also give what the model sees before it names it, if it can (`Tagged.embedding`); a picture whose
            scores were kept without is looked at again.

    Raises:
        OutputError: the decoding processes cannot be started, or `scores` cannot be opened; where it only becomes full
            there is a warning, and scores are no longer kept.
    """
    with Pipeline(
        tagger, batch=batch, workers=workers, looking=looking, scores=scores, embeddings=embeddings
    ) as pipeline:
        for results in pipeline.run(pictures):
            yield from results


def tag_images(tagger: Tagger, images: Iterable[Image.Image], *, batch: int | None = None) -> Iterator[Tagged]:
    """Tag pictures that are open already, in order; their number, from 0, is the path of the result."""
    opaque = lambda numbered: on_white(numbered[1])  # noqa: E731
    for (number, picture), _, scores in score(tagger, enumerate(images), opaque, batch=batch or 4):
        yield Tagged.of(Path(str(number)), picture.size, scores)


@dataclass(slots=True)
class _Batch:
    """What comes back together: known files by the handful, and such as are decoded and inferred."""

    begun: list[Handful | _Read]
    files: int = 0
    frames: int = 0

    def add(self, one: Handful | _Read) -> None:
        self.begun.append(one)
        self.files += len(one) if isinstance(one, Handful) else 1
        self.frames += len(one[2].inputs) if not isinstance(one, Handful) and isinstance(one[2], Decoded) else 0


class Pipeline:
    """Decoders, inference threads and the store of scores; `reused` counts the pictures whose scores were found."""

    def __init__(
        self,
        tagger: Tagger,
        *,
        batch: int | None = None,
        workers: int | None = None,
        lanes: int | None = None,
        looking: Looking | None = None,
        scores: Path | None = None,
        embeddings: bool = False,
        notice: Callable[[str], object] = warnings.warn,
    ) -> None:
        """`notice` is told, once, that scores can no longer be kept: the pictures are tagged all the same."""
        self.tagger, self.reused = tagger, 0
        self.embeddings = embeddings and tagger.embeds
        self._look = self.tagger.embeds and (embeddings or scores is not None)  # it costs next to nothing to keep
        self.batch = tagger.batch or batch or (16 if tagger.on_device else 4)
        looking = looking or Looking(tagger.preprocess)
        key = f"{tagger.identity}\n{looking.key}" if scores else ""
        self._store = ScoreStore.open(scores, key, embeddings=self.embeddings) if scores else None
        self.lanes = lanes or (1 if tagger.on_device else max(1, cores() // tagger.threads))
        count = workers or cores()
        ahead = (self.lanes + 1) * self.batch + 2 * count
        self._decoders = Decoders(
            replace(looking, scores=(scores, key) if scores else None, embeddings=self.embeddings),
            count,
            slots=ahead + 2 * count,
        )
        self._ahead = ahead
        self._threads = ThreadPoolExecutor(self.lanes, thread_name_prefix="efuda-infer")
        self._unkept: deque[Looked] = deque()
        self._kept_at = time.monotonic()
        self._keeping, self._notice = scores is not None, notice

    def run(self, pictures: Iterable[_Name | None]) -> Iterator[Sequence[Tagged | Failed]]:
        """Handfuls of results, in the order of the files; a None among these: those before it must not wait."""
        flying: deque[Future[Sequence[Tagged | Failed]]] = deque()
        try:
            for batch in self._batches(pictures):
                if batch is not None:
                    flying.append(self._threads.submit(self._infer, batch))
                while flying and (len(flying) > self.lanes or batch is None or flying[0].done()):
                    yield flying.popleft().result()
                self._keep(always=batch is None)
            while flying:
                yield flying.popleft().result()
            self._keep(always=True)
        finally:
            for future in flying:
                future.cancel()

    def __enter__(self) -> Self:
        self._decoders.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._decoders.__exit__(kind, error, trace)
        if self._store is not None:
            try:
                self._keep(always=True)
            finally:
                self._store.close()

    def _batches(self, pictures: Iterable[_Name | None]) -> Iterator[_Batch | None]:
        """What is known at once comes in large handfuls, what must be inferred in the model's batches."""
        batch = _Batch([])
        for one in self._begun(pictures):
            if one is not None:
                batch.add(one if isinstance(one, Handful) else (*one[:2], one[2].result()))
            if batch.frames >= self.batch or batch.files >= _CHUNK or (one is None and batch.begun):
                yield batch
                batch = _Batch([])
            if one is None:
                yield None
        if batch.begun:
            yield batch

    def _begun(self, pictures: Iterable[_Name | None]) -> Iterator[Handful | _Asked | None]:
        """Files in their order, the decoders some ahead of what is asked for."""
        waiting: deque[Handful | _Asked] = deque()
        unknown = 0
        for one in self._looked_up(pictures):
            if one is None:
                yield from waiting
                waiting.clear()
                unknown = 0
                yield None
                continue
            unknown += not isinstance(one, Handful)
            waiting.append(one if isinstance(one, Handful) else (*one, self._decoders.submit(one[0])))
            while waiting and (unknown > self._ahead or isinstance(waiting[0], Handful)):
                unknown -= not isinstance(waiting[0], Handful)
                yield waiting.popleft()
        yield from waiting

    def _looked_up(self, pictures: Iterable[_Name | None]) -> Iterator[Handful | tuple[_Name, Stamp | None] | None]:
        paths: list[_Name] = []
        size = 1  # small handfuls at first: the first result should not wait
        for path in pictures:
            if path is not None:
                paths.append(path)
            if path is None or len(paths) >= size:
                yield from self._found(paths)
                paths, size = [], min(4 * size, _CHUNK) if self._store is not None else 1
            if path is None:
                yield None
        yield from self._found(paths)

    def _found(self, paths: list[_Name]) -> Iterator[Handful | tuple[_Name, Stamp | None]]:
        """Files in their order: each run of known ones together, and one by one those that must be looked at."""
        if self._store is None:
            yield from ((path, None) for path in paths)
            return
        stamps = [stamp_of(path) for path in paths]
        found = self._store.find(paths, stamps)
        start = 0
        for known, run in groupby(found, lambda seen: seen is not None):
            seen = list(run)
            stop = start + len(seen)
            if known:
                self.reused += len(seen)
                yield handful(paths[start:stop], cast(list[Seen], seen))
            else:
                yield from zip(paths[start:stop], stamps[start:stop], strict=True)
            start = stop

    def _infer(self, batch: _Batch) -> Sequence[Tagged | Failed]:
        """In a thread: score what was decoded, and give its memory back."""
        if len(batch.begun) == 1 and isinstance(batch.begun[0], Handful):
            return batch.begun[0]
        read = [one for one in batch.begun if not isinstance(one, Handful)]
        rows = iter(self._scores([answer for _, _, answer in read if isinstance(answer, Decoded)]))
        results: list[Tagged | Failed] = []
        for one in batch.begun:
            results += one if isinstance(one, Handful) else [self._result(*one, rows)]
        return results

    def _result(self, path: _Name, stamp: Stamp | None, answer: _Answer, rows: Iterator[_Scores]) -> Tagged | Failed:
        """Of a file that was looked at; `rows` has the scores of those that were decoded."""
        path = as_path(path)
        if isinstance(answer, str):
            return Failed(path, answer)
        if isinstance(answer, Known):
            tagged = answer.seen.tagged(path)
            self.reused += 1
        else:
            tagged = Tagged.of(path, answer.size, *next(rows))
        if self._keeping:
            self._unkept.append(Looked(stamp, answer.content, answer.pixels, tagged))
        return tagged

    def _scores(self, decoded: Sequence[Decoded]) -> Iterator[_Scores]:
        """float32 [tags] a picture, and its embedding if these are wanted or kept.

        Of several frames the highest score counts, for one frame may show a tag; and the mean of the embeddings.
        """
        if not decoded:
            return
        inputs = np.stack([frame for one in decoded for frame in one.inputs])
        frames = [len(one.inputs) for one in decoded]
        for one in decoded:
            one.release()
        starts = np.cumsum([0, *frames[:-1]])
        batches = [inputs[at : at + self.batch] for at in range(0, len(inputs), self.batch)]
        seen = [self.tagger.look(one) if self._look else (self.tagger.scores(one), None) for one in batches]
        scores = np.maximum.reduceat(np.concatenate([one for one, _ in seen]), starts)
        features = [one for _, one in seen if one is not None]
        embeddings = np.add.reduceat(np.concatenate(features), starts) if features else [None] * len(scores)
        yield from zip(scores, embeddings, strict=True)

    def _keep(self, *, always: bool = False) -> None:
        """Commit the scores of the last second."""
        due = always or time.monotonic() - self._kept_at > _KEEP_EVERY
        if self._store is not None and self._unkept and due:
            kept = [self._unkept[number] for number in range(len(self._unkept))]
            try:
                if self._keeping:
                    self._store.keep(kept)
            except OutputError as error:
                self._keeping = False
                self._notice(str(error))
            for _ in kept:  # not before: after Ctrl-C in the middle of it they are kept on leaving
                self._unkept.popleft()
            self._kept_at = time.monotonic()
