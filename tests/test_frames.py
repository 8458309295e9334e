"""Frames of what moves: the right ones, evenly spaced, within bounds, whatever the format."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import COLOURS, encoded, moving, soft, video
from PIL import Image

from efuda.errors import ImageError
from efuda.images import frames, full_size, read_frames, read_rgb
from efuda.images.frames import spread

ANIMATED = ["GIF", "PNG", "WEBP", "AVIF"]
VIDEO = [
    ("mp4", "mpeg4"),
    ("mov", "mpeg4"),
    ("webm", "libvpx"),
    ("matroska", "mpeg4"),
    ("avi", "mpeg4"),
    ("mpeg", "mpeg1video"),
    ("flv", "flv1"),
    ("ogg", "libvpx"),
    ("asf", "wmv2"),
]


def colours(pictures: list[Image.Image]) -> list[int]:
    """Which of `COLOURS` each picture is in the middle."""

    def nearest(picture: Image.Image) -> int:
        assert picture.mode == "RGB"
        seen = picture.getpixel((picture.width // 2, picture.height // 2))
        gaps = [sum(abs(a - b) for a, b in zip(seen, colour, strict=True)) for colour in COLOURS]  # type: ignore[call-overload]
        assert min(gaps) < 60
        return gaps.index(min(gaps))

    return [nearest(picture) for picture in pictures]


def test_the_middles_of_equal_parts() -> None:
    assert spread(10, 1) == [0]
    assert spread(10, 2) == [2, 7]
    assert spread(6, 3) == [1, 3, 5]
    assert spread(2, 5) == [0, 1]
    assert spread(10_000, 4) == [1250, 3750, 6250, 8750]


@pytest.mark.parametrize("kind", ANIMATED)
def test_frames_of_an_animation(kind: str) -> None:
    data = moving(kind)
    assert colours(read_frames(data)) == [0]
    assert colours(read_frames(data, count=3)) == [1, 3, 5]
    assert colours(read_frames(data, count=50)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("container", "codec"), VIDEO)
def test_frames_of_a_video(container: str, codec: str, tmp_path: Path) -> None:
    data = video(container, codec)
    assert colours(read_frames(data)) == [0]
    (tmp_path / "film.mp4").write_bytes(data)
    for source in (data, tmp_path / "film.mp4"):
        found = read_frames(source, count=3)
        gaps = [abs(seen - wanted) for seen, wanted in zip(colours(found), (1, 3, 5), strict=True)]
        assert max(gaps) <= (container == "mpeg")  # whose length is an estimate
        assert found[0].size == (64, 48)


def test_a_picture_has_one_frame_however_many_are_wanted(tmp_path: Path) -> None:
    picture = soft()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encoded(picture, kind)
        (found,) = read_frames(data, count=5)
        assert found.tobytes() == read_rgb(data).tobytes()


def test_pages_of_a_tiff_are_not_frames() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in COLOURS]
    assert colours(read_frames(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), count=4)) == [0]


def test_frames_do_not_change_when_the_next_one_is_read() -> None:
    """Formats paint a frame over the one before."""
    found = read_frames(moving("GIF"), count=6)
    assert len({picture.tobytes() for picture in found}) == 6


def test_a_long_animation_is_not_decoded_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_WORK", 3 * 32 * 24)
    assert colours(read_frames(moving("GIF"), count=3)) == [0, 1, 2]
    monkeypatch.setattr(frames, "MAX_WORK", 1)
    assert colours(read_frames(moving("GIF"), count=3)) == [0]


def test_few_frames_are_kept_of_a_large_animation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_MAX_KEPT", 2 * 32 * 24)
    assert len(read_frames(moving("GIF"), count=6)) == 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_that_breaks_off_gives_what_came_before(kind: str) -> None:
    data = moving(kind, size=(200, 150)) if kind != "PNG" else moving(kind)
    found = read_frames(data[: len(data) * 3 // 4], count=6) if kind != "WEBP" else None
    if found is not None:
        assert 0 < len(found) < 6
    else:  # WebP says how long it is
        with pytest.raises(ImageError):
            read_frames(data[: len(data) * 3 // 4], count=6)


def test_frames_of_a_video_are_reduced() -> None:
    assert full_size(read_frames(video(size=(640, 480)), reduce_to=100)[0]) == (640, 480)
    assert [picture.size for picture in read_frames(video(size=(640, 480)), count=2, reduce_to=100)] == [(106, 80)] * 2


def test_a_large_video_is_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match="too large"):
        read_frames(video(size=(64, 48)), max_pixels=1000)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_video_that_breaks_off(part: float) -> None:
    data = video("matroska")
    found = read_frames(data[: int(len(data) * part)], count=3)
    assert 1 <= len(found) <= 3
    with pytest.raises(ImageError, match=r"^(cannot be decoded|a video without pictures)$"):
        whole = video("mp4")
        read_frames(whole[: int(len(whole) * part)], count=3)  # its index was at the end


def test_a_video_is_told_from_a_picture() -> None:
    with pytest.raises(ImageError, match=r"^a video, not a picture$"):
        read_rgb(video())


def test_sound_alone_has_no_pictures() -> None:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match=r"^a video without pictures$"):
        read_frames(buffer.getvalue(), count=2)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    """ffmpeg would follow it to any file or address."""
    (tmp_path / "real.mp4").write_bytes(video())
    playlist = tmp_path / "list.mp4"
    for text in (f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/real.mp4\n", f"ffconcat version 1.0\nfile {tmp_path}/real.mp4\n"):
        playlist.write_text(text)
        with pytest.raises(ImageError, match="not a picture"):
            read_frames(playlist, count=2)


def test_without_pyav_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r'^videos need pip install "efuda\[video\]"$'):
        read_frames(data, count=2)


def test_nothing_heavy_comes_with_the_import() -> None:
    heavy = ["av", "numpy", "pi_heif", "pillow_jxl", "PIL.ImageCms"]
    code = f"import sys, efuda.images; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
