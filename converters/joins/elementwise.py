"""Activations in primitives: a region that computes, number by number, what one op of the standard computes.

Reads a Region; gives the nodes that stand in its place. The region is evaluated on a grid of numbers and compared
with every function of the table, whose parameters (the slope of a LeakyRelu, the bounds of a Clip) are read off the
same values. Sources: Hendrycks & Gimpel 2016 (GELU), Misra 2019 (Mish), Howard et al. 2019 (hard swish).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from converters.draft import Draft, attribute
from converters.joins.region import MOVES, Region
from converters.joins.values import erf, evaluate, sigmoid
from converters.splice import inherit_origin

_FAR = 30.0
# 0 and ±1 come first: what parameters are read off. The rest hits no kink of any known function.
_POINTS = np.concatenate([[0.0, 1.0, -1.0, 0.01, -_FAR, _FAR], np.linspace(-_FAR, _FAR, 487) + 0.0123])
_SCALE = np.maximum(1, np.abs(_POINTS))
# Exporters write √2 with six digits or more; in half precision with three.
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 4e-3


@dataclass(frozen=True)
class _Match:
    """An op with its attributes and the numbers that it takes as further inputs, and its values on the grid."""

    op_type: str
    values: np.ndarray
    attributes: Mapping[str, float | str] = field(default_factory=dict)
    numbers: tuple[float, ...] = ()


def _gelu_by_tanh(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result


_Formula = Callable[[np.ndarray], np.ndarray]
_FORMULAS: tuple[tuple[str, _Formula, dict[str, str]], ...] = (
    ("Gelu", lambda x: 0.5 * x * (1 + erf(x * math.sqrt(0.5))), {}),
    ("Gelu", _gelu_by_tanh, {"approximate": "tanh"}),
    ("HardSwish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), {}),
    ("Mish", lambda x: x * np.tanh(np.logaddexp(x, 0)), {}),
    ("Swish", lambda x: x * sigmoid(x), {}),
    ("Softplus", lambda x: np.logaddexp(x, 0), {}),
    ("Softsign", lambda x: x / (1 + np.abs(x)), {}),
    ("Sigmoid", sigmoid, {}),
    ("Tanh", np.tanh, {}),
    ("Relu", lambda x: np.maximum(x, 0), {}),
)
_FIXED = tuple(_Match(op_type, formula(_POINTS), attributes) for op_type, formula, attributes in _FORMULAS)


def _with_parameters(y: np.ndarray) -> list[_Match]:
    """The functions with parameters that agree with y where these can be read off."""
    at_zero, at_one, at_minus_one, near_zero, low, high = y[:6].tolist()
    x, found = _POINTS, []
    if -_FAR < low < high < _FAR:
        found.append(_Match("Clip", np.clip(x, low, high), numbers=(low, high)))
    slope = (near_zero - at_zero) / x[3]
    if slope > 0 and 0 < at_zero < 1:
        line = np.clip(slope * x + at_zero, 0, 1)
        found.append(_Match("HardSigmoid", line, {"alpha": slope, "beta": at_zero}))
    # A slope of 1 on both sides would be no function at all.
    if abs(at_one - 1) < _TOLERANCE and 0 < -at_minus_one < 0.999:
        leak = -at_minus_one
        found.append(_Match("LeakyRelu", np.where(x > 0, x, leak * x), {"alpha": leak}))
        curve = np.where(x > 0, x, -low * np.expm1(np.minimum(x, 0)))
        found.append(_Match("Elu", curve, {"alpha": -low}))
    return found


@dataclass(frozen=True)
class _Still:
    """A region without its moves: what it computes number by number, and the moves that its result has been through."""

    entry: str
    nodes: tuple[onnx.NodeProto, ...]
    moves: tuple[onnx.NodeProto, ...]


class Elementwise:
    """Recognises regions of a draft; equal ones are evaluated once."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[tuple[object, ...], _Match | None] = {}

    def join(self, region: Region) -> list[onnx.NodeProto] | None:
        """The nodes in a region's place, with its result's name; None where it is no op's function."""
        recognised = self._recognised(region)
        return None if recognised is None else self._nodes(region, *recognised)

    def recognises(self, region: Region) -> bool:
        """Whether a region computes what one op does."""
        return self._recognised(region) is not None

    def _recognised(self, region: Region) -> tuple[_Still, _Match] | None:
        kind = self._draft.type_of(region.entry)
        # A constant with an axis would give one to a scalar.
        if kind is None or kind.tensor_type.elem_type not in _FLOATS or not self._draft.shape(region.entry):
            return None
        still = self._without_moves(region)
        if still is None or len(still.nodes) == 1:
            return None
        key = self._signature(still)
        if key not in self._known:
            self._known[key] = self._match(still)
        found = self._known[key]
        return None if found is None else (still, found)

    def _without_moves(self, region: Region) -> _Still | None:
        """None where constants are more than lone numbers, or elements meet that were moved in different ways."""
        source, paths = {region.entry: region.entry}, {region.entry: tuple[onnx.NodeProto, ...]()}
        nodes = []
        for node in region.nodes:
            name = node.output[0]
            if node.op_type in MOVES:
                source[name] = source[node.input[0]]
                paths[name] = (*paths[node.input[0]], node)
                continue
            computed = [given for given in node.input if given and given not in self._draft.constants]
            histories = [self._history(paths[given]) for given in computed]
            if any(one is None or one != histories[0] for one in histories):
                return None
            if not all(self._is_number(given, node) for given in node.input if given not in computed):
                return None
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [source.get(given, given) for given in node.input]
            nodes.append(copy)
            source[name], paths[name] = name, paths[computed[0]]
        return _Still(region.entry, tuple(nodes), paths[region.last.output[0]])

    def _is_number(self, name: str, reader: onnx.NodeProto) -> bool:
        """Whether a constant is omitted, or one number that does not raise its reader's rank."""
        value = self._draft.constants.get(name)
        if value is None or value.size != 1:
            return not name
        operands = [self._draft.shape(other) for other in reader.input if other not in self._draft.constants]
        ranks = [len(shape) for shape in operands if shape is not None]
        return value.ndim <= max(ranks, default=1)

    def _history(self, moves: tuple[onnx.NodeProto, ...]) -> list[Any] | None:
        """What moves do to the order of elements and to the shape; None where that is not known."""
        found: list[Any] = []
        for node in moves:
            if node.op_type == "Transpose":
                permutation = attribute(node, "perm")
                if permutation is None:
                    return None
                if found and isinstance(found[-1], list):
                    first = found.pop()
                    permutation = [first[axis] for axis in permutation]
                found += [] if permutation == sorted(permutation) else [permutation]
            else:
                shape = self._draft.shape(node.output[0])
                if shape is None or None in shape:
                    return None
                found.append(shape)
        return found

    def _signature(self, still: _Still) -> tuple[object, ...]:
        """What a region computes, whatever its tensors are called."""
        numbers: dict[str, int] = {still.entry: 0}
        found: list[object] = []
        for node in still.nodes:
            numbers[node.output[0]] = len(numbers)
            operands = [
                numbers[name] if name in numbers else (name and self._constant(name)) for name in node.input
            ]
            stated = tuple(sorted(entry.SerializeToString() for entry in node.attribute))
            found.append((node.op_type, tuple(operands), stated))
        return tuple(found)

    def _constant(self, name: str) -> tuple[str, float]:
        value = self._draft.constants[name]
        return value.dtype.name, float(value.reshape(()))

    def _match(self, still: _Still) -> _Match | None:
        constants = self._draft.constants
        numbers = {n: constants[n].reshape(()) for node in still.nodes for n in node.input if n in constants}
        y = evaluate(still.nodes, numbers, still.entry, _POINTS)
        if y is None or y.shape != _POINTS.shape:
            return None
        candidates = [*_FIXED, *_with_parameters(y)]
        errors = [float((np.abs(y - one.values) / _SCALE).max()) for one in candidates]
        best = int(np.argmin(errors))
        return candidates[best] if errors[best] <= self._tolerance(still) else None

    def _tolerance(self, still: _Still) -> float:
        kinds = {
            self._draft.constants[name].dtype
            for node in still.nodes
            for name in node.input
            if name in self._draft.constants
        }
        return _HALF_TOLERANCE if kinds & _HALVES else _TOLERANCE

    def _nodes(self, region: Region, still: _Still, found: _Match) -> list[onnx.NodeProto] | None:
        last, entry = region.last, region.entry
        stem = last.output[0]
        result = self._draft.fresh(f"{stem}.unmoved") if still.moves else stem
        if found.op_type == "Swish":
            # The canonical opset has no such op: it is a Sigmoid and a product.
            if not region.moves and sorted(node.op_type for node in region.nodes) == ["Mul", "Sigmoid"]:
                return None
            gate = self._draft.fresh(f"{stem}.sigmoid")
            nodes = [
                helper.make_node("Sigmoid", [entry], [gate]),
                helper.make_node("Mul", [entry, gate], [result], last.name),
            ]
        else:
            numbers = [self._number(region, value) for value in found.numbers]
            stated: dict[str, Any] = dict(found.attributes)
            nodes = [helper.make_node(found.op_type, [entry, *numbers], [result], last.name, **stated)]
        nodes += self._moved(result, stem, still.moves)
        inherit_origin(nodes, last)
        return nodes

    def _moved(self, name: str, result: str, moves: tuple[onnx.NodeProto, ...]) -> list[onnx.NodeProto]:
        """Copies of moves, one after the other, from one tensor to another."""
        copies = []
        for index, move in enumerate(moves, 1):
            copy = onnx.NodeProto()
            copy.CopyFrom(move)
            copy.input[0] = name
            name = result if index == len(moves) else self._draft.fresh(f"{result}.moved")
            copy.output[0] = name
            copies.append(copy)
        return copies

    def _number(self, region: Region, value: float) -> str:
        kind = self._draft.type_of(region.entry)
        assert kind is not None
        name = self._draft.fresh(f"{region.last.output[0]}.bound")
        dtype = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
        self._draft.constants[name] = np.asarray(value, dtype)
        return name


_HALVES = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)
