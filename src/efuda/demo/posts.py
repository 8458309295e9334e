"""Danbooru's metadata of the demo's pictures, in both generations' schema: integers and ISO dates, or all strings.

row_2021(post, names)        {"id": 1003, "tag_string": "1girl solo …", "parent_id": null, …}
row_2017(post, names, ids)   {"id": "1003", "tags": [{"id": "400007", "name": "solo", "category": "0"}, …], …}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from efuda.demo.styles import ARTIST, CHARACTER, COPYRIGHT, META

__all__ = ["FIRST_DAY", "Post", "alias_rows", "banned_row", "row_2017", "row_2021"]

FIRST_DAY = datetime(2019, 3, 1, 8, 0, tzinfo=UTC)
EASTERN = timezone(timedelta(hours=-5))
NEVER = "1970-01-01 00:00:00 UTC"
GENERAL = 0
CATEGORY_NAMES = {GENERAL: "general", ARTIST: "artist", COPYRIGHT: "copyright", CHARACTER: "character", META: "meta"}
CDN = "https://demo.invalid"  # no such server: nobody shall be asked for pictures drawn here


@dataclass(frozen=True)
class Post:
    """What is known of a post once its picture exists."""

    id: int
    created: datetime
    tags: tuple[str, ...]  # sorted
    md5: str
    bytes: int
    size: int  # pixels, both sides
    parent: int | None
    children: bool
    deleted: bool
    scores: tuple[int, int, int]  # up, down (zero or less), favourites


def row_2021(post: Post, categories: Mapping[str, int]) -> dict[str, Any]:
    """A line of the 2021 dump: the API's own fields."""
    up, down, favourites = post.scores
    by_category = {category: [tag for tag in post.tags if categories[tag] == category] for category in CATEGORY_NAMES}
    name = f"{post.md5[:2]}/{post.md5[2:4]}/{post.md5}.jpg"
    row: dict[str, Any] = {
        "id": post.id,
        "created_at": _iso(post.created),
        "uploader_id": 1 + post.id % 41,
        "score": up + down,
        "source": "",
        "md5": post.md5,
        "last_comment_bumped_at": None,
        "rating": "s",
        "image_width": post.size,
        "image_height": post.size,
        "tag_string": " ".join(post.tags),
        "fav_count": favourites,
        "file_ext": "jpg",
        "last_noted_at": None,
        "parent_id": post.parent,
        "has_children": post.children,
        "approver_id": None,
        "file_size": post.bytes,
        "up_score": up,
        "down_score": down,
        "is_pending": False,
        "is_flagged": False,
        "is_deleted": post.deleted,
        "tag_count": len(post.tags),
        "updated_at": _iso(post.created + timedelta(days=30)),
        "is_banned": False,
        "pixiv_id": None,
        "last_commented_at": None,
        "has_active_children": post.children,
        "bit_flags": 0,
        "has_large": False,
        "has_visible_children": post.children,
        "file_url": f"{CDN}/original/{name}",
        "large_file_url": f"{CDN}/original/{name}",
        "preview_file_url": f"{CDN}/preview/{name}",
    }
    for category, word in CATEGORY_NAMES.items():
        row[f"tag_count_{word}"] = len(by_category[category])
        row[f"tag_string_{word}"] = " ".join(by_category[category])
    return row


def banned_row(post: Post, categories: Mapping[str, int]) -> dict[str, Any]:
    """A line without an id, as dumps hold for banned posts: no hash and no address either."""
    row = row_2021(post, categories)
    for key in ("id", "md5", "file_url", "large_file_url", "preview_file_url"):
        del row[key]
    return row | {"is_banned": True, "parent_id": None, "has_children": False}


def row_2017(
    post: Post, categories: Mapping[str, int], ids: Mapping[str, int], spelt: Mapping[str, str], rng: Random
) -> dict[str, Any]:
    """A line of the 2017–2020 dumps: every integer is a string; some tags are spelt as their old alias."""
    up, down, favourites = post.scores
    names = sorted(spelt[tag] if tag in spelt and rng.random() < 0.35 else tag for tag in post.tags)
    tags = [{"id": str(ids[name]), "name": name, "category": str(categories[name])} for name in names]
    return {
        "id": str(post.id),
        "created_at": _old(post.created),
        "uploader_id": str(1 + post.id % 41),
        "score": str(up + down),
        "source": "",
        "md5": post.md5,
        "last_commented_at": NEVER,
        "rating": "s",
        "image_width": str(post.size),
        "image_height": str(post.size),
        "is_note_locked": False,
        "file_ext": "jpg",
        "last_noted_at": NEVER,
        "is_rating_locked": False,
        "parent_id": str(post.parent or 0),
        "has_children": post.children,
        "approver_id": "0",
        "file_size": str(post.bytes),
        "is_status_locked": False,
        "up_score": str(up),
        "down_score": str(down),
        "is_pending": False,
        "is_flagged": False,
        "is_deleted": post.deleted,
        "updated_at": _old(post.created + timedelta(days=30)),
        "is_banned": False,
        "pixiv_id": "0",
        "tags": tags,
        "pools": [],
        "favs": [str(1 + (post.id * 7 + turn * 13) % 900) for turn in range(favourites)],
    }


def alias_rows(active: Mapping[str, str], deleted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Lines of `tag_aliases…json`; a reader must leave alone those whose status is not "active"."""
    rows = []
    pairs = [(*pair, "active") for pair in active.items()] + [(*pair, "deleted") for pair in deleted.items()]
    for number, (antecedent, consequent, status) in enumerate(pairs):
        rows.append(
            {
                "id": 6001 + 3 * number,
                "antecedent_name": antecedent,
                "consequent_name": consequent,
                "status": status,
                "reason": "",
                "creator_id": 1,
                "approver_id": 1,
                "forum_topic_id": None,
                "forum_post_id": None,
                "created_at": _iso(FIRST_DAY - timedelta(days=400 - number)),
                "updated_at": _iso(FIRST_DAY - timedelta(days=399 - number)),
            }
        )
    return rows


def _iso(moment: datetime) -> str:
    return moment.astimezone(EASTERN).isoformat(timespec="milliseconds")


def _old(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
