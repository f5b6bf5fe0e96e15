"""Samples on other axes than the first are explained one by one, in the axes that the user gave."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import Target, differentiate, full_grad, integrated_gradients
from analyzer.graph.samples.arrangement import samples_back, samples_first
from analyzer.graph.samples.labels import Span
from converters import load

HEAD = '<ir_version: 10, opset_import: ["": 20]> g '
X = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


@pytest.mark.parametrize("span", [Span(0), Span(1), Span(2), Span(1, 1, 2), Span(1, 3), Span(0, 2, 3)])
def test_what_is_moved_comes_back(span):
    shape = [2, 3, 2]
    shape[span.axis] = span.blocks * 5 * span.runs
    array = np.arange(np.prod(shape)).reshape(shape)
    first = samples_first(array, span)
    assert len(first) == 5
    np.testing.assert_array_equal(samples_back(first, span), array)
    # The sample of an element is its position on the axis, without the runs and the blocks.
    expected = np.moveaxis(array, span.axis, 0)
    rows = (np.arange(shape[span.axis]) // span.runs) % 5
    for sample in range(5):
        assert set(first[sample].reshape(-1)) == set(expected[rows == sample].reshape(-1))


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_time_first_sequences(backend):
    """(T, N, F) to (T, N, F): each sample is its own running mean."""
    model = load(
        parser.parse_model(
            f"{HEAD}(float[t,n,4] x) => (float[t,n,4] y) <int64 zero = {{0}}> {{ q = Mul(x, x) y = CumSum(q, zero) }}"
        )
    )
    fn = differentiate(model, backend)
    found = fn.gradients(X, Target(index=(1, 2)))
    expected = np.zeros_like(X)
    expected[:2, :, 2] = 2 * X[:2, :, 2]
    assert found.output.shape == (2,)
    np.testing.assert_allclose(found.gradients["x"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.output, (X[:2, :, 2] ** 2).sum(0), rtol=1e-5)
    ig = integrated_gradients(fn, X, Target(index=(1, 2)), steps=4)
    np.testing.assert_allclose(ig.attributions, expected * X / 2, rtol=1e-5, atol=1e-6)
    fg = full_grad(fn, X, Target(index=(1, 2)))
    assert fg.completeness.error.max() <= 1e-6
    assert fg.input_term.shape == X.shape


def test_a_file_that_runs_one_sample_alone():
    model = load(
        parser.parse_model(
            f"{HEAD}(float[n,3,4] x) => (float[1,k,4] y) <int64[3] s = {{1,-1,4}}> {{ r = Reshape(x, s) y = Tanh(r) }}"
        )
    )
    x = np.moveaxis(X, 0, 1)
    found = integrated_gradients(model, x, Target(index=(2, 1)), steps=16)
    assert "one sample at a time" in found.note
    assert found.samples == "independent"
    expected = np.zeros_like(x)
    expected[:, 2, 1] = np.tanh(x[:, 2, 1])
    np.testing.assert_allclose(found.attributions, expected, rtol=1e-4, atol=1e-6)
