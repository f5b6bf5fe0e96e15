"""A region becomes an op only where it has the op's values: to 1e-12 in float64 and as the file does in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from converters import load
from tests.converters.helpers import ops, run
from tests.converters.passes.joins.cases import (
    EXACT,
    NEAR_MISSES,
    ROUNDED,
    gelu,
    in_half,
    layer_norm,
    network,
)

POINTS = {
    "ordinary": [-3.1, -1.2, -0.4, 0.7, 1.9, 3.3, 0.011, -0.52, 2.6, -2.2, 5.1, -4.6],
    "tiny": [1e-30, -1e-30, 1e-20, -1e-12, 1e-12, 1e-9, -1e-9, 1e-7, -1e-7, 1e-6, -1e-6, 3e-6],
    "zero": [0.0] * 12,
    "saturating": [-12, -9, 16, -16, -20, 20, -30, 30, -60, 60, -85, 85],
    "huge": [1e3, -1e3, 1e5, -1e5, 1e8, -1e8, 1e12, -1e12, 1e15, -1e15, 3e17, -2e17],
    "off centre": [1e3, 1e3 + 1, 1e3 - 1, 1e3 + 2, -7e2, -7e2, -7e2 + 0.5, -7e2 + 1, 50, 51, 50, 50.25],
    "kinks": [-3, 3, 6, -6, 2, -2, 20, -1, 1, 0.25, -3.000001, -2.999999],
}


class LogSoftmax(OpRun):
    """The reference's own takes the logarithm of softmax, which is −∞ far off."""

    def _run(self, x: np.ndarray, axis: int = -1) -> tuple[np.ndarray]:
        shifted = x - x.max(axis, keepdims=True)
        return (shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)),)


def reference(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return y on ONNX's reference evaluator, in the precision of x."""
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(proto, new_ops=[LogSoftmax]).run(None, {"x": x})
    return y


def points(dtype: type) -> np.ndarray:
    return np.array(list(POINTS.values()), dtype).reshape(-1, 3, 4)


@pytest.mark.parametrize("body", EXACT)
def test_an_op_has_the_values_of_the_primitives_in_float64(body: str) -> None:
    file, x = network(body, "double"), points(np.float64)
    joined = load(file).proto
    assert ops(joined) == {EXACT[body]: 1}
    expected, found = reference(file, x), reference(joined, x)
    # Of two summands that cancel, the rounding stays: 1 + erf and 1 − exp near zero, x − mean.
    summands = {"Gelu": np.abs(x), "Elu": 1.5, "HardSigmoid": 1.0}.get(EXACT[body], 0.0)
    if EXACT[body] in ("LayerNormalization", "LogSoftmax"):
        summands = np.abs(expected).max(-1, keepdims=True)
    finite = np.isfinite(expected)
    assert finite.mean() > 0.8
    assert (np.abs(found - expected) <= 1e-12 * np.abs(expected) + 1e-15 * summands)[finite].all()


@pytest.mark.parametrize("body", ROUNDED)
def test_numbers_are_those_of_the_formula_after_rounding(body: str) -> None:
    file, x = network(body), points(np.float32)
    joined = load(file).proto
    assert ops(joined) == {ROUNDED[body]: 1}
    expected, found = run(file, {"x": x})[0], run(joined, {"x": x})[0]
    summands = {"Gelu": np.abs(x), "HardSwish": np.abs(x), "HardSigmoid": 1.0}.get(ROUNDED[body], 0.0)
    if ROUNDED[body] == "LayerNormalization":
        # The mean is rounded as the elements are.
        summands = np.abs(x).max(-1, keepdims=True) / np.sqrt(x.astype(float).var(-1, keepdims=True) + 1e-5)
    finite = np.isfinite(expected)
    assert (np.abs(found - expected) <= 1e-6 * np.abs(expected) + 1e-7 * summands)[finite].all()


@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("body", NEAR_MISSES)
def test_a_near_miss_stays(body: str, dtype: str) -> None:
    file = network(body, dtype)
    converted = load(file).proto
    assert NEAR_MISSES[body] not in ops(converted)
    x = points(np.float32 if dtype == "float" else np.float64)
    x = np.concatenate([x, np.resize([np.nan, np.inf, -np.inf, 1.0, *[-0.0] * 8], (1, 3, 4))]).astype(x.dtype)
    if dtype == "float":
        expected, found = run(file, {"x": x})[0], run(converted, {"x": x})[0]
    else:
        expected, found = reference(file, x), reference(converted, x)
    # Relative to each value, however small.
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float" else 1e-12, atol=0)


def half(body: str) -> list[str]:
    return list(ops(load(in_half(network(body))).proto))


def test_in_half_precision_constants_are_compared_after_rounding_to_half() -> None:
    assert half(gelu()) == ["Gelu"]
    assert half(gelu(root=1.4142)) == ["Gelu"]
    assert "Gelu" not in half(gelu(root=1.416))
    assert "Gelu" not in half(gelu(half=0.5005))


def test_an_epsilon_in_half_precision_stays() -> None:
    assert half("r = Relu(x) y = Add(r, {0.001})") == ["Relu", "Add"]
    (node,) = load(in_half(network(layer_norm(epsilon=1e-5)))).proto.graph.node
    stated = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    assert stated["epsilon"] == np.float16(1e-5)


def test_attributes_of_float32_are_not_given_to_a_file_in_float64() -> None:
    for body in (layer_norm(epsilon=1e-5), "l = Mul(x, {0.1}) y = Max(x, l)"):
        proto = load(network(body, "double")).proto
        assert len(proto.graph.node) == body.count("=")


def test_a_sum_of_two_terms_of_one_structure_has_a_normal_form() -> None:
    # Neither the sum nor its negative is the one that an odd function is written of.
    body = "l = Exp(x) e = Neg(x) n = Exp(e) d = Sub(l, n) f = Erf(d) y = Add(f, {0.5})"
    twice = "l = Mul(x, {2}) a = Exp(l) b = Exp(x) d = Sub(a, b) f = Erf(d) y = Add(f, {0.5})"
    for one in (body, twice):
        assert len(load(network(one)).proto.graph.node) == one.count("=")
