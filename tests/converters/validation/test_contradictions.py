"""Files whose parts contradict one another are refused in one line, as ONNX Runtime refuses them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import InvalidModel, load
from converters.graph.mutable import MutableGraph
from converters.passes.affine import merge_affine
from tests.converters.helpers import make_model, normal

IMAGE = {"x": ("N", 2, 8, 8)}


def refused_by_runtime(model: onnx.ModelProto, *shape: int) -> bool:
    """Return whether ONNX Runtime refuses the model, or its run."""
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.ones(shape, np.float32)})
    except Exception:
        return True
    return False


@pytest.mark.parametrize("count", [1, 3, 2**31 - 1])
@pytest.mark.parametrize("opset", [11, 18])
def test_a_split_states_as_many_pieces_as_it_has_outputs(count: int, opset: int) -> None:
    def split(pieces: int) -> onnx.ModelProto:
        stated = {"num_outputs": pieces} if opset == 18 else {"split": [6 // pieces] * min(pieces, 6)}
        node = helper.make_node("Split", ["x"], ["y", "z"], axis=1, **stated)
        return make_model([node], {"x": ("N", 6)}, ["y", "z"], opset=opset)

    assert len(load(split(2)).proto.graph.output) == 2
    with pytest.raises(InvalidModel, match="of 2 pieces, one for each output"):
        load(split(count))


def test_a_function_may_leave_the_number_of_pieces_to_its_caller() -> None:
    node = helper.make_node("Split", ["x"], ["y", "z"], axis=1)
    node.attribute.add(name="num_outputs", ref_attr_name="pieces", type=onnx.AttributeProto.INT)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Halves", ["x"], ["y", "z"], [node], opsets, ["pieces"])
    call = helper.make_node("Halves", ["x"], ["y", "z"], domain="own", pieces=2)
    model = make_model([call], {"x": ("N", 6)}, ["y", "z"], opset=18)
    model.opset_import.append(opsets[1])
    model.functions.append(function)
    assert [node.op_type for node in load(model).proto.graph.node] == ["Split"]


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool", "LpPool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 10]},
        {"kernel_shape": [2, 13], "strides": [2, 2]},
        {"kernel_shape": [2, 3], "dilations": [1, 6]},
        {"kernel_shape": [10, 2], "auto_pad": "VALID"},
        {"kernel_shape": [3, 3], "pads": [0, 3, 0, 0]},
        {"kernel_shape": [3, 3], "pads": [0, 0, 65536, 0]},
    ],
    ids=["wide", "strides", "dilations", "valid", "pads", "many-pads"],
)
def test_a_window_lies_in_its_input(op: str, attributes: dict[str, object]) -> None:
    model = make_model([helper.make_node(op, ["x"], ["y"], **attributes)], IMAGE, ["y"], opset=22)
    assert refused_by_runtime(model, 1, 2, 8, 8)
    with pytest.raises(InvalidModel, match="window"):
        load(model)


def test_a_convolution_lies_in_its_input() -> None:
    weights = {"w": normal(2, 2, 2, 10)}
    model = make_model([helper.make_node("Conv", ["x", "w"], ["y"])], IMAGE, ["y"], weights)
    assert refused_by_runtime(model, 1, 2, 8, 8)
    with pytest.raises(InvalidModel, match="sizes of at least 0"):
        load(model)


def test_a_size_that_is_stated_as_minus_one_is_open() -> None:
    model = make_model(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])], IMAGE, ["y"]
    )
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [-1, 2, 8, -1]))
    known = {info.name: info.type.tensor_type.shape for info in load(model).proto.graph.value_info}
    assert [dim.dim_value for dim in known["h"].dim][1:] == [2, 8, 8]


@pytest.mark.parametrize(
    ("node", "form"),
    [
        (helper.make_node("Slice", ["x", "number", "vector"], ["y"]), "a vector"),
        (helper.make_node("Slice", ["x", "vector", "matrix"], ["y"]), "a vector"),
        (helper.make_node("Slice", ["x", "vector", "vector", "number"], ["y"]), "a vector"),
        (helper.make_node("Pad", ["x", "pads", "", "number"], ["y"]), "a vector"),
        (helper.make_node("Reshape", ["x", "number"], ["y"]), "a vector"),
        (helper.make_node("TopK", ["x", "pads"], ["y", ""]), "one number"),
        (helper.make_node("Trilu", ["x", "pads"], ["y"]), "one number"),
        (helper.make_node("CumSum", ["x", "pads"], ["y"]), "one number"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_sizes_and_axes_are_vectors_and_counts_are_one_number(node: onnx.NodeProto, form: str) -> None:
    constants = {
        "number": np.array(1),
        "vector": np.array([1]),
        "matrix": np.array([[1]]),
        "pads": np.array([0, 1]),
    }
    model = make_model([node], IMAGE, ["y"], constants)
    assert refused_by_runtime(model, 1, 2, 8, 8)
    with pytest.raises(InvalidModel, match=f"expected {form} in|breaks a rule of ONNX"):
        load(model)


@pytest.mark.parametrize("count", [[], [2, 3], [[2, 3]]], ids=str)
def test_a_loop_has_one_trip_count(count: list[int]) -> None:
    infos = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    ]
    element = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ab"]
    going = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    steps = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["a"], ["b"])]
    body = helper.make_graph(steps, "body", [*infos, element[0]], [going, element[1]])
    loop = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)
    with pytest.raises(InvalidModel, match="expected one number in 'count'"):
        load(make_model([loop], IMAGE, ["y"], {"count": np.array(count, np.int64)}))


@pytest.mark.parametrize("axis", [-2, 1])
def test_a_product_runs_along_an_axis_of_its_input(axis: int) -> None:
    nodes = [helper.make_node("CumProd", ["x", "axis"], ["y"])]
    with pytest.raises(InvalidModel, match=f"axis of a tensor of 1 axes, got {axis}"):
        load(make_model(nodes, {"x": (5,)}, ["y"], {"axis": np.array(axis)}, opset=26))


def test_constants_that_contradict_one_another_are_not_merged() -> None:
    nodes = [helper.make_node("Add", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    constants = [
        numpy_helper.from_array(normal(*shape), name) for name, shape in (("a", (4, 6)), ("b", (2, 2)))
    ]
    model = make_model(nodes, {"x": ("N", 6)}, ["y"])
    model.graph.initializer.extend(constants)
    graph = MutableGraph(model)
    assert merge_affine(graph) == 0 and len(graph.nodes) == 2
