"""The services that tag for other programs: the same scores as `efuda tag`, in the words of each."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from serving_world import Client, draw_pictures, make_tagger, served

from efuda.artifacts import Model
from efuda.server import Limits
from efuda.server.batching import Batcher
from efuda.tagging import Tagged, Tagger, tag


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_pictures(tmp_path_factory.mktemp("sent"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One without a collection."""
    with served(tagger=make_tagger(tmp_path_factory.mktemp("tags"))) as client:
        yield client


def test_evaluate_answers_as_autotagger_does(server: Client, pictures: list[Path]) -> None:
    sent = [(path.name, path.read_bytes()) for path in pictures[:2]]
    answer = server.send(sent, threshold="0.01", format="json")
    tags = {"1girl": 0.99, "hatsune_miku": 0.95, "rating:g": 0.8, "smile": 0.25, "rating:s": 0.125}
    assert [one["filename"] for one in answer.data] == ["one.png", "two.png"]
    for one in answer.data:
        assert set(one) == {"filename", "tags"}
        assert list(one["tags"]) == list(tags)
        assert one["tags"] == pytest.approx(tags, abs=1e-4)


def test_evaluate_threshold_limit_and_their_defaults(server: Client, pictures: list[Path]) -> None:
    sent = [("a.png", pictures[0].read_bytes())]
    assert list(server.send(sent, format="json", threshold="0.5").data[0]["tags"]) == [
        "1girl",
        "hatsune_miku",
        "rating:g",
    ]
    assert list(server.send(sent, format="json", limit="2").data[0]["tags"]) == ["1girl", "hatsune_miku"]
    assert len(server.send(sent, format="json").data[0]["tags"]) == 5
    for wrong in ({"threshold": "2"}, {"threshold": "nan"}, {"threshold": "x"}, {"limit": "0"}, {"format": "xml"}):
        answer = server.send(sent, **wrong)
        assert (answer.status, set(answer.data)) == (400, {"error", "message"})
    assert server.send([], format="json").status == 400


def test_evaluate_for_people(server: Client, pictures: list[Path]) -> None:
    answer = server.send([("a & b.png", pictures[0].read_bytes())])
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert "a &amp; b.png" in page and "<td>99%</td>" in page and "data:image/png;base64," in page
    assert 'action="/evaluate"' in server.get("/").body.decode()


def test_what_cannot_be_read_is_named(server: Client, pictures: list[Path]) -> None:
    answer = server.send([("fine.png", pictures[0].read_bytes()), ("odd.png", b"text")], format="json")
    assert (answer.status, answer.data) == (422, {"error": "picture", "message": "odd.png: not a picture."})


def test_the_webui_tagger(server: Client, pictures: list[Path]) -> None:
    assert server.get("/tagger/v1/interrogators").data == {"models": ["model"]}
    image = base64.b64encode(pictures[0].read_bytes()).decode()
    question = {"image": image, "model": "model", "threshold": 0.2, "queue": "", "name_in_queue": ""}
    caption = server.post("/tagger/v1/interrogate", question).data["caption"]
    assert caption["tag"] == pytest.approx({"1girl": 0.99, "hatsune_miku": 0.95, "smile": 0.25}, abs=1e-4)
    assert caption["rating"] == pytest.approx(
        {"general": 0.8, "sensitive": 0.125, "questionable": 0, "explicit": 0}, abs=1e-4
    )
    with_prefix = server.post("/tagger/v1/interrogate", {"image": f"data:image/png;base64,{image}"}).data
    assert set(with_prefix["caption"]["tag"]) == {"1girl", "hatsune_miku"}
    assert server.post("/tagger/v1/interrogate", {**question, "model": "other"}).status == 404
    assert server.post("/tagger/v1/interrogate", {"image": "é"}).status == 400
    assert server.post("/tagger/v1/interrogate", {"image": base64.b64encode(b"text").decode()}).status == 422


def test_without_a_collection_and_without_a_tagger(server: Client, tmp_path: Path) -> None:
    for path in ("/api/search", "/api/pictures/1", "/posts.json", "/api/duplicates", "/pools.json"):
        assert (server.get(path).status, server.get(path).data["error"]) == (404, "no_collection")
    with served() as bare:
        answer = bare.send([("a.png", b"x")], format="json")
        assert (answer.status, answer.data["error"], "retry-after" in answer.headers) == (503, "no_tagger", True)
        assert bare.get("/tagger/v1/interrogators").status == 503


def test_scores_are_those_of_tag(model: Model, dump: Path) -> None:
    """A trained network, many at a time: whatever batches are formed, a picture's scores are its own."""
    tagger = Tagger.open(model.root, threads=1)
    paths = sorted((dump / "512px").rglob("*.jpg"))[:24]
    expected = {
        one.path.name: {
            tagger.vocabulary[row].name: score for row, score in zip(one.rows, one.scores.tolist(), strict=True)
        }
        for one in tag(tagger, paths)
        if isinstance(one, Tagged)
    }
    with served(tagger=tagger) as client, ThreadPoolExecutor(8) as pool:
        ask = lambda path: client.send([(path.name, path.read_bytes())], format="json", threshold="0.01")  # noqa: E731
        for answer in pool.map(ask, paths):
            (one,) = answer.data
            said = {name: score for name, score in one["tags"].items() if not name.startswith("rating:")}
            assert said == pytest.approx(
                {name: score for name, score in expected[one["filename"]].items() if name in said}, abs=2e-4
            )
            assert len(said) == len(expected[one["filename"]])


def test_a_batch_fills_while_others_are_decoded(tmp_path: Path, pictures: list[Path]) -> None:
    sizes: list[int] = []
    tagger = make_tagger(tmp_path)
    with Batcher(tagger, Limits(), workers=1, seen=sizes.append) as batcher:
        batcher.submit(pictures[0], "me").result(30)
        futures = [batcher.submit(pictures[at % 4], f"client {at % 3}") for at in range(40)]
        assert all(isinstance(future.result(30), Tagged) for future in futures)
        assert batcher.waiting == 0
    assert sum(sizes) == 41 and max(sizes) > 1 and max(sizes) <= 4


def test_a_batcher_finishes_what_waits_and_then_refuses(tmp_path: Path, pictures: list[Path]) -> None:
    from efuda.server.refusals import Refusal

    batcher = Batcher(make_tagger(tmp_path), Limits(), workers=1)
    with batcher:
        futures = [batcher.submit(pictures[at % 4], "me") for at in range(20)]
    assert all(isinstance(future.result(0), Tagged) for future in futures)
    with pytest.raises(Refusal, match="stopping"):
        batcher.submit(pictures[0], "me")


def test_animations_count_by_their_best_frame(server: Client) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert next(iter(server.send([("a.gif", out.getvalue())], format="json").data[0]["tags"])) == "1girl"


def test_thirty_two_at_once_lose_nothing(server: Client, pictures: list[Path]) -> None:
    gate = threading.Barrier(32)

    def ask(number: int) -> int:
        gate.wait()
        return server.send([("a.png", pictures[number % 4].read_bytes())], format="json").status

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(ask, range(32))) == {200}
    assert server.parts.batcher is not None and server.parts.batcher.waiting == 0
    assert not list(server.parts.shelf.new().parent.iterdir())
