"""Tag files: processes decode, threads infer, what was scored before is not scored again; results in the files' order.

    for result in tag(tagger, find_pictures([Path("pictures")])):
        print(result.path, result.present(tagger) if isinstance(result, Tagged) else result.reason)

On a CPU every inference thread runs the model on one core (open the tagger with `threads=1` for that), so no core waits
for another; a device has one such thread. A picture that cannot be read becomes a `Failed` and never stops the rest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.images import on_white
from efuda.tagging.decoding import Decoded, Decoders, Known, Looking
from efuda.tagging.scores import Looked, ScoreStore, Stamp, stamp_of
from efuda.tagging.scoring import score
from efuda.tagging.tagged import Failed, Tagged
from efuda.tagging.tagger import Tagger
from efuda.workers import cores

__all__ = ["Pipeline", "tag", "tag_images"]

_CHUNK: Final = 1024  # files that are looked up together
_KEEP_EVERY: Final = 1.0  # seconds of scores that a kill may cost
_Answer = Decoded | Known | str
_Begun = tuple[Path, Stamp | None, Future[_Answer] | Tagged]


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
        looking: frames, limits and whether large JPEGs are decoded at a fraction; by default five frames and yes.
        scores: a folder where scores are kept and found again; None for neither.
        embeddings: also give what the model sees before it names it, if it can (`Tagged.embedding`); a picture whose
            scores were kept without is looked at again.

    Raises:
        OutputError: the decoding processes cannot be started, or `scores` cannot be written.
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
    """Files that are inferred together, and in the end what came of each."""

    begun: list[tuple[Path, Stamp | None, _Answer | Tagged]]
    frames: int = 0

    def add(self, path: Path, stamp: Stamp | None, answer: _Answer | Tagged) -> None:
        self.begun.append((path, stamp, answer))
        self.frames += len(answer.inputs) if isinstance(answer, Decoded) else 0


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
    ) -> None:
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

    def run(self, pictures: Iterable[Path | None]) -> Iterator[list[Tagged | Failed]]:
        """Handfuls of results, in the order of the files; a None among these: those before it must not wait."""
        flying: deque[Future[list[Tagged | Failed]]] = deque()
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

    def _batches(self, pictures: Iterable[Path | None]) -> Iterator[_Batch | None]:
        """What is known at once comes in large handfuls, what must be inferred in the model's batches."""
        batch = _Batch([])
        for one in self._begun(pictures):
            if one is not None:
                path, stamp, begun = one
                batch.add(path, stamp, begun.result() if isinstance(begun, Future) else begun)
            if batch.frames >= self.batch or len(batch.begun) >= _CHUNK or (one is None and batch.begun):
                yield batch
                batch = _Batch([])
            if one is None:
                yield None
        if batch.begun:
            yield batch

    def _begun(self, pictures: Iterable[Path | None]) -> Iterator[_Begun | None]:
        """Files in their order, the decoders some ahead of what is asked for."""
        waiting: deque[_Begun] = deque()
        unknown = 0
        for one in self._looked_up(pictures):
            if one is None:
                yield from waiting
                waiting.clear()
                unknown = 0
                yield None
                continue
            path, stamp, known = one
            unknown += known is None
            waiting.append((path, stamp, known or self._decoders.submit(path)))
            while waiting and (unknown > self._ahead or isinstance(waiting[0][2], Tagged)):
                unknown -= not isinstance(waiting[0][2], Tagged)
                yield waiting.popleft()
        yield from waiting

    def _looked_up(self, pictures: Iterable[Path | None]) -> Iterator[tuple[Path, Stamp | None, Tagged | None] | None]:
        paths: list[Path] = []
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

    def _found(self, paths: list[Path]) -> Iterable[tuple[Path, Stamp | None, Tagged | None]]:
        if self._store is None:
            return [(path, None, None) for path in paths]
        stamps = [stamp_of(path) for path in paths]
        found = self._store.find(paths, stamps)
        self.reused += sum(tagged is not None for tagged in found)
        return zip(paths, stamps, found, strict=True)

    def _infer(self, batch: _Batch) -> list[Tagged | Failed]:
        """In a thread: score what was decoded, and give its memory back."""
        decoded = [answer for _, _, answer in batch.begun if isinstance(answer, Decoded)]
        rows = iter(self._scores(decoded))
        results: list[Tagged | Failed] = []
        for path, stamp, answer in batch.begun:
            if isinstance(answer, Tagged):
                results.append(answer)
            elif isinstance(answer, str):
                results.append(Failed(path, answer))
            else:
                if isinstance(answer, Known):
                    tagged = answer.seen.tagged(path)
                    self.reused += 1
                else:
                    tagged = Tagged.of(path, answer.size, *next(rows))
                results.append(tagged)
                if self._store is not None:
                    self._unkept.append(Looked(stamp, answer.content, answer.pixels, tagged))
        return results

    def _scores(self, decoded: Sequence[Decoded]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
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
            self._store.keep(kept)
            for _ in kept:  # not before: after Ctrl-C in the middle of it they are kept on leaving
                self._unkept.popleft()
            self._kept_at = time.monotonic()
