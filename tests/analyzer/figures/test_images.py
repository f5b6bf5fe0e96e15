"""Photographs become model inputs and back, whatever their layout, range and file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from analyzer.figures import image_layout, photographs, preprocess, read_image, to_planes
from converters import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture
def photograph():
    rows, columns = np.mgrid[0:48, 0:64].astype(np.float32)
    return np.stack([rows / 47, columns / 63, np.full_like(rows, 0.25)], axis=-1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_photographs_undo_preprocess(photograph, layout):
    how = Preprocessing((48, 64), layout=layout, **IMAGENET)
    batch = preprocess(photograph, how)[None]
    np.testing.assert_allclose(photographs(batch, how)[0], photograph, atol=1e-6)


def test_preprocess_normalises_each_channel_by_its_own_mean_and_std(photograph):
    sample = preprocess(photograph, Preprocessing((48, 64), layout="NHWC", **IMAGENET))
    np.testing.assert_allclose(sample[47, 0, 0], (1 - 0.485) / 0.229, rtol=1e-5)
    np.testing.assert_allclose(sample[0, 63, 1], (1 - 0.456) / 0.224, rtol=1e-5)
    np.testing.assert_allclose(sample[5, 5, 2], (0.25 - 0.406) / 0.225, rtol=1e-5)


def test_the_crop_is_the_centre(photograph):
    sample = preprocess(photograph, Preprocessing((16, 16), layout="NHWC", resize=48))
    np.testing.assert_allclose(sample, photograph[16:32, 24:40], atol=1e-6)


def test_without_resize_the_image_just_covers_the_size(photograph):
    sample = preprocess(photograph, Preprocessing((24, 24), layout="NHWC"))
    # The short side is kept whole: rows run from dark to bright; columns are cut on both sides alike.
    assert sample.shape == (24, 24, 3)
    assert sample[0, 12, 0] < 0.05 and sample[-1, 12, 0] > 0.95
    np.testing.assert_allclose(sample[12, 0, 1] + sample[12, -1, 1], 1, atol=0.02)


def test_a_model_of_one_channel_gets_luma():
    green = np.zeros((8, 8, 3), np.float32)
    green[..., 1] = 1
    sample = preprocess(green, Preprocessing((8, 8)), channels=1)
    assert sample.shape == (1, 8, 8)
    np.testing.assert_allclose(sample, 0.587, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 8, 8), "NCHW"),
        ((1, 8, 8, 3), "NHWC"),
        (("N", 1, 8, 8), "NCHW"),
        ((2, 7, 9, 9), None),
        ((2, 3), None),
    ],
)
def test_image_layout_follows_the_channels(shape, layout):
    assert image_layout(shape) == layout


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (255, 0), (8, -3)])
def test_photographs_without_preprocessing_take_the_range_from_the_values(photograph, scale, shift):
    full = np.concatenate([photograph[..., :2], 1 - photograph[..., :1]], axis=-1)
    shown = photographs((full * scale + shift)[None])
    np.testing.assert_allclose(shown[0], full, atol=1e-5)


def test_photographs_of_features_are_none():
    assert photographs(np.zeros((2, 10), np.float32)) is None
    assert to_planes(np.zeros((2, 10))) is None


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 5, 6), 1), ((2, 5, 6, 3), 3)])
def test_to_planes_sums_channels_and_keeps_the_total(shape, axis):
    attributions = np.random.default_rng(0).standard_normal(shape)
    planes = to_planes(attributions)
    assert planes.shape == (2, 5, 6)
    np.testing.assert_allclose(planes, attributions.sum(axis=axis))


def test_read_image_brings_every_mode_to_rgb(tmp_path):
    pixels = np.full((4, 6, 3), (200, 100, 50), np.uint8)
    for mode in ("RGB", "RGBA", "P", "L", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.fromarray(pixels).convert(mode).save(path)
        image = read_image(path)
        assert image.shape == (4, 6, 3) and image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1


def test_read_image_keeps_sixteen_bit_brightness(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png"), 0.5, atol=1e-4)


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), 1)


def test_read_image_turns_a_photograph_upright(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (8, 4, 3)


def test_read_image_refuses_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    for name in ("text.png", "half.png", "absent.png", "."):
        with pytest.raises(ValueError, match=r"not a readable image|no such file|a folder") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
