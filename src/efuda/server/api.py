"""`/api`: what the gallery asks, and whoever writes a program for a collection.

GET  /api/search?q=glasses -hat&limit=100
POST /api/edits {"pictures": [7, 9], "add": ["glasses"], "remove": ["hat"]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from efuda.collection import Busy, Card, Collection, Operation, Picture, TagOn
from efuda.errors import CollectionError, ImageError
from efuda.server import originals, shapes
from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Refusal, busy

__all__ = ["card_of", "operation_of", "router"]

router = APIRouter(prefix="/api", tags=["collection"])

_MOST: Final = 2**53
_PREVIEW: Final = 1600
_EXPLAINED: Final = 1024
_FOREVER: Final = "private, max-age=31536000, immutable"  # the address carries ?v= and the content's hash
_ORDER: Final = ("artist", "copyright", "character", "general", "meta")

Text = Annotated[str, Query(max_length=4000)]
Id = Annotated[int, Path(ge=1, lt=_MOST)]
Offset = Annotated[int, Query(ge=0, lt=2**32)]
_WEBP: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"image/webp": {}}}}


# Finding


@router.get("/search")
def search(
    request: Request, q: Text = "", offset: Offset = 0, limit: Annotated[int, Query(ge=0, le=1000)] = 100
) -> shapes.Found:
    """Pictures, as docs/query.md describes searches."""
    collection = parts_of(request).needed_collection()
    revision = collection.revision
    total, ids = collection.find(q, limit=limit, offset=offset)
    return shapes.Found(total=total, revision=revision, offset=offset, pictures=_cards(collection, ids))


@router.get("/complete")
def complete(
    request: Request,
    q: Text = "",
    at: Annotated[int | None, Query(ge=0, le=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 12,
) -> shapes.Completed:
    """What the word at the cursor could become, each with how many pictures the search would then find."""
    found = parts_of(request).needed_collection().complete(q, None if at is None else min(at, len(q)), limit=limit)
    suggestions = [
        shapes.Candidate(
            value=one.value, label=one.label, category=one.category, count=one.count, antecedent=one.antecedent
        )
        for one in found.suggestions
    ]
    return shapes.Completed(start=found.start, end=found.end, suggestions=suggestions)


@router.get("/facets")
def facets(request: Request, q: Text = "", limit: Annotated[int, Query(ge=0, le=1000)] = 40) -> shapes.FacetList:
    """The tags that the pictures found carry most, by category."""
    found = parts_of(request).needed_collection().facets(q, limit=limit)
    groups: dict[str, list[shapes.Counted]] = {}
    for name, category, count in found.tags:
        groups.setdefault(category.label, []).append(shapes.Counted(name=name, count=count))
    return shapes.FacetList(
        total=found.total,
        exact=found.exact,
        ratings=found.ratings,
        groups=[shapes.FacetGroup(category=one, tags=groups[one]) for one in _ORDER if one in groups],
    )


def _cards(collection: Collection, ids: Sequence[int]) -> list[shapes.Card]:
    return [shapes.Card(**card_of(one)) for one in collection.cards(ids)]


def card_of(card: Card) -> dict[str, Any]:
    """What a `shapes.Card` holds."""
    plain = {name: getattr(card, name) for name in ("id", "width", "height", "rating", "filetype", "duration")}
    return {**plain, "version": f"{card.bytes:x}"}


# One picture


@router.get("/pictures/{id}")
def picture(request: Request, id: Id) -> shapes.PictureOf:
    """All about one picture but where it lies."""
    parts = parts_of(request)
    found = _picture(parts, id)
    counts = parts.tag_counts()
    plain = ("id", "width", "height", "bytes", "filetype", "added", "date", "missing", "source", "parent", "rating")
    return shapes.PictureOf(
        **{name: getattr(found, name) for name in (*plain, "ratings", "model")},
        children=list(found.children),
        name=found.path.name,
        folder=found.path.parent.name,
        md5=found.md5 or None,
        sha256=found.sha256,
        tags=[_tag(one, counts) for one in found.tags],
        refused=[_tag(one, counts) for one in found.refused],
    )


def _tag(tag: TagOn, counts: Mapping[str, int]) -> shapes.TagOf:
    return shapes.TagOf(
        name=tag.name,
        category=tag.category.label,
        score=tag.score,
        by=tag.by,
        source=tag.source,
        at=tag.at or None,
        count=counts.get(tag.name),
    )


def _picture(parts: Parts, number: int) -> Picture:
    """Raises a 404 where it is unknown."""
    collection = parts.needed_collection()
    try:
        return collection.picture(number)
    except CollectionError as error:
        raise Refusal(404, "not_found", f"There is no picture {number}.") from error


@router.get("/pictures/{id}/thumbnail", response_class=Response, responses=_WEBP)
def thumbnail(request: Request, id: Id) -> Response:
    """At most 320 pixels a side."""
    collection = parts_of(request).needed_collection()
    return _webp(request, _made(id, collection.thumbnail))


@router.get("/pictures/{id}/preview", response_class=Response, responses=_WEBP)
def preview(request: Request, id: Id) -> Response:
    """At most 1600 pixels a side, for formats that browsers do not show, and for phones."""
    collection = parts_of(request).needed_collection()
    return _webp(request, _made(id, lambda number: collection.preview(number, _PREVIEW)))


@router.get(
    "/pictures/{id}/original",
    response_class=Response,
    responses={200: {"content": {"*/*": {}}}, 206: {"content": {"*/*": {}}}},
)
def original(request: Request, id: Id) -> Response:
    """The file as it is, or a range of it."""
    found = _there(_picture(parts_of(request), id))
    return originals.send(request, found.path, found.bytes)


@router.get("/pictures/{id}/explain", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def explain(request: Request, id: Id, tag: Annotated[str, Query(min_length=1, max_length=200)]) -> Response:
    """Where the model sees a tag: a picture of heat to lay over the picture."""
    parts = parts_of(request)
    parts.needed_tagger()
    collection = parts.needed_collection()
    picture = _made(id, lambda number: collection.preview(number, _EXPLAINED))
    return Response(parts.whys.heat(picture, tag), media_type="image/png", headers={"Cache-Control": _FOREVER})


@router.get("/pictures/{id}/similar")
def similar(request: Request, id: Id, q: Text = "", limit: Annotated[int, Query(ge=1, le=500)] = 60) -> shapes.Similar:
    """Pictures that the model sees as alike, among those that a search finds."""
    parts = parts_of(request)
    collection = parts.needed_collection()
    _picture(parts, id)
    near = dict(collection.similar(id, limit=limit, query=q))
    cards = {card.id: card for card in collection.cards(list(near))}
    return shapes.Similar(
        pictures=[shapes.SimilarCard(**card_of(cards[one]), similarity=near[one]) for one in near if one in cards]
    )


def _made(number: int, make: Callable[[int], bytes]) -> bytes:
    """A picture made smaller, in a process of limited memory and time."""
    try:
        return make(number)
    except CollectionError as error:
        raise Refusal(404, "not_found", f"There is no picture {number}.") from error
    except Busy as error:
        raise busy("Many pictures are being decoded. Ask again in a second.") from error
    except ImageError as error:
        gone = error.reason == "missing"
        raise Refusal(404 if gone else 422, "picture", f"The picture cannot be shown: {error.reason}.") from error


def _there(picture: Picture) -> Picture:
    if picture.missing:
        raise Refusal(404, "not_found", "The picture's file is not where it was.")
    return picture


def _webp(request: Request, data: bytes) -> Response:
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": _FOREVER}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/webp", headers=headers)


# Changing


@router.post("/edits")
def edit(request: Request, wish: shapes.Edit) -> shapes.OneOperation:
    """Say which tags pictures have and have not; one operation, however many they are."""
    parts = parts_of(request)
    if (wish.pictures is None) == (wish.query is None):
        raise Refusal(422, "invalid", "Name pictures or a query, and not both.")
    if not (wish.add or wish.remove or wish.forget or wish.rating):
        raise Refusal(422, "invalid", "Say what to change: add, remove, forget or rating.")
    named: list[int] | str = wish.query if wish.query is not None else list(wish.pictures or ())
    operation = parts.needed_collection().edit(
        named, add=wish.add, remove=wish.remove, forget=wish.forget, rating=wish.rating
    )
    return operation_of(operation)


@router.post("/undo")
def undo(request: Request, wish: shapes.Undo) -> shapes.OneOperation:
    """Take back the latest operation, or the one named."""
    return operation_of(parts_of(request).needed_collection().undo(wish.operation))


@router.post("/redo")
def redo(request: Request, wish: shapes.Redo) -> shapes.OneOperation:
    """Do again what was undone last."""
    return operation_of(parts_of(request).needed_collection().redo())


@router.get("/history")
def history(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[int | None, Query(ge=1, lt=_MOST)] = None,
) -> shapes.History:
    """What was changed, the latest first."""
    collection = parts_of(request).needed_collection()
    found = [operation_of(one) for one in collection.history(limit=limit, before=before)]
    undoable, redoable = collection.undoable(), collection.redoable()
    return shapes.History(
        operations=found,
        can_undo=operation_of(undoable) if undoable else None,
        can_redo=operation_of(redoable) if redoable else None,
    )


def operation_of(operation: Operation) -> shapes.OneOperation:
    """An operation of the collection as it is sent."""
    names = ("id", "at", "by", "kind", "summary", "changed", "skipped", "undoes", "undone")
    return shapes.OneOperation(**{name: getattr(operation, name) for name in names})
