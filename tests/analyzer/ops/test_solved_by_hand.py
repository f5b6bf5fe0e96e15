"""Sampling, regions, transforms and selections: values solved by hand, ties, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.errors import UnsupportedOp
from tests.analyzer.ops.harness import (
    Case,
    forward,
    gradient_model,
    gradients,
    native_gradients,
    onnxruntime_gradients,
)
from tests.analyzer.ops.values import case, i64, normal


def f64(values):
    return np.asarray(values, np.float64)


def assert_gradients(given: Case, expected: list[np.ndarray]) -> None:
    """Every backend gives these gradients for a cotangent of ones."""
    g = np.ones(forward(given, given.feeds).shape)
    found = [gradients(given, g, "torch"), gradients(given, g, "tensorflow"), onnxruntime_gradients(given, g)]
    found += [native_gradients(given, g, name) for name in ("torch", "tensorflow")]
    for one in found:
        for gradient, truth in zip(one, expected, strict=True):
            np.testing.assert_allclose(gradient, truth, atol=1e-6)


def test_a_point_between_four_pixels_takes_a_share_of_each():
    # A quarter of the way down and half across, between pixels 1, 2 / 3, 5; corners aligned, a pixel is one unit wide.
    x, grid = f64([[[[1, 2], [3, 5]]]]), f64([[[[0.0, -0.5]]]])
    given = Case("GridSample", (x, grid), {"align_corners": 1}, (0, 1))
    np.testing.assert_allclose(forward(given, given.feeds), [[[[0.75 * 1.5 + 0.25 * 4]]]])
    # Across the slope is 0.75·1 + 0.25·2 a pixel, down it is 4 − 1.5; a unit of the grid is half a pixel.
    assert_gradients(given, [[[[[0.375, 0.375], [0.125, 0.125]]]], [[[[0.625, 1.25]]]]])


def test_of_two_pixels_equally_near_the_even_one_is_sampled():
    given = Case(
        "GridSample",
        (f64([[[[1, 2, 3, 4]]]]), f64([[[[0, 0]]]])),
        {"align_corners": 1, "mode": "nearest"},
        (0, 1),
    )
    np.testing.assert_allclose(forward(given, given.feeds), [[[[3]]]])
    assert_gradients(given, [[[[[0, 0, 1, 0]]]], [[[[0, 0]]]]])


def test_a_cubic_sample_weighs_its_pixels_by_keys_kernel():
    def kernel(d):
        near = (1.25 * d - 2.25) * d * d + 1
        return np.where(d <= 1, near, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4))

    given = Case(
        "GridSample",
        (f64([[[[0, 1, 2, 3, 4, 5]]]]), f64([[[[2 * 2.3 / 5 - 1, 0]]]])),
        {"align_corners": 1, "mode": "cubic"},
    )
    weights = np.where(np.abs(np.arange(6) - 2.3) < 2, kernel(np.abs(np.arange(6) - 2.3)), 0)
    assert_gradients(given, [[[[weights]]]])


def test_an_undeformed_kernel_is_a_convolution():
    x, w = normal(2, 4, 6, 5), normal(6, 2, 3, 2)
    geometry = {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    plain = Case("Conv", (x, w), geometry, (0, 1))
    y = forward(plain, plain.feeds)
    given = Case("DeformConv", (x, w, np.zeros((2, 12, *y.shape[2:]))), geometry, (0, 1))
    np.testing.assert_allclose(forward(given, given.feeds), y, atol=1e-12)
    for one, other in zip(gradients(given, y, "torch"), gradients(plain, y, "torch"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


def test_a_region_of_whole_pixels_averages_them():
    x = f64([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    attributes = {"sampling_ratio": 1, "output_height": 2, "output_width": 2}
    # Half a pixel is the centre of the first: a region from 0 to 2 has its samples on four centres.
    given = Case("RoiAlign", (x, f64([[0, 0, 2, 2]]), i64(0)), attributes)
    np.testing.assert_allclose(forward(given, given.feeds), [[[[1, 2], [4, 5]]]])
    assert_gradients(given, [[[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]]])


def test_of_equal_elements_the_first_is_the_unique_one():
    assert_gradients(Case("Unique", (f64([3, 1, 3, 1]),)), [[1, 1, 0, 0]])


def test_a_singular_matrix_has_its_cofactors():
    given = Case("Det", (f64([[1, 2], [2, 4]]),))
    for found in (gradients(given, f64(1), "torch"), onnxruntime_gradients(given, f64(1))):
        np.testing.assert_allclose(found[0], [[4, -2], [-2, 1]], atol=1e-6)


def test_the_transform_of_a_wave_is_its_frequency():
    wave = np.cos(2 * np.pi * np.arange(8) / 8)[None, :, None]
    given = Case("DFT", (wave,), {"onesided": 1})
    spectrum = np.zeros((1, 5, 2))
    spectrum[0, 1, 0] = 4
    np.testing.assert_allclose(forward(given, given.feeds), spectrum, atol=1e-12)
    # The derivative of the real part at that frequency is the wave.
    np.testing.assert_allclose(gradients(given, spectrum / 4, "torch")[0], wave, atol=1e-12)


REFUSED = {
    "of order 33": case("Det", normal(33, 33)),
    "of order axis": case("Det", normal(2, 2), symbolic=(0, 1)),
    "on 3 frequencies": case("DFT", normal(2, 3, 2), np.asarray(9), np.asarray(1), onesided=1, inverse=1),
    "is unknown before running": case("DFT", normal(2, 3, 2), onesided=1, inverse=1, symbolic=(1,)),
    "not planes": case("Col2Im", normal(1, 4, 3), i64(5), i64(2), dilations=[2]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_gradient_is_refused_with_the_reason(reason):
    with pytest.raises(UnsupportedOp, match=reason):
        gradient_model(REFUSED[reason], np.float32)
