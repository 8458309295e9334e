"""Preprocessing by hand: where the padding stands, which channel comes first, what is subtracted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from efuda.preprocess import Preprocess

COLOUR = (10, 100, 200)


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), COLOUR)


def test_the_defaults_are_those_of_wd_taggers() -> None:
    assert Preprocess().model_dump() == {
        "size": 448,
        "fit": "pad",
        "interpolation": "bicubic",
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
