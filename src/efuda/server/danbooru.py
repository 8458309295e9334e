"""Danbooru's read API, as far as programs for phones and desktops ask it: posts, counts, tags, completion.

    GET /posts.json?tags=glasses rating:g&limit=20&page=2
    GET /posts/7.json
    GET /autocomplete.json?search[query]=gla&search[type]=tag_query

Names of fields are Danbooru's. What a collection of one's own does not have (votes, comments, pools, wiki pages) is 0
or empty. Pages of a search are `page=3`, or `page=b123` and `page=a123` for what comes before and after a picture.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request

from efuda.collection import Picture
from efuda.errors import CollectionError, QueryError
from efuda.server.parts import Parts, parts_of
from efuda.server.refusals import Refusal
from efuda.vocabulary import Category

__all__ = ["router"]

router = APIRouter(tags=["danbooru"])

_PAGE: Final = re.compile(r"([ab]?)([0-9]{1,10})")
_OWNER: Final = 1  # the one user there is
_EMPTY: Final = (
    "artists",
    "comments",
    "favorites",
    "favorite_groups",
    "notes",
    "pools",
    "saved_searches",
    "wiki_pages",
)
_CATEGORIES: Final = (Category.GENERAL, Category.ARTIST, Category.COPYRIGHT, Category.CHARACTER, Category.META)
_BY_LABEL: Final = {category.label: category for category in Category}
_EXTENSIONS: Final = {"mov": "mp4", "matroska": "webm"}

Tags = Annotated[str, Query(max_length=4000)]
Number = Annotated[int, Path(ge=1, lt=2**53)]
Limit = Annotated[int, Query(ge=0, le=1000)]
Page = Annotated[str, Query(max_length=20)]
Posts = list[dict[str, Any]]


@router.get("/posts.json")
def posts(request: Request, tags: Tags = "", limit: Limit = 20, page: Page = "1", random: bool = False) -> Posts:
    """A page of a search."""
    parts = parts_of(request)
    query, offset = _paged(tags, page, limit)
    if random and "order:" not in query:
        query = f"{query} order:random"
    collection = parts.needed_collection()
    try:
        found = collection.search(query, limit=limit, offset=offset)
    except QueryError:
        collection.count(tags)  # the error as it stands in what the client sent
        raise
    return [_post(request, parts, picture) for picture in found.pictures]


@router.get("/posts/random.json")
def random_post(request: Request, tags: Tags = "") -> dict[str, Any]:
    """Any one of a search."""
    found = posts(request, tags, 1, "1", random=True)
    if not found:
        raise Refusal(404, "not_found", "That search finds nothing.")
    return found[0]


@router.get("/posts/{id}.json")
def post(request: Request, id: Number) -> dict[str, Any]:
    """One picture."""
    parts = parts_of(request)
    try:
        return _post(request, parts, parts.needed_collection().picture(id))
    except CollectionError as error:
        raise Refusal(404, "not_found", f"There is no picture {id}.") from error


@router.get("/counts/posts.json")
def counts(request: Request, tags: Tags = "") -> dict[str, dict[str, int]]:
    """How many pictures a search finds, exactly."""
    return {"counts": {"posts": parts_of(request).needed_collection().count(tags)}}


@router.get("/tags.json")
def tags(
    request: Request,
    limit: Limit = 20,
    page: Annotated[int, Query(ge=1, lt=2**31)] = 1,
    name: Annotated[str | None, Query(alias="search[name]", max_length=4000)] = None,
    commas: Annotated[str | None, Query(alias="search[name_comma]", max_length=4000)] = None,
    matches: Annotated[str | None, Query(alias="search[name_matches]", max_length=200)] = None,
    category: Annotated[int | None, Query(alias="search[category]")] = None,
    order: Annotated[str, Query(alias="search[order]", max_length=20)] = "count",
) -> Posts:
    """Tags of the collection, the most common first, or by name."""
    listed = parts_of(request).needed_collection().tags()
    found = [(number, *tag) for number, tag in enumerate(listed, start=1)]
    if name is not None or commas is not None:
        wanted = set((commas or "").split(",")) | set((name or "").split())
        found = [one for one in found if one[1] in wanted]
    if matches:
        plain = re.sub(r"[\[?]", r"[\g<0>]", matches.lower())  # of a shell's signs, * alone has a meaning here
        pattern = re.compile(fnmatch.translate(plain))
        found = [one for one in found if pattern.fullmatch(one[1])]
    if category is not None:
        found = [one for one in found if int(one[2]) == category]
    if order == "name":
        found.sort(key=lambda one: one[1])
    return [_tag(*one) for one in found[(page - 1) * limit : page * limit]]


@router.get("/autocomplete.json")
def autocomplete(
    request: Request,
    query: Annotated[str, Query(alias="search[query]", max_length=4000)] = "",
    kind: Annotated[str, Query(alias="search[type]", max_length=40)] = "tag_query",
    limit: Annotated[int, Query(ge=0, le=100)] = 10,
) -> Posts:
    """What a word could become."""
    collection = parts_of(request).needed_collection()
    if kind not in ("tag_query", "tag") or not limit:
        return []
    return [
        {
            "type": "tag-word" if one.antecedent is None else "tag-alias",
            "label": one.label,
            "value": one.value,
            "category": int(_BY_LABEL.get(one.category or "", Category.GENERAL)),
            "post_count": one.count,
            "antecedent": one.antecedent,
        }
        for one in collection.complete(query, limit=limit).suggestions
        if one.category is not None
    ]


@router.get("/related_tag.json")
def related(request: Request, query: Tags = "", limit: Annotated[int, Query(ge=0, le=1000)] = 25) -> dict[str, Any]:
    """Tags that a search's pictures carry most."""
    collection = parts_of(request).needed_collection()
    found = collection.facets(query, limit=limit)
    known = {name: number for number, (name, _, _) in enumerate(collection.tags(), start=1)}
    related = [
        {"tag": _tag(known.get(name, 0), name, category, count), "frequency": count / found.total}
        for name, category, count in found.tags[:limit]
    ]
    return {"query": query, "post_count": found.total, "related_tags": related}


@router.get("/profile.json")
def profile(request: Request) -> dict[str, Any]:
    """Who asks: the one whose collection it is."""
    return _user(parts_of(request))


@router.get("/users/{id}.json")
def user(request: Request, id: Number) -> dict[str, Any]:
    """The same."""
    if id != _OWNER:
        raise Refusal(404, "not_found", f"There is no user {id}.")
    return _user(parts_of(request))


def _nothing(request: Request) -> Posts:
    """A collection has none of these."""
    parts_of(request).needed_collection()
    return []


for _name in _EMPTY:
    router.add_api_route(f"/{_name}.json", _nothing, methods=["GET"], name=f"no_{_name}")


def _user(parts: Parts) -> dict[str, Any]:
    parts.needed_collection()
    return {"id": _OWNER, "name": "me", "level": 20, "level_string": "Member", "is_banned": False, "per_page": 20}


def _paged(tags: str, page: str, limit: int) -> tuple[str, int]:
    """A search and how many to pass over."""
    match = _PAGE.fullmatch(page)
    if match is None:
        raise Refusal(422, "invalid", f"page is a number, or a or b and a number, not {page!r}.")
    number = int(match[2])
    if not match[1]:
        return tags, (max(1, number) - 1) * limit
    inside = f"( {tags} ) " if tags.strip() else ""
    return f"{inside}id:{'<' if match[1] == 'b' else '>'}{number}", 0


def _tag(number: int, name: str, category: Category, count: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "post_count": count,
        "category": int(category),
        "created_at": None,
        "updated_at": None,
        "is_deprecated": False,
        "words": [word for word in re.split(r"[^\w]+|_", name) if word],
    }


def _post(request: Request, parts: Parts, picture: Picture) -> dict[str, Any]:
    by = {category: [tag.name for tag in picture.tags if tag.category is category] for category in _CATEGORIES}
    counts = {f"tag_count_{category.label}": len(names) for category, names in by.items()}
    strings = {f"tag_string_{category.label}": " ".join(names) for category, names in by.items()}
    extension = _EXTENSIONS.get(picture.filetype, picture.filetype)
    original, preview, thumbnail = (_url(request, parts, picture.id, kind) for kind in _KINDS)
    return {
        "id": picture.id,
        "created_at": picture.added,
        "updated_at": picture.added,
        "uploader_id": _OWNER,
        "approver_id": None,
        "score": 0,
        "up_score": 0,
        "down_score": 0,
        "fav_count": 0,
        "source": picture.source or "",
        "md5": picture.md5,
        "rating": picture.rating[0] if picture.rating else None,
        "image_width": picture.width,
        "image_height": picture.height,
        "file_size": picture.bytes,
        "file_ext": extension,
        "parent_id": picture.parent,
        "has_children": bool(picture.children),
        "has_active_children": bool(picture.children),
        "has_visible_children": bool(picture.children),
        "tag_string": " ".join(name for names in by.values() for name in names),
        "tag_count": sum(counts.values()),
        **counts,
        **strings,
        "is_pending": False,
        "is_flagged": False,
        "is_deleted": picture.removed,
        "is_banned": False,
        "has_large": max(picture.width, picture.height) > 850,
        "pixiv_id": None,
        "bit_flags": 0,
        "last_noted_at": None,
        "last_commented_at": None,
        "last_comment_bumped_at": None,
        "file_url": original,
        "large_file_url": preview,
        "preview_file_url": thumbnail,
        "media_asset": {
            "id": picture.id,
            "created_at": picture.added,
            "updated_at": picture.added,
            "md5": picture.md5,
            "file_ext": extension,
            "file_size": picture.bytes,
            "image_width": picture.width,
            "image_height": picture.height,
            "duration": None,
            "status": "active",
            "file_key": picture.sha256[:9],
            "is_public": True,
            "pixel_hash": picture.md5,
            "variants": [
                {"type": "360x360", "url": thumbnail, **_fitted(picture, 320), "file_ext": "webp"},
                {"type": "sample", "url": preview, **_fitted(picture, 1600), "file_ext": "webp"},
                {
                    "type": "original",
                    "url": original,
                    "width": picture.width,
                    "height": picture.height,
                    "file_ext": extension,
                },
            ],
        },
    }


_KINDS: Final = ("original", "preview", "thumbnail")


def _url(request: Request, parts: Parts, number: int, kind: str) -> str:
    """An address that an app can fetch; where one must sign in, it opens this very file for a day."""
    path = f"/api/pictures/{number}/{kind}"
    seal = "" if parts.door.is_open else f"?{parts.door.seal(path)}"
    return f"{request.url.scheme}://{request.headers['host']}{path}{seal}"


def _fitted(picture: Picture, side: int) -> dict[str, int]:
    scale = min(1.0, side / max(picture.width, picture.height, 1))
    return {"width": max(1, round(picture.width * scale)), "height": max(1, round(picture.height * scale))}
