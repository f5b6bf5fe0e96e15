"""The canonical form: one opset, constants folded, copies gone, names kept, shapes known."""

from __future__ import annotations

import os
import time

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import CANONICAL_OPSET, InvalidModel, UnsupportedModel, canonicalise, convert, load
from converters.canonical import is_canonical
from tests.converters.helpers import make_model, normal, ops, run, shape_of

LIGHT = os.path.join(os.path.dirname(onnx.backend.test.__file__), "data", "light")


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "densenet121"])
def test_light_models_of_opset_9_are_upgraded(name: str) -> None:
    path = os.path.join(LIGHT, f"light_{name}.onnx")
    model, original = load(path).proto, onnx.load(path)
    assert {entry.version for entry in model.opset_import} == {CANONICAL_OPSET}
    assert is_canonical(model)
    assert shape_of(model.graph.input[0])[0] == shape_of(model.graph.output[0])[0] == "batch"
    (given,) = (i for i in original.graph.input if i.name == model.graph.input[0].name)
    feeds = {given.name: normal(1, *shape_of(given)[1:])}
    np.testing.assert_allclose(run(model, feeds)[0], run(original, feeds)[0], rtol=1e-4, atol=1e-6)


def test_every_tensor_has_a_shape_and_every_node_a_name_of_its_own() -> None:
    model = load(os.path.join(LIGHT, "light_squeezenet.onnx")).proto
    typed = {info.name for info in (*model.graph.value_info, *model.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= typed
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names)


def test_constants_are_folded_under_their_own_names() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32([2.0]))),
        helper.make_node("Mul", ["w", "two"], ["w2"]),
        helper.make_node("MatMul", ["x", "w2"], ["y"]),
    ]
    weight = normal(4, 3)
    model = canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y"], {"w": weight}))
    assert ops(model) == {"MatMul": 1}
    (stored,) = model.graph.initializer
    assert stored.name == "w2"
    np.testing.assert_array_equal(numpy_helper.to_array(stored), weight * 2)


def test_weights_that_every_step_transposes_are_stored_once() -> None:
    nodes, last = [], "x"
    for step in range(3):
        nodes.append(helper.make_node("Transpose", ["w"], [f"t{step}"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", [last, f"t{step}"], [last := f"h{step}"]))
    weight = normal(40, 40)
    model = canonicalise(make_model(nodes, {"x": ("n", 40)}, ["h2"], {"w": weight}))
    assert ops(model) == {"MatMul": 3}
    (stored,) = model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), weight.T)


def test_a_constant_that_would_fill_memory_is_left_to_run_time() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    model = make_model(nodes, {"x": ("n", 4)}, ["y"], {"size": np.array([1 << 17, 1 << 17])})
    assert "ConstantOfShape" in ops(canonicalise(model))


def test_random_ops_are_not_folded() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["noise"], shape=[4]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    assert ops(canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y"]))) == {"RandomNormal": 1, "Add": 1}


def test_copies_disappear_and_the_names_of_outputs_stay() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Dropout", ["b"], ["c", "mask"]),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["d"], ["y"]),
        helper.make_node("Identity", ["d"], ["again"]),
        helper.make_node("Sigmoid", ["x"], ["unused"]),
    ]
    model = canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y", "again"]))
    assert ops(model) == {"Relu": 1, "Identity": 1}
    x = normal(2, 4)
    for value in run(model, {"x": x}):
        np.testing.assert_array_equal(value, np.maximum(x, 0))


def test_a_training_dropout_stays() -> None:
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])]
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    assert ops(canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y"], constants))) == {"Dropout": 1}


def test_an_input_with_a_stored_value_is_a_constant() -> None:
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ("n", 4), "w": (4, 3)},
        ["y"],
        {"w": normal(4, 3)},
    )
    assert [info.name for info in canonicalise(model).graph.input] == ["x"]


def test_local_functions_are_inlined() -> None:
    body = [helper.make_node("Mul", ["v", "v"], ["w"])]
    square = helper.make_function("local", "Square", ["v"], ["w"], body, [helper.make_opsetid("", 23)])
    model = make_model([helper.make_node("Square", ["x"], ["y"], domain="local")], {"x": ("n", 4)}, ["y"])
    model.opset_import.add(domain="local", version=1)
    model.functions.append(square)
    inlined = canonicalise(model)
    assert ops(inlined) == {"Mul": 1} and not inlined.functions
    x = normal(2, 4)
    np.testing.assert_array_equal(run(inlined, {"x": x})[0], x * x)


def test_a_branch_whose_condition_is_known_replaces_the_if() -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op_type, ["x"], ["inner"])], op_type, [], [out])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))
    model = make_model([node], {"x": ("n", 4)}, ["y"], {"c": np.array(False)})
    assert ops(canonicalise(model)) == {"Neg": 1}


def test_a_branch_whose_condition_is_computed_stays_with_what_it_captures() -> None:
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    bodies = {
        f"{name}_branch": helper.make_graph([helper.make_node(op, ["copy"], ["inner"])], name, [], [out])
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("Identity", ["x"], ["copy"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], **bodies),
    ]
    model = canonicalise(make_model(nodes, {"x": ("n", 4)}, ["y"], {"zero": np.float32(0)}))
    assert "Identity" not in ops(model)
    x = -np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(model, {"x": x})[0], -x)


def test_lists_of_tensors_become_plain_splits() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "size"], ["list"], axis=1),
        helper.make_node("SequenceAt", ["list", "one"], ["second"]),
        helper.make_node("SequenceAt", ["list", "last"], ["third"]),
        helper.make_node("Concat", ["third", "second"], ["y"], axis=1),
    ]
    constants = {"size": np.array(2), "one": np.array(1), "last": np.array(-1)}
    model = canonicalise(make_model(nodes, {"x": ("n", 5)}, ["y"], constants))
    assert ops(model) == {"Split": 1, "Concat": 1}
    x = normal(2, 5)
    np.testing.assert_array_equal(run(model, {"x": x})[0], x[:, [4, 2, 3]])
    assert {"second", "third"} <= {name for node in model.graph.node for name in node.output}


def test_shapes_that_are_computed_become_constant() -> None:
    """x.view(x.shape[0], -1) as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["size"]),
        helper.make_node("Unsqueeze", ["size", "axis"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    model = canonicalise(make_model(nodes, {"x": ("n", 3, 4)}, ["y"], constants))
    assert ops(model) == {"Reshape": 1}
    assert shape_of(model.graph.output[0]) == ["batch", 12]
    x = normal(5, 3, 4)
    np.testing.assert_array_equal(run(model, {"x": x})[0], x.reshape(5, 12))


def test_a_newer_model_is_taken_down_where_its_ops_existed() -> None:
    model = make_model(
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], {"x": ("n", 4)}, ["y"], opset=25
    )
    assert canonicalise(model).opset_import[0].version == CANONICAL_OPSET


@pytest.mark.parametrize("opset", [11, 18, 22, 24])
def test_an_op_whose_kernels_end_earlier_keeps_a_label_that_onnxruntime_runs(opset: int) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["z"]),
        helper.make_node("MaxRoiPool", ["z", "rois"], ["pooled"], pooled_shape=[2, 2]),
        helper.make_node("GlobalLpPool", ["pooled"], ["y"], p=3),
    ]
    rois = np.float32([[0, 0, 0, 3, 3], [1, 1, 2, 4, 5]])
    model = canonicalise(make_model(nodes, {"x": (2, 3, 6, 6)}, ["y"], {"rois": rois}, opset=opset))
    assert is_canonical(model)
    assert model.opset_import[0].version == 21
    x = normal(2, 3, 6, 6)
    positive = np.maximum(x, 0)
    planes = np.stack([positive[0, :, :4, :4], positive[1, :, 2:6, 1:5]])
    pooled = planes.reshape(2, 3, 2, 2, 2, 2).max((3, 5))
    expected = (pooled**3).sum((2, 3), keepdims=True) ** (1 / 3)
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-5)


def test_a_short_time_spectrum_has_the_frequencies_that_onnxruntime_computes() -> None:
    node = helper.make_node("STFT", ["x", "step", "window"], ["y"])
    constants = {"step": np.array(4), "window": np.hanning(8).astype(np.float32)}
    model = canonicalise(make_model([node], {"x": ("n", 20, 1)}, ["y"], constants))
    computed = run(model, {"x": normal(3, 20, 1)})[0].shape
    assert computed == (3, 4, 5, 2)
    assert shape_of(model.graph.output[0])[1:] == [4, 5, 2]


def test_a_model_from_the_future_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", 4)}, ["y"], opset=999)
    with pytest.raises(UnsupportedModel, match="opset 999"):
        load(model)


def test_an_op_that_does_not_exist_is_refused() -> None:
    model = make_model([helper.make_node("Frobnicate", ["x"], ["y"])], {"x": ("n", 4)}, ["y"])
    with pytest.raises(InvalidModel, match="Frobnicate"):
        load(model)


def test_the_given_model_is_left_as_it_was() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (1, 4)}, ["y"], opset=13)
    before = model.SerializeToString()
    canonicalise(model)
    assert model.SerializeToString() == before


def test_the_canonical_form_is_its_own_canonical_form() -> None:
    once = load(os.path.join(LIGHT, "light_shufflenet.onnx")).proto
    assert [node.SerializeToString() for node in canonicalise(once).graph.node] == [
        node.SerializeToString() for node in once.graph.node
    ]


def test_five_thousand_nodes_take_seconds() -> None:
    nodes, last = [], "x"
    for index in range(1000):
        weight, bias = f"w{index}", f"b{index}"
        names = [f"{kind}{index}" for kind in ("conv", "add", "relu", "copy", "out")]
        nodes += [
            helper.make_node("Conv", [last, weight], [names[0]]),
            helper.make_node("Add", [names[0], bias], [names[1]]),
            helper.make_node("Relu", [names[1]], [names[2]]),
            helper.make_node("Identity", [names[2]], [names[3]]),
            helper.make_node("Add", [names[3], last], [names[4]]),
        ]
        last = names[4]
    constants = {f"w{i}": np.eye(2, dtype=np.float32)[..., None, None] for i in range(1000)}
    constants |= {f"b{i}": np.full((1, 2, 1, 1), 1e-3, np.float32) for i in range(1000)}
    model = make_model(nodes, {"x": ("n", 2, 2, 2)}, [last], constants)
    start = time.perf_counter()
    result = canonicalise(model)
    assert time.perf_counter() - start < 20
    assert ops(result) == {"Conv": 1000, "Relu": 1000, "Add": 1000}


def test_a_blank_at_the_end_of_a_nodes_inputs_is_left_out():
    # ONNX Runtime 1.32 crashes on this very file.
    node = helper.make_node("LayerNormalization", ["x", "scale", ""], ["y"], axis=-1)
    scale = numpy_helper.from_array(np.array([1.0, 2, 3, 4], np.float32), "scale")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    (y,) = run(convert(model, x).proto, {"x": x})
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * [1, 2, 3, 4]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["Gather", "GatherElements"])
def test_a_constant_that_nobody_computes_stays_with_what_reads_it(op: str) -> None:
    """The index is beyond the axis: the graph is complete, and whoever runs it gets the runtime's reason."""
    nodes = [
        helper.make_node(op, ["table", "index"], ["row"]),
        helper.make_node("Cast", ["row"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "x"], ["y"]),
    ]
    constants = {"table": np.arange(12, dtype=np.int32).reshape(4, 3), "index": np.asarray([[7, 0, 0]])}
    found = load(make_model(nodes, {"x": ("N", 3)}, ["y"], constants), run=False).proto
    assert [node.op_type for node in found.graph.node] == [op, "Cast", "Mul"]
    onnx.checker.check_model(found, full_check=True)
