"""Expected Gradients against closed forms, against Captum's GradientShap on the same draws, and its own errors."""

from __future__ import annotations

import functools

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, differentiate
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.methods.expected_gradients import Draws, draw, estimate_from, expected_gradients
from analyzer.methods.paths.baselines import Dataset
from analyzer.methods.paths.fixed_target import hold
from converters import convert
from tests.zoo.pytorch_networks import NETWORKS

SQUARE = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,1] y)'
    " <int64[1] last = {1}> { s = Mul(x, x) y = ReduceSum<keepdims = 1>(s, last) }"
)
# y = a · b, and b is an integer's float: held.
HELD = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,2] a, int64[n,2] i) => (float[n,2] y)'
    " { b = CastLike(i, a) y = Mul(a, b) }"
)
PRODUCT = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,1] a, float[n,1] b) => (float[n,1] y) { y = Mul(a, b) }'
)
X = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], np.float32)
DATA = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)


@functools.cache
def network():
    net, shape = NETWORKS["resnet18"]()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(6))
    data = torch.randn(5, *shape, generator=torch.Generator().manual_seed(7))
    return net.eval(), x, data, convert(net, x)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_quadratic_has_its_closed_form(backend):
    # f = Σ x²: from one baseline the attribution is x² − x′², so the expectation is x² − mean x′².
    eg = expected_gradients(differentiate(SQUARE, backend), X, None, DATA, samples=4000, batch_size=500)
    expected = X**2 - (DATA.astype(np.float64) ** 2).mean(axis=0)
    np.testing.assert_allclose(eg.attributions, expected, atol=2e-3)
    np.testing.assert_allclose(eg.completeness.output, expected.sum(axis=1), atol=1e-5)
    assert eg.attributions.dtype == eg.standard_error.dtype == np.float32
    assert eg.evaluations == 4000


def test_a_linear_model_is_exact_after_whole_passes_over_the_background():
    # f = Σ a·i: the gradient is i everywhere, so the average over each baseline once is i · (a − mean a′).
    a, i = X[:, :2], np.array([[2, -1], [0, 3]])
    data = DATA[:10, :2]
    eg = expected_gradients(HELD, {"a": a, "i": i}, Target(weights=np.ones(2)), {"a": data}, samples=30)
    np.testing.assert_allclose(eg.attributions["a"], i * (a - data.mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(eg.delta, 0, atol=1e-5)
    assert set(eg.attributions) == set(eg.standard_error) == {"a"}


@pytest.mark.parametrize("samples", [21, 22, 27, 95])
def test_an_unfinished_pass_over_the_background_is_in_the_standard_error(samples):
    # Of a linear model all error is that of which baselines the last pass has come to.
    a, i = np.repeat(X[:1, :2], 60, axis=0), np.repeat([[2, -1]], 60, axis=0)
    data = DATA[:10, :2]
    eg = expected_gradients(HELD, {"a": a, "i": i}, Target(weights=np.ones(2)), {"a": data}, samples=samples)
    spread = np.sqrt(np.mean(eg.delta**2))
    assert spread > 1e-3
    assert 0.7 < np.sqrt(np.mean(eg.delta_error**2)) / spread < 2.5


def test_inputs_take_their_baselines_together():
    # f = a·b: the share of a from (a′, b′) is (a − a′)(b + b′)/2, averaged over pairs and not over combinations.
    a, b = np.array([[3.0]], np.float32), np.array([[5.0]], np.float32)
    of_a, of_b = DATA[:20, :1].astype(np.float64), DATA[:20, :1].astype(np.float64) ** 2
    eg = expected_gradients(PRODUCT, {"a": a, "b": b}, None, {"a": of_a, "b": Dataset(of_b)}, samples=4000)
    np.testing.assert_allclose(eg.attributions["a"][0, 0], ((a - of_a) * (b + of_b) / 2).mean(), atol=5e-3)
    np.testing.assert_allclose(eg.attributions["b"][0, 0], ((b - of_b) * (a + of_a) / 2).mean(), atol=5e-3)


def test_equals_captums_gradient_shap_on_the_same_draws():
    net, x, data, model = network()
    samples, seed = 6, 11
    np.random.seed(seed)
    theirs, gap = captum.attr.GradientShap(net).attribute(
        x, data, n_samples=samples, stdevs=0.0, target=3, return_convergence_delta=True
    )
    # Captum draws all baselines, then all coefficients, from NumPy's global generator.
    np.random.seed(seed)
    rows = np.random.choice(len(data), samples * len(x)).reshape(len(x), samples)
    alphas = np.random.uniform(0, 1, rows.size).reshape(rows.shape)
    held = hold(differentiate(model).bind(x.numpy(), 3))
    draws = Draws(alphas, rows, np.zeros(rows.shape), np.ones(rows.shape, int))
    background = {held.names[0]: data.numpy().astype(np.float64)}
    ours = estimate_from(held, background, draws, 4, None).means[held.names[0]]
    theirs = theirs.detach().numpy()
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
    assert gap.shape == (len(x) * samples,)


@pytest.mark.parametrize("samples, size", [(12, 40), (12, 5), (7, 3), (2, 1)])
def test_draws_are_stratified_and_go_through_the_background_evenly(samples, size):
    drawn = draw([np.random.default_rng(seed) for seed in range(3)], size, samples)
    for alphas, rows in zip(drawn.alphas, drawn.rows, strict=True):
        np.testing.assert_array_equal(np.sort(np.floor(alphas * samples)), np.arange(samples))
        counts = np.bincount(rows, minlength=size)
        assert counts.max() - counts.min() <= 1
    # Of independent draws of variance σ², a first difference has 2σ² and a second one 6σ²: together, one σ² a draw.
    of_variance = np.where(drawn.orders == 2, 6, 2)
    np.testing.assert_allclose((drawn.weights * of_variance).sum(axis=1), samples)


SINE = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,1] y)'
    " <int64[1] last = {1}, float two = {2}> { d = Mul(x, two) s = Sin(d) y = ReduceSum<keepdims = 1>(s, last) }"
)


@functools.cache
def repeated(samples: int, size: int):
    """Estimates of one input by 400 seeds: each row of a batch has draws of its own."""
    x = np.repeat(X[:1], 400, axis=0)
    eg = expected_gradients(SINE, x, None, DATA[:size], samples=samples, batch_size=4000)
    # f is a sum over features, so its attributions have the closed form sin(2x) − mean sin(2x′).
    truth = np.sin(2.0 * X[0]) - np.sin(2.0 * DATA[:size].astype(np.float64)).mean(axis=0)
    return eg, truth


@pytest.mark.parametrize("samples, size", [(10, 40), (11, 40), (60, 40), (30, 6), (9, 1)])
def test_the_estimate_is_unbiased(samples, size):
    eg, truth = repeated(samples, size)
    spread = eg.attributions.std(axis=0, ddof=1) / np.sqrt(len(eg.attributions))
    assert (np.abs(eg.attributions.mean(axis=0) - truth) <= 4 * spread).all()


@pytest.mark.parametrize("samples, size", [(10, 40), (11, 40), (40, 40), (60, 6), (13, 6), (9, 1)])
def test_the_standard_error_is_that_of_repetitions_or_more(samples, size):
    eg, _ = repeated(samples, size)
    found = eg.attributions.std(axis=0, ddof=1)
    stated = np.sqrt((eg.standard_error.astype(np.float64) ** 2).mean(axis=0))
    assert (stated >= 0.9 * found).all()
    assert np.sqrt((eg.delta_error**2).mean()) >= 0.9 * eg.delta.std(ddof=1)
    # Where the background is not gone through, neighbours differ as draws do.
    assert (stated <= (1.5 if samples < size else 2.5) * found).all()


def test_more_samples_leave_a_smaller_error():
    few, many = repeated(10, 40)[0], repeated(60, 40)[0]
    assert many.standard_error.mean() < 0.5 * few.standard_error.mean()
    assert np.abs(many.delta).mean() < 0.5 * np.abs(few.delta).mean()


def test_draws_do_not_depend_on_the_batch_and_are_seeded():
    _, x, data, model = network()
    one = expected_gradients(model, x.numpy(), 1, data.numpy(), samples=4, rng=3)
    same = expected_gradients(model, x.numpy()[:1], 1, data.numpy(), samples=4, rng=3, batch_size=3)
    other = expected_gradients(model, x.numpy()[:1], 1, data.numpy(), samples=4, rng=4)
    difference = np.linalg.norm(one.attributions[:1] - same.attributions)
    assert difference <= 1e-4 * np.linalg.norm(same.attributions)
    assert not np.array_equal(same.attributions, other.attributions)


def test_the_class_at_the_input_is_kept_and_the_background_mean_is_its():
    net, x, data, model = network()
    seen = []
    eg = expected_gradients(
        model, x.numpy(), None, data.numpy(), samples=2, progress=lambda *state: seen.append(state)
    )
    with torch.no_grad():
        y, of_data = net(x).numpy(), net(data).numpy()
    np.testing.assert_array_equal(eg.target, y.argmax(1))
    expected = y.max(axis=1) - of_data.mean(axis=0)[y.argmax(1)]
    np.testing.assert_allclose(eg.completeness.output, expected, rtol=1e-3)
    assert seen[-1] == (4, 4)


@pytest.mark.parametrize(
    ("background", "options", "error", "message"),
    [
        (DATA[0], {}, ShapeError, r"expected \(M, 3\)"),
        (DATA[:, :2], {}, ShapeError, r"expected \(M, 3\)"),
        (DATA[:0], {}, ShapeError, r"expected \(M, 3\)"),
        ({"z": DATA}, {}, InputError, "names the inputs z; attributed are x"),
        (np.full((2, 3), np.nan), {}, InputError, "NaN or infinity"),
        ([[1.0], [1.0, 2.0]], {}, InputError, "array of numbers"),
        (DATA, {"samples": 1}, AnalysisError, "at least 2, got 1"),
        (DATA, {"samples": 2.5}, AnalysisError, "a whole number"),
        (DATA, {"batch_size": 0}, AnalysisError, "at least 1, got 0"),
    ],
)
def test_what_is_refused(background, options, error, message):
    with pytest.raises(error, match=message):
        expected_gradients(SQUARE, X, None, background, **options)


def test_backgrounds_of_several_inputs_are_equally_long():
    a = np.ones((1, 1), np.float32)
    with pytest.raises(ShapeError, match="different numbers of rows"):
        expected_gradients(PRODUCT, {"a": a, "b": a}, None, {"a": DATA[:3, :1], "b": DATA[:4, :1]})
