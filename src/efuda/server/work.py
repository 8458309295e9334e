"""`/api`, second half: duplicates, folders, jobs, and what happens while one looks on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from efuda.collection import Card, Folder, Group
from efuda.server import shapes
from efuda.server.api import card_of, operation_of
from efuda.server.jobs import Job
from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Refusal, busy

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["work"])

_TICK: Final = 0.5
_HEARTBEAT: Final = 15.0
JobId = Annotated[int, Path(ge=1, lt=2**53)]


@router.get("/duplicates")
def duplicates(
    request: Request,
    kind: Literal["pixels", "near"] = "pixels",
    offset: Annotated[int, Query(ge=0, lt=2**32)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> shapes.Duplicates:
    """Pictures with the same pixels, or nearly; each with the tags that only it carries."""
    collection = parts_of(request).needed_collection()
    total, groups = collection.duplicates(kind, offset=offset, limit=limit)
    cards = {card.id: card for card in collection.cards([one.id for group in groups for one in group.pictures])}
    return shapes.Duplicates(total=total, groups=[_group(group, cards) for group in groups])


def _group(group: Group, cards: Mapping[int, Card]) -> shapes.DuplicateGroup:
    pictures = [
        shapes.DuplicatePicture(**card_of(cards[one.id]), bytes=cards[one.id].bytes, only_tags=list(one.only_tags))
        for one in group.pictures
        if one.id in cards
    ]
    return shapes.DuplicateGroup(
        kind=group.kind, verdict=group.verdict, pictures=pictures, shared_tags=group.shared_tags
    )


@router.post("/duplicates/merge")
def merge(request: Request, wish: shapes.Merge) -> shapes.OneOperation:
    """Keep one of several; it gets the tags of the others, which are found no more."""
    if wish.keep in wish.drop:
        raise Refusal(422, "invalid", "The picture that is kept cannot be among those that go.")
    return operation_of(parts_of(request).needed_collection().merge(wish.keep, wish.drop))


@router.get("/folders")
def folders(request: Request) -> shapes.Folders:
    """The folders that were given to efuda collection add."""
    collection = parts_of(request).needed_collection()
    found = [(one, collection.count(_within(one))) for one in collection.folders()]
    return shapes.Folders(
        folders=[shapes.FolderOf(id=one.id, name=one.path.name, pictures=count) for one, count in found]
    )


def _within(folder: Folder) -> str:
    """The search for a folder's pictures."""
    path = f"{folder.path}/".replace('"', '\\"')
    return f'path:"{path}"'


@router.post("/jobs", status_code=202)
def begin(request: Request, wish: shapes.JobOrder) -> shapes.JobOf:
    """Tag the new pictures of a folder that is known, and add them."""
    parts = parts_of(request)
    parts.needed_tagger()
    folder = next((one for one in parts.needed_collection().folders() if one.id == wish.folder), None)
    if folder is None:
        raise Refusal(404, "not_found", f"There is no folder {wish.folder}. Add it first: efuda collection add")
    return _job(parts.jobs.add(folder))


@router.get("/jobs")
def all_jobs(request: Request) -> shapes.Jobs:
    """What runs and what ran."""
    return shapes.Jobs(jobs=[_job(one) for one in parts_of(request).jobs.all()])


@router.get("/jobs/{id}")
def one_job(request: Request, id: JobId) -> shapes.JobOf:
    """How far it is."""
    return _job(parts_of(request).jobs.job(id))


@router.delete("/jobs/{id}")
def cancel(request: Request, id: JobId) -> shapes.JobOf:
    """Have it stop; what was tagged by then is kept."""
    return _job(parts_of(request).jobs.cancel(id))


def _job(job: Job) -> shapes.JobOf:
    left = job.remaining_s
    return shapes.JobOf(
        id=job.id,
        kind=job.kind,
        state=job.state,
        done=job.done,
        total=job.total,
        rate=round(job.rate, 2),
        remaining_s=None if left is None else round(left, 1),
        note=job.note,
        failed=[shapes.JobFailure(name=name, reason=reason) for name, reason in job.failed],
        summary=job.summary,
    )


@router.get("/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def events(request: Request) -> Response:
    """Jobs and changes as they happen: server-sent events `job` and `revision`."""
    parts = parts_of(request)
    if parts.streams >= parts.settings.limits.streams:
        raise busy("Too many pages follow what happens.", seconds=30)
    return StreamingResponse(_events(parts), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(parts: Parts) -> AsyncIterator[str]:
    parts.streams += 1
    try:
        told: dict[int, str] = {}
        revision, said = -1, time.monotonic()
        yield ": hello\n\n"
        while not parts.life.stopping:
            for text in [*_news_of_jobs(parts, told)]:
                yield text
                said = time.monotonic()
            if parts.collection is not None:
                now, pictures = await run_in_threadpool(_revision, parts)
                if now != revision:
                    yield _event("revision", {"revision": now, "pictures": pictures})
                    revision, said = now, time.monotonic()
            if time.monotonic() - said > _HEARTBEAT:
                yield ": still here\n\n"
                said = time.monotonic()
            await asyncio.sleep(_TICK)
    finally:
        parts.streams -= 1


def _news_of_jobs(parts: Parts, told: dict[int, str]) -> Iterator[str]:
    """Jobs that are not as they were last told."""
    for job in parts.jobs.all()[::-1]:
        text = _job(job).model_dump_json()
        if told.get(job.id) != text:
            told[job.id] = text
            yield f"event: job\ndata: {text}\n\n"


def _revision(parts: Parts) -> tuple[int, int]:
    collection = parts.needed_collection()
    return collection.revision, collection.count("")


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
