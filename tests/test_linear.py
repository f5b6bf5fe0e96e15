"""Preparation takes a time that grows with the number of nodes, not with its square: counted in lines that run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import Target, differentiate, full_grad, integrated_gradients
from converters import canonicalise, load
from converters.graph.mutable import MutableGraph
from converters.graph.unique import UniqueNames
from converters.passes.joins.region import MOST, TensorUses

COUNT = 120


def model(
    nodes: list[onnx.NodeProto],
    outputs: list[str],
    inputs: tuple[str, ...] = ("x",),
    constants: dict[str, np.ndarray] | None = None,
    shape: tuple[int | str, ...] = ("N", 3),
) -> onnx.ModelProto:
    """A model of opset 21 whose inputs and outputs have one shape."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def chain(count: int, name: str = "") -> onnx.ModelProto:
    """Tanh and Relu in turn."""
    tensors = ["x", *(f"t{index}" for index in range(count))]
    nodes = [
        helper.make_node(("Tanh", "Relu")[index % 2], tensors[index : index + 1], [tensors[index + 1]], name)
        for index in range(count)
    ]
    return model(nodes, tensors[-1:])


def one_name(count: int) -> onnx.ModelProto:
    """A chain whose nodes all have one name."""
    return chain(count, "same")


def residual(count: int) -> onnx.ModelProto:
    """x + tanh(x), again and again."""
    nodes = []
    for index in range(count):
        x = f"t{index - 1}" if index else "x"
        nodes.append(helper.make_node("Tanh", [x], [f"a{index}"]))
        nodes.append(helper.make_node("Add", [x, f"a{index}"], [f"t{index}"]))
    return model(nodes, [f"t{count - 1}"])


def tree(count: int) -> onnx.ModelProto:
    """Many functions of the input, which are added up."""
    nodes = [helper.make_node("Tanh", ["x"], [f"t{index}"]) for index in range(count)]
    nodes.append(helper.make_node("Sum", [f"t{index}" for index in range(count)], ["y"]))
    return model(nodes, ["y"])


def every_output(count: int) -> onnx.ModelProto:
    """A chain whose every tensor is an output."""
    proto = chain(count)
    del proto.graph.output[:]
    proto.graph.output.extend(
        helper.make_tensor_value_info(f"t{index}", TensorProto.FLOAT, ("N", 3)) for index in range(count)
    )
    return proto


def biases(count: int) -> onnx.ModelProto:
    """MatMul, Add and Relu in turn, the constants in Constant nodes."""
    nodes = []
    rng = np.random.default_rng(0)
    for index in range(count):
        x = f"t{index - 1}" if index else "x"
        for name, shape in ((f"w{index}", (3, 3)), (f"b{index}", (3,))):
            value = numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32))
            nodes.append(helper.make_node("Constant", [], [name], value=value))
        nodes += [
            helper.make_node("MatMul", [x, f"w{index}"], [f"m{index}"]),
            helper.make_node("Add", [f"m{index}", f"b{index}"], [f"s{index}"]),
            helper.make_node("Relu", [f"s{index}"], [f"t{index}"]),
        ]
    return model(nodes, [f"t{count - 1}"])


def shapes(count: int) -> onnx.ModelProto:
    """Reshapes to shapes that are computed."""
    nodes = []
    for index in range(count):
        x = f"t{index - 1}" if index else "x"
        nodes += [
            helper.make_node("Shape", [x], [f"s{index}"]),
            helper.make_node("Tanh", [x], [f"a{index}"]),
            helper.make_node("Reshape", [f"a{index}", f"s{index}"], [f"t{index}"]),
        ]
    return model(nodes, [f"t{count - 1}"])


KINDS = (chain, one_name, residual, tree, every_output, biases, shapes)


def lines(call: Callable[[], Any]) -> int:
    """How many lines of this project's code run during a call."""
    found = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal found
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("converters", "analyzer"):
            return None
        found += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


def prepare_and_run(proto: onnx.ModelProto) -> None:
    """Load, differentiate, and take gradients and Integrated Gradients."""
    fn = differentiate(load(proto, verify=False))
    x = np.ones((2, 3), np.float32)
    target = Target(output=proto.graph.output[-1].name, index=0)
    fn.gradients(x, target=target)
    integrated_gradients(fn, x, target=target, steps=2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_twice_the_nodes_run_twice_the_lines(kind: Callable[[int], onnx.ModelProto]) -> None:
    prepare_and_run(kind(8))
    once, twice = (lines(lambda count=count: prepare_and_run(kind(count))) for count in (COUNT, 2 * COUNT))
    assert twice <= 2.1 * once


def test_full_grad_of_twice_the_biases_runs_twice_the_lines() -> None:
    def run(count: int) -> None:
        full_grad(load(biases(count), verify=False), np.ones((2, 3), np.float32), target=0)

    run(8)
    once, twice = (lines(lambda count=count: run(count)) for count in (30, 60))
    assert twice <= 2.1 * once


def test_a_graph_in_which_nothing_is_joined_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    walk = TensorUses.regions_before

    def counted(self: TensorUses, last: onnx.NodeProto) -> list[Any]:
        walked.append(last.output[0])
        return walk(self, last)

    monkeypatch.setattr(TensorUses, "regions_before", counted)
    proto = chain(40)
    canonicalise(proto)
    assert sorted(walked) == sorted(node.output[0] for node in proto.graph.node)


def test_a_region_is_read_as_its_smaller_part_and_one_more_node() -> None:
    graph = MutableGraph(chain(100))
    graph.infer_types()
    reader = TensorUses(graph)
    regions = [region for node in graph.nodes for region in reader.regions_before(node)]
    # Tanh and Relu in turn have two structures of each size: one that ends with either.
    assert len({region.structure for region in regions}) == 2 * MOST


def test_a_fresh_name_does_not_count_the_names_before_it() -> None:
    names = UniqueNames(["a_3"])

    def name(count: int) -> list[str]:
        return [names.fresh("a") for _ in range(count)]

    assert name(4) == ["a", "a_2", "a_4", "a_5"]
    assert lines(lambda: name(500)) <= 10 * 500
