"""Files of bad will: whatever its bytes are, a file is a picture or a named reason, in bounded time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn import encoded, one_of_each
from PIL import Image

from efuda.errors import ImageError
from efuda.images import DECODING_MEMORY, read_frames

MUTATIONS = 2_000
NOT_PILLOWS = (".heif", ".jxl", ".mp4", ".webm", ".mkv", ".avi", ".mpg")
MODEST = 10_000_000  # pixels; what larger ones do is the next test's matter


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out, doubled, or the end cut off, mostly near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(max(1, min(len(changed), 256) if chance.random() < 0.5 else len(changed)))
        kind = chance.randrange(8)
        if kind < 5:
            changed[at : at + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))])
        elif kind == 5:
            changed[at : at + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        elif kind == 6:
            del changed[at : at + chance.randrange(1, 64)]
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def outcomes(files: dict[str, bytes], count: int, seconds: float) -> tuple[int, set[str]]:
    """How many mutations are pictures still, and the reasons of the others; each is read within so many seconds."""
    pictures, reasons, chance, names = 0, set(), random.Random(0), sorted(files)
    for number in range(count):
        data = mutated(files[names[number % len(names)]], chance)
        began = time.perf_counter()
        try:
            found = read_frames(data, count=3, max_pixels=MODEST)
            assert all(picture.mode == "RGB" and min(picture.size) > 0 for picture in found)
            pictures += 1
        except ImageError as error:
            reasons.add(error.reason.split(" (")[0])
        assert time.perf_counter() - began < seconds, names[number % len(names)]
    return pictures, reasons


def test_mutations_of_every_format() -> None:
    files = {name: data for name, data in one_of_each().items() if not name.endswith(NOT_PILLOWS)}
    pictures, reasons = outcomes(files, MUTATIONS * 3 // 4, seconds=20)
    assert pictures > MUTATIONS / 20
    assert {"truncated", "cannot be decoded", "not a picture", "too large"} <= reasons
    assert reasons <= {
        "truncated",
        "cannot be decoded",
        "not a picture",
        "too large",
        "empty picture",
        "an empty file",
    } | {"too large for this machine's memory"}


def test_mutations_for_other_decoders_in_a_process_of_their_own() -> None:
    """Theirs is the younger code: a crash would end the tests."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from drawn import one_of_each
from efuda.images import limit_this_process
from test_decoders import MUTATIONS, NOT_PILLOWS, outcomes
files = {{name: data for name, data in one_of_each().items() if name.endswith(NOT_PILLOWS)}}
limit_this_process(2 << 30)
pictures, reasons = outcomes(files, MUTATIONS // 4, seconds=20)
assert pictures > MUTATIONS / 50, pictures
print("well")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "well", done.stderr[-2000:]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is kept by Linux")
def test_what_needs_more_than_the_limit_is_a_reason(tmp_path: Path) -> None:
    """And an ordinary one after it is read: the process goes on."""
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"):
        for size in (4000, 80):
            Image.new("RGB", (size, size), "red").save(tmp_path / f"{size:04} {kind}", kind)
    code = """
import resource, sys
from pathlib import Path
from PIL import AvifImagePlugin
from efuda.errors import ImageError
from efuda.images import limit_this_process, read_rgb

read_rgb(Path(sys.argv[1], "0080 PNG"))
assert limit_this_process(40 << 20)
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1
for path in sorted(Path(sys.argv[1]).iterdir(), reverse=True):
    try:
        print(path.name, read_rgb(path).size)
    except ImageError as error:
        print(path.name, error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    for line in done.stdout.splitlines():
        size, kind, told = line.split(" ", 2)
        expected = {"(80, 80)"} if size == "0080" else {"too large for the memory limit"}
        if size == "4000" and kind == "WEBP":  # its decoder only says that it could not begin
            expected = {"cannot be decoded"}
        assert told in expected, line
    assert len(done.stdout.splitlines()) == 12, done.stderr


def test_the_limit_has_room_for_what_is_accepted() -> None:
    """Twice what the largest takes as RGB (docs/pictures.md has what each format needs)."""
    assert DECODING_MEMORY > 3 * 4 * 21_000**2


def test_endless_animations_and_films_end() -> None:
    """A GIF of 20,000 frames in 800 kB."""
    frames = [Image.new("P", (64, 64), number % 2) for number in range(200)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 255, 255, 255])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20, optimize=False)
    head, tail = data[:-1], data[-1:]
    start = head.index(b"\x21\xf9", 400) if b"\x21\xf9" in head[400:] else head.index(b"\x21\xf9")
    long = head + head[start:] * 100 + tail
    began = time.perf_counter()
    assert len(read_frames(long, count=4)) == 4
    assert time.perf_counter() - began < 30


def test_a_gif_whose_frames_are_larger_than_it_says() -> None:
    """Twice: the first frame or a later one is of 65,535×65,535, to be wiped before the next."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2, optimize=False)
    places = [place for place in range(len(data) - 10) if data[place : place + 5] == b"\x2c\0\0\0\0"]
    assert len(places) == 3
    for place, wanted in ((places[0], 0), (places[2], 1)):
        grown = data[: place + 5] + b"\xff" * 4 + data[place + 9 :]
        began = time.perf_counter()
        try:
            assert 0 < len(read_frames(grown, count=3)) <= 2
            assert wanted
        except ImageError as error:
            assert error.reason.startswith("too large")
        assert time.perf_counter() - began < 5
