"""Loops of known length are written out; others stay, and say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import converters.passes.unroll
from analyzer import differentiate
from converters import UnsupportedModel, canonicalise
from tests.converters.helpers import make_model, normal, ops, run


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes: list[onnx.NodeProto], carried: list[str], results: list[str]) -> onnx.GraphProto:
    """A Loop's body: nodes between (i, going, *carried) and (going_on, *results)."""
    inputs = [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), *map(value, carried)]
    outputs = [value("going_on", TensorProto.BOOL, []), *map(value, results)]
    return helper.make_graph(nodes, "body", inputs, outputs)


def keep_going() -> onnx.NodeProto:
    return helper.make_node("Identity", ["going"], ["going_on"])


def halving(count: str = "count") -> onnx.NodeProto:
    """h ← tanh(h·w + i), each h collected."""
    nodes = [
        keep_going(),
        helper.make_node("MatMul", ["h", "w"], ["hw"]),
        helper.make_node("Cast", ["i"], ["step"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["hw", "step"], ["moved"]),
        helper.make_node("Tanh", ["moved"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["item"]),
    ]
    inner = body(nodes, ["h"], ["h_next", "item"])
    return helper.make_node("Loop", [count, "", "x"], ["last", "all"], name="recurrence", body=inner)


def expected(x: np.ndarray, w: np.ndarray, trips: int) -> list[np.ndarray]:
    found = []
    for step in range(trips):
        x = np.tanh(x @ w + step)
        found.append(x)
    return found


def test_a_loop_of_constant_count_is_written_out() -> None:
    w = normal(4, 4, seed=1)
    model = make_model([halving()], {"x": ("n", 4)}, ["last", "all"], {"w": w, "count": np.array(3)})
    canonical = canonicalise(model)
    assert "Loop" not in ops(canonical) and ops(canonical)["MatMul"] == 3
    x = normal(2, 4)
    last, collected = run(canonical, {"x": x})
    steps = expected(x, w, 3)
    np.testing.assert_allclose(last, steps[-1], rtol=1e-5)
    np.testing.assert_allclose(collected, np.stack(steps), rtol=1e-5)


def test_a_condition_on_a_counter_ends_the_loop() -> None:
    nodes = [
        helper.make_node("Add", ["k", "two"], ["k_next"]),
        helper.make_node("Less", ["k_next", "seven"], ["going_on"]),
        helper.make_node("Add", ["h", "x"], ["h_next"]),
    ]
    inner = body(nodes, ["k", "h"], ["k_next", "h_next"])
    inner.input[2].type.tensor_type.elem_type = inner.output[1].type.tensor_type.elem_type = TensorProto.INT64
    loop = helper.make_node("Loop", ["", "yes", "zero", "x"], ["", "y"], body=inner)
    constants = {"yes": np.array(True), "zero": np.array(0), "two": np.array(2), "seven": np.array(7)}
    canonical = canonicalise(make_model([loop], {"x": ("n", 4)}, ["y"], constants))
    # k is 2, 4, 6 and then 8: four additions.
    assert ops(canonical) == {"Add": 4}
    x = normal(2, 4)
    np.testing.assert_allclose(run(canonical, {"x": x})[0], 5 * x, rtol=1e-6)


def test_a_count_that_is_computed_from_a_known_shape_is_known() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Squeeze", ["length", "axis"], ["count"]),
        halving(),
    ]
    constants = {"w": normal(4, 4, seed=1), "axis": np.array([0])}
    assert "Loop" not in ops(canonicalise(make_model(nodes, {"x": ("n", 4)}, ["last"], constants)))


def test_a_loop_within_a_loop_and_values_of_the_graph_around_them() -> None:
    inner = body([keep_going(), helper.make_node("Mul", ["v", "x"], ["v_next"])], ["v"], ["v_next"])
    outer_nodes = [
        keep_going(),
        helper.make_node("Loop", ["two", "", "u"], ["product"], body=inner),
        helper.make_node("Add", ["product", "x"], ["u_next"]),
    ]
    loop = helper.make_node("Loop", ["two", "", "x"], ["y"], body=body(outer_nodes, ["u"], ["u_next"]))
    canonical = canonicalise(make_model([loop], {"x": ("n", 4)}, ["y"], {"two": np.array(2)}))
    assert ops(canonical) == {"Mul": 4, "Add": 2}
    x = normal(2, 4)
    np.testing.assert_allclose(run(canonical, {"x": x})[0], (x**3 + x) * x * x + x, rtol=1e-5)


def test_a_branch_that_depends_on_the_step_is_chosen_in_each() -> None:
    branches = {
        f"{side}_branch": helper.make_graph([helper.make_node(op, ["h"], ["out"])], side, [], [value("out")])
        for side, op in (("then", "Neg"), ("else", "Relu"))
    }
    nodes = [
        keep_going(),
        helper.make_node("Equal", ["i", "one"], ["second"]),
        helper.make_node("If", ["second"], ["h_next"], **branches),
    ]
    loop = helper.make_node("Loop", ["three", "", "x"], ["y"], body=body(nodes, ["h"], ["h_next"]))
    constants = {"one": np.array(1), "three": np.array(3)}
    canonical = canonicalise(make_model([loop], {"x": ("n", 4)}, ["y"], constants))
    assert ops(canonical) == {"Relu": 2, "Neg": 1}


def test_what_no_iteration_changes_is_computed_once() -> None:
    nodes = [
        keep_going(),
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Add", ["h", "e"], ["h_next"]),
    ]
    loop = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body(nodes, ["h"], ["h_next"]))
    canonical = canonicalise(make_model([loop], {"x": ("n", 4)}, ["y"], {"count": np.array(5)}))
    assert ops(canonical) == {"Exp": 1, "Add": 5}


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_scan_is_written_out_along_any_axis_in_either_direction(axis: int, reverse: int) -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["s_next"]), helper.make_node("Neg", ["s_next"], ["item"])],
        "body",
        [value("s"), value("e")],
        [value("s_next"), value("item")],
    )
    scan = helper.make_node(
        "Scan",
        ["start", "x"],
        ["last", "all"],
        body=inner,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[reverse],
        scan_output_axes=[axis],
        scan_output_directions=[reverse],
    )
    rest = {0: ("b", 4), 1: ("n", 4), -1: ("n", "b")}[axis]
    shape = {0: (3, *rest), 1: (rest[0], 3, rest[1]), -1: (*rest, 3)}[axis]
    model = make_model([scan], {"x": shape, "start": rest}, ["last", "all"])
    canonical = canonicalise(model)
    assert not ops(canonical).keys() & {"Scan", "Loop"} and ops(canonical)["Add"] == 3
    x, start = np.moveaxis(normal(3, 2, 4), 0, axis), normal(2, 4, seed=1)
    for found, stock in zip(
        run(canonical, {"x": x, "start": start}), run(model, {"x": x, "start": start}), strict=True
    ):
        np.testing.assert_allclose(found, stock, rtol=1e-6)


def test_a_loop_off_the_path_does_not_stop_a_gradient() -> None:
    model = make_model(
        [halving("n_steps"), helper.make_node("Mul", ["x", "x"], ["y"])],
        {"x": ("n", 4), "n_steps": ()},
        ["y", "last"],
        {"w": normal(4, 4, seed=1)},
        integers=["n_steps"],
    )
    fn = differentiate(model, backend="onnxruntime")
    feeds = {"x": normal(2, 4), "n_steps": np.array(2)}
    found = fn.gradients(feeds, target=1).gradients["x"]
    np.testing.assert_allclose(found[:, 1], 2 * feeds["x"][:, 1], rtol=1e-6)


def steps_of_the_values() -> list[onnx.NodeProto]:
    """The trip count 'n_steps', which is the largest value of x."""
    return [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["n_steps"], to=TensorProto.INT64),
    ]


def test_a_loop_on_the_path_whose_count_is_computed_is_differentiated() -> None:
    nodes = [
        *steps_of_the_values(),
        halving("n_steps"),
        helper.make_node("Reshape", ["last", "shape"], ["y"]),
    ]
    weights = normal(4, 4)
    model = make_model(nodes, {"x": ("n", 4)}, ["y"], {"w": weights, "shape": np.array([-1, 4])})
    fn = differentiate(model, backend="onnxruntime")
    x, line, step = np.full((1, 4), 2.5, np.float32), normal(1, 4, seed=3), 1e-6
    ends = [
        expected(x + np.float64(sign * step) * line.astype(np.float64), weights.astype(np.float64), 2)[-1][
            0, 1
        ]
        for sign in (1, -1)
    ]
    found = fn.gradients(x, target=1).gradients["x"]
    assert (found * line).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-7)


def test_a_loop_that_reads_the_input_from_within_is_differentiated() -> None:
    inner = [keep_going(), helper.make_node("Mul", ["h", "x"], ["h_next"])]
    nodes = [
        *steps_of_the_values(),
        helper.make_node("Loop", ["n_steps", "", "one"], ["last"], body=body(inner, ["h"], ["h_next"])),
        helper.make_node("Reshape", ["last", "shape"], ["y"]),
    ]
    constants = {"one": np.ones((1, 4), np.float32), "shape": np.array([-1, 4])}
    model = make_model(nodes, {"x": ("n", 4)}, ["y"], constants)
    fn = differentiate(model, backend="onnxruntime")
    # Two steps: the derivative of x².
    found = fn.gradients(np.full((2, 4), 2.5, np.float32), target=1)
    np.testing.assert_allclose(found.gradients["x"], [[0, 5, 0, 0]] * 2, rtol=1e-6)


def test_a_loop_that_would_be_too_large_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters.passes.unroll, "LARGEST", 29)
    model = make_model([halving()], {"x": ("n", 4)}, ["last"], {"w": normal(4, 4), "count": np.array(5)})
    (loop,) = (node for node in canonicalise(model).graph.node if node.op_type == "Loop")
    assert "more than 29 nodes" in loop.metadata_props[0].value


def test_what_nested_loops_come_to_is_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters.passes.unroll, "LARGEST", 40)
    weight = helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(normal(4, 4)))
    inner = body(
        [keep_going(), weight, helper.make_node("MatMul", ["u", "v"], ["u_next"])], ["u"], ["u_next"]
    )
    nodes = [keep_going(), helper.make_node("Loop", ["four", "", "h"], ["h_next"], body=inner)]
    loop = helper.make_node("Loop", ["four", "", "x"], ["y"], body=body(nodes, ["h"], ["h_next"]))
    model = make_model([loop], {"x": ("n", 4)}, ["y"], {"four": np.array(4)})
    canonical = canonicalise(model)
    # The outer loop counts 4 × 5 nodes, an inner one 4 × 2, its weight being shared by then: two fit.
    assert ops(canonical) == {"Loop": 2, "MatMul": 8}
    assert [list(t.dims) for t in canonical.graph.initializer if len(t.dims) == 2] == [[4, 4]]
    x = normal(2, 4)
    expected = x @ np.linalg.matrix_power(normal(4, 4).astype(np.float64), 16)
    np.testing.assert_allclose(run(canonical, {"x": x})[0], expected, rtol=1e-3)


def test_a_condition_on_the_data_stays() -> None:
    nodes = [
        helper.make_node("ReduceSum", ["h_next"], ["total"], keepdims=0),
        helper.make_node("Less", ["total", "limit"], ["going_on"]),
    ]
    nodes.insert(0, helper.make_node("Add", ["h", "h"], ["h_next"]))
    loop = helper.make_node("Loop", ["ten", "", "x"], ["y"], body=body(nodes, ["h"], ["h_next"]))
    constants = {"ten": np.array(10), "limit": np.float32(5)}
    (kept,) = canonicalise(make_model([loop], {"x": ("n", 4)}, ["y"], constants)).graph.node
    assert "its condition 'going_on' depends on 'x'" in kept.metadata_props[0].value


def test_the_scan_of_opset_8_is_refused_by_name() -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["e"], ["o"])], "b", [value("e")], [value("o")])
    scan = helper.make_node("Scan", ["", "x"], ["y"], body=inner, num_scan_inputs=1)
    with pytest.raises(UnsupportedModel, match="Scan of opset 8"):
        canonicalise(make_model([scan], {"x": (1, 3, 4)}, ["y"], opset=8))
