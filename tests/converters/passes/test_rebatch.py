"""A fixed batch becomes symbolic where samples are independent, and stays where they are not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from converters import canonicalise
from tests.converters.helpers import make_model, normal, run, shape_of


def sample_by_sample(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What the fixed model gives for each sample alone."""
    return np.concatenate([run(model, {"x": x[i : i + 1]})[0] for i in range(len(x))])


def test_a_flatten_by_reshape_lets_the_batch_through() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("Reshape", ["z", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    constants = {"w": normal(3, 2, 3, 3), "flat": np.array([1, -1]), "v": normal(27, 4)}
    model = make_model(nodes, {"x": (1, 2, 5, 5)}, ["y"], constants)
    free = canonicalise(model)
    assert shape_of(free.graph.input[0]) == ["batch", 2, 5, 5]
    assert shape_of(free.graph.output[0]) == ["batch", 4]
    x = normal(4, 2, 5, 5)
    np.testing.assert_allclose(run(free, {"x": x})[0], sample_by_sample(model, x), rtol=1e-5, atol=1e-6)


def test_a_class_token_is_repeated_for_the_batch() -> None:
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["c"], axis=1),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    model = make_model(nodes, {"x": (1, 3, 4)}, ["y"], {"token": normal(1, 1, 4), "w": normal(4, 2)})
    free = canonicalise(model)
    assert shape_of(free.graph.output[0]) == ["batch", 4, 2]
    x = normal(3, 3, 4)
    np.testing.assert_allclose(run(free, {"x": x})[0], sample_by_sample(model, x), rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_merged_with_other_axes_is_freed() -> None:
    """Attention heads and windows: (1, 6, 4) is worked on as (2, 3, 4)."""
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        helper.make_node("Reshape", ["p", "join"], ["y"]),
    ]
    constants = {"split": np.array([2, 3, 4]), "join": np.array([1, 6, 4])}
    model = make_model(nodes, {"x": (1, 6, 4)}, ["y"], constants)
    free = canonicalise(model)
    assert shape_of(free.graph.input[0])[0] == "batch"
    x = normal(3, 6, 4)
    np.testing.assert_allclose(run(free, {"x": x})[0], sample_by_sample(model, x), rtol=1e-6)


def test_a_fixed_batch_of_two_is_freed() -> None:
    nodes = [helper.make_node("Reshape", ["x", "flat"], ["y"])]
    model = make_model(nodes, {"x": (2, 3, 4)}, ["y"], {"flat": np.array([2, 12])})
    free = canonicalise(model)
    x = normal(5, 3, 4)
    np.testing.assert_array_equal(run(free, {"x": x})[0], x.reshape(5, 12))


def test_a_model_that_mixes_its_samples_keeps_its_batch() -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    kept = canonicalise(make_model(nodes, {"x": (2, 4)}, ["y"]))
    assert shape_of(kept.graph.input[0]) == [2, 4]


@pytest.mark.parametrize("share", [1e-3, 1e-7, 1e-30])
@pytest.mark.parametrize("batch", [1, 2])
def test_samples_that_barely_see_one_another_keep_their_batch(share: float, batch: int) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "first"], ["m"]),
        helper.make_node("Mul", ["m", "share"], ["s"]),
        helper.make_node("Sub", ["x", "s"], ["y"]),
    ]
    constants = {"first": np.array([0]), "share": np.float32(share)}
    kept = canonicalise(make_model(nodes, {"x": (batch, 4)}, ["y"], constants))
    assert shape_of(kept.graph.input[0]) == [batch, 4]


def test_a_table_of_indices_that_are_floats_is_freed() -> None:
    """NaN is no index: other numbers show that samples are independent."""
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Cast", ["a"], ["i"], to=onnx.TensorProto.INT64),
        helper.make_node("Clip", ["i", "low", "high"], ["c"]),
        helper.make_node("Gather", ["table", "c"], ["y"]),
    ]
    constants = {"table": normal(4, 2), "low": np.array(0), "high": np.array(3)}
    free = canonicalise(make_model(nodes, {"x": (1, 5)}, ["y"], constants))
    assert shape_of(free.graph.input[0]) == ["batch", 5]


def test_a_model_without_a_batch_keeps_its_shape() -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    kept = canonicalise(make_model(nodes, {"x": (1, 4)}, ["y"]))
    assert shape_of(kept.graph.input[0]) == [1, 4]


def test_a_symbolic_batch_is_called_batch() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    for symbol in ("N", None):
        model = canonicalise(make_model(nodes, {"x": (symbol, 4)}, ["y"]))
        assert shape_of(model.graph.input[0]) == shape_of(model.graph.output[0]) == ["batch", 4]
