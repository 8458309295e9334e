"""Preprocessing by hand: where the padding stands, which channel comes first, what is subtracted."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from efuda.preprocess import Crop, Letterbox, Preprocess, Resize, Shorter

COLOUR = (10, 100, 200)


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), COLOUR)


def test_the_defaults_are_those_of_wd_taggers() -> None:
    assert Preprocess().model_dump() == {
        "size": 448,
        "fit": "pad",
        "interpolation": "bicubic",
        "pad": (255, 255, 255),
        "steps": (),
        "channels": "bgr",
        "layout": "nhwc",
        "mean": (0.0, 0.0, 0.0),
        "std": None,
    }


def test_a_wide_picture_has_white_above_and_below() -> None:
    square = Preprocess(size=16).square(picture(16, 8))
    assert square.shape == (16, 16, 3) and square.dtype == np.uint8
    expected = np.full((16, 16, 3), 255, dtype=np.uint8)
    expected[4:12] = COLOUR
    np.testing.assert_array_equal(square, expected)


def test_a_tall_picture_has_white_left_and_right_the_odd_pixel_right() -> None:
    square = Preprocess(size=16).square(picture(9, 16))
    expected = np.full((16, 16, 3), 255, dtype=np.uint8)
    expected[:, 3:12] = COLOUR  # (16 − 9) // 2 = 3 left, 4 right
    np.testing.assert_array_equal(square, expected)


def test_padding_comes_before_resizing() -> None:
    square = Preprocess(size=16, interpolation="nearest").square(picture(32, 16))
    assert (square[:4] == 255).all() and (square[12:] == 255).all()
    assert (square[4:12] == COLOUR).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (16, 15), (70, 101), (101, 70), (300, 75), (75, 300), (900, 901)])
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos", "nearest"])
def test_the_square_that_is_never_made_gives_the_same_pixels(shape: tuple[int, int], interpolation: Any) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    side = max(shape)
    whole = Image.new("RGB", (side, side), "white")
    whole.paste(noise, ((side - shape[0]) // 2, (side - shape[1]) // 2))
    expected = np.asarray(whole.resize((48, 48), Image.Resampling[interpolation.upper()]), dtype=np.int16)
    found = Preprocess(size=48, interpolation=interpolation).square(noise).astype(np.int16)
    assert np.abs(found - expected).max() <= (75 in shape)  # of narrow strips alone a pixel may be off by one


def test_a_strip_as_long_as_strips_may_be_is_padded_in_no_time() -> None:
    """Its square would have 4.8 GB."""
    for width, height in ((200, 40_000), (40_000, 200)):
        began = time.perf_counter()
        square = Preprocess(size=448).square(picture(width, height))
        assert time.perf_counter() - began < 5
        assert 448 <= (square != 255).any(axis=-1).sum() < 8 * 448


def test_squash_stretches_instead() -> None:
    square = Preprocess(size=16, fit="squash").square(picture(32, 8))
    assert (square == COLOUR).all()


def test_wd_input_is_bgr_0_to_255_float32_channels_last() -> None:
    array = Preprocess(size=16).array(picture(16, 16))
    assert array.dtype == np.float32 and array.shape == (16, 16, 3) and array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.full((16, 16, 3), (200.0, 100.0, 10.0), dtype=np.float32))


def test_rgb_channels_first() -> None:
    array = Preprocess(size=16, channels="rgb", layout="nchw").array(picture(16, 16))
    assert array.shape == (3, 16, 16) and array.flags.c_contiguous
    assert [plane[0, 0] for plane in array] == [10.0, 100.0, 200.0]
    batch = np.zeros((5, 16, 16, 3), dtype=np.uint8)
    assert Preprocess(size=16, layout="nchw").scale(batch).shape == (5, 3, 16, 16)


def test_each_pixel_keeps_its_place_when_channels_move() -> None:
    pixels = np.arange(16 * 16 * 3, dtype=np.uint64).reshape(16, 16, 3).astype(np.uint8)
    array = Preprocess(size=16, layout="nchw").scale(pixels)
    assert array[0, 2, 7] == pixels[2, 7, 2]  # blue first
    assert array[2, 2, 7] == pixels[2, 7, 0]


def test_mean_and_std_in_units_of_0_to_1_in_the_models_channel_order() -> None:
    preprocess = Preprocess(size=16, channels="rgb", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    pixels = np.full((1, 1, 3), (255, 0, 255), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess.scale(pixels)[0, 0], np.array([1.0, -1.0, 0.5], dtype=np.float32))
    swapped = preprocess.model_copy(update={"channels": "bgr"})
    pixels = np.full((1, 1, 3), (255, 0, 0), dtype=np.uint8)  # BGR 0, 0, 255
    np.testing.assert_array_equal(swapped.scale(pixels)[0, 0], np.array([-1.0, -1.0, 0.5], dtype=np.float32))


def test_a_typing_error_in_a_model_is_noticed() -> None:
    with pytest.raises(ValidationError):
        Preprocess.model_validate({"sise": 448})
    with pytest.raises(ValidationError):
        Preprocess.model_validate({"channels": "gbr"})


# What each family publishes, written here once more with Pillow and numpy alone

SHAPES = [(64, 64), (100, 63), (63, 100), (301, 77), (33, 95), (20, 31), (640, 481), (1024, 683)]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
def test_wd_and_joytag_and_cl_tagger_pad_to_a_white_square_and_resize(shape: tuple[int, int]) -> None:
    drawn = noise(*shape)
    side = max(shape)
    left, top = (side - shape[0]) // 2, (side - shape[1]) // 2
    padded = np.full((side, side, 3), 255, dtype=np.uint8)
    padded[top : top + shape[1], left : left + shape[0]] = np.asarray(drawn)
    resized = np.asarray(Image.fromarray(padded).resize((64, 64), Image.Resampling.BICUBIC))

    wd = resized[:, :, ::-1].astype(np.float32)
    np.testing.assert_array_equal(Preprocess(size=64).array(drawn), wd)
    half = (0.5, 0.5, 0.5)
    cl_v1 = (wd / 127.5 - 1).transpose(2, 0, 1)
    np.testing.assert_allclose(Preprocess(size=64, layout="nchw", mean=half, std=half).array(drawn), cl_v1, atol=1e-6)
    clip_mean, clip_std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    joytag = ((resized.astype(np.float64) / 255 - clip_mean) / clip_std).transpose(2, 0, 1)
    ours = Preprocess(size=64, channels="rgb", layout="nchw", mean=clip_mean, std=clip_std)
    np.testing.assert_allclose(ours.array(drawn), joytag, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_camie_resizes_to_fit_and_pads_with_the_mean_colour(shape: tuple[int, int]) -> None:
    width, height = shape
    inner = (64, int(64 / (width / height))) if width / height > 1 else (int(64 * (width / height)), 64)
    expected = np.empty((64, 64, 3), dtype=np.uint8)
    expected[:] = (124, 116, 104)
    left, top = (64 - inner[0]) // 2, (64 - inner[1]) // 2
    resized = np.asarray(noise(*shape).resize(inner, Image.Resampling.LANCZOS))
    expected[top : top + inner[1], left : left + inner[0]] = resized
    ours = Preprocess(size=64, fit="letterbox", interpolation="lanczos", pad=(124, 116, 104))
    np.testing.assert_array_equal(ours.square(noise(*shape)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_ml_danbooru_stretches(shape: tuple[int, int]) -> None:
    expected = np.asarray(noise(*shape).resize((64, 64), Image.Resampling.BILINEAR))
    ours = Preprocess(size=64, fit="squash", interpolation="bilinear")
    np.testing.assert_array_equal(ours.square(noise(*shape)), expected)


def deepdanbooru(picture: Image.Image, size: int) -> np.ndarray:
    """Each new pixel the mean of the area it covers, then shifted to the middle with the edge going on outside."""
    pixels = np.asarray(picture).astype(np.float64)
    scale = min(size / picture.width, size / picture.height)
    high, wide = round(picture.height * scale), round(picture.width * scale)

    def weights(new: int, old: int) -> np.ndarray:
        table = np.zeros((new, old))
        for row in range(new):
            start, end = row * old / new, (row + 1) * old / new
            for column in range(old):
                table[row, column] = max(0.0, min(column + 1, end) - max(column, start))
        return table / table.sum(1, keepdims=True)

    small = np.einsum("hy,yxc,wx->hwc", weights(high, picture.height), pixels, weights(wide, picture.width))
    found = np.empty((size, size, 3))
    for row in range(size):
        for column in range(size):
            y, x = (
                min(max(place, 0), end - 1)
                for place, end in ((row - (size - high) / 2, high), (column - (size - wide) / 2, wide))
            )
            up, left = int(np.floor(y)), int(np.floor(x))
            down, right = min(up + 1, high - 1), min(left + 1, wide - 1)
            upper = small[up, left] * (1 - (x - left)) + small[up, right] * (x - left)
            lower = small[down, left] * (1 - (x - left)) + small[down, right] * (x - left)
            found[row, column] = upper * (1 - (y - up)) + lower * (y - up)
    return found


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] < 400])
def test_deepdanbooru_by_areas_with_the_edge_repeated_to_half_a_level(shape: tuple[int, int]) -> None:
    """Its own rule stays in floating point; efuda rounds to whole levels, which training and caches can keep."""
    ours = Preprocess(size=32, fit="area", channels="rgb", std=(1.0, 1.0, 1.0))
    expected = deepdanbooru(noise(*shape), 32)
    assert np.abs(ours.square(noise(*shape)) - expected).max() <= 0.501
    assert ours.array(noise(*shape)).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_animetimm_stages_one_after_another(shape: tuple[int, int]) -> None:
    steps = (
        Letterbox(width=80, height=80),
        Shorter(size=72, interpolation="bicubic"),
        Crop(width=64, height=64),
    )
    ours = Preprocess(size=64, fit="steps", steps=steps)
    width, height = shape
    ratio = min(80 / width, 80 / height)
    inner = (round(width * ratio), round(height * ratio))
    canvas = Image.new("RGB", (80, 80), "white")
    canvas.paste(noise(*shape).resize(inner, Image.Resampling.BILINEAR), ((80 - inner[0]) // 2, (80 - inner[1]) // 2))
    small = canvas.resize((72, 72), Image.Resampling.BICUBIC).crop((4, 4, 68, 68))
    np.testing.assert_array_equal(ours.square(noise(*shape)), np.asarray(small))


def test_the_shorter_side_is_set_and_the_longer_has_a_limit() -> None:
    assert Shorter(size=32).apply(noise(100, 63)).size == (int(32 * 100 / 63), 32)
    assert Shorter(size=32).apply(noise(63, 100)).size == (32, int(32 * 100 / 63))
    assert Shorter(size=32, limit=40).apply(noise(100, 63)).size == (40, int(40 * 32 / int(32 * 100 / 63)))


def test_what_a_crop_lacks_is_black_on_both_sides() -> None:
    cut = np.asarray(Crop(width=16, height=16).apply(picture(8, 20)))
    assert (cut[:, :4] == 0).all() and (cut[:, 12:] == 0).all()
    assert (cut[:, 4:12] == COLOUR).all()


def test_steps_that_do_not_end_in_the_square_are_refused() -> None:
    for wrong in (
        {"fit": "steps"},
        {"steps": [Crop(width=448, height=448)]},
        {"fit": "steps", "steps": [Shorter(size=448)]},
        {"fit": "steps", "steps": [Crop(width=448, height=400)]},
        {"std": (1.0, 0.0, 1.0)},
    ):
        with pytest.raises(ValidationError):
            Preprocess.model_validate(wrong)


def test_it_is_the_same_once_it_was_written_down() -> None:
    steps = (Letterbox(width=80, height=80, colour=(1, 2, 3)), Resize(width=64, height=64))
    one = Preprocess(size=64, fit="steps", steps=steps)
    assert Preprocess.model_validate_json(one.model_dump_json()) == one
