"""The registry's promises: no duplicates, and every class whole."""

from __future__ import annotations

import inspect
import subprocess
import sys

import onnx
import pytest

from analyzer.ops import registered
from analyzer.ops.registry import Kind, Op, register
from tests.analyzer.ops.harness import OPSET

RULES = sorted(registered().items())


@pytest.mark.parametrize(("key", "rules"), RULES, ids=[name for (_, name), _ in RULES])
def test_every_class_is_whole(key, rules):
    domain, name = key
    assert onnx.defs.get_schema(name, OPSET, domain).name == name
    assert isinstance(rules.kind, Kind)
    assert rules.torch is not None
    assert rules.tensorflow is not None
    assert (rules.vjp is None) == (rules.kind is Kind.CONSTANT)
    if rules.kind in (Kind.AFFINE, Kind.EXPLICIT_RULE):
        assert rules.residual is not None
    if rules.kind is Kind.HOMOGENEOUS:
        assert isinstance(rules.degree, (int, float))


@pytest.mark.parametrize(("key", "rules"), RULES, ids=[name for (_, name), _ in RULES])
def test_every_form_takes_the_attributes_of_its_schema(key, rules):
    domain, name = key
    schema = onnx.defs.get_schema(name, OPSET, domain)
    for form in (rules.torch, rules.tensorflow, rules.vjp):
        if form is None:
            continue
        parameters = inspect.signature(form).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            continue
        named = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
        optional = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
        assert named - optional == set(schema.attributes)


def test_a_second_class_of_a_name_is_refused():
    duplicate = type("Relu", (Op,), {"kind": Kind.HOMOGENEOUS})
    with pytest.raises(ValueError, match="Relu is registered twice"):
        register(duplicate)


def test_a_class_without_a_kind_is_refused():
    with pytest.raises(TypeError, match="no kind"):
        register(type("Kindless", (Op,), {}))


def test_importing_the_ops_loads_no_framework():
    program = "import sys, analyzer.ops; print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
