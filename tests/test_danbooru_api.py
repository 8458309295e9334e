"""Danbooru's read API over a collection of four pictures: names of fields, pages, and what there is none of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_world import Client, draw_pictures, fill, make_tagger, served

from efuda.collection import Collection

FIELDS = set(
    """id created_at uploader_id score source md5 last_comment_bumped_at rating image_width image_height tag_string
fav_count file_ext last_noted_at parent_id has_children approver_id tag_count_general tag_count_artist
tag_count_character tag_count_copyright file_size up_score down_score is_pending is_flagged is_deleted tag_count
updated_at is_banned pixiv_id last_commented_at has_active_children bit_flags tag_count_meta has_large
has_visible_children media_asset tag_string_general tag_string_character tag_string_copyright tag_string_artist
tag_string_meta file_url large_file_url preview_file_url""".split()  # noqa: SIM905
)


@pytest.fixture(scope="module")
def booru(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("booru")
    tagger, paths = make_tagger(root), draw_pictures(root / "art")
    with Collection.open(root / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        collection.edit([1], add=["fate"])
        with served(collection=collection, tagger=tagger) as client:
            yield client


def test_a_post_has_danbooru_s_fields(booru: Client) -> None:
    post = booru.get("/posts/1.json").data
    assert set(post) == FIELDS
    assert (post["id"], post["rating"], post["image_width"], post["image_height"]) == (1, "g", 60, 80)
    assert (post["tag_string_character"], post["tag_count_character"]) == ("hatsune_miku", 1)
    assert set(post["tag_string"].split()) == {"1girl", "smile", "long_hair", "hatsune_miku", "fate"}
    assert post["tag_count"] == 5 and len(post["md5"]) == 32 and post["file_ext"] == "png"
    for name in ("file_url", "large_file_url", "preview_file_url"):
        address = post[name]
        assert address.startswith(f"http://127.0.0.1:{booru.port}/api/pictures/1/")
        assert booru.get(address.partition(str(booru.port))[2]).status == 200
    assert [one["type"] for one in post["media_asset"]["variants"]] == ["360x360", "sample", "original"]
    assert booru.get("/posts/99.json").data["error"] == "not_found"


def ids(booru: Client, query: str) -> list[int]:
    return [post["id"] for post in booru.get(f"/posts.json?{query}").data]


def test_pages(booru: Client) -> None:
    assert ids(booru, "") == [4, 3, 2, 1]
    assert ids(booru, "limit=2&page=2") == [2, 1]
    assert ids(booru, "page=b3") == [2, 1] and ids(booru, "page=a2") == [4, 3]
    assert ids(booru, "tags=1girl+or+1boy&page=b3") == [2, 1]
    assert ids(booru, "tags=smile&limit=1") == [3]
    assert sorted(ids(booru, "random=true")) == [1, 2, 3, 4]
    assert booru.get("/posts/random.json?tags=2girls").data["id"] == 4
    assert booru.get("/posts.json?page=x").status == 422
    wrong = booru.get("/posts.json?tags=1girl+(smile&page=b9").data
    assert (wrong["error"], wrong["query"], wrong["position"]) == ("query", "1girl (smile", 6)


def test_counts_and_tags(booru: Client) -> None:
    assert booru.get("/counts/posts.json?tags=1girl").data == {"counts": {"posts": 2}}
    listed = booru.get("/tags.json?limit=3").data
    assert [(tag["name"], tag["post_count"], tag["category"]) for tag in listed[:2]] == [
        ("1girl", 2, 0),
        ("smile", 2, 0),
    ]
    assert [tag["name"] for tag in booru.get("/tags.json?search[name_matches]=*hair").data] == [
        "long_hair",
        "short_hair",
    ]
    assert [tag["name"] for tag in booru.get("/tags.json?search[category]=4").data] == ["hatsune_miku"]
    assert [tag["name"] for tag in booru.get("/tags.json?search[name]=smile").data] == ["smile"]
    assert {tag["name"] for tag in booru.get("/tags.json?search[name_comma]=smile,1boy").data} == {"smile", "1boy"}
    by_name = [tag["name"] for tag in booru.get("/tags.json?search[order]=name").data]
    assert by_name == sorted(by_name)
    assert booru.get("/tags.json?search[name_matches]=" + "*a" * 90).data == []


def test_completion_and_relatives(booru: Client) -> None:
    first = booru.get("/autocomplete.json?search[query]=smi&search[type]=tag_query").data[0]
    assert first == {
        "type": "tag-word", "label": "smile", "value": "smile", "category": 0, "post_count": 2, "antecedent": None,
    }  # fmt: skip
    assert booru.get("/autocomplete.json?search[query]=smi&search[type]=artist").data == []
    found = booru.get("/related_tag.json?query=1girl").data
    assert (found["post_count"], found["related_tags"][0]["tag"]["name"]) == (2, "1girl")
    assert found["related_tags"][0]["frequency"] == 1


def test_users_and_what_there_is_none_of(booru: Client) -> None:
    assert booru.get("/profile.json").data == booru.get("/users/1.json").data
    assert booru.get("/users/2.json").status == 404
    for name in ("artists", "pools", "wiki_pages", "notes", "comments", "favorites"):
        assert booru.get(f"/{name}.json").data == []


def test_every_route_is_in_the_document(booru: Client) -> None:
    page = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    for path, methods in booru.get("/openapi.json").data["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page, f"{method.upper()} {path}"
