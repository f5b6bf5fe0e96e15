"""What every backend does alike: input checks, dtypes, fixed batches, tensors by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser, shape_inference

from analyzer import Target, differentiate
from analyzer.errors import AnalysisError, InputError, ShapeError, UnknownTensor
from converters import Model

BACKENDS = ["onnxruntime", "torch", "tensorflow"]
HEADER = '<ir_version: 10, opset_import: ["": 23]>'
DENSE = parser.parse_model(
    f"{HEADER} g (float[n,3] x) => (float[n,2] y)"
    " <float[3,2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, -1}> { h = Gemm(x, w, b) y = Relu(h) }"
)
FIXED = parser.parse_model(
    f"{HEADER} g (float[2,3] x) => (float[2,3] y) <float[3] half = {{0.5, 0.5, 0.5}}>"
    " { z = Mul(x, x) y = Mul(z, half) }"
)
GATHER = parser.parse_model(
    f"{HEADER} g (int64[n,2] ids, float[n,2] x) => (float[n,2] y)"
    " <float[4] table = {1, 2, 3, 4}> { e = Gather<axis = 0>(table, ids) p = Mul(e, x) y = Mul(p, e) }"
)
X = np.array([[1, -2, 0.5], [0.25, 1, 3]], np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients_at_any_tensor(backend):
    found = differentiate(DENSE, backend).gradients(X, 1, ["x", "h", "y"])
    h = X @ np.array([[1, 2], [3, 4], [5, 6]], np.float32) + np.array([1, -1], np.float32)
    np.testing.assert_allclose(found.values["h"], h, rtol=1e-6)
    gate = (h[:, 1:] > 0).astype(np.float32)
    np.testing.assert_allclose(found.gradients["y"], [[0, 1], [0, 1]])
    np.testing.assert_allclose(found.gradients["h"], np.concatenate([0 * gate, gate], axis=1))
    np.testing.assert_allclose(found.gradients["x"], gate * np.array([[2, 4, 6]], np.float32))
    assert set(found.values) == {"x", "h", "y"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_by_name(backend):
    fn = differentiate(DENSE, backend)
    assert set(fn.forward(X)) == {"y"}
    found = fn.forward(X, ["h", "x"])
    np.testing.assert_array_equal(found["x"], X)
    assert set(fn.tensors) == {"x", "h", "y"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_a_fixed_batch_is_looped_over(backend, samples):
    # A Model is taken as it is: `load` would free the batch of so simple a file.
    fn = differentiate(Model(shape_inference.infer_shapes(FIXED)), backend)
    assert fn.engine.batch == 2
    x = np.random.default_rng(0).normal(size=(samples, 3)).astype(np.float32)
    y = fn.forward(x)["y"]
    assert y.shape == x.shape
    np.testing.assert_allclose(y, x**2 / 2, rtol=1e-5)
    found = fn.gradients(x, np.arange(samples) % 3)
    expected = np.zeros_like(x)
    rows = np.arange(samples)
    expected[rows, rows % 3] = x[rows, rows % 3]
    np.testing.assert_allclose(found.gradients["x"], expected, rtol=1e-5)
    assert found.output.shape == (samples,)
    weights = np.random.default_rng(1).normal(size=(samples, 3)).astype(np.float32)
    np.testing.assert_allclose(
        fn.gradients(x, Target(weights=weights)).gradients["x"], weights * x, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_integer_inputs_beside_float_ones(backend):
    fn = differentiate(GATHER, backend)
    ids, x = np.array([[0, 3]]), np.array([[2.0, 5.0]], np.float32)
    found = fn.gradients({"ids": ids, "x": x}, 1)
    assert set(found.gradients) == {"x"}
    np.testing.assert_allclose(found.gradients["x"], [[0, 16]])
    inner = fn.gradients({"ids": ids, "x": x}, 1, ["e"])
    np.testing.assert_allclose(inner.gradients["e"], [[0, 2 * 4 * 5]])
    with pytest.raises(UnknownTensor, match="int64 and has no gradient"):
        fn.gradients({"ids": ids, "x": x}, 1, ["ids"])


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_float64_in_float64_out(backend):
    fn = differentiate(DENSE, backend, precision="float64")
    found = fn.gradients(X.astype(np.float64), 0)
    assert found.gradients["x"].dtype == found.output.dtype == np.float64
    assert differentiate(DENSE, backend).gradients(X, 0).gradients["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (X[:, :2], ShapeError, r"shape \(2, 2\), the model takes \(.*, 3\)"),
        (X[0], ShapeError, "add a batch axis"),
        (X[None], ShapeError, "the model takes"),
        (X[:0], ShapeError, "no samples"),
        (np.array([[1, np.nan, 2]]), InputError, r"NaN or infinity \(1 of 3"),
        (np.array([[1, np.inf, 2]]), InputError, "NaN or infinity"),
        (np.array([["a", "b", "c"]]), InputError, "float32 numbers, not text"),
        (np.array([[1j, 0, 0]]), InputError, "not complex128"),
        ({"z": X}, InputError, "unknown input 'z'; the model's inputs are x"),
        ({}, InputError, "missing input 'x'"),
    ],
)
def test_inputs_that_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        differentiate(DENSE).gradients(inputs)


def test_several_inputs_need_names_and_one_batch():
    fn = differentiate(GATHER)
    with pytest.raises(InputError, match=r"2 inputs, .*give a dict"):
        fn.gradients(X)
    with pytest.raises(ShapeError, match="different numbers of samples"):
        fn.forward({"ids": np.zeros((1, 2), np.int64), "x": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError, match="takes int64, not float32"):
        fn.forward({"ids": np.zeros((2, 2), np.float32), "x": np.zeros((2, 2), np.float32)})


def test_unknown_tensors_backends_and_options_are_refused():
    with pytest.raises(UnknownTensor, match="no tensor and no layer 'nothing'"):
        differentiate(DENSE).gradients(X, 0, ["nothing"])
    with pytest.raises(AnalysisError, match="unknown backend 'jax'"):
        differentiate(DENSE, "jax")
    with pytest.raises(AnalysisError, match='use backend="torch"'):
        differentiate(DENSE, "onnxruntime", precision="float64")
    with pytest.raises(AnalysisError, match="unknown precision 'float8'"):
        differentiate(DENSE, "torch", precision="float8")
    with pytest.raises(AnalysisError, match="an ONNX file has no source"):
        differentiate(DENSE, "source")


def test_a_bound_model_is_bound_already():
    fn = differentiate(DENSE)
    assert differentiate(fn) is fn
    assert fn.backend == "onnxruntime"


PRODUCT = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[2,3] x, float[3,5] w) => (float s, float[5,2] t)'
    " { a = MatMul(x, w) s = ReduceSum<keepdims=0>(a) t = Transpose(a) }"
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("target", "rows", "weights"),
    [
        (None, 1, np.ones((2, 5))),
        (Target(weights=np.float32(2)), 1, np.full((2, 5), 2)),
        (Target("t", (2, 1)), 1, np.array([[0] * 5, [0, 0, 1, 0, 0]])),
        (Target("t", weights=np.arange(10).reshape(5, 2)), 1, np.arange(10).reshape(5, 2).T),
    ],
)
def test_inputs_and_outputs_of_sizes_of_their_own(backend, target, rows, weights):
    """For a = x·w the gradients are g·wᵀ and xᵀ·g; neither the sum nor the transpose has a batch of x's."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    fn = differentiate(PRODUCT, backend)
    found = fn.gradients({"x": x, "w": w}, target)
    assert found.output.shape == (rows,)
    np.testing.assert_allclose(found.gradients["x"], weights @ w.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.gradients["w"], x.T @ weights, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match=r"shape \(3, 3\), the model takes \(2, 3\)"):
        fn.forward({"x": w[:, :3], "w": w})
