"""Targets: what may be explained, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import Target, differentiate
from analyzer.errors import TargetError

LINEAR = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,3] y, float[n,3] z)'
    " <float[3] two = {2, 3, 4}, float[3] c = {1, 1, 1}> { y = Mul(x, two) z = Add(x, c) }"
)
GRID = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,2,3] x) => (float[n,2,3] y) { y = Mul(x, x) }'
)
X = np.array([[1, 5, 2], [4, 1, 1]], np.float32)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
@pytest.mark.parametrize(
    ("target", "expected", "classes"),
    [
        (None, [[0, 3, 0], [2, 0, 0]], [1, 0]),
        (2, [[0, 0, 4], [0, 0, 4]], [2, 2]),
        (-1, [[0, 0, 4], [0, 0, 4]], [2, 2]),
        (np.array([0, 1]), [[2, 0, 0], [0, 3, 0]], [0, 1]),
        ([0, 1], [[2, 0, 0], [0, 3, 0]], [0, 1]),
        (Target(index=np.array([[0, 1], [1, 2]])), [[2, 3, 0], [0, 3, 4]], None),
        (Target(index=(1,)), [[0, 3, 0], [0, 3, 0]], None),
        (Target(weights=np.array([1.0, 0, -1])), [[2, 0, -4], [2, 0, -4]], None),
        (Target(weights=np.array([[1.0, 0, 0], [0, 0, 2]])), [[2, 0, 0], [0, 0, 8]], None),
        (Target("z", index=0), [[1, 0, 0], [1, 0, 0]], [0, 0]),
    ],
)
def test_gradient_of_each_kind_of_target(backend, target, expected, classes):
    found = differentiate(LINEAR, backend).gradients(X, target)
    np.testing.assert_allclose(found.gradients["x"], expected)
    if classes is None:
        assert found.target is None
    else:
        np.testing.assert_array_equal(found.target, classes)


def test_output_is_the_explained_scalar():
    fn = differentiate(LINEAR)
    np.testing.assert_allclose(fn.gradients(X).output, [15, 8])
    np.testing.assert_allclose(fn.gradients(X, 2).output, [8, 4])
    np.testing.assert_allclose(fn.gradients(X, Target(weights=np.ones(3))).output, [25, 15])


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_class_of_an_output_with_more_axes_is_summed_over_them(backend):
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    found = differentiate(GRID, backend).gradients(x, 1)
    expected = 2 * x
    expected[:, 0] = 0
    np.testing.assert_allclose(found.gradients["x"], expected)
    one = differentiate(GRID, backend).gradients(x, Target(index=(1, 2)))
    assert np.count_nonzero(one.gradients["x"]) == 2
    np.testing.assert_allclose(one.output, x[:, 1, 2] ** 2)
    highest = differentiate(GRID, backend).gradients(x)
    np.testing.assert_allclose(highest.output, x.reshape(2, -1).max(axis=1) ** 2)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_any_inner_tensor_may_be_explained(backend):
    feature_map = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,2,3] x) => (float[n,2,3] y) { h = Mul(x, x) y = Exp(h) }'
    )
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    fn = differentiate(feature_map, backend)
    unit = fn.gradients(x, Target("h", index=(1, 2)))
    np.testing.assert_allclose(unit.output, x[:, 1, 2] ** 2)
    np.testing.assert_allclose(unit.gradients["x"][:, 1, 2], 2 * x[:, 1, 2])
    assert np.count_nonzero(unit.gradients["x"]) == 2
    channel = fn.gradients(x, Target("h", index=1))
    np.testing.assert_allclose(channel.output, (x[:, 1] ** 2).sum(axis=1))
    weighted = fn.gradients(x, Target("h", weights=np.float32([[1, 0, 0], [0, -2, 0]])))
    np.testing.assert_allclose(weighted.output, x[:, 0, 0] ** 2 - 2 * x[:, 1, 1] ** 2)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "3 is out of range.*3 classes"),
        (-4, "out of range"),
        (np.array([0, 7]), "7 is out of range"),
        (np.array([0, 1, 2]), "3.* for 2 samples"),
        (np.array([0.5, 1.0]), "ints, not float64"),
        ("cat", "not 'cat'"),
        (1.5, "not 1.5"),
        (Target("nothing"), "no output 'nothing'; it has y, z"),
        (Target(weights=np.ones(4)), "do not fit"),
        (Target(weights=np.array([np.nan, 0, 0])), "NaN"),
        (Target(index=(0, 1)), "2 coordinates"),
    ],
)
def test_what_is_refused(target, message):
    with pytest.raises(TargetError, match=message):
        differentiate(LINEAR).gradients(X, target)


def test_index_and_weights_exclude_each_other():
    with pytest.raises(TargetError, match="not both"):
        Target(index=0, weights=np.ones(3))
