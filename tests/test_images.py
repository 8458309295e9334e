"""Any file in, an upright opaque RGB picture or one short reason out."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn import encoded, soft
from PIL import Image, ImageCms, ImageDraw, ImageEnhance

from efuda.errors import ImageError
from efuda.images import examine, full_size, is_single_colour, phash, read_frames, read_rgb, thumbnail
from efuda.images.plugins import jxl_size

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


def reason(source: Path | bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        read_rgb(source, **options)
    if isinstance(source, Path):
        assert str(caught.value) == f"{source}: {caught.value.reason}"
    return caught.value.reason


def test_an_opaque_picture_keeps_its_pixels(tmp_path: Path) -> None:
    picture = read_rgb(saved(Image.new("RGB", (3, 2), RED), tmp_path / "red.png"))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (3, 2), RED)


def test_bytes_are_read_like_a_file() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), RED).save(buffer, "WEBP", lossless=True)
    assert read_rgb(buffer.getvalue()).getpixel((2, 1)) == RED


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (3, 1))
    picture.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128)])
    read = read_rgb(saved(picture, tmp_path / "alpha.png"))
    assert [read.getpixel((x, 0)) for x in range(3)] == [WHITE, RED, (127, 127, 127)]


def test_grey_with_alpha_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("LA", (2, 1))
    picture.putdata([(0, 0), (40, 255)])
    read = read_rgb(saved(picture, tmp_path / "la.png"))
    assert [read.getpixel((x, 0)) for x in range(2)] == [WHITE, (40, 40, 40)]


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_a_transparent_palette_entry_is_white(tmp_path: Path, name: str) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, *RED])
    picture.putdata([0, 1])
    read = read_rgb(saved(picture, tmp_path / name, transparency=0))
    assert [read.getpixel((x, 0)) for x in range(2)] == [WHITE, RED]


def test_an_rgb_picture_with_a_transparent_colour_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((0, 0), GREEN)
    read = read_rgb(saved(picture, tmp_path / "key.png", transparency=GREEN))
    assert [read.getpixel((x, 0)) for x in range(2)] == [WHITE, RED]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2), RED)
    picture.putpixel((0, 0), GREEN)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored top left belongs at the top right
    read = read_rgb(saved(picture, tmp_path / "turned.png", exif=exif))
    assert read.size == (2, 4)
    assert read.getpixel((1, 0)) == GREEN
    assert read.getpixel((0, 0)) == RED


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    read = read_rgb(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "print.jpg", quality=100))
    red, green, blue = read.getpixel((4, 4))
    assert read.mode == "RGB"
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize(
    ("value", "grey"), [(0, 0), (1, 0), (100, 0), (255, 1), (256, 1), (32768, 128), (65280, 254), (65535, 255)]
)
@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_sixteen_bit_greys_keep_their_brightness(tmp_path: Path, name: str, value: int, grey: int) -> None:
    """However dark the whole picture is: a picture of 100s of 65,535 is black, not grey."""
    pixels = np.full((4, 4), value, dtype=np.uint16)
    read = read_rgb(saved(Image.fromarray(pixels), tmp_path / name))
    assert read.mode == "RGB"
    assert read.getpixel((1, 1)) == (grey, grey, grey)


@pytest.mark.parametrize(("value", "grey"), [(0.0, 0), (0.5, 128), (1.0, 255)])
def test_float_greys_are_in_0_to_1(tmp_path: Path, value: float, grey: int) -> None:
    read = read_rgb(saved(Image.fromarray(np.full((4, 4), value, dtype=np.float32)), tmp_path / "float.tif"))
    assert read.getpixel((0, 0)) == (grey, grey, grey)


def test_one_bit_and_plain_grey_become_rgb(tmp_path: Path) -> None:
    assert read_rgb(saved(Image.new("1", (2, 2), 1), tmp_path / "one.png")).getpixel((0, 0)) == WHITE
    assert read_rgb(saved(Image.new("L", (2, 2), 77), tmp_path / "grey.png")).getpixel((0, 0)) == (77, 77, 77)


def test_only_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "move.gif", save_all=True, append_images=frames[1:])
    assert read_rgb(tmp_path / "move.gif").getpixel((0, 0)) == RED


@pytest.mark.parametrize("name", ["half.jpg", "half.png"])
def test_a_truncated_file(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) == "truncated"
    assert reason(path.read_bytes()) == "truncated"


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is a text file")
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "text.jpg") == "not a picture"
    assert reason(tmp_path / "empty.jpg") == "an empty file"
    assert reason(b"") == "an empty file"


def test_a_header_that_makes_no_sense(tmp_path: Path) -> None:
    """Not the same as a text file that is named like a picture: this one was a picture."""
    for number, start in enumerate(
        (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\0\0\0 ftypavif", b"RIFF\0\1\0\0WEBP")
    ):
        (tmp_path / str(number)).write_bytes(start + b"nonsense" * 20)
        told = reason(tmp_path / str(number))
        assert told in ("truncated", "cannot be decoded")
        with pytest.raises(ImageError, match=f"^{told}$"):
            examine(start + b"nonsense" * 20)


def test_a_format_off_the_list_is_not_decoded(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "a.ppm").rename(tmp_path / "a.jpg")
    assert reason(path) == "not a picture"


def test_what_is_not_there_or_a_folder(tmp_path: Path) -> None:
    assert reason(tmp_path / "nothing.jpg") == "missing"
    assert reason(tmp_path) == "a folder, not a picture"


def test_a_picture_over_the_limit_is_refused_before_decoding(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "large.png")
    assert read_rgb(path, max_pixels=200).size == (20, 10)
    assert reason(path, max_pixels=199) == "too large (20×10)"
    path.write_bytes(path.read_bytes()[:60])  # the header alone says how large it is
    assert reason(path, max_pixels=199) == "too large (20×10)"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_each_orientation(tmp_path: Path, orientation: int, name: str) -> None:
    """A quarter of the picture is black, and stored so that it belongs at the top left."""
    upright = Image.new("RGB", (64, 32), WHITE)
    upright.paste("black", (0, 0, 32, 16))
    stored = {  # what undoes it: the picture as a camera held that way stores it
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright.transpose(stored[orientation]) if orientation > 1 else upright
    read = read_rgb(saved(turned, tmp_path / name, exif=exif))
    assert read.size == (64, 32)
    corners = [read.getpixel(place)[0] > 128 for place in ((4, 4), (60, 4), (4, 28), (60, 28))]  # type: ignore[index]
    assert corners == [False, True, True, True]
    seen = examine((tmp_path / name).read_bytes())
    assert (seen.width, seen.height) == (64, 32)
    assert near(seen.phash, phash(upright)) <= 4


def test_a_palette_whose_entries_are_half_transparent(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([*RED, *RED, 0, 0, 0])
    picture.putdata([0, 1, 2])
    read = read_rgb(saved(picture, tmp_path / "palette.png", transparency=bytes([255, 0, 128])))
    assert [read.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (127, 127, 127)]


def test_sixteen_bit_colours(tmp_path: Path) -> None:
    """Pillow does not write them: a PNG of one pixel by hand."""
    path = tmp_path / "deep.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 32768, 255)))
    assert read_rgb(path).getpixel((0, 0)) == (255, 128, 0)


def png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header() -> None:
    assert reason(png(21_001, 21_000, 8, 2, bytes(1_000_000))) == "too large (21001×21000)"
    assert reason(png(50_000, 50_000, 8, 2, bytes(1_000_000))) == "too large (2,500 MP)"
    assert reason(png(40_001, 1, 8, 2, bytes(1000))) == "too large (40001×1)"
    with pytest.raises(ImageError, match="too large"):
        examine(png(50_000, 50_000, 8, 2, bytes(1_000_000)))


@pytest.mark.parametrize("name", ["move.webp", "move.png", "move.avif"])
def test_the_first_frame_of_other_animations(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    red, green, _ = read_rgb(tmp_path / name).getpixel((8, 8))  # type: ignore[misc]
    assert red > 240 and green < 20


@pytest.mark.parametrize("kind", ["AVIF", "JPEG", "BMP", "TIFF", "GIF"])
def test_the_contents_count_and_not_the_name(tmp_path: Path, kind: str) -> None:
    saved(Image.new("RGB", (16, 16), RED), tmp_path / "name.png", format=kind)
    red, green, _ = read_rgb(tmp_path / "name.png").getpixel((8, 8))  # type: ignore[misc]
    assert red > 240 and green < 20


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "AVIF", "TIFF", "BMP", "PNG", "JPEG"])
def test_wherever_a_file_ends_it_is_a_reason(kind: str) -> None:
    """Cut anywhere it is refused, but for what follows the last pixel; both ways of decoding agree."""
    buffer = io.BytesIO()
    drawn(1, (96, 80)).save(buffer, kind)
    data = buffer.getvalue()
    for length in range(0, len(data) - 20, max(1, len(data) // 60)):
        assert reason(data[:length]) in ("truncated", "an empty file", "not a picture", "cannot be decoded")
        with pytest.raises(ImageError) as caught:
            examine(data[:length])
        assert caught.value.reason == reason(data[:length])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_damaged_jpegs_are_judged_alike_both_ways(options: dict[str, object]) -> None:
    """Whatever bytes are changed, `examine` refuses and accepts what `read_rgb` does."""
    buffer = io.BytesIO()
    drawn(2, (150, 130)).save(buffer, "JPEG", **options)
    whole, chance = buffer.getvalue(), random.Random(0)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        told = []
        for look in (lambda data: read_rgb(data).size, lambda data: (examine(data).width, examine(data).height)):
            try:
                told.append(look(bytes(data)))
            except ImageError as error:
                told.append(error.reason)
        assert told[0] == told[1]
        outcomes.add(type(told[0]))
    assert outcomes == {tuple, str}


# Formats that need more than Pillow


def worst(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("size", [(97, 83), (64, 64), (16, 200), (8, 8)])
def test_heic(size: tuple[int, int], tmp_path: Path) -> None:
    picture = soft(size)
    (tmp_path / "a.heic").write_bytes(encoded(picture, "HEIF", quality=95))
    read = read_rgb(tmp_path / "a.heic")
    assert (read.mode, read.size) == ("RGB", size)
    assert np.abs(np.asarray(read).astype(int) - np.asarray(picture)).mean() < (5 if min(size) > 16 else 15)
    assert examine((tmp_path / "a.heic").read_bytes()).width == size[0]
    clear = encoded(Image.new("RGBA", size, (255, 0, 0, 0)), "HEIF")
    assert read_rgb(clear).getpixel((3, 3)) == WHITE


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_upright(orientation: int) -> None:
    picture = Image.new("RGB", (128, 64), WHITE)
    picture.paste("black", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_rgb(encoded(picture, "HEIF", exif=exif.tobytes(), quality=95))
    assert read.size == ((64, 128) if orientation in (6, 8) else (128, 64))
    corner = {1: (8, 8), 3: (120, 56), 6: (56, 8), 8: (8, 120)}[orientation]
    assert read.getpixel(corner)[0] < 60  # type: ignore[index]


@pytest.mark.parametrize("options", [{}, {"use_container": True}, {"lossless": True}])
@pytest.mark.parametrize("size", [(97, 83), (64, 64), (400, 300), (320, 180), (8, 16), (3000, 20)])
def test_jpeg_xl(size: tuple[int, int], options: dict[str, bool]) -> None:
    picture = soft(size)
    data = encoded(picture, "JXL", **options)
    assert jxl_size(data) == size
    read = read_rgb(data)
    assert (read.mode, read.size) == ("RGB", size)
    assert np.abs(np.asarray(read).astype(int) - np.asarray(picture)).mean() < (5 if min(size) > 16 else 15)
    clear = encoded(Image.new("RGBA", size, (255, 0, 0, 0)), "JXL", **options)
    assert read_rgb(clear).getpixel((3, 3)) == WHITE


def test_jpeg_xl_is_refused_by_its_header() -> None:
    data = encoded(soft((400, 300)), "JXL")
    assert reason(data, max_pixels=100_000) == "too large (400×300)"
    assert reason(data[:40]) in ("truncated", "cannot be decoded")
    assert reason(b"\xff\x0a") in ("truncated", "cannot be decoded")


def test_without_a_plugin_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from efuda.images import plugins

    data = encoded(soft(), "JXL")
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    plugins._bring_jxl.cache_clear()
    assert reason(data) == 'JPEG XL needs pip install "efuda[formats]"'
    plugins._bring_jxl.cache_clear()


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "f.bmp", "g.avif", "h.heic", "i.jxl"])
def test_every_format_is_itself_under_any_name(name: str, tmp_path: Path) -> None:
    """A file of each format in the name of another, in a script that is not ours, with a line end in it."""
    kinds = {"a": "JPEG", "b": "PNG", "c": "WEBP", "d": "TIFF", "e": "GIF", "f": "BMP", "g": "AVIF", "h": "HEIF"}
    picture = soft()
    path = tmp_path / f"絵\n🎨 {name[0]}.jpg"
    path.write_bytes(encoded(picture, kinds.get(name[0], "JXL")))
    assert np.abs(np.asarray(read_rgb(path)).astype(int) - np.asarray(picture)).mean() < 6
    assert len(read_frames(path, count=4)) == 1


# Colours


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def wide() -> bytes:
    """A profile whose red, green and blue are those of sRGB in another order: what it does to colours is known."""
    data = bytearray(profile("sRGB"))
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    places = [bytes(data[tags[name] + 4 : tags[name] + 12]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    for name, place in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (places[1], places[2], places[0]), strict=True):
        data[tags[name] + 4 : tags[name] + 12] = place
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL"])
def test_a_profile_is_applied(kind: str) -> None:
    if kind == "JXL":
        pytest.skip("its plugin writes no profile")
    options = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encoded(Image.new("RGB", (16, 16), RED), kind, icc_profile=wide(), **options.get(kind, {"quality": 100}))
    assert worst(read_rgb(data), Image.new("RGB", (16, 16), GREEN)) < 12
    assert worst(read_rgb(data).convert("RGB"), read_frames(data)[0]) == 0


def test_a_profile_is_applied_once() -> None:
    """A picture that was read and saved has no profile any more."""
    read = read_rgb(encoded(Image.new("RGB", (16, 16), RED), "PNG", icc_profile=wide()))
    assert worst(read_rgb(encoded(read, "PNG")), Image.new("RGB", (16, 16), GREEN)) < 4


def test_a_profile_with_transparency_and_with_a_palette() -> None:
    clear = Image.new("RGBA", (2, 1), (*RED, 255))
    clear.putpixel((0, 0), (*RED, 0))
    read = read_rgb(encoded(clear, "PNG", icc_profile=wide()))
    assert read.getpixel((0, 0)) == WHITE
    assert worst(read.crop((1, 0, 2, 1)), Image.new("RGB", (1, 1), GREEN)) < 4
    palette = Image.new("RGB", (4, 4), RED).quantize(2)
    assert worst(read_rgb(encoded(palette, "PNG", icc_profile=wide())), Image.new("RGB", (4, 4), GREEN)) < 8


def test_srgb_changes_nothing() -> None:
    picture = soft()
    assert read_rgb(encoded(picture, "PNG", icc_profile=profile("sRGB"))).tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    "broken", [b"", b"nonsense", bytes(200), profile("sRGB")[:300], profile("LAB"), profile("XYZ")]
)
def test_a_broken_or_foreign_profile_is_ignored(broken: bytes) -> None:
    picture = soft()
    assert read_rgb(encoded(picture, "PNG", icc_profile=broken)).tobytes() == picture.tobytes()


def test_grey_with_a_colour_profile_is_grey() -> None:
    picture = soft().convert("L")
    assert read_rgb(encoded(picture, "PNG", icc_profile=wide())).tobytes() == picture.convert("RGB").tobytes()


def test_adobes_inverted_cmyk() -> None:
    """Adobe writes CMYK upside down and says so; so does everybody else, without saying so."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert worst(read_rgb(data), Image.new("RGB", (16, 16), RED)) < 8
    mark = data.index(b"\xff\xee")
    size = int.from_bytes(data[mark + 2 : mark + 4], "big")
    bare = data[:mark] + data[mark + 2 + size :]
    assert worst(read_rgb(bare), Image.new("RGB", (16, 16), RED)) < 8


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = to_lab.apply(Image.new("RGB", (4, 4), (200, 60, 40)))
    assert worst(read_rgb(saved(lab, tmp_path / "lab.tif")), Image.new("RGB", (4, 4), (200, 60, 40))) < 4


def test_white_beneath_every_transparency() -> None:
    """As `alpha_composite` does it, for every colour and alpha, though several times as fast."""
    every = np.empty((256, 256, 4), np.uint8)
    every[..., :3] = np.arange(256)[:, None, None]
    every[..., 3] = np.arange(256)
    picture = Image.fromarray(every)
    slow = Image.new("RGBA", picture.size, "white")
    slow.alpha_composite(picture)
    assert worst(read_rgb(encoded(picture, "PNG")), slow.convert("RGB")) <= 1


def test_large_pictures_are_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    from efuda.images import colours

    picture = soft((50, 40)).convert("RGBA")
    picture.putalpha(soft((50, 40), 1).convert("L"))
    several = [
        encoded(picture, "PNG"),
        encoded(soft().convert("CMYK"), "TIFF"),
        encoded(soft().convert("P"), "PNG", transparency=3),
        encoded(soft(), "PNG", icc_profile=wide()),
        encoded(soft().convert("I;16"), "PNG"),
        encoded(soft().convert("F"), "TIFF"),
        encoded(soft().convert("I"), "TIFF"),
    ]
    whole = [read_rgb(data).tobytes() for data in several]
    monkeypatch.setattr(colours, "_STRIP", 170)
    assert [read_rgb(data).tobytes() for data in several] == whole


@pytest.mark.parametrize(
    ("side", "scale"), [(640, 1), (321, 1), (320, 2), (160, 4), (100, 4), (80, 8), (9, 8), (1000, 1)]
)
def test_a_jpeg_comes_out_reduced_and_others_as_they_are(side: int, scale: int) -> None:
    picture = soft((640, 320))
    read = read_rgb(encoded(picture, "JPEG"), reduce_to=side)
    assert (read.size, full_size(read)) == ((640 // scale, 320 // scale), (640, 320))
    small = picture.resize(read.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(read).astype(int) - np.asarray(small)).mean() < 4
    assert read_rgb(encoded(picture, "PNG"), reduce_to=side).size == (640, 320)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_full_size_is_that_of_the_upright_picture(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    read = read_rgb(encoded(soft((640, 320)), kind, exif=exif), reduce_to=100)
    assert full_size(read) == (320, 640)
    assert read.height == 2 * read.width
    assert full_size(Image.new("RGB", (3, 2))) == (3, 2)


def test_nothing_of_the_file_is_left_in_the_picture(tmp_path: Path) -> None:
    path = saved(soft(), tmp_path / "a.jpg", icc_profile=profile("sRGB"), comment=b"hello")
    read = read_rgb(path)
    assert type(read) is Image.Image
    assert read.info.keys() == {"efuda_full_size"}
    path.unlink()
    assert read.copy().tobytes() == read.tobytes()


# What is said of a picture


def drawn(number: int, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Shapes on a soft ground, other ones for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(8):
        x, y, side = (int(value) for value in rng.integers((0, 0, 20), (220, 220, 90)))
        pen.ellipse((x, y, x + side, y + side), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture.resize(size, Image.Resampling.LANCZOS)


def near(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def recompressed(picture: Image.Image, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return read_rgb(buffer.getvalue())


def test_copies_have_near_hashes_and_other_pictures_far_ones() -> None:
    hashes = []
    for number in range(20):
        picture = drawn(number, (600, 500))
        own = phash(picture)
        copies = [
            picture.resize((300, 250), Image.Resampling.LANCZOS),
            picture.resize((171, 143), Image.Resampling.BICUBIC),
            recompressed(picture, quality=30),
            ImageEnhance.Brightness(picture).enhance(0.95),
        ]
        assert max(near(own, phash(copy)) for copy in copies) <= 4
        hashes.append(own)
    assert min(near(one, other) for row, one in enumerate(hashes) for other in hashes[:row]) >= 12


def test_a_hash_by_hand() -> None:
    """A cosine wave across is one frequency: the second of the first row; its mirror image is the opposite."""
    wave = np.cos(np.pi * (2 * np.arange(32) + 1) / 64) * 100 + 128
    grey = Image.fromarray(np.tile(wave.round().astype(np.uint8), (32, 1)))
    assert phash(grey) >> 62 == 0b01
    assert phash(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) >> 62 == 0b00
    assert phash(grey.transpose(Image.Transpose.TRANSPOSE)) >> 55 & 1 == 1


@pytest.mark.parametrize("size", [(512, 512), (513, 300), (40, 90), (64, 64), (1, 1), (700, 90)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_examine_says_what_the_pixels_say(size: tuple[int, int], options: dict[str, object]) -> None:
    for picture in (drawn(3, size), drawn(3, size).convert("L")):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", **options)
        seen, read = examine(buffer.getvalue()), read_rgb(buffer.getvalue())
        assert (seen.width, seen.height, seen.single_colour) == (*read.size, is_single_colour(read))
        assert near(seen.phash, phash(read)) <= 4


@pytest.mark.parametrize(
    ("colours", "single"),
    [((RED, RED), True), (((120, 120, 120), (124, 120, 120)), False), ((RED, (0, 130, 0)), False)],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_single_colour(colours: tuple[tuple[int, int, int], ...], single: bool, kind: str) -> None:
    """Also where two colours are equally bright, so that greys alone would not tell them apart."""
    picture = Image.new("RGB", (128, 128), colours[0])
    picture.paste(colours[1], (50, 50, 52, 52) if kind == "PNG" else (0, 0, 64, 128))
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    assert is_single_colour(read_rgb(buffer.getvalue())) == single
    assert examine(buffer.getvalue()).single_colour == single


def test_thumbnail_leaves_the_picture_alone_and_never_enlarges() -> None:
    picture = Image.new("RGB", (100, 50), RED)
    assert thumbnail(picture, 20).size == (20, 10)
    assert thumbnail(picture, 500).size == (100, 50)
    assert picture.size == (100, 50)
