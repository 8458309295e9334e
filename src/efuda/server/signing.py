"""What is served, whether one must sign in, and signing in."""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from efuda.server import shapes
from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Refusal, busy
from efuda.server.security import cookie_name

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["session"])

_SESSION_SECONDS: Final = 30 * 24 * 3600


@router.get("/status")
def status(request: Request) -> shapes.Status:
    """What is served; who has not signed in is told only that they must."""
    parts = parts_of(request)
    signed_in = bool(request.state.signed_in)
    told = _facts(parts) if signed_in else {}
    return shapes.Status(
        version=importlib.metadata.version("efuda"),
        read_only=parts.settings.read_only,
        signed_in=signed_in,
        needs_sign_in=not parts.door.is_open,
        **{name: told.get(name) for name in ("name", "pictures", "tags", "revision", "models", "tagger", "ratings")},
    )


def _facts(parts: Parts) -> dict[str, Any]:
    tagger = parts.tagger.name if parts.tagger is not None else None
    collection = parts.collection
    if collection is None:
        return {"name": tagger, "tagger": tagger}
    facts, ratings = collection.status(), collection.facets("", limit=0).ratings
    counts = {name: facts[name] for name in ("pictures", "tags", "models")}
    return {
        "name": collection.path.stem,
        "tagger": tagger,
        "revision": collection.revision,
        "ratings": ratings,
        **counts,
    }


@router.post("/session", status_code=204)
async def sign_in(request: Request, given: shapes.SignIn) -> Response:
    """Sign in with the password, or with the token."""
    parts = parts_of(request)
    door, answer = parts.door, Response(status_code=204)
    if door.is_open:
        return answer
    address = request.client.host if request.client else "unknown"
    if wait := door.brake.wait(address):
        raise busy("Too many wrong passwords or tokens. Wait a little.", seconds=wait, status=429, error="too_many")
    if not await run_in_threadpool(door.fits, given.password):
        door.brake.failed(address)
        raise Refusal(401, "sign_in", "That is not it.")
    answer.set_cookie(
        cookie_name(parts.settings.port),
        door.new_session(),
        max_age=_SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.delete("/session", status_code=204)
def sign_out(request: Request) -> Response:
    """The session ends, here and in the browser."""
    parts, answer = parts_of(request), Response(status_code=204)
    name = cookie_name(parts.settings.port)
    parts.door.end_session(request.cookies.get(name, ""))
    answer.delete_cookie(name, httponly=True, samesite="strict")
    return answer
