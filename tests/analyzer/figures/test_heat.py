"""Heat maps show where the map is hot, keep the picture's size, and hide nothing that is not finite."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from analyzer.figures import encode_png, heat_map, overlay, panel, plot_maps, save_png
from analyzer.figures.heat import enlarged, normalized, scale_of, smoothed, value_range


@pytest.fixture
def hot_corner():
    values = np.zeros((20, 30))
    values[2:6, 3:9] = 1.0
    return values


def luma(pixels):
    return pixels.astype(float) @ (0.299, 0.587, 0.114)


def test_the_heat_map_is_brightest_where_the_map_is_hottest(hot_corner):
    brightness = luma(heat_map(hot_corner))
    assert brightness[2:6, 3:9].min() > brightness[10:, 15:].max() + 100


def test_a_larger_value_is_never_darker():
    ramp = np.linspace(0, 1, 256).reshape(1, -1)
    assert (np.diff(luma(heat_map(ramp))[0]) > -1.5).all()


def test_signed_maps_are_red_above_zero_blue_below_and_neutral_at_zero():
    red, neutral, blue = heat_map(np.array([[2.0, 0.0, -2.0]]), signed=True)[0].astype(int)
    assert red[0] > red[2] + 50 and blue[2] > blue[0] + 50
    assert np.ptp(neutral) <= 3


def test_a_signed_map_is_centred_at_zero_whatever_its_range():
    values = np.array([[-1.0, 0.0, 100.0]])
    assert normalized(values, signed=True)[0, 1] == 0


def test_one_extreme_pixel_does_not_decide_the_range():
    values = np.random.default_rng(0).random((100, 100))
    values[0, 0] = 1e9
    assert np.median(normalized(values)) > 0.3


def test_a_single_hot_pixel_of_an_empty_map_is_still_drawn():
    values = np.zeros((100, 100))
    values[50, 50] = 3.0
    assert normalized(values)[50, 50] == 1
    assert normalized(-values, signed=True)[50, 50] == -1


@pytest.mark.parametrize("signed", [False, True])
def test_a_constant_map_is_drawn_without_dividing_by_zero(signed):
    assert (normalized(np.zeros((4, 4)), signed=signed) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        heat_map(np.array([[0.0, bad]]))


RAMP = np.linspace(-1, 1, 201).reshape(1, -1)


def lightness(pixels):
    """CIE L* of sRGB bytes, by the standard's own formulas."""
    encoded = pixels / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("brightness", [0.0, 0.5, 1.0])
def test_a_signed_overlay_is_transparent_where_the_map_is_zero(brightness):
    photograph = np.full((1, 201, 3), brightness) * (1.0, 0.9, 0.8)
    laid, bare = (overlay(photograph, values, signed=True) for values in (RAMP, 0 * RAMP))
    np.testing.assert_array_equal(laid[0, 100], bare[0, 100])
    assert np.ptp(bare, axis=-1).max() == 0, "the photograph beneath is grey"


@pytest.mark.parametrize("brightness", [0.0, 0.5, 1.0])
def test_both_signs_stand_out_alike_and_more_the_larger_they_are(brightness):
    laid = overlay(np.full((1, 201, 3), brightness), RAMP, signed=True)[0]
    ground = laid[100].astype(float)
    for half in (laid[100:], laid[100::-1]):
        distance = np.abs(half - ground).sum(axis=-1)
        assert (np.diff(distance) >= -2).all() and distance[-1] > 150
    assert np.abs(lightness(laid) - lightness(laid)[::-1]).max() < 6


def test_a_change_of_sign_leaves_no_contour():
    laid = lightness(overlay(np.full((1, 201, 3), 0.5), RAMP, signed=True)[0])
    # A contour would be an extremum or a step in lightness beside zero; values of 2 % are all but invisible.
    assert np.abs(laid[98:103] - laid[100]).max() < 1 and np.abs(np.diff(laid)).max() < 1.5


def test_signed_colours_are_equally_light_at_equal_magnitude():
    coloured = lightness(heat_map(RAMP, signed=True)[0])
    assert np.abs(coloured - coloured[::-1]).max() < 6
    assert (np.diff(coloured[100:]) <= 0.5).all() and coloured[100] - coloured[-1] > 40


def test_smoothing_keeps_the_sum_and_lets_neighbours_cancel():
    values = np.random.default_rng(0).standard_normal((30, 40))
    soft = smoothed(values, 4 / 30)
    np.testing.assert_allclose(soft.sum(), values.sum())
    assert np.abs(soft).sum() < np.abs(values).sum() / 5
    corner = smoothed(np.eye(1, 900).reshape(30, 30), 4 / 30)
    np.testing.assert_allclose(corner.sum(), 1)
    assert corner.argmax() == 0 and (corner > 0).all()


def test_a_narrow_gaussian_leaves_the_map_alone():
    values = np.random.default_rng(0).standard_normal((8, 8))
    np.testing.assert_allclose(smoothed(values, 0.01), values)


def test_the_range_is_symmetric_about_zero_where_the_map_is_signed():
    values = np.array([[-3.0, 0.0, 1.0]])
    assert value_range(values, signed=True, percentile=100) == (-3, 3)
    assert value_range(values, percentile=100) == (-3, 1)


@pytest.mark.parametrize("signed", [False, True])
def test_a_scale_has_the_colours_of_the_map(signed):
    values = np.random.default_rng(0).standard_normal((20, 20))
    scale = scale_of(values, "logit", signed=signed, percentile=100)
    colours, pixels = scale.colours(1001), heat_map(values, signed=signed, percentile=100)
    for row, column in ((0, 0), (7, 3), np.unravel_index(values.argmax(), values.shape)):
        place = (values[row, column] - scale.low) / (scale.high - scale.low)
        assert np.abs(colours[round(1000 * place)].astype(int) - pixels[row, column]).max() <= 2


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(20, 30), (5, 5), (64, 64)])
def test_the_overlay_has_the_photographs_size(shape, signed):
    photograph = np.random.default_rng(0).random((40, 60, 3))
    values = np.random.default_rng(1).standard_normal(shape)
    assert overlay(photograph, values, signed=signed).shape == (40, 60, 3)


def test_the_photograph_stays_visible_where_the_map_is_cold(hot_corner):
    checker = np.indices((20, 30)).sum(axis=0) % 2
    photograph = np.repeat(checker[..., None], 3, axis=-1).astype(np.uint8) * 255
    laid = luma(overlay(photograph, hot_corner))
    cold = laid[12:, 15:]
    assert cold[checker[12:, 15:] == 1].min() > cold[checker[12:, 15:] == 0].max() + 100


def test_the_overlay_takes_its_colour_from_the_map_where_that_is_hot(hot_corner):
    dark = np.zeros((20, 30, 3))
    laid = overlay(dark, hot_corner)
    assert luma(laid)[3:5, 4:8].min() > 120 and luma(laid)[12:, 15:].max() < 5


def test_a_png_holds_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    save_png(tmp_path / "picture.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_small_pictures_are_enlarged_by_whole_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    large = enlarged(pixels, least=10)
    assert large.shape == (10, 15, 3)
    np.testing.assert_array_equal(large[::5, ::5], pixels)
    assert enlarged(large, least=10) is not None and enlarged(large, least=10).shape == large.shape


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_figures_leave_pyplot_alone():
    import sys

    picture = np.random.default_rng(0).random((8, 8, 3))
    before = "matplotlib.pyplot" in sys.modules
    assert drawn(panel([[("one", picture), ("two", picture)]], title="both")).std() > 0
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_plot_maps_draws_images_maps_alone_and_features():
    rng = np.random.default_rng(0)
    images = rng.random((2, 3, 16, 16)).astype(np.float32)
    assert len(plot_maps(rng.random((2, 16, 16)), images).axes) == 4
    assert len(plot_maps(rng.standard_normal((2, 3, 16, 16)), signed=True).axes) == 2
    assert len(plot_maps(rng.standard_normal((2, 10))).axes) == 2


def test_encode_png_rounds_unit_floats():
    decoded = np.asarray(Image.open(io.BytesIO(encode_png(np.full((2, 2, 3), 0.5)))))
    assert (decoded == 128).all()


def test_a_map_in_a_figure_has_a_bar_with_its_unit_and_its_ends():
    maps = np.zeros((1, 50, 50))
    maps[0, :25] = -2.0
    maps[0, 25:] = 1.0
    (axes,) = plot_maps(maps, signed=True, unit="logit per pixel").axes
    (bar,) = axes.child_axes
    assert bar.get_xlabel() == "logit per pixel"
    assert [label.get_text() for label in bar.get_xticklabels()] == ["−2", "0", "2"]
