"""The server's own API over real HTTP: a collection of four pictures, searched, looked at and edited."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from PIL import Image
from serving_world import PICTURES, Client, draw_pictures, fill, make_tagger, served

from efuda.collection import Collection


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose collection tests may edit, if they undo it."""
    root = tmp_path_factory.mktemp("served")
    tagger, paths = make_tagger(root), draw_pictures(root / "art")
    with Collection.open(root / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        with served(collection=collection, tagger=tagger) as client:
            yield client


def test_status_says_what_is_served(world: Client) -> None:
    told = world.get("/api/status").data
    assert (told["name"], told["pictures"], told["tagger"]) == ("art", 4, "model")
    assert (told["signed_in"], told["needs_sign_in"], told["read_only"]) == (True, False, False)
    assert told["ratings"] == {"general": 2, "sensitive": 1, "questionable": 1}
    assert [(one["name"], one["pictures"]) for one in told["models"]] == [("model", 4)]


def test_search(world: Client) -> None:
    found = world.get("/api/search?q=1girl").data
    assert (found["total"], found["offset"]) == (2, 0)
    assert all(one.pop("version") for one in found["pictures"])
    assert found["pictures"] == [
        {"id": 2, "width": 80, "height": 80, "rating": "sensitive", "filetype": "png", "duration": None},
        {"id": 1, "width": 60, "height": 80, "rating": "general", "filetype": "png", "duration": None},
    ]
    later = world.get("/api/search?q=order:id&offset=1&limit=2").data
    assert (later["total"], [one["id"] for one in later["pictures"]]) == (4, [2, 3])
    assert world.get("/api/search?q=1girl&limit=0").data["pictures"] == []


def test_a_search_that_is_not_understood_points_at_the_character(world: Client) -> None:
    answer = world.get("/api/search?q=1girl%20(smile")
    assert answer.status == 400
    assert (answer.data["error"], answer.data["query"], answer.data["position"]) == ("query", "1girl (smile", 6)
    slip = world.get("/api/search?q=smlie")
    assert slip.status == 400 and "smile" in slip.data["message"]


def test_complete_and_facets(world: Client) -> None:
    found = world.get("/api/complete?q=1girl%20smi&at=9").data
    assert (found["start"], found["end"]) == (6, 9)
    assert found["suggestions"][0]["value"] == "smile" and found["suggestions"][0]["count"] == 1
    facets = world.get("/api/facets?q=1girl").data
    assert (facets["total"], facets["exact"], facets["ratings"]) == (2, True, {"general": 1, "sensitive": 1})
    assert [group["category"] for group in facets["groups"]] == ["character", "general"]
    assert facets["groups"][1]["tags"][0] == {"name": "1girl", "count": 2}


def test_a_picture_is_told_without_its_path(world: Client) -> None:
    told = world.get("/api/pictures/1").data
    assert (told["name"], told["folder"], told["width"], told["height"]) == ("one.png", "art", 60, 80)
    assert told["rating"] == "general" and told["model"] == "model" and told["missing"] is None
    tag = told["tags"][0]
    assert (tag["name"], tag["category"], tag["by"], tag["count"]) == ("1girl", "general", "model", 2)
    assert tag["source"].startswith("model@") and tag["score"] == pytest.approx(0.9, abs=1 / 255)
    assert {tag["name"] for tag in told["tags"]} == {"1girl", "smile", "long_hair", "hatsune_miku"}
    assert str(world.parts.needed_collection().path.parent) not in json.dumps(told)
    assert world.get("/api/pictures/99").data == {"error": "not_found", "message": "There is no picture 99."}


def test_thumbnails_and_previews(world: Client) -> None:
    answer = world.get("/api/pictures/4/thumbnail?v=abc")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/webp")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    with Image.open(io.BytesIO(answer.body)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (120, 80))
    again = world.get("/api/pictures/4/thumbnail?v=abc", If_None_Match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    with Image.open(io.BytesIO(world.get("/api/pictures/4/preview").body)) as picture:
        assert picture.size == (120, 80)
    assert world.get("/api/pictures/99/thumbnail").status == 404
    assert world.get("/api/pictures/99/preview").status == 404


def test_originals_come_whole_and_in_parts(world: Client) -> None:
    path = world.parts.needed_collection().picture(1).path
    data = path.read_bytes()
    whole = world.get("/api/pictures/1/original")
    assert (whole.status, whole.body, whole.headers["content-type"]) == (200, data, "image/png")
    for asked, part, said in (
        ("bytes=0-9", data[:10], f"bytes 0-9/{len(data)}"),
        ("bytes=10-", data[10:], f"bytes 10-{len(data) - 1}/{len(data)}"),
        ("bytes=-5", data[-5:], f"bytes {len(data) - 5}-{len(data) - 1}/{len(data)}"),
        (f"bytes=4-{10**9}", data[4:], f"bytes 4-{len(data) - 1}/{len(data)}"),
    ):
        answer = world.get("/api/pictures/1/original", Range=asked)
        assert (answer.status, answer.body, answer.headers["content-range"]) == (206, part, said)
    beyond = world.get("/api/pictures/1/original", Range=f"bytes={len(data)}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    for asked in ("bytes=9-2", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert world.get("/api/pictures/1/original", Range=asked).status == 200
    assert world.get("/api/pictures/1/original", If_None_Match=whole.headers["etag"]).status == 304


def test_edits_are_operations_that_can_be_undone(world: Client) -> None:
    done = world.post("/api/edits", {"pictures": [1, 2], "add": ["red_eyes"], "remove": ["smile"]}).data
    assert (done["kind"], done["by"], done["changed"], done["undone"]) == ("edit", "me", 2, False)
    assert world.get("/api/search?q=red_eyes").data["total"] == 2
    told = world.get("/api/pictures/1").data
    assert next(tag for tag in told["tags"] if tag["name"] == "red_eyes")["by"] == "person"
    assert [tag["name"] for tag in told["refused"]] == ["smile"]
    log = world.get("/api/history?limit=5").data
    assert log["operations"][0]["id"] == done["id"] == log["can_undo"]["id"] and log["can_redo"] is None
    undone = world.post("/api/undo").data
    assert undone["undoes"] == done["id"]
    assert world.get("/api/search?q=smile").data["total"] == 2
    assert world.get("/api/history").data["can_redo"]["id"] == undone["id"]
    assert world.post("/api/redo").data["undoes"] == undone["id"]
    assert world.post("/api/undo", {"operation": done["id"]}).status in (200, 409)
    while world.get("/api/history").data["can_undo"]:
        world.post("/api/undo")


def test_edit_by_query_and_rating(world: Client) -> None:
    done = world.post("/api/edits", {"query": "1girl", "rating": "explicit"}).data
    assert done["changed"] == 2
    assert world.get("/api/status").data["ratings"]["explicit"] == 2
    assert world.post("/api/undo").status == 200
    for wrong, status in (
        ({"pictures": [1], "query": "1girl", "add": ["a"]}, 422),
        ({"pictures": [1]}, 422),
        ({"add": ["smile"]}, 422),
        ({"pictures": [10**6], "add": ["smile"]}, 409),
        ({"query": "(", "add": ["smile"]}, 400),
        ({"pictures": [1], "rating": "fine"}, 422),
    ):
        answer = world.post("/api/edits", wrong)
        assert (answer.status, set(answer.data) >= {"error", "message"}) == (status, True), wrong


def test_explain_is_a_clear_picture_in_the_same_aspect(world: Client) -> None:
    answer = world.get("/api/pictures/4/explain?tag=smile")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.body)) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (120, 80))
    assert world.get("/api/pictures/4/explain?tag=nothing_such").status == 422


def test_similar(world: Client) -> None:
    found = world.get("/api/pictures/1/similar?limit=2").data["pictures"]
    assert (
        len(found) == 2 and found[0]["similarity"] >= found[1]["similarity"] and 1 not in {one["id"] for one in found}
    )
    assert {one["id"] for one in world.get("/api/pictures/1/similar?q=1girl").data["pictures"]} == {2}
    assert world.get("/api/pictures/99/similar").status == 404


def test_folders_and_a_job_with_its_events(world: Client) -> None:
    (folder,) = world.get("/api/folders").data["folders"]
    assert (folder["name"], folder["pictures"]) == ("art", 4)
    art = world.parts.needed_collection().picture(1).path.parent
    Image.new("RGB", (50, 50), "white").save(art / "new.png")
    (art / "broken.png").write_bytes(b"\x89PNG no picture")
    listening = HTTPConnection("127.0.0.1", world.port, timeout=20)
    listening.request("GET", "/api/events")
    stream = listening.getresponse()
    assert stream.headers["content-type"].startswith("text/event-stream")
    begun = world.post("/api/jobs", {"kind": "add", "folder": folder["id"]})
    assert begun.status == 202 and begun.data["state"] == "running"
    told: list[tuple[str, dict[str, object]]] = []
    name = ""
    while not any(kind == "job" and data["state"] != "running" for kind, data in told):
        line = stream.readline().decode()
        if line.startswith("event: "):
            name = line[7:].strip()
        elif line.startswith("data: "):
            told.append((name, json.loads(line[6:])))
    stream.close()
    listening.close()
    assert {kind for kind, _ in told} == {"job", "revision"}
    done = world.get(f"/api/jobs/{begun.data['id']}").data
    assert (done["state"], done["done"], done["total"], done["summary"]) == ("done", 2, 2, "1 picture added, 1 failed.")
    assert [one["name"] for one in done["failed"]] == ["broken.png"]
    assert world.get("/api/jobs").data["jobs"] == [done]
    assert world.get("/api/search?q=hatsune_miku").data["total"] == 2
    assert world.post("/api/jobs", {"kind": "add", "folder": 77}).status == 404
    assert world.get("/api/jobs/77").status == 404 and world.ask("DELETE", "/api/jobs/77").status == 404
    assert world.ask("DELETE", f"/api/jobs/{done['id']}").data["state"] == "done"


def test_duplicates_and_merging(world: Client) -> None:
    collection = world.parts.needed_collection()
    assert world.get("/api/duplicates").data == {"total": 0, "groups": []}
    path = collection.picture(1).path
    with Image.open(path) as picture:
        picture.save(path.with_name("one.bmp"))
    tagger = world.parts.needed_tagger()
    PICTURES["one.bmp"] = {"1girl": 0.9, "smile": 0.8, "very_long_hair": 0.9, "general": 0.9}
    try:
        fill(collection, tagger, [path.with_name("one.bmp")])
    finally:
        del PICTURES["one.bmp"]
    collection.make_previews()
    found = world.get("/api/duplicates?kind=pixels").data
    assert found["total"] == 1
    (group,) = found["groups"]
    assert (group["kind"], group["shared_tags"]) == ("pixels", 2)
    by_type = {one["filetype"]: one for one in group["pictures"]}
    assert by_type["bmp"]["only_tags"] == ["very_long_hair"]
    keep, drop = by_type["png"]["id"], by_type["bmp"]["id"]
    assert world.post("/api/duplicates/merge", {"keep": keep, "drop": [keep]}).status == 422
    assert world.post("/api/duplicates/merge", {"keep": keep, "drop": [drop]}).data["kind"] == "merge"
    assert world.get("/api/duplicates").data["total"] == 0
    assert world.post("/api/undo").status == 200


def test_health_and_metrics(world: Client) -> None:
    assert world.get("/health").data["status"] == "ok"
    world.get("/api/search?q=1girl")
    text = world.get("/metrics").body.decode()
    assert 'efuda_requests_total{method="GET",route="/api/search",status="200"}' in text
    assert "efuda_waiting_pictures 0.0" in text


def test_a_search_answers_quickly_enough_to_type_against(world: Client) -> None:
    """Not a benchmark: a guard against doing something a thousand times."""
    began = time.monotonic()
    for _ in range(20):
        assert world.get("/api/search?q=1girl").status == 200
    assert time.monotonic() - began < 5


def test_the_front_page_and_its_files(world: Client, tmp_path: Path) -> None:
    assert world.get("/static/../app.py").status in (404, 400)
    assert world.get("/static/%2e%2e/app.py").status == 404
    assert world.get("/nothing").data["error"] == "not_found"
