"""Every VJP rule against directional derivatives in float64, and against the frameworks' autodiff."""

from __future__ import annotations

import pytest

from analyzer.ops import registered
from analyzer.ops.registry import Kind
from tests.analyzer.ops.agreement import assert_close, assert_directional, cotangent
from tests.analyzer.ops.cases import CASES, FAMILIES
from tests.analyzer.ops.harness import gradients, native_gradients, onnxruntime_gradients


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp_is_the_directional_derivative(case):
    g = cotangent(case)
    assert_directional(case, gradients(case, g, "torch"), g)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_graph_agrees_on_tensorflow_and_onnxruntime(case):
    g = cotangent(case)
    expected = gradients(case, g, "torch")
    assert_close(gradients(case, g, "tensorflow"), expected, 1e-9)
    assert_close(onnxruntime_gradients(case, g), expected, 1e-3)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_framework_differentiates_its_form_to_the_same(case, framework):
    g = cotangent(case)
    assert_close(native_gradients(case, g, framework), gradients(case, g, "torch"), 1e-9)


def test_every_rule_has_a_case():
    tried = {case.op for case in CASES}
    rules = {
        # Ops with bodies are in test_flow.py.
        name
        for (domain, name), rule in registered().items()
        if rule.kind is not Kind.CONSTANT and not domain and not rule.has_bodies
    }
    assert rules <= tried, rules - tried


def test_every_case_is_in_the_file_of_its_family():
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        modules = {registered()["", case.op].__module__ for case in family.CASES}
        assert all(f"{module}.".startswith(f"analyzer.ops.{name}.") for module in modules), (name, modules)
