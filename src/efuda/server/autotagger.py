"""The tagging services that others know how to ask: danbooru/autotagger's, and the webui tagger's.

curl -F file=@miku.jpg -F format=json http://127.0.0.1:8420/evaluate
# [{"filename": "miku.jpg", "tags": {"1girl": 0.9995, "rating:g": 0.784}}]
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import html
import math
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Refusal
from efuda.server.uploads import Upload, taken
from efuda.tagging import Tagged, Tagger
from efuda.vocabulary import Category

__all__ = ["router"]

router = APIRouter(tags=["tagging"])

_THRESHOLD: Final = 0.1
_LIMIT: Final = 50
_MOST: Final = 10_000
_SHOWN_BYTES: Final = 5_000_000  # a picture is shown on the page of results up to this size
_SHOWN: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_FORM_SCHEMA: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                        "threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": _THRESHOLD},
                        "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _LIMIT},
                        "format": {"type": "string", "enum": ["html", "json"], "default": "html"},
                    },
                }
            }
        },
    }
}


class Evaluated(BaseModel):
    """What the model says of one file."""

    filename: str
    tags: dict[str, float]


class Question(BaseModel):
    """What the webui tagger is asked."""

    image: str = Field(description="base64, with or without data: in front", min_length=1)
    model: str = ""
    threshold: float = Field(0.35, ge=0, le=1, allow_inf_nan=False)
    queue: str = ""
    name_in_queue: str = ""


class Caption(BaseModel):
    """Tags and ratings, best first."""

    tag: dict[str, float]
    rating: dict[str, float]


class Interrogated(BaseModel):
    """The webui tagger's answer."""

    caption: Caption


class Interrogators(BaseModel):
    """The models there are."""

    models: list[str]


@router.post("/evaluate", response_model=list[Evaluated], openapi_extra=_FORM_SCHEMA)
async def evaluate(request: Request) -> Response:
    """Tags of pictures, as danbooru/autotagger answers."""
    parts = parts_of(request)
    tagger = parts.needed_tagger()
    async with taken(request, parts.shelf) as form:
        wanted = {**dict(request.query_params), **form.fields}
        threshold = _number(wanted, "threshold", _THRESHOLD, 0, 1)
        limit = int(_number(wanted, "limit", _LIMIT, 1, _MOST))
        if (kind := wanted.get("format", "html")) not in ("html", "json"):
            raise Refusal(400, "request", "format is html or json.")
        if not form.files:
            raise Refusal(400, "request", "Send a picture as file.")
        results = await _tagged(parts, request, form.files)
        said = [
            (upload, _best(tagger, one, threshold, limit, ratings=True))
            for upload, one in zip(form.files, results, strict=True)
        ]
        if kind == "html":
            return HTMLResponse(_page(said))
    return JSONResponse([{"filename": upload.name, "tags": tags} for upload, tags in said])


@router.get("/tagger/v1/interrogators")
async def interrogators(request: Request) -> Interrogators:
    """The models that `interrogate` takes."""
    return Interrogators(models=[parts_of(request).needed_tagger().name])


@router.post("/tagger/v1/interrogate")
async def interrogate(request: Request, question: Question) -> Interrogated:
    """Tags and ratings of one picture, as the webui tagger answers."""
    parts = parts_of(request)
    tagger = parts.needed_tagger()
    if question.model not in ("", tagger.name):
        raise Refusal(404, "not_found", f"There is no model {question.model[:100]!r} here, only {tagger.name!r}.")
    text = question.image.partition(",")[2] if question.image.startswith("data:") else question.image
    try:
        data = base64.b64decode(text.encode("ascii"), validate=False)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Refusal(400, "request", "image is not base64.") from error
    with parts.shelf.holding(data) as path:
        (tagged,) = await _tagged(parts, request, [Upload("image", path)])
    tags = _best(tagger, tagged, question.threshold, _MOST, ratings=False)
    ratings = {
        name.removeprefix("rating:"): score for name, score in sorted(tagged.ratings(tagger).items(), key=_by_score)
    }
    return Interrogated(caption=Caption(tag=tags, rating=ratings))


async def _tagged(parts: Parts, request: Request, uploads: Sequence[Upload]) -> list[Tagged]:
    """All of them, or a refusal that names the one at fault."""
    assert parts.batcher is not None
    client = request.client.host if request.client else "unknown"
    futures: list[asyncio.Future[Tagged | str]] = []
    try:
        for upload in uploads:
            futures.append(asyncio.wrap_future(parts.batcher.submit(upload.path, client)))  # noqa: PERF401  # may raise
    finally:  # also where one is refused: the files of the others must stay until they have been looked at
        answers = await asyncio.gather(*futures, return_exceptions=True)
    tagged = []
    for upload, answer in zip(uploads, answers, strict=True):
        if isinstance(answer, str):
            raise Refusal(422, "picture", f"{upload.name or 'The picture'}: {answer}.")
        if isinstance(answer, BaseException):
            raise answer
        tagged.append(answer)
    return tagged


def _best(tagger: Tagger, tagged: Tagged, threshold: float, limit: int, *, ratings: bool) -> dict[str, float]:
    """Tags at or above a threshold, best first."""
    found: dict[str, float] = {}
    order = (-tagged.scores).argsort(kind="stable")
    for at in order:
        score = float(tagged.scores[at])
        if score < threshold or len(found) == limit:
            break
        tag = tagger.vocabulary[int(tagged.rows[at])]
        if tag.category is not Category.RATING:
            found[tag.name] = round(score, 6)
        elif ratings:
            found[_rating(tag.name)] = round(score, 6)
    return found


def _rating(name: str) -> str:
    """rating:g, as Danbooru names ratings; its older "safe" is today's general."""
    word = name.removeprefix("rating:").removeprefix("rating_")
    return "rating:g" if word == "safe" else f"rating:{word[:1]}"


def _by_score(rating: tuple[str, float]) -> float:
    return -rating[1]


def _number(given: dict[str, str], name: str, default: float, least: float, most: float) -> float:
    text = given.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise Refusal(400, "request", f"{name} is a number from {least:g} to {most:g}, not {text[:40]!r}.")
    return value


def _page(said: Sequence[tuple[Upload, dict[str, float]]]) -> str:
    """The results for people; names of files and tags are text, whatever they hold."""
    parts = []
    for upload, tags in said:
        rows = "".join(
            f'<tr><td><a href="https://danbooru.donmai.us/posts?tags={quote(name)}" rel="noreferrer">'
            f"{html.escape(name.replace('_', ' '))}</a></td><td>{100 * score:.0f}%</td></tr>"
            for name, score in tags.items()
        )
        words = html.escape(" ".join(tags))
        parts.append(
            f"<section><h2>{html.escape(upload.name)}</h2>{_shown(upload)}<table>{rows}</table>"
            f'<textarea rows="4" cols="80" readonly>{words}</textarea></section>'
        )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Results</title></head>'
        f'<body><h1>Results</h1><p><a href="/">Back</a></p>{"".join(parts)}</body></html>'
    )


def _shown(upload: Upload) -> str:
    if upload.path.stat().st_size > _SHOWN_BYTES:
        return ""
    data = upload.path.read_bytes()
    kind = next((kind for start, kind in _SHOWN if data.startswith(start)), None)
    if kind is None:
        return ""
    return f'<p><img height="320" alt="" src="data:{kind};base64,{base64.b64encode(data).decode()}"></p>'
