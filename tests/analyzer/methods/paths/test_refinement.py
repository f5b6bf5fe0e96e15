"""Integrated Gradients to a tolerance: closed forms, the error that is stated against the true one, and the stop."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, differentiate, integrated_gradients
from analyzer.errors import AnalysisError
from analyzer.methods.paths.baselines import Dataset
from converters import convert


def graph(signature: str, body: str):
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g {signature} => (float[n,1] y) {body}'
    )


KINK = graph("(float[n,2] x)", "<float[2,1] w = {1, 1}, float[1] b = {-1}> { h = Gemm(x, w, b) y = Relu(h) }")
EXPONENTIAL = graph(
    "(float[n,3] x)", "<int64[1] last = {1}> { e = Exp(x) y = ReduceSum<keepdims = 1>(e, last) }"
)
ROOT = graph("(float[n,3] x)", "<int64[1] last = {1}> { s = ReduceSum<keepdims = 1>(x, last) y = Sqrt(s) }")
# y = relu(6 x₁ − 1) − relu(6 x₂ − 1) + relu(x₃ + 1): at x₁ = x₂ the sum is right however wrong the map.
LUCKY = graph(
    "(float[n,3] x)",
    "<float[3,3] w = {6, 0, 0, 0, 6, 0, 0, 0, 1}, float[3] b = {-1, -1, 1}, float[3,1] s = {1, -1, 1}>"
    " { h = Gemm(x, w, b) r = Relu(h) y = MatMul(r, s) }",
)


@functools.cache
def rectifiers():
    """A random network of ReLUs in float64, samples, and their Integrated Gradients by 8,192 midpoints in PyTorch."""
    torch.manual_seed(5)
    layers = [torch.nn.Linear(30, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(100, 4)).eval()
    x = 3 * torch.randn(6, 30)
    fn = differentiate(convert(net, x), "torch", precision="float64")
    double = net.double()
    alphas = (torch.arange(8192, dtype=torch.float64) + 0.5) / 8192
    truth = []
    for sample in x.double():
        points = (alphas[:, None] * sample).requires_grad_()
        (gradient,) = torch.autograd.grad(double(points)[:, 1].sum(), points)
        truth.append((gradient.mean(0) * sample).numpy())
    return fn, x.numpy().astype(np.float64), np.array(truth)


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


def test_a_kink_is_found_to_the_tolerance():
    # relu(x₁ + x₂ − 1) from 0: the gradient is 1 on the last 1 − 1/s of the path, s = x₁ + x₂.
    fn = differentiate(KINK, "torch", precision="float64")
    x = np.array([[1.0, 3.0], [0.2, 0.5], [3.0, 5.0]])
    total = x.sum(axis=1, keepdims=True)
    expected = x * np.maximum(0, 1 - 1 / total)
    ig = integrated_gradients(fn, x, tolerance=1e-6)
    assert ig.converged.all()
    np.testing.assert_allclose(ig.attributions, expected, rtol=1e-5)
    assert (np.abs(ig.delta) <= 1e-6 * np.abs(ig.completeness.output)).all()
    assert ig.spent[1] == 9
    assert ig.evaluations == ig.spent.max() < 300


def test_a_smooth_function_takes_few_gradients():
    x = np.array([[1.0, 2.0, 0.5]])
    fn = differentiate(EXPONENTIAL, "torch", precision="float64")
    ig = integrated_gradients(fn, x, tolerance=1e-6)
    np.testing.assert_allclose(ig.attributions, np.exp(x) - 1, rtol=1e-6)
    assert ig.evaluations < 40
    # Of order four: a thousandth of the error for some six times the gradients.
    finer = integrated_gradients(fn, x, tolerance=1e-9)
    np.testing.assert_allclose(finer.attributions, np.exp(x) - 1, rtol=1e-9)
    assert finer.evaluations < 8 * ig.evaluations


def test_an_infinite_gradient_at_an_end_is_gone_around():
    x = np.array([[1.0, 2.0, 0.5]], np.float32)
    ig = integrated_gradients(ROOT, x, tolerance=0.01)
    assert ig.converged.all()
    np.testing.assert_allclose(ig.attributions, x / np.sqrt(3.5), rtol=0.01)
    with pytest.raises(AnalysisError, match="at α = 0 on the path of sample 0"):
        integrated_gradients(ROOT, x, steps=5, rule="trapezoid")


def test_a_lucky_sum_does_not_end_it():
    x = np.array([[1.0, 1.0, 1.0]], np.float32)
    ig = integrated_gradients(LUCKY, x, tolerance=0.001)
    assert ig.evaluations > 9
    assert ig.converged.all()
    np.testing.assert_allclose(ig.attributions, [[5, -5, 1]], rtol=0.005)
    coarse = integrated_gradients(LUCKY, x, tolerance=0.001, max_evaluations=9)
    assert abs(coarse.delta[0]) < 1e-6
    assert not coarse.converged.any()
    assert coarse.map_error[0] > 0.005


@pytest.mark.parametrize("tolerance", [0.03, 0.01, 0.003])
def test_the_stated_error_of_the_map_is_its_true_error(tolerance):
    fn, x, truth = rectifiers()
    ig = integrated_gradients(fn, x, 1, tolerance=tolerance)
    assert ig.converged.all()
    true = relative(ig.attributions, truth)
    assert (ig.map_error <= 5 * tolerance).all()
    # In the mean over samples; a single one may be lucky.
    assert 0.6 < np.sqrt(np.mean(ig.map_error**2) / np.mean(true**2)) < 1.6
    assert (true < 2.5 * ig.map_error).all()


def test_it_is_nearer_the_truth_than_gauss_and_legendre_at_as_many_gradients():
    fn, x, truth = rectifiers()
    ig = integrated_gradients(fn, x, 1, tolerance=0.01)
    fixed = [
        integrated_gradients(fn, x[k : k + 1], 1, steps=int(ig.spent[k])).attributions[0]
        for k in range(len(x))
    ]
    assert relative(ig.attributions, truth).mean() < relative(np.array(fixed), truth).mean()


def test_the_intervals_errors_bound_the_sums():
    fn, x, _ = rectifiers()
    ig = integrated_gradients(fn, x, 1, tolerance=0.01)
    assert (np.abs(ig.delta) <= ig.interval_error + 1e-12).all()
    assert (ig.scatter <= ig.interval_error).all()
    assert (ig.scatter <= 0.03 * np.abs(ig.completeness.output)).all()
    assert (ig.map_change > 0).all()
    total = ig.attributions.sum(axis=1)
    difference = fn.gradients(x, 1).output - fn.gradients(0 * x, 1).output
    np.testing.assert_allclose(ig.delta, total - difference, atol=1e-12)


def test_each_sample_stops_by_itself_and_does_not_depend_on_the_others():
    fn, x, _ = rectifiers()
    together = integrated_gradients(fn, x, 1, tolerance=0.01, batch_size=7)
    assert len(set(together.spent)) > 1
    for k in range(len(x)):
        alone = integrated_gradients(fn, x[k : k + 1], 1, tolerance=0.01)
        assert alone.evaluations == together.spent[k]
        np.testing.assert_allclose(alone.attributions[0], together.attributions[k], atol=1e-12)


def test_a_spent_budget_is_said_and_no_error():
    fn, x, _ = rectifiers()
    ig = integrated_gradients(fn, x, 1, tolerance=1e-5, max_evaluations=30)
    assert (ig.spent <= 30).all()
    assert (ig.spent > 25).all()
    assert not ig.converged.any()
    with pytest.raises(AnalysisError, match="at least 3 evaluations"):
        integrated_gradients(fn, x, 1, tolerance=0.1, max_evaluations=2)


def test_memory_for_a_few_lines_alone_gives_the_same():
    fn, x, _ = rectifiers()
    whole = integrated_gradients(fn, x, 1, tolerance=0.02)
    seen = []
    # 20,000 gradients of 30 numbers: memory for four samples at a time.
    tight = differentiate(fn.model, "torch", precision="float64", max_memory="20 MiB")
    pieces = integrated_gradients(
        tight,
        x,
        1,
        tolerance=0.02,
        max_evaluations=20_000,
        batch_size=4,
        progress=lambda done, planned: seen.append((done, planned)),
    )
    np.testing.assert_allclose(pieces.attributions, whole.attributions, atol=1e-12)
    assert seen[-1] == (whole.spent.sum(), whole.spent.sum())
    assert all(done <= planned for done, planned in seen)


@pytest.mark.parametrize("options", [{"tolerance": 1e-4}, {"steps": 64}, {"steps": 64, "rule": "trapezoid"}])
def test_an_interrupt_leaves_what_is_known_with_its_error(options):
    fn, x, truth = rectifiers()

    def interrupt(done: int, planned: int) -> None:
        if done >= 20 * len(x):
            raise KeyboardInterrupt

    ig = integrated_gradients(fn, x, 1, batch_size=5, progress=interrupt, **options)
    assert ig.interrupted
    assert not ig.converged.any()
    assert (ig.spent < 40).all()
    total = ig.attributions.sum(axis=1)
    difference = fn.gradients(x, 1).output - fn.gradients(0 * x, 1).output
    np.testing.assert_allclose(ig.delta, total - difference, atol=1e-12)
    assert (relative(ig.attributions, truth) < 0.2).all()


@pytest.mark.parametrize("options", [{"tolerance": 0.01}, {"steps": 40}])
def test_several_baselines_are_averaged(options):
    fn, x, _ = rectifiers()
    data = np.random.default_rng(0).normal(size=(3, 30))
    ig = integrated_gradients(fn, x, 1, baseline=[0.0, Dataset(data)], **options)
    each = np.stack(
        [integrated_gradients(fn, x, 1, baseline=b, **options).attributions for b in (0.0, *data)]
    )
    np.testing.assert_allclose(ig.attributions, each.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(ig.standard_error, each.std(axis=0, ddof=1) / 2, atol=1e-12)
    assert len(ig.baseline) == 4
    start = np.mean([fn.gradients(0 * x + b, 1).output for b in (0.0, *data)], axis=0)
    np.testing.assert_allclose(ig.completeness.output, fn.gradients(x, 1).output - start, atol=1e-12)


@pytest.mark.parametrize("options", [{"tolerance": 0.01}, {"steps": 20}])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_highest_classes_are_explained_over_one_path(options, backend):
    whole, x, _ = rectifiers()
    fn = differentiate(whole.model, backend)
    x = x.astype(np.float32)
    ig = integrated_gradients(fn, x, Target(top=3), baseline=[0.0, 0.5], **options)
    y = fn.forward(x)[fn.graph.outputs[0]]
    np.testing.assert_array_equal(ig.target, np.argsort(-y, axis=1)[:, :3])
    assert ig.attributions.shape == (6, 3, 30)
    assert ig.delta.shape == ig.converged.shape == ig.standard_error.shape[:2] == (6, 3)
    for k in range(3):
        one = ig.rank(k)
        alone = integrated_gradients(fn, x, ig.target[:, k], baseline=[0.0, 0.5], **options)
        np.testing.assert_allclose(one.completeness.output, alone.completeness.output, atol=1e-5)
        np.testing.assert_allclose(one.delta, one.attributions.sum(1) - one.completeness.output, atol=1e-5)
        if "steps" in options:
            np.testing.assert_allclose(one.attributions, alone.attributions, atol=1e-5)
        else:
            assert one.converged.all()
            assert relative(one.attributions, alone.attributions).max() < 0.15
    with pytest.raises(AnalysisError, match="no ranks"):
        ig.rank(0).rank(0)
