"""Activations in primitives: a region that computes, number by number, the function of one op of the standard.

Reads a Region; returns the nodes that replace it. The region's normal form is compared with those of the table in
formulas.py, and its values with the op's, in the precision of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import inherit_origin
from converters.graph.mutable import MutableGraph
from converters.passes.joins.confirm import agrees, numbers
from converters.passes.joins.form import Form, Opaque
from converters.passes.joins.formulas import FUNCTIONS, Function
from converters.passes.joins.nodes import Setting, compute
from converters.passes.joins.region import MOVES, Region, is_number, moved
from converters.passes.joins.rounded import Precision, Rounded
from converters.passes.joins.unify import unify

_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)


@dataclass(frozen=True)
class _Match:
    """A function of the table with its parameters."""

    function: Function
    parameters: Mapping[str, float]

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the op's node."""
        inputs = self.function.inputs
        numbers = {name: value for name, value in self.parameters.items() if name not in inputs}
        return {**numbers, **self.function.stated}


@dataclass(frozen=True)
class _Still:
    """A region without its moves: its elementwise nodes, and the moves that its result has been through."""

    entry: str
    nodes: tuple[onnx.NodeProto, ...]
    moves: tuple[onnx.NodeProto, ...]


class RegionRecogniser:
    """Recognises regions of a graph; equal ones are compared once."""

    def __init__(self, graph: MutableGraph) -> None:
        self._graph = graph
        self._known: dict[tuple[np.dtype[Any], int], _Match | None] = {}
        self._precisions: dict[str, Precision | None] = {}

    def join(self, region: Region) -> list[onnx.NodeProto] | None:
        """Return the nodes that replace a region, with its result's name; None where it is no op's function."""
        found = self._matched(region)
        still = None if found is None else self._without_moves(region)
        return None if found is None or still is None else self._nodes(region, still, found)

    def recognises(self, region: Region) -> bool:
        """Whether a region computes what one op does."""
        return self._matched(region) is not None

    def _matched(self, region: Region) -> _Match | None:
        """Return the function of a region; regions of one structure and precision have the same."""
        entry = region.entry
        if entry not in self._precisions:
            # A constant with an axis would give one to a scalar.
            known = precision_of(self._graph, entry) if self._graph.shape(entry) else None
            self._precisions[entry] = known
        precision = self._precisions[entry]
        if precision is None:
            return None
        key = (precision.dtype, region.structure)
        if key not in self._known:
            still = self._without_moves(region)
            single = still is None or len(still.nodes) == 1
            self._known[key] = None if still is None or single else self._match(still, precision)
        return self._known[key]

    def _without_moves(self, region: Region) -> _Still | None:
        """Return None where constants are not single numbers, or where elements meet that were moved differently."""
        source, paths = {region.entry: region.entry}, {region.entry: tuple[onnx.NodeProto, ...]()}
        nodes = []
        for node in region.nodes:
            name = node.output[0]
            if node.op_type in MOVES:
                source[name] = source[node.input[0]]
                paths[name] = (*paths[node.input[0]], node)
                continue
            computed = [given for given in node.input if given and given not in self._graph.constants]
            histories = [self._history(paths[given]) for given in computed]
            if any(one is None or one != histories[0] for one in histories):
                return None
            if not all(is_number(self._graph, given, node) for given in node.input if given not in computed):
                return None
            inputs = [source.get(given, given) for given in node.input]
            if inputs == list(node.input):
                nodes.append(node)
            else:
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                copy.input[:] = inputs
                nodes.append(copy)
            source[name], paths[name] = name, paths[computed[0]]
        return _Still(region.entry, tuple(nodes), paths[region.last.output[0]])

    def _history(self, moves: tuple[onnx.NodeProto, ...]) -> list[Any] | None:
        """Return what moves do to the order of elements and to the shape; None where that is not known."""
        found: list[Any] = []
        for node in moves:
            step = moved(self._graph, node)
            if step is None:
                return None
            if isinstance(step, list):
                if found and isinstance(found[-1], list):
                    first = found.pop()
                    step = [first[axis] for axis in step]
                found += [] if step == sorted(step) else [step]
            else:
                found.append(step)
        return found

    def _value(self, name: str) -> float:
        return float(self._graph.constants[name].reshape(()))

    def _match(self, still: _Still, precision: Precision) -> _Match | None:
        setting = Setting(self._graph.constants, (1,))
        number = self._value

        try:
            form: Form = compute(
                still.nodes, setting, {still.entry: Form.atom("x")}, lambda name: Form.number(number(name))
            )
        except Opaque:
            return None
        found = _recognise(form, precision)
        if found is None:
            return None

        def file(x: Rounded) -> Rounded:
            result: Rounded = compute(
                still.nodes, setting, {still.entry: x}, lambda name: x.constant(np.asarray(number(name)))
            )
            return result

        def op(x: Rounded) -> Rounded:
            constants = {name: x.constant(np.asarray(value)) for name, value in found.parameters.items()}
            result: Rounded = found.function.definition(x, **constants)
            return result

        stored = [
            number(name) for node in still.nodes for name in node.input if name in self._graph.constants
        ]
        return found if agrees(file, op, numbers(stored, precision), precision) else None

    def _nodes(self, region: Region, still: _Still, found: _Match) -> list[onnx.NodeProto] | None:
        last, entry = region.last, region.entry
        stem = last.output[0]
        result = self._graph.fresh(f"{stem}.unmoved") if still.moves else stem
        op_type = found.function.op_type
        if op_type == "Swish":
            # The canonical opset has no such op: it is a Sigmoid and a product.
            if not region.moves and sorted(node.op_type for node in region.nodes) == ["Mul", "Sigmoid"]:
                return None
            gate = self._graph.fresh(f"{stem}.sigmoid")
            nodes = [
                helper.make_node("Sigmoid", [entry], [gate]),
                helper.make_node("Mul", [entry, gate], [result], last.name),
            ]
        else:
            given = [self._number(region, found.parameters[name]) for name in found.function.inputs]
            nodes = [helper.make_node(op_type, [entry, *given], [result], last.name, **found.attributes())]
        nodes += self._moved(result, stem, still.moves)
        inherit_origin(nodes, last)
        return nodes

    def _moved(self, name: str, result: str, moves: tuple[onnx.NodeProto, ...]) -> list[onnx.NodeProto]:
        """Return copies of moves, one after the other, from one tensor to another."""
        copies = []
        for index, move in enumerate(moves, 1):
            copy = onnx.NodeProto()
            copy.CopyFrom(move)
            copy.input[0] = name
            name = result if index == len(moves) else self._graph.fresh(f"{result}.moved")
            copy.output[0] = name
            copies.append(copy)
        return copies

    def _number(self, region: Region, value: float) -> str:
        precision = precision_of(self._graph, region.entry)
        assert precision is not None
        name = self._graph.fresh(f"{region.last.output[0]}.bound")
        self._graph.constants[name] = np.asarray(value, precision.dtype)
        return name


def precision_of(graph: MutableGraph, name: str) -> Precision | None:
    """Return the floating type of a tensor; None where it has another type, or none that is known."""
    kind = graph.type_of(name)
    if kind is None or kind.tensor_type.elem_type not in _FLOATS:
        return None
    return Precision(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))


def _recognise(form: Form, precision: Precision) -> _Match | None:
    """Return the first function of the table that has a pattern which is the form."""
    for function in FUNCTIONS:
        if precision.is_double and not function.in_double:
            continue
        for known in function.patterns:
            bound = unify(form, known, precision)
            read = None if bound is None else function.read(bound, precision)
            if read is not None and _carries(function, read, precision):
                return _Match(function, read)
    return None


def _carries(function: Function, parameters: Mapping[str, float], precision: Precision) -> bool:
    """Whether the op's node holds its parameters exactly. Attributes are float32, which rounds those of float64."""
    attributes = [value for name, value in parameters.items() if name not in function.inputs]
    return not precision.is_double or all(float(np.float32(value)) == value for value in attributes)
