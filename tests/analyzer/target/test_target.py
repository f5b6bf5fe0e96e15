"""Targets: what may be explained, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import Target, differentiate, full_grad, integrated_gradients
from analyzer.errors import TargetError, UnknownTensor

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
        (Target(index=(1,)), [[0, 3, 0], [0, 3, 0]], [1, 1]),
        (Target(position=-1), [[0, 0, 4], [0, 0, 4]], [2, 2]),
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
    found = differentiate(GRID, backend).gradients(x, Target(index=1, axis=1))
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
    channel = fn.gradients(x, Target("h", index=1, axis=1))
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
        (np.array([0.5, 1.0]), "ints, got float64"),
        ("cat", "target 'cat'"),
        (1.5, "target 1.5"),
        (Target("nothing"), "no output 'nothing'. Fix: choose from y, z"),
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


CUBE = np.arange(1, 13, dtype=np.float32).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (1, r"two readings .*Target\(index=1, axis=1\).*Target\(index=1, axis=-1\)"),
        ([1, 0], r"two readings .*Target\(index=\[1, 0\], axis=1\).*axis=-1"),
        (np.int64(1), "two readings"),
        (Target(index=1), "two readings"),
        ((1, 2), r"two readings .*Target\(index=\(1, 2\)\).*Target\(index=\[1, 2\], axis=1\)"),
        ((1,), "two readings"),
        ([[1, 0], [0, 1]], r"two readings.*Target\(index=array\).*Target\(each=array\)"),
        (True, "target True"),
        (np.array([True, False]), "ints, got bool"),
    ],
)
def test_a_target_of_two_readings_is_refused_with_both_spellings(target, message):
    with pytest.raises(TargetError, match=message):
        differentiate(GRID).gradients(CUBE, target)


def test_a_tuple_is_read_where_the_shape_leaves_one_reading():
    # Coordinates of one element of three samples; a class per sample of (N, classes).
    three = np.concatenate([CUBE, CUBE[:1]])
    np.testing.assert_allclose(differentiate(GRID).gradients(three, (1, 2)).output, three[:, 1, 2] ** 2)
    np.testing.assert_allclose(differentiate(LINEAR).gradients(X, (0, 2)).output, [2, 4])
    with pytest.raises(TargetError, match="3 classes for 2 samples"):
        differentiate(LINEAR).gradients(X, (0, 2, 1))


@pytest.mark.parametrize("shape", ["n,4,1,1", "n,1,1,4", "n,1,4"])
def test_a_class_is_taken_where_all_other_axes_have_size_1(shape):
    dims = [int(size) for size in shape.split(",")[1:]]
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g (float[{shape}] x) => (float[{shape}] y) {{ y = Mul(x, x) }}'
    )
    x = np.arange(1, 9, dtype=np.float32).reshape(2, *dims)
    np.testing.assert_allclose(differentiate(model).gradients(x, 2).output, [9, 49])


@pytest.mark.parametrize("target", [None, Target(index=(1, 0)), Target(position=-1), Target(index=0, axis=1)])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_target_of_a_result_is_a_target(backend, target):
    fn = differentiate(GRID, backend)
    found = fn.gradients(CUBE, target)
    if found.target is None:
        return
    for given in (found.target, Target(index=found.target)):
        again = fn.gradients(CUBE, given)
        np.testing.assert_array_equal(again.output, found.output)
        np.testing.assert_array_equal(again.gradients["x"], found.gradients["x"])


SHAPES = {
    "n,1,4": (Target(index=2), 2, [2, -1]),
    "n,2,2": (Target(index=(1, 0)), Target(position=(1,)), Target(position=np.array([[0, 1], [1, 1]]))),
    "n,4": (Target(index=(3,)), Target(position=-1), (0, 3)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_element_of_any_spelling_is_given_back(shape):
    """A target None would explain the highest element in its place."""
    dims = [int(size) for size in shape.split(",")[1:]]
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g (float[{shape}] x) => (float[{shape}] y) {{ y = Mul(x, x) }}'
    )
    fn, x = differentiate(model), np.arange(8, 0, -1, dtype=np.float32).reshape(2, *dims)
    for target in SHAPES[shape]:
        for explain in (
            lambda given: fn.gradients(x, given),
            lambda given: full_grad(fn, x, given),
            lambda given: integrated_gradients(fn, x, given, steps=3),
        ):
            found = explain(target)
            rows = x.reshape(2, -1) ** 2
            again = explain(found.target)
            # Squares are 0 at the baseline.
            for one in (found, again):
                own = getattr(one, "completeness", one).output
                np.testing.assert_allclose(own, rows[np.arange(2), found.target], rtol=1e-6)


@pytest.mark.parametrize("target", [None, 1, [2, 0], Target("z"), Target("z", index=1), Target("z", top=2)])
def test_the_target_of_a_result_keeps_its_output_and_ranks(target):
    fn = differentiate(LINEAR)
    found = fn.gradients(X, target)
    again = fn.gradients(X, found.target)
    np.testing.assert_array_equal(again.output, found.output)
    np.testing.assert_array_equal(again.gradients["x"], found.gradients["x"])


def test_the_highest_element_of_every_method_is_a_target():
    fn = differentiate(GRID)
    for method in (full_grad, integrated_gradients):
        found = method(fn, CUBE)
        again = method(fn, CUBE, found.target)
        np.testing.assert_array_equal(found.target, again.target)
        np.testing.assert_allclose(again.completeness.output, found.completeness.output)
    terms = full_grad(differentiate(GRID), CUBE).bias_terms
    np.testing.assert_allclose(sum(t.sum(axis=(1, 2)) for t in terms.values()), [-36, -144])


def test_a_string_is_one_tensor_to_attribute():
    found = differentiate(LINEAR).gradients(X, 1, wrt="x")
    assert list(found.gradients) == ["x"]
    with pytest.raises(UnknownTensor, match="'xy'"):
        differentiate(LINEAR).gradients(X, 1, wrt="xy")
