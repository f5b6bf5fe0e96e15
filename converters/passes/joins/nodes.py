"""What the nodes of a region compute, in any arithmetic: as a normal form, or as rounded arrays.

Reads nodes and constants. OPS holds what is understood: elementwise ops, sums over axes, and normalizations by their
definition in the standard. Raises Opaque for a node that is written in a way that is not understood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from converters.graph.nodes import attribute
from converters.passes.joins.form import Opaque
from converters.passes.joins.formulas import (
    Value,
    elu,
    hard_sigmoid,
    layer_normalization,
    leaky_relu,
    mean,
    rms_normalization,
    sigmoid,
    softsign,
)
from converters.passes.joins.rounded import Array


@dataclass(frozen=True)
class Setting:
    """What the meaning of a node depends on besides its inputs: the constants, and the shape of the variable."""

    constants: Mapping[str, Array]
    shape: Sequence[int]

    def axes(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return the axes that a node sums over, counted from the front."""
        found = axes_of(node, len(self.shape), self.constants)
        if not found:
            raise Opaque
        return found

    def count(self, axes: Sequence[int]) -> int:
        """Return how many elements lie along axes."""
        return math.prod(self.shape[axis] for axis in axes)


def compute(
    nodes: Sequence[onnx.NodeProto],
    setting: Setting,
    given: Mapping[str, Value],
    number: Callable[[str], Value],
) -> Value:
    """Return the last node's result from the given tensors and from constants, which `number` reads."""
    known = dict(given)
    for node in nodes:
        inputs = [(known[name] if name in known else number(name)) if name else None for name in node.input]
        known[node.output[0]] = OPS[node.op_type](setting, node, *inputs)
    return known[nodes[-1].output[0]]


def axes_of(node: onnx.NodeProto, rank: int, constants: Mapping[str, Array]) -> tuple[int, ...] | None:
    """Return the axes that a node sums over, counted from the front; None where they are computed."""
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, rank))
    if node.op_type in NORMALIZATIONS:
        return tuple(range(int(attribute(node, "axis", -1)) % rank, rank))
    given = node.input[1] if len(node.input) > 1 else ""
    if given and given not in constants:
        return None
    axes = constants[given].reshape(-1).tolist() if given else []
    if not axes:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in axes))


Meaning = Callable[..., Value]


def _plain(function: Callable[..., Value]) -> Meaning:
    return lambda setting, node, *inputs: function(*inputs)


def _function(name: str) -> Meaning:
    return lambda setting, node, x: x.function(name)


def _folded(function: Callable[[Value, Value], Value]) -> Meaning:
    def fold(setting: Setting, node: onnx.NodeProto, first: Value, *rest: Value) -> Value:
        for other in rest:
            first = function(first, other)
        return first

    return fold


def _reduction(function: Callable[[Value, tuple[int, ...], int], Value]) -> Meaning:
    def reduce(setting: Setting, node: onnx.NodeProto, x: Value, axes: Value = None) -> Value:
        if not attribute(node, "keepdims", 1):
            raise Opaque
        over = setting.axes(node)
        return function(x, over, setting.count(over))

    return reduce


def _pow(setting: Setting, node: onnx.NodeProto, x: Value, exponent: Value) -> Value:
    constant = setting.constants.get(node.input[1])
    if constant is None or constant.size != 1:
        raise Opaque
    return x ** float(constant.reshape(()))


def _clip(setting: Setting, node: onnx.NodeProto, x: Value, low: Value = None, high: Value = None) -> Value:
    return x.clip(-math.inf if low is None else low, math.inf if high is None else high)


def _normalization(setting: Setting, node: onnx.NodeProto, x: Value, *given: Value) -> Value:
    axes = setting.axes(node)
    scale, shift = [*given, None, None][:2]
    epsilon = float(attribute(node, "epsilon", 1e-5))
    if node.op_type == "RMSNormalization":
        return rms_normalization(x, scale, epsilon, axes, setting.count(axes))
    return layer_normalization(x, scale, 0.0 if shift is None else shift, epsilon, axes, setting.count(axes))


def _with(function: Callable[..., Value], **defaults: float) -> Meaning:
    """Return the meaning of an op whose attributes are its function's parameters."""
    return lambda setting, node, x: function(
        x, *(float(attribute(node, name, value)) for name, value in defaults.items())
    )


NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")

REDUCTIONS: dict[str, Meaning] = {
    "ReduceMean": _reduction(mean),
    "GlobalAveragePool": _reduction(mean),
    "ReduceSum": _reduction(lambda x, axes, count: x.total(axes)),
    "ReduceSumSquare": _reduction(lambda x, axes, count: (x * x).total(axes)),
    "ReduceMax": _reduction(lambda x, axes, count: x.largest(axes)),
    **dict.fromkeys(NORMALIZATIONS, _normalization),
}

OPS: dict[str, Meaning] = {
    **REDUCTIONS,
    "Add": _plain(lambda a, b: a + b),
    "Sub": _plain(lambda a, b: a - b),
    "Mul": _plain(lambda a, b: a * b),
    "Div": _plain(lambda a, b: a / b),
    "Neg": _plain(lambda x: -x),
    "Reciprocal": _plain(lambda x: x**-1),
    "Sqrt": _plain(lambda x: x**0.5),
    "Pow": _pow,
    "Sum": _folded(lambda a, b: a + b),
    "Max": _folded(lambda a, b: a.maximum(b)),
    "Min": _folded(lambda a, b: a.minimum(b)),
    "Clip": _clip,
    "Relu": _plain(lambda x: x.clip(0.0, math.inf)),
    "Abs": _function("abs"),
    "Exp": _function("exp"),
    "Log": _function("log"),
    "Erf": _function("erf"),
    "Tanh": _function("tanh"),
    "Softplus": _function("softplus"),
    "Sigmoid": _plain(sigmoid),
    "Softsign": _plain(softsign),
    "HardSigmoid": _with(hard_sigmoid, alpha=0.2, beta=0.5),
    "LeakyRelu": _with(leaky_relu, alpha=0.01),
    "Elu": _with(elu, alpha=1.0),
    "Greater": _plain(lambda a, b: a.above(b)),
    "Less": _plain(lambda a, b: b.above(a)),
    "GreaterOrEqual": _plain(lambda a, b: a.at_least(b)),
    "LessOrEqual": _plain(lambda a, b: b.at_least(a)),
    "Not": _plain(lambda condition: condition.otherwise()),
    "Where": _plain(lambda condition, a, b: condition.choose(a, b)),
}
