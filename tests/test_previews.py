"""Thumbnails and hashes: from one decode in limited processes, without metadata; what is broken is said once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from collection_world import make_tagger, tagged
from PIL import Image, ImageDraw

from efuda.collection import Collection
from efuda.collection.previews import Busy, Previews, previews
from efuda.errors import CollectionError, ImageError
from efuda.images import phash
from efuda.images.previewing import CHANGED, Wanted, look, look_at
from efuda.tagging import Failed
from efuda.tagging.limited import LimitedWorkers, Refused


def scene(width: int = 600, height: int = 400, eye: str = "blue") -> Image.Image:
    """A face on a ground of several colours, nothing of it symmetric: its perceptual hash does not hang by a thread."""
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, height * 2 // 3, width // 2, height), fill="seagreen")
    pen.polygon([(0, 0), (width // 3, 0), (0, height // 2)], fill="black")
    pen.rectangle((width * 3 // 4, height // 10, width, height // 3), fill="white")
    pen.ellipse((width // 4, height // 8, width * 2 // 3, height * 7 // 8), fill="bisque", outline="black", width=3)
    pen.polygon([(width // 4, height // 3), (width // 2, height // 9), (width // 3, height // 9)], fill="maroon")
    for part, colour in ((5, "blue"), (7, eye)):
        pen.ellipse((width * part // 12 - 12, height // 3, width * part // 12 + 12, height // 3 + 24), fill=colour)
    return picture


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "art.efuda", create=True) as opened:
        yield opened


def add(collection: Collection, *paths: Path) -> None:
    tagger = make_tagger(collection.path.parent / "model", ["hat"])
    done = collection.add([tagged(tagger, path, {"hat": 0.9}) for path in paths], tagger)
    assert done.failed == []


def facts(collection: Collection, column: str) -> list[object]:
    with collection.record.read() as db:
        return [one for (one,) in db.execute(f"SELECT {column} FROM pictures ORDER BY id")]


# One decode


def test_what_one_decode_tells(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    seen = look(tmp_path / "a.png", side=320)
    assert (seen.size, seen.duration_ms) == ((600, 400), None)
    assert seen.pixels == xxhash.xxh3_128(b"600x400;" + scene().tobytes()).digest()
    assert seen.phash is not None and seen.phash % 2**64 == phash(scene())
    with Image.open(io.BytesIO(seen.thumbnail)) as small:
        assert (small.format, small.size, small.mode) == ("WEBP", (320, 213), "RGB")


def test_the_same_pixels_in_another_format_have_the_same_hash(tmp_path: Path) -> None:
    for name, how in {"a.png": {}, "b.webp": {"lossless": True}, "c.bmp": {}}.items():
        scene().save(tmp_path / name, **how)
    scene(eye="red").save(tmp_path / "d.png")
    scene().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "e.png")
    hashes = [look(path).pixels for path in sorted(tmp_path.iterdir())]
    assert len(set(hashes[:3])) == 1 and len(set(hashes)) == 3


def test_a_small_picture_keeps_its_size_and_one_colour_has_no_perceptual_hash(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    seen = look(tmp_path / "red.png")
    assert seen.phash is None
    with Image.open(io.BytesIO(seen.thumbnail)) as small:
        assert small.size == (40, 30)


def test_nothing_of_the_metadata_reaches_a_thumbnail(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    profile = (tmp_path / "p.icc", b"not a profile")
    scene().save(tmp_path / "a.jpg", exif=exif, icc_profile=profile[1], comment=b"secret", dpi=(72, 72))
    for side in (320, 4000):
        made = look(tmp_path / "a.jpg", side=side).thumbnail
        with Image.open(io.BytesIO(made)) as small:
            assert len(small.getexif()) == 0
            assert not {"exif", "icc_profile", "xmp", "comment"} & set(small.info)
        assert b"EXIF" not in made and b"at home" not in made and b"ICCP" not in made


def test_what_moves_says_how_long(tmp_path: Path) -> None:
    frames = [scene(60, 40, eye) for eye in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 200, 300])
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:2], duration=[100, 200])
    first, second = look(tmp_path / "a.gif"), look(tmp_path / "b.gif")
    assert (first.duration_ms, second.duration_ms) == (600, 300)
    assert first.pixels != second.pixels


def test_a_file_that_is_another_now(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=CHANGED):
        look_at(Wanted(tmp_path / "a.png", b"\0" * 32, 320))


# Processes with limits


def killed(path: str) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return path


def killed_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def hungry(_: str) -> int:
    return len(np.ones(1 << 31, np.uint8))


def parent(_: str) -> int:
    return os.getppid()


def test_a_crash_a_hang_and_hunger_cost_one_job_each(tmp_path: Path) -> None:
    with LimitedWorkers(1, memory=1 << 30) as workers:
        assert workers.do(killed, "a") == Refused("the decoder crashed (SIGSEGV)")
        workers.seconds = 1
        assert workers.do(time.sleep, 60) == Refused("decoding took more than 1 s")
        workers.seconds = 60
        assert workers.do(hungry, "a") == Refused("too large for the memory that decoding may use")
        assert workers.do(killed_once, str(tmp_path / "tried")) == "done"
        assert list(workers.map(parent, ["a", "b"])) == [os.getpid()] * 2


def test_closing_stops_what_is_at_work() -> None:
    workers = LimitedWorkers(1)
    results = workers.map(time.sleep, [60])
    began = time.monotonic()
    from threading import Timer

    Timer(1.5, workers.close).start()
    assert next(results) == Refused("the decoder was stopped")
    assert time.monotonic() - began < 20


# A collection's


def test_made_for_all_and_found_again(collection: Collection, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        scene(300 + number).save(path)
    add(collection, *paths)
    before = collection.revision
    with Previews(collection.record, workers=1) as made:
        done = made.make()
        assert (done.made, done.failed) == (3, [])
        thumbs = [made.thumbnail(number) for number in (1, 2, 3)]
        assert [len(thumb) > 100 for thumb in thumbs] == [True] * 3
        with Image.open(io.BytesIO(made.preview(1, side=100))) as small:
            assert small.size == (75, 100)
    assert collection.revision == before + 1
    assert facts(collection, "pixels") == [look(path).pixels for path in paths]
    assert facts(collection, "phash") == [look(path).phash for path in paths]
    assert facts(collection, "revision") == [before + 1] * 3
    again = previews(collection.record, workers=1)
    assert (again.made, again.failed) == (0, [])
    with Previews(collection.record) as kept:
        assert [kept.thumbnail(number) for number in (1, 2, 3)] == thumbs


def test_only_what_is_missing_is_made(collection: Collection, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        scene(300 + number).save(path)
    add(collection, *paths[:2])
    assert previews(collection.record, workers=1).made == 2
    add(collection, paths[2])
    assert previews(collection.record, workers=1).made == 1
    collection.path.with_name("art.efuda.thumbs").write_bytes(b"damaged" * 1000)
    assert previews(collection.record, workers=1).made == 3, "a damaged file is made again"


def test_one_on_demand(collection: Collection, tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    add(collection, tmp_path / "a.png")
    with Previews(collection.record, workers=1) as made:
        with Image.open(io.BytesIO(made.thumbnail(1))) as small:
            assert max(small.size) == 320
        assert facts(collection, "pixels") == [look(tmp_path / "a.png").pixels]
        with pytest.raises(CollectionError, match="no picture 7"):
            made.thumbnail(7)
        (tmp_path / "a.png").unlink()
        assert made.thumbnail(1), "what is kept is shown, too, while the file is away"
        with pytest.raises(ImageError, match="missing"):
            made.preview(1)


def test_a_broken_picture_has_its_reason_and_is_not_asked_again(collection: Collection, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene().save(path)
    path.write_bytes(path.read_bytes()[:200])
    add(collection, path)
    first = previews(collection.record, workers=1)
    assert (first.made, len(first.failed)) == (0, 1)
    assert isinstance(first.failed[0], Failed) and first.failed[0].path == path
    again = previews(collection.record, workers=1)
    assert (again.made, again.failed) == (0, [])
    with Previews(collection.record, workers=1) as made, pytest.raises(ImageError, match=first.failed[0].reason):
        made.thumbnail(1)
    assert facts(collection, "pixels") == [None]


def test_a_file_that_is_away_is_asked_for_again(collection: Collection, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene().save(path)
    add(collection, path)
    path.rename(tmp_path / "away")
    assert previews(collection.record, workers=1).failed == [Failed(path, "missing")]
    (tmp_path / "away").rename(path)
    assert previews(collection.record, workers=1).made == 1


def test_another_picture_at_the_same_path_is_not_shown_for_it(collection: Collection, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene().save(path)
    add(collection, path)
    scene(eye="red").save(path)
    assert previews(collection.record, workers=1).failed == [Failed(path, CHANGED)]


def test_too_many_at_once_are_told_to_wait(collection: Collection, tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    add(collection, tmp_path / "a.png")
    with Previews(collection.record, workers=1) as made:
        for _ in range(32):
            made._places.acquire()
        with pytest.raises(Busy, match="Ask again"):
            made.thumbnail(1)


def test_killed_at_any_time_it_goes_on(collection: Collection, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(90)]
    for number, path in enumerate(paths):
        scene(800 + number, 700).save(path, compress_level=1)
    add(collection, *paths)
    script = (
        "import sys; from pathlib import Path; from efuda.collection import Collection\n"
        "from efuda.collection.previews import previews\n"
        "with Collection.open(Path(sys.argv[1])) as collection: print(previews(collection.record).made)\n"
    )
    command = [sys.executable, "-c", script, str(collection.path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(facts(collection, "pixels")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    there = sum(one is not None for one in facts(collection, "pixels"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 90 - there <= int(done.stdout) + 1 <= 91 and all(facts(collection, "pixels"))
