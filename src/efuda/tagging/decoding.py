"""Processes that turn files into a model's inputs, so that a decoder's crash or hang costs one picture and no more.

    with Decoders(Looking(tagger.preprocess), count=2) as decoders:
        future = decoders.submit(Path("miku.png"))
        decoded = future.result()          # Decoded, Known, or a reason (str)
        decoded.release()

A process reads a file, hashes its bytes, decodes it within limits of memory and time and writes the input into shared
memory, so that no picture travels through a pipe. One that dies or takes too long is replaced; the file that it was at
gets one more chance alone, then it is named with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import connection, shared_memory
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.errors import ImageError, OutputError
from efuda.images import (
    DECODING_MEMORY,
    MAX_PIXELS,
    VIDEOS,
    full_size,
    limit_this_process,
    read_bytes,
    read_frames,
)
from efuda.places import is_remote
from efuda.places import read_bytes as read_place
from efuda.preprocess import Preprocess
from efuda.tagging.scores import ScoreStore, Seen
from efuda.workers import cores, spawn

__all__ = ["AHEAD", "Decoded", "Decoders", "Known", "Looking"]

AHEAD: Final = 2  # files a process is given at a time, so that it never waits for the next
_TRIES: Final = 2
_TICK: Final = 0.25
_END: Final = 1 << 20


@dataclass(frozen=True)
class Looking:
    """How pictures are looked at.

    Attributes:
        frames: of an animation or a video, at most so many; the highest of their scores counts.
        reduced: whether a large JPEG may be decoded at a fraction of its size, which moves scores by hundredths.
        max_pixels: larger pictures are refused by their header.
        memory: bytes a process may use, None for no limit.
        seconds: a file that takes longer is given up.
        scores: folder and key of a `ScoreStore` to look into, or None.
        embeddings: whether a picture counts as known there only with its embedding.
    """

    preprocess: Preprocess
    frames: int = 5
    reduced: bool = False
    max_pixels: int = MAX_PIXELS
    memory: int | None = DECODING_MEMORY
    seconds: float = 60.0
    scores: tuple[Path, str] | None = None
    embeddings: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.preprocess.array(Image.new("RGB", (16, 16))).shape

    @property
    def key(self) -> str:
        """What the inputs depend on, beside the model."""
        return f"{self.preprocess.model_dump_json()}\nframes={self.frames} reduced={self.reduced}"


@dataclass
class Decoded:
    """A picture as the model takes it.

    Attributes:
        size: (width, height), upright.
        inputs: a frame each, float32, in shared memory until `release`.
        content, pixels: hashes of the file's bytes and of what the model is shown.
    """

    size: tuple[int, int]
    inputs: list[NDArray[np.float32]]
    content: bytes
    pixels: bytes
    _release: Any = field(default=None, repr=False)

    def release(self) -> None:
        """Give the shared memory back; the inputs may not be used any more."""
        self.inputs = []
        if self._release:
            self._release()
            self._release = None


@dataclass(frozen=True, slots=True)
class Known:
    """A picture whose scores are stored, found by its bytes, or by its pixels where these are given."""

    seen: Seen
    content: bytes
    pixels: bytes | None


Outcome = Decoded | Known | str


@dataclass(slots=True, eq=False)
class _Job:
    path: Path | str
    future: Future[Outcome]
    tries: int = 0
    slot: int = -1


class Decoders:
    """The processes, and a thread that hands them files and takes their answers."""

    def __init__(self, looking: Looking, count: int | None = None, *, slots: int = 64) -> None:
        """`slots`: pictures that may lie decoded at a time, each of the size of one input."""
        self.looking, self.count = looking, count or cores()
        shape = looking.shape
        self._bytes = 4 * int(np.prod(shape))
        self.slots = max(slots, AHEAD * self.count)
        try:
            self._memory = shared_memory.SharedMemory(create=True, size=self.slots * self._bytes)
        except OSError as error:
            raise OutputError(
                f"There is no shared memory for {self.slots} pictures ({error.strerror}). Use a smaller --batch."
            ) from error
        self._inputs = np.ndarray((self.slots, *shape), np.float32, self._memory.buf)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.slots):
            self._free.put(slot)
        self._todo: deque[_Job] = deque()
        self._alone: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._processes: list[_Process] = []
        self._wake_here, self._wake_there = multiprocessing.Pipe(duplex=False)
        self._woken = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="efuda-decoders", daemon=True)

    def submit(self, path: Path | str) -> Future[Outcome]:
        """Have a file decoded; files are begun in the order they come."""
        job = _Job(path, Future())
        with self._lock:
            if self._failure:
                raise self._failure
            self._todo.append(job)
        self._wake()
        return job.future

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake()
        self._thread.join()
        for process in self._processes:
            process.kill()
        self._inputs = np.empty(0, np.float32)
        self._wake_here.close()
        self._wake_there.close()
        with contextlib.suppress(BufferError):  # an input that somebody still holds keeps the memory until then
            self._memory.close()
        self._memory.unlink()

    def _wake(self) -> None:
        if self._woken:
            return
        self._woken = True
        with contextlib.suppress(OSError):
            self._wake_there.send_bytes(b"!")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._hand_out()
                self._wait()
                self._watch_the_clock()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = error
            waiting = [*self._todo, *self._alone, *itertools.chain(*(process.jobs for process in self._processes))]
        for job in waiting:
            job.future.set_exception(error)

    def _hand_out(self) -> None:
        """Give files to processes that have room, as long as there is shared memory; a suspect gets one to itself."""
        while (self._todo or self._alone) and not self._free.empty():
            process = self._with_room()
            if process is None:
                return
            if self._alone:
                if process.jobs:
                    return
                job = self._alone.popleft()
            else:
                with self._lock:
                    job = self._todo.popleft()
                if job.future.cancelled():
                    continue
            job.slot = self._free.get()
            process.give(job)

    def _with_room(self) -> _Process | None:
        """The one with the fewest files; another is started where all are at work."""
        idle = min(self._processes, key=lambda one: len(one.jobs), default=None)
        if idle is not None and not idle.jobs:
            return idle
        if len(self._processes) < self.count:
            self._processes.append(_Process(self.looking, self._memory.name, self.slots))
            return self._processes[-1]
        assert idle is not None
        suspect = any(job.tries for job in idle.jobs)
        return idle if len(idle.jobs) < AHEAD and not suspect else None

    def _wait(self) -> None:
        pipes: dict[Any, _Process | None] = {process.pipe: process for process in self._processes}
        pipes[self._wake_here] = None
        for pipe in connection.wait(list(pipes), _TICK):
            process = pipes[pipe]
            if process is None:
                self._wake_here.recv_bytes()
                self._woken = False
                continue
            try:
                answer = pickle.loads(process.pipe.recv_bytes())
            except (EOFError, OSError):
                self._lost(process, f"the decoder crashed ({process.how_it_ended()})")
                continue
            self._take(process, answer)

    def _take(self, process: _Process, answer: Any) -> None:
        if answer is None:  # it is ready
            process.ready = True
            process.since = time.monotonic()
            return
        job = process.answered()
        if isinstance(answer, Known | str):
            self._free.put(job.slot)
            job.future.set_result(answer)
            return
        size, more, content, pixels = answer
        slot = job.slot
        inputs = [self._inputs[slot], *more]

        def release() -> None:
            self._free.put(slot)
            self._wake()

        decoded = Decoded(size, inputs, content, pixels, release)
        if job.future.cancelled():
            decoded.release()
        else:
            job.future.set_result(decoded)

    def _watch_the_clock(self) -> None:
        now = time.monotonic()
        for process in list(self._processes):
            if process.ready and process.jobs and now - process.since > self.looking.seconds:
                process.jobs[0].tries = _TRIES
                self._lost(process, f"decoding took more than {self.looking.seconds:g} s")

    def _lost(self, process: _Process, reason: str) -> None:
        """A process is gone: the file that it was at is tried once more alone, the others go back in front."""
        self._processes.remove(process)
        process.kill()
        if not process.ready:
            raise OutputError(
                f"A process that decodes pictures could not start ({process.how_it_ended()}). See above for its reason."
            )
        jobs = list(process.jobs)
        for job in jobs:
            self._free.put(job.slot)
        if not jobs:
            return
        suspect, *others = jobs
        suspect.tries += 1
        if suspect.tries >= _TRIES:
            suspect.future.set_result(reason)
        else:
            self._alone.append(suspect)
        with self._lock:
            self._todo.extendleft(reversed(others))


class _Process:
    """One process, the pipe to it and the files it has; it works on the first of them."""

    def __init__(self, looking: Looking, memory: str, slots: int) -> None:
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self.jobs: deque[_Job] = deque()
        self.ready, self.since = False, time.monotonic()
        self._process = spawn(_work, theirs, looking, memory, slots)
        theirs.close()

    def give(self, job: _Job) -> None:
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.append(job)
        with contextlib.suppress(OSError):  # it has just died: the pipe's end is seen when we wait for it
            self.pipe.send_bytes(pickle.dumps((os.fspath(job.path), job.slot)))

    def answered(self) -> _Job:
        self.since = time.monotonic()
        return self.jobs.popleft()

    def how_it_ended(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Any, looking: Looking, memory: str, slots: int) -> None:
    """In a process: answer files with where their input is, for as long as somebody asks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    shared = shared_memory.SharedMemory(memory)
    inputs = np.ndarray((slots, *looking.shape), np.float32, shared.buf)
    kept = looking.scores
    store = ScoreStore.open(*kept, read_only=True, embeddings=looking.embeddings) if kept else None
    if looking.memory is not None:
        limit_this_process(looking.memory)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and libjpeg tell the terminal what they think of a file
    eye = _Eye(looking, store)
    _only_python_may_speak()
    pipe.send_bytes(pickle.dumps(None))
    while True:
        try:
            path, slot = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        pipe.send_bytes(pickle.dumps(eye.look(path, inputs[slot]), pickle.HIGHEST_PROTOCOL))


def _only_python_may_speak() -> None:
    """What libtiff and others write of damaged files would end up between the lines of whoever started the command."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


class _Eye:
    """Reads, hashes and decodes."""

    def __init__(self, looking: Looking, store: ScoreStore | None) -> None:
        self.looking, self.store = looking, store

    def look(self, path: str, into: NDArray[np.float32]) -> Any:
        """Fill `into` with the first frame: (size, further frames, hash of bytes, of pixels); or Known, or why not."""
        try:
            source, content = _fetched(path)
            if self.store is not None and (seen := self.store.by_content(content)):
                return Known(seen, content, None)
            return self._decode(source, content, into)
        except ImageError as error:
            return error.reason
        except MemoryError:
            return "too large for the memory that decoding may use"

    def _decode(self, source: Path | bytes, content: bytes, into: NDArray[np.float32]) -> Any:
        looking = self.looking
        frames = read_frames(
            source,
            count=looking.frames,
            max_pixels=looking.max_pixels,
            reduce_to=4 * looking.preprocess.size if looking.reduced else None,
        )
        size = full_size(frames[0])
        squares = [looking.preprocess.square(frame) for frame in frames]
        pixels = _hash(*(np.ascontiguousarray(square) for square in squares), repr(size).encode())
        if self.store is not None and (seen := self.store.by_pixels(pixels)):
            return Known(seen, content, pixels)
        into[...] = looking.preprocess.scale(squares[0])
        return size, [looking.preprocess.scale(square) for square in squares[1:]], content, pixels


def _fetched(path: str) -> tuple[Path | bytes, bytes]:
    """What to decode, and a hash of the file: of its bytes; of a video, which may be long, its size and ends."""
    if is_remote(path):
        try:
            data = read_place(path)
        except OSError as error:
            raise ImageError(f"cannot be fetched ({error.strerror or error})", path) from error
        return data, _hash(data)
    here = Path(path)
    if here.suffix.lower() not in VIDEOS or not here.is_file():
        data = read_bytes(here)
        return data, _hash(data)
    try:
        with here.open("rb") as file:
            start, size = file.read(_END), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            return here, _hash(start, file.read(), repr(size).encode())
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", path) from error


def _hash(*parts: Any) -> bytes:
    """XXH3 in 128 bits: not against forgers, fast enough not to be seen."""
    import xxhash

    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.digest()
