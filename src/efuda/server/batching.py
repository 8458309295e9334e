"""Pictures of many requests, tagged together: decoded in limited processes, inferred in batches, never more than fit.

    with Batcher(tagger, limits) as batcher:
        future = batcher.submit(path, "127.0.0.1")       # a Refusal where too many wait
        future.result()                                  # Tagged, or the reason (str) why it could not be read

What has been decoded is inferred at once if nothing else is on its way; else it waits a moment, so that a batch fills.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from efuda.server.refusals import busy
from efuda.server.settings import Limits
from efuda.tagging import Looking, Tagged, Tagger
from efuda.tagging.decoding import Decoded, Decoders
from efuda.workers import cores

__all__ = ["Batcher"]

_LINGER: Final = 0.01  # seconds that a batch waits for pictures that are being decoded
_BATCH: Final = 4  # on a CPU more gain nothing
_BATCH_ON_DEVICE: Final = 16

Answer = Tagged | str


@dataclass(slots=True)
class _Wish:
    """A picture that somebody waits for."""

    path: Path
    client: str
    future: Future[Answer]
    decoded: Decoded | None = None


class Batcher:
    """The decoding processes and the threads that infer.

    Attributes:
        batches, pictures: how many the model has seen.
    """

    def __init__(
        self,
        tagger: Tagger,
        limits: Limits,
        *,
        workers: int | None = None,
        seen: Callable[[int], None] = lambda pictures: None,
    ) -> None:
        """`seen(pictures)` is told of every batch."""
        self.tagger, self.limits, self.seen = tagger, limits, seen
        self.batch = tagger.batch or (_BATCH_ON_DEVICE if tagger.on_device else _BATCH)
        lanes = 1 if tagger.on_device else max(1, cores() // tagger.threads)
        count = workers or cores()
        looking = Looking(
            tagger.preprocess,
            max_pixels=limits.pixels,
            memory=limits.decode_bytes,
            seconds=limits.decode_seconds,
        )
        self._decoders = Decoders(looking, count, slots=2 * (lanes + 1) * self.batch + 2 * count)
        self._ready: deque[_Wish] = deque()
        self._decoding = 0
        self._of: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closing = False
        self._lanes = [threading.Thread(target=self._infer, name=f"efuda-infer-{n}", daemon=True) for n in range(lanes)]

    @property
    def waiting(self) -> int:
        """Pictures that somebody waits for."""
        with self._changed:
            return self._of.total()

    def submit(self, path: Path, client: str) -> Future[Answer]:
        """Have a picture tagged; the file must stay until the answer is there.

        Raises:
            Refusal: 503 where too many wait in all, 429 where too many of this client do.
        """
        with self._changed:
            if self._closing:
                raise busy("The server is stopping. Ask again when it is back.", seconds=10, error="stopping")
            if self._of.total() >= self.limits.waiting:
                raise busy("Too many pictures wait already. Send it again in a moment.", seconds=5)
            if self._of[client] >= self.limits.waiting_a_client:
                raise busy(
                    f"{self._of[client]} pictures of yours wait already. Send fewer at a time.",
                    seconds=2,
                    status=429,
                    error="too_many",
                )
            self._of[client] += 1
            self._decoding += 1
        wish = _Wish(path, client, Future())
        wish.future.add_done_callback(lambda future: self._answered(client))
        try:
            self._decoders.submit(path).add_done_callback(lambda future: self._decoded(wish, future))
        except BaseException as error:
            self._decoded(wish, None)
            wish.future.set_exception(error)
        return wish.future

    def __enter__(self) -> Self:
        self._decoders.__enter__()
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What waits is finished, as far as the time for stopping allows."""
        ends = time.monotonic() + self.limits.stop_seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._of.total() and (left := ends - time.monotonic()) > 0:
                self._changed.wait(left)
            self._decoding = 0
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join(self.limits.stop_seconds)
        self._decoders.__exit__(kind, error, trace)

    def _answered(self, client: str) -> None:
        with self._changed:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
            self._changed.notify_all()

    def _decoded(self, wish: _Wish, future: Future[Any] | None) -> None:
        """In the decoders' thread."""
        error = future.exception() if future is not None and not future.cancelled() else None
        answer = future.result() if future is not None and error is None and not future.cancelled() else None
        with self._changed:
            self._decoding -= 1
            if isinstance(answer, Decoded):
                wish.decoded = answer
                self._ready.append(wish)
            self._changed.notify_all()
        if error is not None:
            wish.future.set_exception(error)
        elif isinstance(answer, str):
            wish.future.set_result(answer)

    def _next(self) -> list[_Wish]:
        """A batch; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or (self._closing and not self._decoding))
            ends = time.monotonic() + _LINGER
            while self._decoding and len(self._ready) < self.batch and (left := ends - time.monotonic()) > 0:
                self._changed.wait(left)
            wishes, frames = list[_Wish](), 0
            while self._ready and frames < self.batch:
                wishes.append(self._ready.popleft())
                decoded = wishes[-1].decoded
                assert decoded is not None
                frames += len(decoded.inputs)
            return wishes

    def _infer(self) -> None:
        """The life of a thread."""
        while True:
            wishes = self._next()
            if not wishes:
                with self._changed:
                    if self._closing and not self._decoding and not self._ready:
                        return
                continue  # another thread was quicker
            try:
                answers = self._scored(wishes)
            except BaseException as error:
                for wish in wishes:
                    wish.future.set_exception(error)
                continue
            for wish, tagged in zip(wishes, answers, strict=True):
                wish.future.set_result(tagged)

    def _scored(self, wishes: list[_Wish]) -> list[Tagged]:
        """Of several frames the highest score counts, as in `efuda tag`."""
        decoded = [wish.decoded for wish in wishes if wish.decoded is not None]
        inputs = np.stack([frame for one in decoded for frame in one.inputs])
        frames = [len(one.inputs) for one in decoded]
        for one in decoded:
            one.release()
        scores = np.concatenate(
            [self.tagger.scores(inputs[at : at + self.batch]) for at in range(0, len(inputs), self.batch)]
        )
        self.seen(len(wishes))
        rows = np.maximum.reduceat(scores, np.cumsum([0, *frames[:-1]]))
        return [Tagged.of(wish.path, one.size, row) for wish, one, row in zip(wishes, decoded, rows, strict=True)]
