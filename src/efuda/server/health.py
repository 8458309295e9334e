"""Whether the server lives, and what it counts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from efuda.server.measuring import METRICS_TYPE
from efuda.server.parts import parts_of
from efuda.server.shapes import Health

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/health")
def health(request: Request) -> Health:
    """For whoever watches over the server; needs no password and tells nothing else."""
    parts = parts_of(request)
    revision = parts.collection.revision if parts.collection is not None and parts.door.is_open else None
    life = parts.life
    return Health(status="stopping" if life.stopping else "ok" if life.started else "starting", revision=revision)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(parts_of(request).measures.text(), media_type=METRICS_TYPE)
