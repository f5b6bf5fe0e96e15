"""Folding BatchNorm changes the graph and not the function, and leaves alone what it may not touch."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper

from converters import canonicalise, load
from converters.verification.original import Original, computed
from tests.converters.helpers import make_model, normal, ops, run

CHANNELS = 6


def batch_norm_constants(dtype: type = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "bn.weight": rng.normal(size=CHANNELS).astype(dtype),
        "bn.bias": rng.normal(size=CHANNELS).astype(dtype),
        "bn.mean": rng.normal(size=CHANNELS).astype(dtype),
        "bn.var": rng.uniform(0.5, 2.0, CHANNELS).astype(dtype),
    }


BATCH_NORM = helper.make_node("BatchNormalization", ["z", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["y"])

# name: (the layer, its constants, the shape of its input)
LAYERS = {
    "Conv": (
        helper.make_node("Conv", ["x", "w", "b"], ["z"]),
        {"w": normal(6, 4, 3, 3), "b": normal(6)},
        (4, 5, 5),
    ),
    "Conv without bias": (helper.make_node("Conv", ["x", "w"], ["z"]), {"w": normal(6, 4, 3)}, (4, 7)),
    "grouped Conv": (
        helper.make_node("Conv", ["x", "w", "b"], ["z"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        {"w": normal(6, 2, 3, 3), "b": normal(6)},
        (4, 7, 7),
    ),
    "grouped ConvTranspose": (
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["z"], group=2, strides=[2, 2]),
        {"w": normal(4, 3, 3, 3), "b": normal(6)},
        (4, 5, 5),
    ),
    "Gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], alpha=0.5, beta=2.0),
        {"w": normal(4, 6), "b": normal(1, 6)},
        (4,),
    ),
    "transposed Gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1),
        {"w": normal(6, 4), "b": normal(1)},
        (4,),
    ),
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["z"]), {"w": normal(4, 6)}, (4,)),
}


def layer_then_batch_norm(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    layer, constants, shape = LAYERS[name]
    model = make_model([layer, BATCH_NORM], {"x": ("n", *shape)}, ["y"], constants | batch_norm_constants())
    return model, {"x": normal(3, *shape, seed=1)}


@pytest.mark.parametrize("name", LAYERS)
def test_folded_graph_computes_the_same_under_the_same_name(name: str) -> None:
    model, feeds = layer_then_batch_norm(name)
    folded = canonicalise(model)
    assert "BatchNormalization" not in ops(folded)
    assert [info.name for info in folded.graph.output] == ["y"]
    np.testing.assert_allclose(run(folded, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_stay_apart_on_request(name: str) -> None:
    model, feeds = layer_then_batch_norm(name)
    apart = canonicalise(model, fold_batch_norm=False)
    assert ops(apart) == ops(model)
    np.testing.assert_array_equal(run(apart, feeds)[0], run(model, feeds)[0])


def test_the_folded_bias_is_that_of_the_formula() -> None:
    model, _ = layer_then_batch_norm("Conv")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in canonicalise(model).graph.initializer}
    constants = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    deviation = np.sqrt(constants["bn.var"] + 1e-5)
    expected = (
        constants["bn.weight"] * (constants["b"] - constants["bn.mean"]) / deviation + constants["bn.bias"]
    )
    np.testing.assert_allclose(stored["bn.folded_bias"], expected, rtol=1e-6)
    assert "b" not in stored and "w" not in stored


def test_a_value_that_is_read_twice_is_not_folded() -> None:
    layer, constants, shape = LAYERS["Conv"]
    both = helper.make_node("Add", ["y", "z"], ["sum"])
    model = make_model(
        [layer, BATCH_NORM, both], {"x": ("n", *shape)}, ["sum"], constants | batch_norm_constants()
    )
    assert ops(canonicalise(model)) == ops(model)


def test_a_value_that_is_an_output_is_not_folded() -> None:
    layer, constants, shape = LAYERS["Conv"]
    model = make_model(
        [layer, BATCH_NORM], {"x": ("n", *shape)}, ["y", "z"], constants | batch_norm_constants()
    )
    folded = canonicalise(model)
    assert ops(folded) == ops(model)
    assert [info.name for info in folded.graph.output] == ["y", "z"]


def test_a_weight_that_two_layers_share_is_folded_for_each_alone() -> None:
    weight, constants = normal(6, 6, 1, 1), batch_norm_constants()
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        BATCH_NORM,
        helper.make_node("Conv", ["y", "w"], ["last"]),
    ]
    model = make_model(nodes, {"x": ("n", 6, 3, 3)}, ["last"], {"w": weight} | constants)
    feeds = {"x": normal(2, 6, 3, 3)}
    folded = canonicalise(model)
    assert ops(folded) == {"Conv": 2}
    np.testing.assert_allclose(run(folded, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


SCALE, SHIFT = normal(6, 1, 1, seed=3), normal(1, 6, 1, 1, seed=4)


def test_the_mul_and_add_of_an_exported_batch_norm_are_folded() -> None:
    layer, constants, shape = LAYERS["Conv"]
    nodes = [layer, helper.make_node("Mul", ["s", "z"], ["m"]), helper.make_node("Add", ["m", "t"], ["y"])]
    model = make_model(nodes, {"x": ("n", *shape)}, ["y"], constants | {"s": SCALE, "t": SHIFT})
    feeds = {"x": normal(2, *shape)}
    folded = canonicalise(model)
    assert ops(folded) == {"Conv": 1}
    np.testing.assert_allclose(run(folded, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def test_a_product_with_its_bias_takes_up_the_batch_norm_behind_it() -> None:
    """Dense, then BatchNorm, as TensorFlow exports them; the channels of a product are its last axis."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["z"]),
        helper.make_node("Mul", ["z", "s"], ["m"]),
        helper.make_node("Sub", ["m", "t"], ["y"]),
    ]
    constants = {"w": normal(4, 6), "b": normal(6), "s": normal(6, seed=3), "t": normal(1, 6, seed=4)}
    model = make_model(nodes, {"x": ("n", 5, 4)}, ["y"], constants)
    feeds = {"x": normal(2, 5, 4)}
    folded = canonicalise(model)
    assert ops(folded) == {"MatMul": 1, "Add": 1}
    np.testing.assert_allclose(run(folded, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "constant",
    [normal(6), normal(1, 1, 6, 6), normal(2, 6, 1, 1), normal(1, 1, 6, 1, 1)],
    ids=["along the width", "along both sides", "along the batch", "of a higher rank"],
)
def test_a_constant_that_is_not_per_channel_is_not_folded(constant: np.ndarray) -> None:
    """The convolution's output is 6 wide and high and has 6 channels: sizes alone decide nothing."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "c"], ["y"])]
    model = make_model(nodes, {"x": ("n", 4, 6, 6)}, ["y"], {"w": normal(6, 4, 1, 1), "c": constant})
    feeds = {"x": normal(2, 4, 6, 6)}
    folded = canonicalise(model)
    assert ops(folded) == ops(model)
    np.testing.assert_array_equal(run(folded, feeds)[0], run(model, feeds)[0])


def test_a_constant_that_widens_a_single_channel_is_not_folded() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "c"], ["y"])]
    constants = {"w": normal(1, 4, 1, 1), "c": normal(1, 6, 1, 1)}
    model = make_model(nodes, {"x": ("n", 4, 3, 3)}, ["y"], constants)
    assert ops(canonicalise(model)) == ops(model)


def test_a_scale_that_no_shift_follows_is_no_batch_norm() -> None:
    layer, constants, shape = LAYERS["Conv"]
    nodes = [layer, helper.make_node("Mul", ["z", "s"], ["y"])]
    model = make_model(nodes, {"x": ("n", *shape)}, ["y"], constants | {"s": SCALE})
    assert ops(canonicalise(model)) == ops(model)


def test_a_fold_that_would_overflow_half_precision_is_left() -> None:
    constants = {"w": np.full((6, 4, 1, 1), 6e4), "bn.weight": np.full(6, 10.0), "bn.bias": np.zeros(6)}
    constants |= {"bn.mean": np.zeros(6), "bn.var": np.ones(6)}
    halves = {name: array.astype(np.float16) for name, array in constants.items()}
    model = make_model(
        [helper.make_node("Conv", ["x", "w"], ["z"]), BATCH_NORM], {"x": ("n", 4, 1, 1)}, ["y"], halves
    )
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert ops(canonicalise(model)) == ops(model)


def test_all_zero_biases_of_convolutions_are_dropped() -> None:
    layer = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    model = make_model(
        [layer], {"x": ("n", 4, 3, 3)}, ["y"], {"w": normal(6, 4, 1, 1), "b": np.zeros(6, np.float32)}
    )
    (node,) = canonicalise(model).graph.node
    assert list(node.input) == ["x", "w"]


@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-3])
def test_an_epsilon_behind_another_sum_keeps_its_digits(epsilon: float) -> None:
    """1 / ((erf(x) + 1) + ε) at the far left is 1 / ε in the file: erf(x) + 1 is exactly zero there."""
    nodes = [
        helper.make_node("Erf", ["x"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["s"]),
        helper.make_node("Add", ["s", "epsilon"], ["t"]),
        helper.make_node("Reciprocal", ["t"], ["y"]),
    ]
    constants = {"one": np.array(1, np.float32), "epsilon": np.array(epsilon, np.float32)}
    proto = make_model(nodes, {"x": ("n", 3)}, ["y"], constants)
    x = np.array([[-8, -1, 2]], np.float32)
    expected = np.array(
        [[1 / np.float32(epsilon), 1 / (math.erf(-1) + 1 + epsilon), 1 / (math.erf(2) + 1 + epsilon)]]
    )
    np.testing.assert_allclose(run(load(proto).proto, {"x": x})[0], expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.9995])
@pytest.mark.parametrize("product", ["MatMul", "Gemm"])
def test_a_name_of_the_file_holds_the_value_of_the_file(product: str, scale: float) -> None:
    # A product with its bias, then a BatchNorm as Keras exports it: near 1, wrong values pass for right ones.
    factor = np.float32([scale, 1.5, 1.0])
    model = make_model(
        [
            helper.make_node(product, ["x", "w"], ["z"]),
            helper.make_node("Add", ["z", "b"], ["biased"]),
            helper.make_node("Mul", ["biased", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["y"]),
        ],
        {"x": ("n", 4)},
        ["y"],
        {"w": normal(4, 3), "b": normal(3), "factor": factor, "shift": normal(3)},
    )
    folded, x = canonicalise(model), normal(5, 4)
    shared = [n for n in computed(folded) if n in computed(model)]
    file, ours = (Original(proto, shared).run({"x": x}) for proto in (model, folded))
    assert len(folded.graph.node) < len(model.graph.node) and "y" in shared
    for name in shared:
        np.testing.assert_allclose(ours[name], file[name], rtol=1e-5, atol=1e-6, err_msg=name)
