"""The application: routes, the guard around them, one shape for every error.

app = create_app(Settings(), collection=Collection.open(Path("art.efuda")), tagger=Tagger.open("model"))
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from efuda.collection import Collection
from efuda.errors import EfudaError
from efuda.server import api, autotagger, danbooru, health, signing, work
from efuda.server.access import Door
from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Problem, Refusal, refusal_of
from efuda.server.security import Guard
from efuda.server.settings import Settings
from efuda.tagging import Tagger

__all__ = ["create_app"]

_STATIC: Final = Path(__file__).parent / "static"
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
}
_WORDS: Final = {404: "not_found", 405: "method", 400: "request"}
_UPLOAD_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>efuda</title></head><body><h1>Tag pictures</h1>
<form action="/evaluate" method="post" enctype="multipart/form-data">
<p><label>Pictures <input type="file" name="file" multiple required></label></p>
<p><label>Threshold <input type="number" name="threshold" value="0.1" min="0" max="1" step="0.01"></label></p>
<p><button>Tag</button></p></form></body></html>"""


def create_app(settings: Settings, *, collection: Collection | None = None, tagger: Tagger | None = None) -> Guard:
    """An ASGI application. What is opened for it stays the caller's to close, after it has stopped."""
    parts = Parts(settings, Door(settings.secret, settings.limits), collection, tagger)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(parts.start)
        try:
            yield
        finally:
            await run_in_threadpool(parts.close)

    app = FastAPI(
        title="efuda",
        version=importlib.metadata.version("efuda"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_PROBLEMS,
        generate_unique_id_function=_name_of,
    )
    app.state.parts = parts
    for router in (health.router, signing.router, api.router, work.router, autotagger.router, danbooru.router):
        app.include_router(router)
    app.add_api_route("/", _front_page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC, check_dir=False), name="static")
    app.add_exception_handler(HTTPException, _as_problem)
    app.add_exception_handler(RequestValidationError, _as_problem)
    app.add_exception_handler(EfudaError, _as_problem)
    app.add_exception_handler(Exception, _as_problem)
    return Guard(app, settings, parts.door, parts.life, parts.measures.answered)


def _name_of(route: APIRoute) -> str:
    return f"{route.name}-{'-'.join(sorted(route.methods or ())).lower()}"


async def _front_page(request: Request) -> Response:
    """The gallery; without a collection, a form to try the tagger."""
    if parts_of(request).collection is None:
        return HTMLResponse(_UPLOAD_PAGE)
    index = _STATIC / "index.html"
    if not index.is_file():
        raise Refusal(404, "not_found", "The gallery is not installed.")
    return FileResponse(index, headers={"Cache-Control": "no-cache"})


async def _as_problem(request: Request, error: Exception) -> Response:
    """Whatever went wrong, in one shape."""
    refusal = _refusal(error)
    return JSONResponse(refusal.body, refusal.status_code, headers=dict(refusal.headers or {}))


def _refusal(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case EfudaError():
            return refusal_of(error)
        case RequestValidationError():
            return Refusal(422, "invalid", _sentence(error.errors()))
        case HTTPException():
            word = _WORDS.get(error.status_code, "request")
            return Refusal(error.status_code, word, _text(error), headers=error.headers)
    return Refusal(500, "bug", f"This is a bug in efuda ({type(error).__name__}); its server printed more.")


def _text(error: HTTPException) -> str:
    plain = {404: "There is no such page.", 405: "That is not done here. See docs/serving.md."}
    return plain.get(error.status_code, str(error.detail))


def _sentence(errors: Any) -> str:
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return f"{where}: {first['msg']}."[:500]
