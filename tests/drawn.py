"""Small pictures, animations and videos in every format, for the tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

__all__ = ["COLOURS", "encoded", "moving", "one_of_each", "soft", "video"]

COLOURS = [(200, 30, 40), (30, 180, 60), (40, 50, 210), (220, 210, 40), (30, 200, 210), (200, 40, 190)]


def soft(size: tuple[int, int] = (97, 83), number: int = 0) -> Image.Image:
    """A coloured ground without edges, which every codec keeps nearly as it is."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """HEIC and JPEG XL by the libraries that write them, which the tests skip without."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def moving(kind: str, colours: Sequence[tuple[int, int, int]] = COLOURS, size: tuple[int, int] = (32, 24)) -> bytes:
    """An animation of one plain frame a colour."""
    frames = [Image.new("RGB", size, colour) for colour in colours]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 100}
    if kind == "WEBP":
        options["lossless"] = True
    return encoded(frames[0], kind, **options)


def video(
    container: str = "mp4",
    codec: str = "mpeg4",
    colours: Sequence[tuple[int, int, int]] = COLOURS,
    size: tuple[int, int] = (64, 48),
    each: int = 10,
) -> bytes:
    """So many frames of each colour, 25 a second."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for colour in colours:
            for _ in range(each):
                opened.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", size, colour))))
        opened.mux(stream.encode(None))
    return buffer.getvalue()


def one_of_each() -> dict[str, bytes]:
    """Every format and the modes that decoders treat differently."""
    picture, files = soft(), {}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL"):
        files[f"plain.{kind.lower()}"] = encoded(picture, kind)
    for kind in ("PNG", "WEBP", "AVIF", "GIF"):
        files[f"moving.{kind.lower()}"] = moving(kind)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        files[f"{compression}.tif"] = encoded(picture, "TIFF", compression=compression)
    files["progressive.jpg"] = encoded(picture, "JPEG", progressive=True)
    files["cmyk.jpg"] = encoded(picture.convert("CMYK"), "JPEG")
    files["palette.png"] = encoded(picture.convert("P"), "PNG", transparency=3)
    files["deep.png"] = encoded(picture.convert("I;16"), "PNG")
    files["alpha.webp"] = encoded(picture.convert("RGBA"), "WEBP", lossless=True)
    files["alpha.jxl"] = encoded(picture.convert("RGBA"), "JXL", use_container=True)
    files["a.mp4"], files["b.webm"] = video(each=4), video("webm", "libvpx", each=4)
    files["c.mkv"], files["d.avi"], files["e.mpg"] = (
        video("matroska", each=4),
        video("avi", each=4),
        video("mpeg", "mpeg1video", each=4),
    )
    return files
