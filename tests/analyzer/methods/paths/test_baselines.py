"""Baselines against what their names say, and blurs against SciPy's Gaussian filter."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser
from scipy import ndimage

from analyzer import differentiate
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.methods.paths.baselines import (
    Blurred,
    Dataset,
    Gaussian,
    Uniform,
    averaged,
    baseline_feeds,
    make_baselines,
)
from analyzer.methods.paths.blur import blurred, blurred_with_slope
from converters import Preprocessing

PIXELS = Preprocessing(size=(12, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
X = np.random.default_rng(3).normal(size=(2, 3, 12, 16)).astype(np.float32)


def made(baseline, x=X, seed=0, channel_axis=1, preprocessing=PIXELS):
    return make_baselines(baseline, x, preprocessing, np.random.default_rng(seed), channel_axis)


def test_the_mean_is_that_of_each_channel_of_each_sample():
    (mean,) = made("mean")
    for sample in range(2):
        for channel in range(3):
            np.testing.assert_allclose(mean[sample, channel], X[sample, channel].mean(), rtol=1e-5)
    (last,) = made("mean", np.moveaxis(X, 1, -1), channel_axis=3)
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), mean, rtol=1e-6)


@pytest.mark.parametrize("name", ["uniform", "random", Uniform(draws=3)])
def test_uniform_noise_fills_the_range_from_black_to_white(name):
    drawn = made(name, np.zeros((64, 3, 12, 16), np.float32))
    std, mean = (np.reshape(value, (3, 1, 1)) for value in (PIXELS.std, PIXELS.mean))
    for baseline in drawn:
        pixels = baseline * std + mean
        assert -1e-6 <= pixels.min() < 0.001
        assert 0.999 < pixels.max() <= 1 + 1e-6
        assert abs(pixels.mean() - 0.5) < 0.01
    assert len(drawn) == (1 if isinstance(name, str) else 3)
    assert all(not np.array_equal(drawn[0], other) for other in drawn[1:])


def test_gaussian_noise_is_a_share_of_each_samples_range():
    x = np.zeros((2, 40000))
    x[0, 0], x[1, :2] = 8, (-1, 1)
    for baseline in made(Gaussian(sigma=0.25, draws=2), x):
        noise = baseline - x
        np.testing.assert_allclose(noise.std(axis=1), [0.25 * 8, 0.25 * 2], rtol=0.02)
        np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.05)


@pytest.mark.parametrize("name", ["uniform", "gaussian"])
def test_noise_is_seeded_and_does_not_depend_on_the_rest_of_the_batch(name):
    (both,), (alone,), (other,) = made(name), made(name, X[:1]), made(name, seed=1)
    np.testing.assert_array_equal(both[:1], alone)
    assert not np.array_equal(both, other)


def test_a_data_set_is_a_baseline_for_each_of_its_samples():
    data = np.arange(4 * X[0].size, dtype=np.float64).reshape(4, *X.shape[1:])
    baselines = made(Dataset(data))
    assert len(baselines) == 4
    for baseline, sample in zip(baselines, data, strict=True):
        assert baseline.dtype == X.dtype
        assert baseline.shape == X.shape
        assert (baseline == sample.astype(np.float32)).all()


def test_a_list_joins_its_baselines():
    data = np.ones((2, *X.shape[1:]))
    baselines = made(["black", 0.25, Dataset(data), np.full(X.shape, 7.0)])
    assert len(baselines) == 5
    np.testing.assert_array_equal(baselines[0], made("black")[0])
    assert [float(b.flat[0]) for b in baselines[1:]] == [0.25, 1, 1, 7]


@pytest.mark.parametrize("border, mode", [("edge", "nearest"), ("zero", "constant")])
@pytest.mark.parametrize("sigma", [0.5, 1.7, 6.0])
def test_a_blur_equals_that_of_scipy(border, mode, sigma):
    x = X.astype(np.float64)
    expected = ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode=mode, truncate=8)
    np.testing.assert_allclose(blurred(x, sigma, 1, border), expected, atol=1e-7)
    last = np.moveaxis(x, 1, -1)
    np.testing.assert_allclose(blurred(last, sigma, 3, border), np.moveaxis(expected, 1, -1), atol=1e-7)


@pytest.mark.parametrize("border", ["edge", "zero"])
@pytest.mark.parametrize("sigma", [0.2, 0.6, 3.0, 20.0])
def test_the_slope_of_a_blur_is_its_derivative_in_sigma(border, sigma):
    x, step = X.astype(np.float64), 1e-5
    _, slope = blurred_with_slope(x, sigma, 1, border)
    difference = blurred(x, sigma + step, 1, border) - blurred(x, sigma - step, 1, border)
    np.testing.assert_allclose(slope, difference / (2 * step), atol=1e-6)


def test_no_blur_is_the_input_itself():
    value, slope = blurred_with_slope(X, 0.0, 1)
    np.testing.assert_array_equal(value, X)
    assert not slope.any()


def test_the_blurred_baseline_keeps_constants_and_takes_its_width():
    flat = np.full_like(X, 1.5)
    np.testing.assert_allclose(made("blurred", flat)[0], flat, rtol=1e-6)
    np.testing.assert_allclose(made("blurred")[0], made(Blurred(12 / 8))[0])
    assert made(Blurred(6.0))[0].std() < made(Blurred(1.0))[0].std() < X.std()


def test_the_average_has_the_standard_error_of_its_mean():
    # Of 1, 2, 6: mean 3, standard deviation √7, over √3.
    mean, error = averaged([np.full((1, 2), value) for value in (1.0, 2.0, 6.0)])
    np.testing.assert_allclose(mean, 3)
    np.testing.assert_allclose(error, np.sqrt(7 / 3))
    assert averaged([np.ones((1, 2))])[1] is None


TWO = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,2] a, float[n,2] b, int64[n,1] i) => (float[n,2] y)'
    " { f = CastLike(i, a) s = Mul(a, b) y = Mul(s, f) }"
)


def test_several_inputs_take_their_baselines_together():
    fn = differentiate(TWO)
    ones = np.ones((3, 2), np.float32)
    feeds = {"a": ones, "b": 2 * ones, "i": np.arange(3)[:, None]}
    given = {"a": Dataset(np.array([[1.0, 2.0], [3.0, 4.0]])), "b": 5.0}
    first, second = baseline_feeds(fn, feeds, given, np.random.default_rng(0))
    assert (first["a"] == [1, 2]).all()
    assert (second["a"] == [3, 4]).all()
    assert (first["b"] == 5).all()
    assert (second["b"] == 5).all()
    np.testing.assert_array_equal(first["i"], feeds["i"])
    with pytest.raises(AnalysisError, match="2 for 'a', 3 for 'b'"):
        baseline_feeds(fn, feeds, {**given, "b": [0.0, 1.0, 2.0]}, np.random.default_rng(0))
    with pytest.raises(AnalysisError, match="'i', which is not a floating input"):
        baseline_feeds(fn, feeds, {"i": 0}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("grey", AnalysisError, "unknown baseline 'grey'"),
        ([], AnalysisError, "at least one"),
        (np.zeros((3, 4, 4)), ShapeError, "does not broadcast"),
        (Dataset(np.zeros((4, 3, 12, 15))), ShapeError, r"of shape \(M, 3, 12, 16\)"),
        (Dataset(np.zeros((0, 3, 12, 16))), ShapeError, "has no baselines"),
        (np.inf, InputError, "NaN or infinity"),
        ([0.0, np.nan], InputError, "NaN or infinity"),
        (Dataset([[1.0], [1.0, 2.0]]), InputError, "array of numbers"),
        (None, InputError, "the baseline is NoneType"),
        (Gaussian(sigma=-1), AnalysisError, "of at least 0, got -1"),
        (Uniform(draws=0), AnalysisError, "at least one draw .* got 0"),
        (Blurred(0.0), AnalysisError, "above 0"),
    ],
)
def test_what_is_refused(baseline, error, message):
    with pytest.raises(error, match=message):
        made(baseline)


@pytest.mark.parametrize("name", ["mean", "blurred"])
def test_a_table_has_no_mean_and_no_blur(name):
    with pytest.raises(AnalysisError, match="no spatial axes"):
        made(name, np.zeros((2, 5)))
