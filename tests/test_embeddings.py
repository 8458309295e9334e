"""What a model sees before it names it: in one run with the scores, kept with them, and made up where it is absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import apsw
import numpy as np
import pytest
from collection_world import make_tagger, tagged
from layout_world import LAYOUTS, SIDE, write_network
from PIL import Image

from efuda.collection import Collection
from efuda.collection.vectors import PROJECTED, Vectors
from efuda.tagging import Looking, Pipeline, ScoreStore, Tagged, Tagger, tag
from efuda.tagging.decoding import Decoders, Known
from efuda.tagging.scores import Looked, stamp_of
from efuda.tagging.tagged import unit
from efuda.vocabulary import Tag


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    """Its embedding is the mean of each colour, as the model is shown it."""
    LAYOUTS["animetimm"](tmp_path / "model")
    return Tagger.open(tmp_path / "model", threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "lime", "blue", "white")]
    for path in paths:
        Image.new("RGB", (40, 50), path.stem).save(path)
    return paths


def run(tagger: Tagger, pictures: list[Path], scores: Path | None, *, embeddings: bool) -> tuple[list[Tagged], int]:
    with Pipeline(tagger, scores=scores, workers=1, embeddings=embeddings) as pipeline:
        results = [result for batch in pipeline.run(pictures) for result in batch]
        assert all(isinstance(result, Tagged) for result in results)
        return results, pipeline.reused  # type: ignore[return-value]


def test_one_run_gives_the_same_scores_and_the_embedding(tagger: Tagger) -> None:
    batch = np.random.default_rng(0).random((3, 3, SIDE, SIDE)).astype(np.float32)
    scores, embeddings = tagger.look(batch)
    assert np.array_equal(scores, tagger.scores(batch))
    assert embeddings is not None and np.allclose(embeddings, batch.mean(axis=(2, 3)), atol=1e-6)


def test_a_model_that_takes_batches_of_two_embeds_five(tmp_path: Path) -> None:
    LAYOUTS["animetimm"](tmp_path)
    outputs = ["embedding", "logits", "prediction"]
    write_network(tmp_path / "model.onnx", outputs=outputs, probabilities=["prediction"], batch=2)
    tagger = Tagger.open(tmp_path)
    batch = np.random.default_rng(0).random((5, 3, SIDE, SIDE)).astype(np.float32)
    scores, embeddings = tagger.look(batch)
    assert tagger.batch == 2 and len(scores) == 5
    assert embeddings is not None and np.allclose(embeddings, batch.mean(axis=(2, 3)), atol=1e-6)


def test_a_model_without_one(tmp_path: Path, pictures: list[Path]) -> None:
    LAYOUTS["wd"](tmp_path / "wd")
    tagger = Tagger.open(tmp_path / "wd")
    assert not tagger.embeds and tagger.look(np.zeros((1, SIDE, SIDE, 3), np.float32))[1] is None
    first, _ = run(tagger, pictures, tmp_path / "scores", embeddings=True)
    _, reused = run(tagger, pictures, tmp_path / "scores", embeddings=True)
    assert first[0].embedding is None and reused == len(pictures), "what cannot be had is not missed"


def test_embeddings_have_length_one() -> None:
    found = unit(np.array([[3, 4, 0], [0, 0, 0], [np.nan, 0, np.inf], [1.5e38, 0, 2e38]], np.float32))
    assert found.dtype == np.float16
    assert found.tolist() == pytest.approx(np.array([[0.6, 0.8, 0], [0, 0, 0], [0, 0, 0], [0.6, 0, 0.8]]), abs=1e-3)


def test_results_carry_them_only_if_asked(tagger: Tagger, pictures: list[Path]) -> None:
    plain = list(tag(tagger, pictures, workers=1))
    asked = list(tag(tagger, pictures, workers=1, embeddings=True))
    shown = np.stack([tagger.preprocess.array(Image.open(path).convert("RGB")) for path in pictures])
    for one, other, mean in zip(plain, asked, shown.mean(axis=(2, 3)), strict=True):
        assert isinstance(one, Tagged) and isinstance(other, Tagged) and other.embedding is not None
        assert one.embedding is None
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.scores, other.scores)
        assert other.embedding == pytest.approx(mean / np.linalg.norm(mean), abs=2e-3)


def test_the_frames_of_an_animation_are_averaged(tagger: Tagger, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    (moving,), _ = run(tagger, [tmp_path / "moving.gif"], None, embeddings=True)
    assert moving.embedding is not None
    means = np.stack([tagger.preprocess.array(frame) for frame in frames]).mean(axis=(0, 2, 3))
    assert moving.embedding == pytest.approx(means / np.linalg.norm(means), abs=2e-3)


def forget_embeddings(scores: Path, pictures: list[Path]) -> None:
    """As a file of before they were kept."""
    (file,) = scores.glob("*.db")
    with apsw.Connection(str(file)) as db:
        for path in pictures:
            db.execute(
                "DELETE FROM embeddings WHERE picture = (SELECT picture FROM files WHERE path = ?)", (bytes(path),)
            )
    db.close()


def test_whoever_wants_scores_alone_keeps_embeddings_for_the_others(
    tagger: Tagger, pictures: list[Path], tmp_path: Path
) -> None:
    run(tagger, pictures, tmp_path / "scores", embeddings=False)
    found, reused = run(tagger, pictures, tmp_path / "scores", embeddings=True)
    assert reused == 4 and all(one.embedding is not None for one in found)


def test_kept_and_found_again(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    first, _ = run(tagger, pictures, tmp_path / "scores", embeddings=True)
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in pictures[:2]] + pictures[2:]
    second, reused = run(tagger, moved, tmp_path / "scores", embeddings=True)
    assert reused == len(pictures)
    for one, other in zip(first, second, strict=True):
        assert one.embedding is not None and other.embedding is not None
        assert np.array_equal(one.embedding, other.embedding) and np.array_equal(one.scores, other.scores)


def test_scores_kept_before_are_unknown_only_to_who_wants_embeddings(
    tagger: Tagger, pictures: list[Path], tmp_path: Path
) -> None:
    kept = tmp_path / "scores"
    before, _ = run(tagger, pictures, kept, embeddings=False)
    forget_embeddings(kept, pictures)
    assert run(tagger, pictures, kept, embeddings=False)[1] == 4
    again, reused = run(tagger, pictures, kept, embeddings=True)
    assert reused == 0 and all(one.embedding is not None for one in again)
    assert run(tagger, pictures, kept, embeddings=True)[1] == 4
    after, reused = run(tagger, pictures, kept, embeddings=False)
    assert reused == 4 and all(one.embedding is None for one in after)
    assert [one.scores.tolist() for one in before] == [one.scores.tolist() for one in after]


def test_a_file_of_scores_from_before_there_were_embeddings(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"1234")
    seen = Tagged.of(picture, (3, 4), np.array([0.5, 1.0], np.float32))
    with ScoreStore.open(tmp_path / "scores", "model") as store:
        store.keep([Looked(stamp_of(picture), b"c" * 16, b"p" * 16, seen)])
    (file,) = (tmp_path / "scores").glob("*.db")
    with apsw.Connection(str(file)) as db:
        db.execute("DROP TABLE embeddings")
    db.close()
    with ScoreStore.open(tmp_path / "scores", "model", embeddings=True) as store:
        assert store.find([picture], [stamp_of(picture)]) == [None]
        assert store.by_content(b"c" * 16) is None and store.by_pixels(b"p" * 16) is None
        assert len(store) == 1
    with ScoreStore.open(tmp_path / "scores", "model") as store:
        assert store.by_content(b"c" * 16) is not None


def test_a_decoder_finds_what_has_an_embedding(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    kept = tmp_path / "scores"
    run(tagger, pictures[:1], kept, embeddings=True)
    run(tagger, pictures, kept, embeddings=False)
    forget_embeddings(kept, pictures[1:])
    key = f"{tagger.identity}\n{Looking(tagger.preprocess).key}"
    with Decoders(Looking(tagger.preprocess, scores=(kept, key), embeddings=True), 1) as decoders:
        found = [decoders.submit(path).result(60) for path in pictures[:2]]
        assert [isinstance(one, Known) for one in found] == [True, False]
        assert isinstance(found[0], Known) and found[0].seen.embedding is not None
        found[1].release()  # type: ignore[union-attr]


# The vector of a picture in a collection


def test_the_vector_is_the_embedding(tagger: Tagger, pictures: list[Path]) -> None:
    (asked, *_), _ = run(tagger, pictures[:1], None, embeddings=True)
    (plain, *_), _ = run(tagger, pictures[:1], None, embeddings=False)
    assert Vectors(tagger).of(asked) is asked.embedding
    assert Vectors(tagger).of(plain) is None, "a projection would not compare with the others"


def test_scores_are_projected_where_there_is_no_embedding(tmp_path: Path) -> None:
    tagger = make_tagger(tmp_path / "m", [Tag("solo", count=999), Tag("hat", count=99), Tag("cape", count=9)])
    vectors = Vectors(tagger)
    found = vectors.of(tagged(tagger, Path("a.png"), {"solo": 1.0, "hat": 1.0, "cape": 0.5, "general": 1.0}))
    # solo is the most frequent and so says nothing; hat is 10, cape 100 times rarer: ln 10 · 1 and ln 100 · 0.5
    signs = [
        np.unpackbits(np.frombuffer(hashlib.sha256(name).digest(), np.uint8)) * 2.0 - 1 for name in (b"hat", b"cape")
    ]
    expected = signs[0] + signs[1]
    assert found is not None and found.shape == (PROJECTED,)
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    assert vectors.of(tagged(tagger, Path("b.png"), {"general": 1.0})) is None


def test_a_list_without_counts_weighs_all_tags_alike(tmp_path: Path) -> None:
    vectors = Vectors(tagger := make_tagger(tmp_path / "m", ["hat", "cape", "boots"]))
    both, hat, boots = (
        vectors.of(tagged(tagger, Path("a.png"), scores))
        for scores in ({"hat": 1, "cape": 1}, {"hat": 1}, {"boots": 1})
    )
    assert both is not None and hat is not None and boots is not None
    assert float(both @ hat) == pytest.approx(0.5**0.5, abs=0.1)
    assert float(hat @ boots) == pytest.approx(0, abs=0.2)


def test_a_collection_keeps_them(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        collection.add(tag(tagger, pictures, workers=1, embeddings=True), tagger)
        asked = list(tag(tagger, pictures, workers=1, embeddings=True))
        with collection.record.read() as db:
            rows = db.execute("SELECT picture, name, vector FROM embeddings JOIN sources ON id = source").fetchall()
    assert [(picture, name) for picture, name, _ in rows] == [(number, "model") for number in (1, 2, 3, 4)]
    for (_, _, vector), one in zip(rows, asked, strict=True):
        assert isinstance(one, Tagged) and one.embedding is not None
        assert np.frombuffer(vector, "<f2").tolist() == one.embedding.tolist()


def test_a_collection_keeps_the_projection_of_a_tagger_without(tmp_path: Path) -> None:
    tagger = make_tagger(tmp_path / "m", ["hat"])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        collection.add([tagged(tagger, tmp_path / "a.png", {"hat": 0.5})], tagger)
        with collection.record.read() as db:
            (vector,) = db.execute("SELECT vector FROM embeddings").fetchone() or (b"",)
    # A single tag's direction, of length 1: every number is 1/16 or −1/16
    expected = (2 * np.unpackbits(np.frombuffer(hashlib.sha256(b"hat").digest(), np.uint8)).astype(float) - 1) / 16
    assert np.frombuffer(vector, "<f2").tolist() == expected.tolist()
