"""What the server says when it cannot do what was asked: one shape, whatever the route.

{"error": "query", "message": "no tag glases; did you mean glasses?", "query": "glases", "position": 0}

raise Refusal(404, "not_found", "There is no picture 7.")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException

from efuda.errors import CollectionError, EfudaError, InputError, OutputError, QueryError

__all__ = ["Problem", "Refusal", "busy", "refusal_of"]


class Problem(BaseModel):
    """Why a request was not obeyed."""

    error: str
    message: str
    query: str | None = None
    position: int | None = None
    suggestions: list[str] | None = None


class Refusal(HTTPException):
    """A request that is not obeyed: a status, a word for programs, a sentence for people."""

    def __init__(
        self, status: int, error: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.error, self.message = error, message
        self.more = {name: value for name, value in more.items() if value is not None}

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {"error": self.error, "message": self.message, **self.more}


def busy(message: str, *, seconds: float = 1, status: int = 503, error: str = "busy") -> Refusal:
    """Not now: 503, or 429 where the client itself asks for too much; says when to ask again."""
    return Refusal(status, error, message, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def refusal_of(error: EfudaError) -> Refusal:
    """A refusal for what the library raised."""
    match error:
        case QueryError():
            suggestions = getattr(error, "suggestions", None)
            near = list(suggestions) if suggestions else None
            return Refusal(400, "query", error.message, query=error.query, position=error.position, suggestions=near)
        case CollectionError() if "in use" in str(error):
            return busy("The collection is in use by another program. Ask again in a moment.", seconds=2)
        case CollectionError():
            return Refusal(409, "collection", _without_paths(error))
        case InputError():
            return Refusal(422, "invalid", _without_paths(error))
        case OutputError():
            return busy("The disk of the collection cannot be written. See the server's own output.", seconds=30)
    return Refusal(422, "invalid", _without_paths(error))


def _without_paths(error: EfudaError) -> str:
    """The sentence; where the machine keeps its files is nobody's business."""
    return " ".join(word if not word.startswith("/") else "the file" for word in str(error).split(" "))
