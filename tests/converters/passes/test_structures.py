"""Parameters behind nodes, sparse constants, lists, optional tensors and functions become one flat graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import differentiate
from converters import InvalidModel, LimitExceeded, Limits, canonicalise, load
from converters.budget import limited
from tests.converters.helpers import make_model, normal, ops, run


def weights_of(model: onnx.ModelProto) -> np.ndarray:
    """The one stored constant."""
    (stored,) = model.graph.initializer
    return numpy_helper.to_array(stored)


WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
HIDDEN: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "Constant": ([helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT))], {}),
    "Identity": ([helper.make_node("Identity", ["v"], ["w"])], {"v": WEIGHT}),
    "Cast": (
        [helper.make_node("Cast", ["v"], ["w"], to=TensorProto.FLOAT)],
        {"v": WEIGHT.astype(np.float16)},
    ),
    "Transpose": ([helper.make_node("Transpose", ["v"], ["w"])], {"v": np.ascontiguousarray(WEIGHT.T)}),
    "Reshape": (
        [helper.make_node("Reshape", ["v", "s"], ["w"])],
        {"v": WEIGHT.ravel(), "s": np.array([4, 3])},
    ),
    "DequantizeLinear": (
        [helper.make_node("DequantizeLinear", ["v", "scale", "zero"], ["w"])],
        {"v": (WEIGHT * 2 + 3).astype(np.uint8), "scale": np.float32(0.5), "zero": np.uint8(3)},
    ),
    "ConstantOfShape and ScatterND": (
        [
            helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
            helper.make_node("ScatterND", ["zeros", "where", "v"], ["w"]),
        ],
        {"s": np.array([4, 3]), "where": np.array([[0], [1], [2], [3]]), "v": WEIGHT},
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_weight_behind_nodes_is_a_stored_constant(name: str) -> None:
    nodes, constants = HIDDEN[name]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = canonicalise(make_model([*nodes, product], {"x": ("n", 4)}, ["y"], constants))
    assert ops(model) == {"MatMul": 1}
    np.testing.assert_array_equal(weights_of(model), WEIGHT)


def sparse(indices: np.ndarray) -> onnx.SparseTensorProto:
    """4 × 3 with 5 at (1, 2) and -1 at (3, 0)."""
    values = numpy_helper.from_array(np.float32([5, -1]), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), [4, 3])


@pytest.mark.parametrize("indices", [np.array([5, 9]), np.array([[1, 2], [3, 0]])], ids=["linear", "by axis"])
@pytest.mark.parametrize("where", ["initializer", "Constant"])
def test_sparse_constants_are_made_dense(where: str, indices: np.ndarray) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    constant = helper.make_node("Constant", [], ["w"], sparse_value=sparse(indices))
    model = make_model([product] if where == "initializer" else [constant, product], {"x": ("n", 4)}, ["y"])
    if where == "initializer":
        model.graph.sparse_initializer.append(sparse(indices))
    expected = np.zeros((4, 3), np.float32)
    expected[1, 2], expected[3, 0] = 5, -1
    np.testing.assert_array_equal(weights_of(canonicalise(model)), expected)


def test_a_sparse_constant_that_would_fill_memory_is_refused() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 4)}, ["y"])
    model.graph.sparse_initializer.append(sparse(np.array([5, 9])))
    with (
        limited(Limits(bytes=40)),
        pytest.raises(LimitExceeded, match=r"40 bytes.* sparse constant, at 'w'; 48"),
    ):
        canonicalise(model)


def test_a_sparse_constant_with_a_place_outside_is_damaged() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 4)}, ["y"])
    model.graph.sparse_initializer.append(sparse(np.array([[1, 2], [4, 0]])))
    with pytest.raises(InvalidModel, match="'w' is damaged"):
        canonicalise(model)


def test_a_list_that_a_loop_fills_is_joined_without_it() -> None:
    """A tensor list as exporters write it: empty, an insertion per step, and joined in the end."""
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"]),
            helper.make_node("Cast", ["i"], ["step"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "step"], ["item"]),
            helper.make_node("SequenceInsert", ["items", "item"], ["items_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            sequence("items", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            sequence("items_next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("SequenceEmpty", [], ["none"], dtype=TensorProto.FLOAT),
        helper.make_node("Loop", ["count", "", "none"], ["all"], body=body),
        helper.make_node("SequenceErase", ["all", "first"], ["rest"]),
        helper.make_node("ConcatFromSequence", ["rest"], ["y"], axis=1, new_axis=1),
        helper.make_node("SequenceLength", ["rest"], ["length"]),
        helper.make_node("Cast", ["length"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["y", "number"], ["z"]),
    ]
    constants = {"count": np.array(3), "first": np.array(0)}
    model = canonicalise(make_model(nodes, {"x": ("n", 4)}, ["z"], constants))
    assert ops(model) == {"Add": 2, "Unsqueeze": 2, "Concat": 1, "Mul": 1}
    x = normal(2, 4)
    np.testing.assert_allclose(run(model, {"x": x})[0], 2 * np.stack([x + 1, x + 2], axis=1), rtol=1e-6)


def test_a_map_over_a_list_of_known_length_is_written_out() -> None:
    body = helper.make_graph(
        [helper.make_node("Mul", ["piece", "piece"], ["square"])],
        "body",
        [helper.make_tensor_value_info("piece", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("square", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("SplitToSequence", ["x", "two"], ["pieces"], axis=1),
        helper.make_node("SequenceMap", ["pieces"], ["squares"], body=body),
        helper.make_node("ConcatFromSequence", ["squares"], ["y"], axis=1),
    ]
    model = canonicalise(make_model(nodes, {"x": ("n", 5)}, ["y"], {"two": np.array(2)}))
    assert ops(model) == {"Split": 1, "Mul": 3, "Concat": 1}
    x = normal(2, 5)
    np.testing.assert_allclose(run(model, {"x": x})[0], x * x, rtol=1e-6)


def test_optional_tensors_that_are_there_are_the_tensors() -> None:
    branches = {
        f"{side}_branch": helper.make_graph(
            [helper.make_node(op, ["x"], ["out"])],
            side,
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        )
        for side, op in (("then", "Neg"), ("else", "Relu"))
    }
    nodes = [
        helper.make_node("Optional", ["x"], ["maybe"]),
        helper.make_node("OptionalGetElement", ["maybe"], ["content"]),
        helper.make_node("OptionalHasElement", ["maybe"], ["there"]),
        helper.make_node("If", ["there"], ["negated"], **branches),
        helper.make_node("Mul", ["content", "negated"], ["y"]),
    ]
    assert ops(canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y"]))) == {"Neg": 1, "Mul": 1}


def function(
    name: str, nodes: list[onnx.NodeProto], opset: int, attributes: tuple[str, ...] = ()
) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["v"], ["w"], nodes, imports, attributes)


def test_functions_within_functions_with_attributes_and_an_opset_of_their_own() -> None:
    leaky = helper.make_node("LeakyRelu", ["v"], ["w"])
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    inner = function("Bend", [leaky], 16, ("slope",))
    bend = helper.make_node("Bend", ["v"], ["bent"], domain="local")
    bend.attribute.append(
        onnx.AttributeProto(name="slope", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    # Until opset 12 the axes of a ReduceSum are an attribute.
    summed = helper.make_node("ReduceSum", ["bent"], ["w"], axes=[1], keepdims=1)
    outer = function("BendAndSum", [bend, summed], 11, ("slope",))
    call = helper.make_node("BendAndSum", ["x"], ["y"], domain="local", slope=0.25)
    model = make_model([call], {"x": ("n", 4)}, ["y"])
    model.opset_import.add(domain="local", version=1)
    model.functions.extend([outer, inner])
    canonical = canonicalise(model)
    assert ops(canonical) == {"LeakyRelu": 1, "ReduceSum": 1}
    x = normal(2, 4)
    expected = np.where(x < 0, 0.25 * x, x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(canonical, {"x": x})[0], expected, rtol=1e-6)


def test_gradients_of_several_inputs_and_outputs_with_integers_beside_them() -> None:
    nodes = [
        helper.make_node("Gather", ["a", "rows"], ["picked"], axis=1),
        helper.make_node("Mul", ["picked", "b"], ["y"]),
        helper.make_node("Add", ["picked", "b"], ["z"]),
    ]
    inputs = {"a": ("n", 4), "b": ("n", 2), "rows": (2,)}
    model = load(make_model(nodes, inputs, ["y", "z"], integers=["rows"]))
    feeds = {"a": normal(3, 4), "b": normal(3, 2, seed=1), "rows": np.array([2, 0])}
    found = differentiate(model, backend="onnxruntime").gradients(feeds, target=0).gradients
    expected = np.zeros((3, 4), np.float32)
    expected[:, 2] = feeds["b"][:, 0]
    np.testing.assert_allclose(found["a"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["b"][:, 0], feeds["a"][:, 2], rtol=1e-6)


def test_the_shape_behind_a_group_normalization_is_known() -> None:
    gains = np.ones(4, np.float32)
    nodes = [
        helper.make_node("GroupNormalization", ["x", "g", "g"], ["h"], num_groups=2),
        helper.make_node("GroupNormalization", ["h", "g", "g"], ["k"], num_groups=2),
        helper.make_node("Flatten", ["k"], ["y"]),
    ]
    model = canonicalise(make_model(nodes, {"x": ("n", 4, 3)}, ["y"], {"g": gains}, opset=21))
    tensors = differentiate(model).graph.tensors
    assert tensors["h"].shape == tensors["k"].shape == ("batch", 4, 3)
    assert tensors["y"].shape == ("batch", 12)
