"""The mutable graph keeps the producer and the readers of every tensor, as onnx_ir finds them in the same nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from converters.canonical import canonicalise
from converters.graph.mutable import MutableGraph
from tests.test_linear import KINDS, model
from tests.zoo.onnx_files import network
from tools.audit.links import assert_linked

FLOAT = TensorProto.FLOAT


def branching() -> MutableGraph:
    """a = tanh(x), b = relu(a), i = (a + b in a branch, a in the other), y = i + a."""
    inner = helper.make_tensor_value_info("s", FLOAT, None)
    other = helper.make_tensor_value_info("t", FLOAT, None)
    both = helper.make_graph([helper.make_node("Add", ["a", "b"], ["s"])], "both", [], [inner])
    one = helper.make_graph([helper.make_node("Identity", ["a"], ["t"])], "one", [], [other])
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["i"], then_branch=both, else_branch=one),
        helper.make_node("Add", ["i", "a"], ["y"]),
    ]
    return MutableGraph(model(nodes, ["y"]))


def ops(nodes: Any) -> list[str]:
    return [node.op_type for node in nodes]


def node_of(graph: MutableGraph, name: str) -> onnx.NodeProto:
    found = graph.producer(name)
    assert found is not None
    return found


def test_captures_and_graph_outputs_count_as_uses() -> None:
    graph = branching()
    assert graph.producer("x") is None
    assert ops(graph.readers("a")) == ["Relu", "If", "Add"]
    # Relu, both branches, the last sum.
    assert graph.use_count("a") == 4
    assert graph.use_count("y") == 1 and graph.readers("y") == () and graph.only_reader("y") is None
    only = graph.only_reader("b")
    assert only is not None and only.op_type == "If"
    assert graph.only_reader("a") is None
    assert graph.use_count("nowhere") == 0


def test_a_tensor_is_renamed_where_branches_capture_it() -> None:
    graph = branching()
    graph.rename({"a": "d", "d": "e"})
    assert_linked(graph)
    assert node_of(graph, "e").op_type == "Tanh" and graph.use_count("e") == 4
    branches = {entry.name: entry.g for entry in node_of(graph, "i").attribute}
    assert list(branches["then_branch"].node[0].input) == ["e", "b"]
    assert graph.producer("a") is None and graph.use_count("a") == 0


def test_a_changed_input_changes_both_tensors() -> None:
    graph = branching()
    graph.set_input(node_of(graph, "y"), 1, "b")
    assert_linked(graph)
    assert graph.use_count("a") == 3 and graph.use_count("b") == 2
    graph.set_inputs(node_of(graph, "b"), ["x"])
    assert_linked(graph)
    assert ops(graph.readers("x")) == ["Tanh", "ReduceMax", "Relu"]


def test_replaced_nodes_may_return_at_another_place_with_other_inputs() -> None:
    graph = branching()
    relu, choice = node_of(graph, "b"), node_of(graph, "i")
    before = helper.make_node("Neg", ["a"], ["n"])
    relu.input[0] = "n"
    graph.replace({id(relu): [], id(choice): [before, relu, choice]})
    assert ops(graph.nodes) == ["Tanh", "ReduceMax", "Cast", "Neg", "Relu", "If", "Add"]
    assert_linked(graph)
    assert node_of(graph, "n") is before


def test_nodes_that_nothing_reads_go_with_all_that_only_they_read() -> None:
    graph = branching()
    graph.set_inputs(node_of(graph, "y"), ["x", "x"])
    graph.remove_unused()
    assert ops(graph.nodes) == ["Add"]
    assert_linked(graph)


def test_an_optional_output_loses_its_name_if_nothing_reads_it() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "at"], kernel_shape=[1])
    graph = MutableGraph(model([pool], ["y"], shape=("N", 1, 3)))
    graph.remove_unused()
    assert list(node_of(graph, "y").output) == ["y"] and graph.producer("at") is None


def test_a_branch_that_gives_an_outer_tensor_reads_it() -> None:
    given = helper.make_tensor_value_info("a", FLOAT, None)
    graph = branching()
    choice = node_of(graph, "i")
    for entry in choice.attribute:
        entry.g.CopyFrom(helper.make_graph([], entry.name, [], [given]))
    graph.relink(choice)
    # Relu, both branches, the last sum.
    assert graph.use_count("a") == 4 and graph.use_count("b") == 0
    assert_linked(graph)
    graph.rename({"a": "e"})
    assert [entry.g.output[0].name for entry in choice.attribute] == ["e", "e"]
    assert_linked(graph)


def test_nodes_may_be_removed_during_a_walk() -> None:
    graph = MutableGraph(KINDS[0](6))
    for node in graph.nodes:
        if node.op_type == "Relu":
            graph.remove([node])
            graph.rename({node.output[0]: node.input[0]})
    # The last Relu computes the output.
    assert ops(graph.nodes) == ["Tanh"] * 3
    assert_linked(graph)


MODELS = {kind.__name__: kind(6) for kind in KINDS} | {"shufflenet": network("shufflenet")}


@pytest.mark.parametrize("name", MODELS)
def test_every_pass_keeps_the_links(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0

    def watched(method: Callable[[MutableGraph], None]) -> Callable[[MutableGraph], None]:
        def call(graph: MutableGraph) -> None:
            nonlocal checked
            checked += 1
            assert_linked(graph)
            method(graph)
            assert_linked(graph)

        return call

    # One of them runs after each pass.
    monkeypatch.setattr(MutableGraph, "infer_types", watched(MutableGraph.infer_types))
    monkeypatch.setattr(MutableGraph, "remove_unused", watched(MutableGraph.remove_unused))
    canonicalise(MODELS[name])
    assert checked > 6
