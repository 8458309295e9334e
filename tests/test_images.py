"""Any file in, an upright opaque RGB picture or one short reason out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efuda.errors import ImageError, InputError
from efuda.images import find_pictures, read_rgb, thumbnail

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
    assert reason(tmp_path / "empty.jpg") == "not a picture"
    assert reason(b"") == "not a picture"


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


def test_thumbnail_leaves_the_picture_alone_and_never_enlarges() -> None:
    picture = Image.new("RGB", (100, 50), RED)
    assert thumbnail(picture, 20).size == (20, 10)
    assert thumbnail(picture, 500).size == (100, 50)
    assert picture.size == (100, 50)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_pictures_are_found_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "z/c.webp", "m/d.avif", ".hidden.jpg", ".git/e.jpg", "notes.txt"):
        touch(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures([tmp_path])]
    assert found == ["a.JPG", "b.png", "m/d.avif", "z/c.webp"]


def test_a_file_named_outright_is_taken_whatever_its_name_and_each_only_once(tmp_path: Path) -> None:
    one, other = touch(tmp_path / "one.jpg"), touch(tmp_path / "other.download")
    assert list(find_pictures([other, tmp_path, one, other])) == [other, one]


def test_a_loop_of_links_does_not_trap_the_walk(tmp_path: Path) -> None:
    picture = touch(tmp_path / "folder" / "a.jpg")
    (tmp_path / "folder" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert list(find_pictures([tmp_path])) == [picture]


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        list(find_pictures([tmp_path / "nowhere"]))
