"""From files to scores: processes that decode and die, threads that infer, and scores that are never computed twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import draw
from PIL import Image

from efuda.artifacts import Model
from efuda.errors import OutputError
from efuda.tagging import Failed, Looking, Pipeline, ScoreStore, Tagged, Tagger, tag
from efuda.tagging.decoding import Decoded, Decoders, Known
from efuda.tagging.scores import Looked, stamp_of


@pytest.fixture(scope="module")
def tagger(model: Model) -> Tagger:
    return Tagger.open(model.root, threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six drawn pictures, all different."""
    rng = random.Random(5)
    paths = [tmp_path / "in" / f"{number}.png" for number in range(6)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        draw(rng.choice(["red", "green", "blue"]), "circle", rng).resize((40 + number, 50)).save(path)
    return paths


def names(results: Iterator[Tagged | Failed], tagger: Tagger) -> list[list[tuple[str, float]]]:
    return [result.present(tagger) for result in results if isinstance(result, Tagged)]


def decoder_pids() -> list[int]:
    """The decoding processes that this one has started."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


# Decoding


def test_decoded_inputs_are_the_preprocess_s_own(tagger: Tagger, pictures: list[Path]) -> None:
    with Decoders(Looking(tagger.preprocess), 2) as decoders:
        for path, future in [(path, decoders.submit(path)) for path in pictures]:
            decoded = future.result(60)
            assert isinstance(decoded, Decoded)
            with Image.open(path) as picture:
                assert decoded.size == picture.size
                assert np.array_equal(decoded.inputs[0], tagger.preprocess.array(picture.convert("RGB")))
            decoded.release()


def test_more_files_than_shared_memory(tagger: Tagger, pictures: list[Path]) -> None:
    with Decoders(Looking(tagger.preprocess), 1, slots=2) as decoders:
        futures = [decoders.submit(path) for path in pictures * 3]
        for future in futures:
            decoded = future.result(60)
            assert isinstance(decoded, Decoded)
            decoded.release()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_file_that_never_ends_costs_its_seconds_and_nothing_else(tagger: Tagger, pictures: list[Path]) -> None:
    endless = pictures[0].parent / "endless.png"
    os.mkfifo(endless)
    looking = Looking(tagger.preprocess, seconds=1)
    results = list(tag(tagger, [*pictures[:3], endless, *pictures[3:]], looking=looking, workers=2))
    assert [isinstance(result, Tagged) for result in results] == [True] * 3 + [False] + [True] * 3
    assert results[3] == Failed(endless, "decoding took more than 1 s")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_file_whose_decoder_dies_twice_is_named(tagger: Tagger, pictures: list[Path]) -> None:
    fatal = pictures[0].parent / "fatal.png"
    os.mkfifo(fatal)

    def murderer() -> None:
        """Whoever reads from the pipe is killed, as by a crash of its decoder: opening it waits for a reader."""
        for _ in range(2):
            writer = os.open(fatal, os.O_WRONLY)
            (pid,) = decoder_pids()
            os.kill(pid, signal.SIGSEGV)
            while pid in decoder_pids():
                time.sleep(0.05)
            os.close(writer)

    thread = threading.Thread(target=murderer)
    thread.start()
    results = list(tag(tagger, [fatal, *pictures], workers=1))
    thread.join()
    assert results[0] == Failed(fatal, "the decoder crashed (SIGSEGV)")
    assert all(isinstance(result, Tagged) for result in results[1:])


def test_a_process_killed_between_files_is_replaced(tagger: Tagger, pictures: list[Path]) -> None:
    with Pipeline(tagger, workers=1) as pipeline:
        first = [result for batch in pipeline.run(pictures) for result in batch]
        for pid in decoder_pids():
            os.kill(pid, signal.SIGKILL)
        again = [result for batch in pipeline.run(pictures) for result in batch]
    assert names(iter(first), tagger) == names(iter(again), tagger)


def test_a_script_needs_no_guard(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from efuda.tagging import Tagger, tag\n"
        "print('once')\n"
        "for one in tag(Tagger.open(Path(sys.argv[1])), map(Path, sys.argv[2:])): print(one.path.name)\n"
    )
    command = [sys.executable, str(script), str(model.root), *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["once", *(path.name for path in pictures)], "")


# Scores that are kept


def test_a_second_run_infers_nothing(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
        first = [result for batch in pipeline.run(pictures) for result in batch]
        assert pipeline.reused == 0
    pids = set(decoder_pids())
    with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
        second = [result for batch in pipeline.run(pictures) for result in batch]
        assert pipeline.reused == len(pictures)
        assert set(decoder_pids()) == pids, "no process was started"
    assert [result.path for result in second] == pictures
    for one, other in zip(first, second, strict=True):
        assert isinstance(one, Tagged) and isinstance(other, Tagged)
        assert one.size == other.size
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.scores, other.scores)


def test_moved_files_and_rewritten_metadata_cost_no_inference(
    tagger: Tagger, pictures: list[Path], tmp_path: Path
) -> None:
    with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
        first = [result for batch in pipeline.run(pictures) for result in batch]
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in pictures]
    with Image.open(moved[0]) as picture:
        picture.save(moved[0], dpi=(300, 300))
    with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
        second = [result for batch in pipeline.run(moved) for result in batch]
        assert pipeline.reused == len(moved)
    assert names(iter(first), tagger) == names(iter(second), tagger)
    assert [result.path for result in second] == moved


def test_a_changed_picture_is_looked_at_again(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    def run() -> int:
        with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
            assert sum(len(batch) for batch in pipeline.run(pictures)) == len(pictures)
            return pipeline.reused

    assert run() == 0
    draw("white", "square", random.Random(9)).resize((80, 80)).save(pictures[2])
    assert run() == len(pictures) - 1
    assert run() == len(pictures)


def test_another_model_and_other_frames_do_not_share_scores(
    tagger: Tagger, pictures: list[Path], tmp_path: Path
) -> None:
    for looking in (Looking(tagger.preprocess), Looking(tagger.preprocess, frames=4)):
        with Pipeline(tagger, scores=tmp_path / "scores", looking=looking) as pipeline:
            list(pipeline.run(pictures))
            assert pipeline.reused == 0
    assert len(list((tmp_path / "scores").glob("*.db"))) == 2


def test_scores_found_by_a_decoder(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    with Pipeline(tagger, scores=tmp_path / "scores") as pipeline:
        list(pipeline.run(pictures))
    key = f"{tagger.identity}\n{Looking(tagger.preprocess).key}"
    with Decoders(Looking(tagger.preprocess, scores=(tmp_path / "scores", key)), 1) as decoders:
        found = decoders.submit(pictures[0]).result(60)
    assert isinstance(found, Known) and found.pixels is None


def test_a_damaged_store_is_set_aside(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path, "model"):
        pass
    (path,) = tmp_path.glob("*.db")
    path.write_bytes(b"no database at all, and long enough to look like one" * 20)
    with ScoreStore.open(tmp_path, "model") as store:
        assert len(store) == 0
    assert path.with_name(f"{path.name}.damaged").exists()


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--no-scores"):
        ScoreStore.open(tmp_path / "file" / "scores", "model")


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    path = tmp_path / "名\n前.png"
    path.write_bytes(b"1234")
    scores = np.array([0.5, 0.001, 1.0, np.nan, 0.01], np.float32)
    tagged = Tagged.of(path, (3, 4), scores)
    assert tagged.rows.tolist() == [0, 2, 4]
    with ScoreStore.open(tmp_path / "scores", "model") as store:
        store.keep([Looked(stamp_of(path), b"c" * 16, b"p" * 16, tagged)])
        (found,) = store.find([path], [stamp_of(path)])
        assert found is not None
        found = found.tagged(path)
        assert (found.size, found.rows.tolist()) == ((3, 4), [0, 2, 4])
        assert found.scores.tolist() == tagged.scores.tolist() == pytest.approx([0.5, 1.0, 0.01], abs=1e-5)
        assert store.find([path], [(4, 0)]) == [None]
        assert store.by_content(b"x" * 16) is None
        by_pixels = store.by_pixels(b"p" * 16)
        assert by_pixels is not None and by_pixels.tagged(path).rows.tolist() == [0, 2, 4]


def test_a_page_of_an_archive_has_the_archive_s_stamp(tmp_path: Path) -> None:
    (tmp_path / "comic.cbz").write_bytes(b"123")
    assert stamp_of(tmp_path / "comic.cbz" / "a" / "1.png") == stamp_of(tmp_path / "comic.cbz")
    assert stamp_of(tmp_path / "gone.png") is None


def test_killed_at_any_time_what_was_kept_is_whole(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    rng = random.Random(1)
    for number in range(150):
        draw("red", "circle", rng).resize((30, 30 + number)).save(folder / f"{number:03d}.png")
    script = (
        "import sys; from pathlib import Path; from efuda.tagging import Tagger, Pipeline\n"
        "from efuda.images import find_pictures\n"
        "with Pipeline(Tagger.open(Path(sys.argv[1]), threads=1), scores=Path(sys.argv[3])) as pipeline:\n"
        "    done = sum(len(batch) for batch in pipeline.run(find_pictures([Path(sys.argv[2])])))\n"
        "    print(done, pipeline.reused)\n"
    )
    command = [sys.executable, "-c", script, str(model.root), str(folder), str(tmp_path / "scores")]
    for _ in range(3):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.0, 2.0))
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()[0] == "150"
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout.split() == ["150", "150"]
