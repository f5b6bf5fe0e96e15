"""Planted kinks and ties: every backend gives the subgradient that the op's class states, and all are stated."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from analyzer import Target, differentiate
from analyzer.graph.graph import Graph
from analyzer.ops import registered
from tests.analyzer.ops.cases import CASES
from tests.analyzer.ops.harness import gradient_model, gradients, native_gradients, onnxruntime_gradients
from tests.analyzer.ops.kinks import PLANTED

DOCS = Path(__file__).parents[3] / "docs"
# Ops whose presence in a rule means that it decides by a value.
COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Clip", "Sign"}
DECISIONS = COMPARISONS | {"Floor", "Ceil", "Round", "MaxPool", "TopK", "ArgMax", "ArgMin"}
NO_KINK = {
    "ReduceProd": "a factor of 0 is only kept out of a quotient",
    "ReduceLogSumExp": "the maximum only keeps exponentials from overflow",
    "Asinh": "the larger of |x| and 1 only keeps a square from overflow",
    "Gelu": "the clip only keeps a cube from overflow, where the derivative is constant",
}


def assert_stated(found, row):
    for one, other in zip(found, row.gradients, strict=True):
        expected = np.asarray(other, np.float64)
        assert one.shape == expected.shape
        np.testing.assert_allclose(one, expected, atol=1e-6)


@pytest.mark.parametrize("row", PLANTED, ids=str)
def test_every_engine_gives_the_stated_subgradient(row):
    g = np.ones(row.case.graph.tensors["y0"].shape)
    for found in (
        gradients(row.case, g, "torch"),
        gradients(row.case, g, "tensorflow"),
        native_gradients(row.case, g, "torch"),
        native_gradients(row.case, g, "tensorflow"),
        onnxruntime_gradients(row.case, g),
    ):
        assert_stated(found, row)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
@pytest.mark.parametrize("row", PLANTED, ids=str)
def test_every_backend_gives_the_stated_subgradient(row, backend):
    proto = row.case.proto(np.float32)
    fn = differentiate(proto, backend=backend)
    inputs = {name: x.astype(np.float32) for name, x in row.case.feeds.items()}
    weights = np.ones(row.case.graph.tensors["y0"].shape, np.float32)
    found = fn.gradients(inputs, Target(output="y0", weights=weights), wrt=row.case.wrt).gradients
    assert_stated([found[name] for name in row.case.wrt], row)


def test_every_stated_kink_is_planted():
    stated = {(name, kink.where) for (_, name), rules in registered().items() for kink in rules.kinks}
    assert stated == {(row.case.op, row.where) for row in PLANTED}


def test_every_rule_that_decides_by_a_value_states_its_kinks():
    rules = {name: rule for (domain, name), rule in registered().items() if not domain}
    silent = {case.op for case in CASES if not rules[case.op].kinks and _decides(case)}
    assert silent == NO_KINK.keys()


def _decides(case):
    """Whether the gradient graph compares or rounds what depends on the values of the active inputs."""
    graph = Graph.from_proto(gradient_model(case, np.float64))
    moving = graph.descendants(case.wrt, lambda node, index: node.op_type not in ("Shape", "Size"))
    return any(node.op_type in DECISIONS and moving.intersection(node.inputs) for node in graph.nodes)


def test_the_page_of_subgradients_is_up_to_date():
    page = runpy.run_path(str(DOCS / "make_subgradients.py"))["page"]()
    assert (DOCS / "subgradients.md").read_text(encoding="utf-8") == page, (
        "run python docs/make_subgradients.py"
    )
