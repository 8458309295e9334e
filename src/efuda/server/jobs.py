"""Work that takes long and is begun from a page: a known folder's new pictures are tagged and added.

    jobs = Jobs(collection, tagger, life)
    job = jobs.add(folder)            # at work from now on
    job.state, job.done, job.total, job.remaining_s
    jobs.cancel(job.id)               # what was tagged by then is kept

One at a time; the last hundred are remembered.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from efuda.collection import Collection
from efuda.errors import CollectionError, EfudaError
from efuda.images import find_pictures
from efuda.server.refusals import Refusal
from efuda.server.security import Life
from efuda.tagging import Failed, Pipeline, Tagged, Tagger, default_folder

if TYPE_CHECKING:
    from efuda.collection import Folder

__all__ = ["Job", "Jobs"]

State = Literal["running", "done", "failed", "cancelled"]
_REMEMBERED: Final = 100
_LISTED: Final = 1000


@dataclass(slots=True)
class Job:
    """One piece of work, and how far it is.

    Attributes:
        failed: (name of the file, reason), at most a thousand of them.
        summary: a sentence, when it has ended.
    """

    id: int
    folder: Folder
    kind: str = "add"
    state: State = "running"
    done: int = 0
    total: int | None = None
    note: str = "looking for new pictures"
    failed: list[tuple[str, str]] = field(default_factory=list)
    failures: int = 0
    summary: str = ""
    began: float = 0.0
    ended: float | None = None
    cancelled: bool = False
    life: Life = field(default_factory=Life)

    @property
    def asked_to_end(self) -> bool:
        """Whether it is to stop at its next batch."""
        return self.cancelled or self.life.stopping

    @property
    def rate(self) -> float:
        """Pictures a second."""
        elapsed = (self.ended or time.monotonic()) - self.began
        return self.done / elapsed if self.began and elapsed > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds, where that can be said."""
        if self.state != "running" or self.total is None or not self.rate:
            return None
        return (self.total - self.done) / self.rate

    def fail(self, name: str, reason: str) -> None:
        """One file could not be used."""
        self.failures += 1
        if len(self.failed) < _LISTED:
            self.failed.append((name, reason))


class Jobs:
    """Those of one server."""

    def __init__(self, collection: Collection | None, tagger: Tagger | None, life: Life) -> None:
        self._collection, self._tagger, self._life = collection, tagger, life
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = False

    def add(self, folder: Folder) -> Job:
        """Tag a folder's new pictures and add them.

        Raises:
            Refusal: 409 where another job runs.
        """
        assert self._collection is not None and self._tagger is not None
        with self._lock:
            if any(job.state == "running" for job in self._jobs.values()) or self._closing:
                raise Refusal(409, "conflict", "Another job is running. Wait for its end, or cancel it.")
            job = Job(next(self._numbers), folder, life=self._life)
            self._jobs[job.id] = job
            for old in list(self._jobs)[:-_REMEMBERED]:
                del self._jobs[old]
            self._thread = threading.Thread(
                target=self._run, args=(job, self._collection, self._tagger), name="efuda-job", daemon=True
            )
            self._thread.start()
        return job

    def all(self) -> list[Job]:
        """The latest first."""
        return list(self._jobs.values())[::-1]

    def job(self, number: int) -> Job:
        """Raises a 404 where it is unknown."""
        if number not in self._jobs:
            raise Refusal(404, "not_found", f"There is no job {number}.")
        return self._jobs[number]

    def cancel(self, number: int) -> Job:
        """Have it stop at its next batch; what was tagged by then is kept."""
        job = self.job(number)
        job.cancelled = True
        return job

    def close(self) -> None:
        """Have what runs stop at its next batch, and wait for that."""
        with self._lock:
            self._closing = True
            thread = self._thread
        for job in self.all():
            job.cancelled = True
        if thread is not None:
            thread.join()

    def _run(self, job: Job, collection: Collection, tagger: Tagger) -> None:
        try:
            added = _add(job, collection, tagger)
            job.state = "cancelled" if job.asked_to_end and job.done < (job.total or 0) else "done"
            job.summary = f"{_pictures(added)} added" + (f", {job.failures:,} failed." if job.failures else ".")
        except EfudaError as error:
            job.state, job.summary = "failed", str(error)
        except Exception as error:
            job.state, job.summary = "failed", f"This is a bug in efuda ({type(error).__name__})."
        finally:
            job.note, job.ended = "", time.monotonic()


def _add(job: Job, collection: Collection, tagger: Tagger) -> int:
    """How many pictures came in."""
    found = _found(job)
    wanted = itertools.takewhile(lambda _: not job.asked_to_end, found)
    todo = list(collection.untagged(wanted, tagger.identity, vectors=tagger.embeds))
    job.total, job.note, job.began = len(todo), "", time.monotonic()
    if not todo:
        return 0
    with Pipeline(tagger, scores=default_folder(), embeddings=True) as pipeline:
        results = itertools.chain.from_iterable(pipeline.run(todo))
        done = collection.add(_counted(job, results), tagger)
    if not job.asked_to_end:
        job.note = "making thumbnails"
        collection.make_previews()
        collection.build_likeness()
    for one in done.failed:
        job.fail(one.path.name, one.reason)
    return done.added + done.updated


def _found(job: Job) -> Iterator[Path]:
    """Files of the folder; a collection holds no pages of archives."""
    root = Path(job.folder.path)
    if not root.is_dir():
        raise CollectionError("The folder is not there. Connect its disk, or scan the collection.")
    skipped = lambda path, reason: job.fail(path.name, reason)  # noqa: E731
    for path in find_pictures([root], recursive=job.folder.recursive, skipped=skipped):
        if path.is_file():
            yield path


def _counted(job: Job, results: Iterable[Tagged | Failed]) -> Iterator[Tagged | Failed]:
    for result in results:
        if job.asked_to_end:
            return
        job.done += 1
        yield result


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"
