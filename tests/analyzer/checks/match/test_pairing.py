"""Every layer of two models is accounted for: matched, near, unmatched or inner, and one of them alone.

What a layer is the test says itself: every float tensor that depends on an input and that a node computes, not moves.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import parser

from analyzer import Report, compare, differentiate
from analyzer.backends import ModelLike
from analyzer.graph.graph import Graph
from tools.defects.networks import Network, written
from tools.defects.search import rewritten
from tools.defects.trial import plant

MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Expand", "Dropout"}


def computed(graph: Graph) -> set[str]:
    """The float tensors that depend on an input, what only moves its input left out."""
    fed = set(graph.inputs)
    found = set()
    for node in graph.nodes:
        if fed.intersection(node.inputs):
            fed.update(node.outputs)
            given = [name for name in node.outputs if name and node.op_type not in MOVES]
            found.update(name for name in given if graph.tensors[name].is_float)
    return found


def before_its_moves(graph: Graph, name: str) -> str:
    """The computed tensor that was moved into this one."""
    while name in graph.producer and graph.producer[name].op_type in MOVES:
        name = graph.producer[name].inputs[0]
    return name


def assert_all_are_accounted_for(report: Report, a: ModelLike, b: ModelLike) -> None:
    pairs = [*report.matched.items(), *report.near.items()]
    for model, name, paired in (
        (a, "a", [mine for mine, _ in pairs]),
        (b, "b", [other for _, other in pairs]),
    ):
        graph = differentiate(model).graph
        places = Counter(before_its_moves(graph, tensor) for tensor in paired)
        places.update([*report.unmatched[name], *report.inner[name]])
        assert set(places) == computed(graph)
        assert set(places.values()) == {1}, [tensor for tensor, count in places.items() if count > 1]


def compared(network: Network, other: ModelLike) -> Report:
    return compare(
        network.model, other, network.feeds, network.target, wrt=network.wrt, steps=1, referee=False
    )


@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_every_layer_of_a_random_network_and_its_rewrite_is_accounted_for(seed: int) -> None:
    network = written(seed)
    other = rewritten(network.proto)
    report = compared(network, other)
    report.raise_for_disagreement()
    assert_all_are_accounted_for(report, network.model, other)


@pytest.mark.parametrize("seed", range(1, 25, 2))
def test_every_layer_of_a_random_network_with_a_defect_is_accounted_for(seed: int) -> None:
    network, rng = written(seed), np.random.default_rng(seed)
    _, planted = next(made for _ in range(30) if (made := plant(network, rng)))
    report = compared(network, planted)
    assert not report.passed
    assert_all_are_accounted_for(report, network.model, planted)


def written_out(body: str) -> onnx.ModelProto:
    head = '<ir_version: 10, opset_import: ["": 23]> g (float[n,4] x) => (float[n,4] y)'
    ones = "float[4] s = {1.0, 2.0, 0.5, -1.0}, float[4] b = {0.1, 0.2, -0.3, 0.4}, float c = {0.7}"
    return parser.parse_model(f"{head} <{ones}> {{ {body} }}")


def test_a_sum_that_a_normalization_takes_away_is_unmatched() -> None:
    # A node without a scope is a layer by itself.
    a = written_out("t = Tanh(x) z = Add(t, c) y = LayerNormalization(z, s, b)")
    b = written_out("t = Tanh(x) y = LayerNormalization(t, s, b)")
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    report = compare(a, b, x, target=0)
    report.raise_for_disagreement()
    assert report.matched == {"t": "t", "y": "y"}
    assert report.unmatched == {"a": ("z",), "b": ()}
    assert report.inner == {"a": (), "b": ()}


def test_operands_in_another_order_are_paired_and_pinned() -> None:
    halves = "u, v = Split<axis = 1, num_outputs = 2>(x) p = Tanh(u) q = Sigmoid(v)"
    orders = ("p, q", "q, p")
    a, b = (written_out(f"{halves} z = Concat<axis = 1>({order}) y = Mul(z, s)") for order in orders)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    report = compare(a, b, x, target=0)
    assert report.near == {"z": "z", "y": "y"}
    (pair,) = report.pairs
    graph = differentiate(a).graph
    assert pair.suspects == (graph.producer["z"].name,)
