"""The value of a region at given points, in float64.

Reads nodes and constants; returns arrays. FUNCTIONS holds what can be evaluated: elementwise ops and reductions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from converters.draft import attribute

Array = np.ndarray


def axes_of(node: onnx.NodeProto, rank: int, constants: Mapping[str, Array]) -> tuple[int, ...] | None:
    """The axes that a reduction sums over, counted from the front; None where they are computed."""
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, rank))
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return tuple(range(int(attribute(node, "axis", -1)) % rank, rank))
    if node.op_type in ("Softmax", "LogSoftmax"):
        return (int(attribute(node, "axis", -1)) % rank,)
    given = node.input[1] if len(node.input) > 1 else ""
    if given and given not in constants:
        return None
    axes = constants[given].reshape(-1).tolist() if given else []
    if not axes:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in axes))


def evaluate(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], entry: str, x: Array
) -> Array | None:
    """What the last of the nodes gives where `entry` is x; None where that is no finite number."""
    known = {entry: x}

    def value(name: str) -> Array | None:
        if not name:
            return None
        return known[name] if name in known else constants[name].astype(np.float64)

    with np.errstate(all="ignore"):
        for node in nodes:
            arguments = [value(name) for name in node.input]
            try:
                known[node.output[0]] = FUNCTIONS[node.op_type](node, constants, *arguments)
            except (ValueError, IndexError):  # shapes that do not fit at this size: no elementwise function
                return None
    result = np.asarray(known[nodes[-1].output[0]], np.float64)
    return result if np.isfinite(result).all() else None


Function = Callable[..., Array]


def _plain(function: Callable[..., Any]) -> Function:
    return lambda node, constants, *inputs: np.asarray(function(*inputs))


def _reduction(function: Callable[..., Any]) -> Function:
    def reduce(node: onnx.NodeProto, constants: Mapping[str, Array], x: Array, *_: Array) -> Array:
        axes = axes_of(node, x.ndim, constants)
        if axes is None:
            raise ValueError("computed axes")
        return np.asarray(function(x, axis=axes, keepdims=bool(attribute(node, "keepdims", 1))))

    return reduce


def _normalized(
    node: onnx.NodeProto, constants: Mapping[str, Array], x: Array, *given: Array | None
) -> Array:
    axes = axes_of(node, x.ndim, constants)
    assert axes is not None
    y = normal(x, axes, float(attribute(node, "epsilon", 1e-5)), centre=node.op_type == "LayerNormalization")
    scale, shift = [*given, None, None][:2]
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


def normal(x: Array, axes: Sequence[int], epsilon: float, *, centre: bool) -> Array:
    """x without its mean (where `centre`) and with its mean square brought to one, over axes."""
    over = tuple(axes)
    centred = x - x.mean(over, keepdims=True) if centre else x
    result: Array = centred / np.sqrt((centred**2).mean(over, keepdims=True) + epsilon)
    return result


def softmax(x: Array, axes: Sequence[int]) -> Array:
    """exp(x) over its sum along axes."""
    shifted = np.exp(x - x.max(tuple(axes), keepdims=True))
    result: Array = shifted / shifted.sum(tuple(axes), keepdims=True)
    return result


def erf(x: Array) -> Array:
    """The error function."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x))."""
    return np.exp(-np.logaddexp(0, -x))


def _clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    lifted = x if low is None else np.maximum(x, low)
    return lifted if high is None else np.minimum(lifted, high)


def _hard_sigmoid(node: onnx.NodeProto, constants: Mapping[str, Array], x: Array) -> Array:
    line = float(attribute(node, "alpha", 0.2)) * x + float(attribute(node, "beta", 0.5))
    return np.clip(line, 0, 1)


def _elu(node: onnx.NodeProto, constants: Mapping[str, Array], x: Array) -> Array:
    return np.where(x > 0, x, float(attribute(node, "alpha", 1.0)) * np.expm1(np.minimum(x, 0)))


def _leaky_relu(node: onnx.NodeProto, constants: Mapping[str, Array], x: Array) -> Array:
    return np.where(x > 0, x, float(attribute(node, "alpha", 0.01)) * x)


def _log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    result: Array = np.log(np.exp(x).sum(axis, keepdims=keepdims))
    return result


def _folded(function: Callable[[Array, Array], Array]) -> Function:
    def fold(node: onnx.NodeProto, constants: Mapping[str, Array], first: Array, *rest: Array) -> Array:
        for array in rest:
            first = function(first, array)
        return first

    return fold


NORMALIZATIONS: dict[str, Function] = {
    "LayerNormalization": _normalized,
    "RMSNormalization": _normalized,
    "Softmax": _reduction(lambda x, axis, keepdims: softmax(x, axis)),
    "LogSoftmax": _reduction(lambda x, axis, keepdims: np.log(softmax(x, axis))),
}

REDUCTIONS: dict[str, Function] = {
    "ReduceMean": _reduction(np.mean),
    "GlobalAveragePool": _reduction(np.mean),
    "ReduceSum": _reduction(np.sum),
    "ReduceMax": _reduction(np.max),
    "ReduceSumSquare": _reduction(lambda x, axis, keepdims: (x**2).sum(axis, keepdims=keepdims)),
    "ReduceL2": _reduction(lambda x, axis, keepdims: np.sqrt((x**2).sum(axis, keepdims=keepdims))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    **NORMALIZATIONS,
}

FUNCTIONS: dict[str, Function] = {
    **REDUCTIONS,
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _plain(np.divide),
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Pow": _plain(np.power),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(np.reciprocal),
    "Exp": _plain(np.exp),
    "Log": _plain(np.log),
    "Erf": _plain(erf),
    "Tanh": _plain(np.tanh),
    "Sigmoid": _plain(sigmoid),
    "Softplus": _plain(lambda x: np.logaddexp(x, 0)),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Sum": _folded(np.add),
    "Clip": _plain(_clip),
    "HardSigmoid": _hard_sigmoid,
    "Elu": _elu,
    "LeakyRelu": _leaky_relu,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Not": _plain(np.logical_not),
    "Where": _plain(lambda condition, a, b: np.where(condition.astype(bool), a, b)),
}
