"""Planted kinks and ties: every backend gives the subgradient that the op's class states."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analyzer.ops.harness import Case, gradients, native_gradients, onnxruntime_gradients


def f64(values):
    return np.asarray(values, np.float64)


def i64(*values):
    return np.asarray(values, np.int64)


# Windows of two by two: all equal; the maximum twice on the diagonal; twice in a column; twice again.
PLANE = f64([[[[1, 1, 0, 2], [1, 1, 2, 0], [0, 3, 1, 0], [0, 3, 0, 1]]]])
FIRST = f64([[[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]])
TIES = [
    ("relu: 0 at 0", Case("Relu", (f64([-1, 0, 1]),)), [[0, 0, 1]]),
    ("leaky relu: the slope at 0", Case("LeakyRelu", (f64([-1, 0, 1]),), {"alpha": 0.25}), [[0.25, 0.25, 1]]),
    ("prelu: the slope at 0", Case("PRelu", (f64([-1, 0, 1]), f64([0.5]))), [[0.5, 0.5, 1]]),
    ("elu: alpha at 0", Case("Elu", (f64([0, 1]),), {"alpha": 0.5}), [[0.5, 1]]),
    (
        "thresholded relu: 0 at the threshold",
        Case("ThresholdedRelu", (f64([1, 2]),), {"alpha": 1.0}),
        [[0, 1]],
    ),
    ("clip: 0 at the bounds", Case("Clip", (f64([-1, 0, 3, 6, 7]), f64(0), f64(6))), [[0, 0, 1, 0, 0]]),
    (
        "clip: at a bound the bound has the gradient",
        Case("Clip", (f64([0, 3, 6]), f64(0), f64(6)), {}, (0, 1, 2)),
        [[0, 1, 0], 1, 1],
    ),
    (
        "hard sigmoid: 0 at the bounds",
        Case("HardSigmoid", (f64([-2, 0, 2]),), {"alpha": 0.25, "beta": 0.5}),
        [[0, 0.25, 0]],
    ),
    ("hard swish: 0 at −3, 1 at 3", Case("HardSwish", (f64([-3, 0, 3]),)), [[0, 0.5, 1]]),
    ("abs: 0 at 0", Case("Abs", (f64([-2, 0, 2]),)), [[-1, 0, 1]]),
    ("max: shared evenly", Case("Max", (f64([1, 2]), f64([1, 0])), {}, (0, 1)), [[0.5, 1], [0.5, 0]]),
    (
        "min of three: shared evenly",
        Case("Min", (f64([1]), f64([1]), f64([1])), {}, (0, 1, 2)),
        [[1 / 3], [1 / 3], [1 / 3]],
    ),
    (
        "max pool: the first maximum",
        Case("MaxPool", (PLANE,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        [FIRST],
    ),
    (
        "max pool with pads: the first maximum",
        Case("MaxPool", (f64([[[0, 0, 0]]]),), {"kernel_shape": [3], "pads": [1, 1]}),
        [[[[2, 1, 0]]]],
    ),
    (
        "global max pool: shared evenly",
        Case("GlobalMaxPool", (f64([[[2, 1, 2, 2]]]),)),
        [[[[1 / 3, 0, 1 / 3, 1 / 3]]]],
    ),
    ("reduce max: shared evenly", Case("ReduceMax", (f64([[1, 1], [0, 2]]), i64(1))), [[[0.5, 0.5], [0, 1]]]),
    ("reduce min: shared evenly", Case("ReduceMin", (f64([[1, 1], [0, 2]]),)), [[[0, 0], [1, 0]]]),
    ("reduce L1: 0 at 0", Case("ReduceL1", (f64([-1, 0, 2]),)), [[-1, 0, 1]]),
    ("reduce L2: 0 at the origin", Case("ReduceL2", (f64([0, 0]),)), [[0, 0]]),
    (
        "top k: of equal values the first",
        Case("TopK", (f64([1, 2, 2, 2]), i64(2)), outputs=2),
        [[0, 1, 1, 0]],
    ),
    ("square at 0", Case("Pow", (f64([0, 1]), f64(2))), [[0, 2]]),
    ("power 0 at 0", Case("Pow", (f64([0, 2]), f64([0, 1]))), [[0, 1]]),
    ("exponent of base 0", Case("Pow", (f64([0]), f64([2])), {}, (1,)), [[0]]),
]


@pytest.mark.parametrize(("case", "expected"), [pytest.param(c, e, id=name) for name, c, e in TIES])
def test_every_backend_gives_the_stated_subgradient(case, expected):
    shape = native_shape(case)
    g = np.ones(shape)
    for found in (
        gradients(case, g, "torch"),
        gradients(case, g, "tensorflow"),
        native_gradients(case, g, "torch"),
        native_gradients(case, g, "tensorflow"),
        onnxruntime_gradients(case, g),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, np.asarray(other, np.float64), atol=1e-6)


def native_shape(case):
    """The shape of the first output."""
    shape = case.graph.tensors["y0"].shape
    assert shape is not None
    return shape
