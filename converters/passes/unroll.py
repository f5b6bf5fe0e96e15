"""Unroll loops whose trip count is known before running, and say of the others why they stay.

Rewrites a MutableGraph whose types are inferred: a Loop whose count and condition hang on constants alone, and a
Scan along an axis of known length, are replaced by one copy of the body per iteration. What does not change
between iterations is computed once. A loop that would bring more than LARGEST nodes stays, as does one whose
count is computed while running; `explain_control_flow` leaves the reason with the node, for whoever
cannot differentiate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from converters.budget import current
from converters.errors import InvalidModel
from converters.graph.insertion import adopt_constants, hoist_constants, inherit_origin, instantiate
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard, reads, subgraphs
from converters.graph.opset import RANDOM, all_nodes
from converters.graph.tensors import shape_of
from converters.passes.trip_counts import count_trips

LARGEST = 50_000
"""Nodes that the unrolled loops of a graph may come to: those of the bodies, times the iterations."""

REASON_KEY = "onnxplain.reason"


def unroll_loops(graph: MutableGraph) -> bool:
    """Unroll every loop that can be. Returns whether there was any."""
    replaced = {}
    for node in graph.nodes:
        if is_standard(node, "Loop", "Scan"):
            trips = _trips(graph, node)
            if isinstance(trips, int):
                graph.unrolled += trips * _size(node)
                current().take_nodes(trips * _size(node), "unrolling a loop", node)
                replaced[id(node)] = _unrolled(graph, node, trips)
    graph.replace(replaced)
    return bool(replaced)


def explain_control_flow(graph: MutableGraph) -> None:
    """Write onto every loop and branch that stays why it does."""
    for node in graph.nodes:
        if is_standard(node, "If"):
            reason: int | str = f"its condition {node.input[0]!r} is computed while running"
        elif is_standard(node, "Loop", "Scan"):
            reason = _trips(graph, node)
        else:
            continue
        kept = {entry.key: entry.value for entry in node.metadata_props} | {REASON_KEY: str(reason)}
        del node.metadata_props[:]
        for key, value in kept.items():
            node.metadata_props.add(key=key, value=value)


def _trips(graph: MutableGraph, node: onnx.NodeProto) -> int | str:
    """The number of iterations to write out, or why the loop stays."""
    limit = max(min(LARGEST - graph.unrolled, current().nodes_left), 0) // _size(node)
    trips = count_trips(graph, node, limit) if node.op_type == "Loop" else _length(graph, node)
    if isinstance(trips, int) and trips > limit:
        most = min(LARGEST, current().nodes)
        return f"the graph's loops would come to more than {most} nodes"
    if trips == 0 and len(node.output) > _carried(node):
        return "it makes no iteration, and what it collects is empty"
    return trips


def _size(node: onnx.NodeProto) -> int:
    """The nodes of a loop's body, those of the bodies within it included; at least one."""
    return max(len(all_nodes(list(attribute(node, "body").node))), 1)


def _carried(node: onnx.NodeProto) -> int:
    """How many values go from one iteration to the next."""
    if node.op_type == "Loop":
        return len(node.input) - 2
    return len(node.input) - int(attribute(node, "num_scan_inputs"))


def _length(graph: MutableGraph, node: onnx.NodeProto) -> int | str:
    """The number of iterations of a Scan: the length of what it scans."""
    scanned = node.input[_carried(node) :]
    known: int | None = None
    for name, axis in zip(scanned, _integers(node, "scan_input_axes", len(scanned)), strict=True):
        shape = graph.shape(name)
        if shape is None:
            continue
        if not -len(shape) <= axis < len(shape):
            raise InvalidModel(
                f"node {node.name or node.output[0]!r} (Scan): expected an axis of {name!r} of {len(shape)} axes, got "
                f"{axis}. Fix: export the model again"
            )
        size = shape[axis]
        if known is None and isinstance(size, int):
            known = size
    return (
        f"the length of {scanned[0]!r}, along which it runs, is not known before running"
        if known is None
        else known
    )


def _integers(node: onnx.NodeProto, name: str, count: int) -> list[int]:
    return attribute(node, name) or [0] * count


class _Body:
    """The body of a loop that is being unrolled, and the nodes written so far."""

    def __init__(self, graph: MutableGraph, node: onnx.NodeProto) -> None:
        self.graph, self.nodes = graph, list[onnx.NodeProto]()
        self.stem = next(name for name in node.output if name)
        for inner in attribute(node, "body").node:
            for nested in subgraphs(inner):
                hoist_constants(graph, nested, self.stem)
        body = MutableGraph(helper.make_model(attribute(node, "body")))
        self._inputs = body.inputs
        self._formal = [info.name for info in body.inputs]
        self._results = [info.name for info in body.outputs]
        self._outer = adopt_constants(graph, body, self.stem)
        once, self._changing = _split_invariant(body.nodes, self._formal)
        self.nodes, names = instantiate(graph, once, self._outer, self.stem)
        self._outer |= names

    def iterate(self, step: int, given: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Write one iteration; returns the names of its results, `wanted` ("" for any) where they are free."""
        actual = self._outer | dict(zip(self._formal, given, strict=True))
        bound = list(zip(self._results, wanted, strict=False))
        nodes, names = instantiate(self.graph, self._changing, actual, f"{self.stem}/{step}", bound)
        self.nodes += nodes
        return [names.get(result, result) for result in self._results]

    def as_stated(self, index: int, number: np.ndarray) -> np.ndarray:
        """A number in the rank that the body states of its input, as ONNX Runtime hands it over."""
        stated = shape_of(self._inputs[index].type)
        return number.reshape((1,) * len(stated or ()))

    def constant(self, role: str, value: np.ndarray) -> str:
        """Enter a constant; returns its name."""
        name = self.graph.fresh(f"{self.stem}/{role}")
        self.graph.constants[name] = value
        return name

    def write(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Append a node."""
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))


def _split_invariant(
    nodes: Iterable[onnx.NodeProto], formal: Iterable[str]
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """The nodes that compute the same in every iteration, and the others."""
    moving, same, changing = set(formal), list[onnx.NodeProto](), list[onnx.NodeProto]()
    for node in nodes:
        if node.op_type in RANDOM or not moving.isdisjoint(reads(node)):
            changing.append(node)
            moving.update(node.output)
        else:
            same.append(node)
    return same, changing


def _unrolled(graph: MutableGraph, node: onnx.NodeProto, trips: int) -> list[onnx.NodeProto]:
    """The nodes that compute what a loop of so many iterations computes."""
    body, count, loop = _Body(graph, node), _carried(node), node.op_type == "Loop"
    states = list(node.input[2:] if loop else node.input[:count])
    elements = [] if loop else _elements(body, node, trips)
    true = body.constant("true", body.as_stated(1, np.asarray(True))) if loop else ""
    # Before its states a Loop gives back its condition; a Scan has none.
    first = 1 if loop else 0
    collected: list[list[str]] = [[] for _ in node.output[count:]]
    budget = current()
    for step in range(trips):
        budget.check("unrolling a loop", node)
        wanted = [*[""] * first, *node.output[:count]] if step == trips - 1 else []
        if loop:
            number = body.as_stated(0, np.asarray(step, np.int64))
            given = [body.constant(f"step_{step}", number), true, *states]
        else:
            given = [*states, *(pieces[step] for pieces in elements)]
        results = body.iterate(step, given, wanted)
        states = results[first : first + count]
        for items, result in zip(collected, results[first + count :], strict=False):
            items.append(result)
    if not trips:
        body.nodes += [
            helper.make_node("Identity", [s], [o]) for s, o in zip(states, node.output, strict=False) if o
        ]
    _collect(body, node, collected)
    inherit_origin(body.nodes, node)
    return body.nodes


def _elements(body: _Body, node: onnx.NodeProto, trips: int) -> list[list[str]]:
    """What a Scan reads in each iteration, by input."""
    scanned = node.input[_carried(node) :]
    axes = _integers(node, "scan_input_axes", len(scanned))
    backwards = _integers(node, "scan_input_directions", len(scanned))
    sizes = body.constant("sizes", np.ones(trips, np.int64))
    found = []
    for name, axis, reverse in zip(scanned, axes, backwards, strict=True):
        pieces = [body.graph.fresh(f"{body.stem}/{name}_{step}") for step in range(trips)]
        items = [body.graph.fresh(f"{piece}.item") for piece in pieces]
        along = body.constant("axis", np.asarray([axis], np.int64))
        body.write("Split", [name, sizes], pieces, axis=axis)
        for piece, item in zip(pieces, items, strict=True):
            body.write("Squeeze", [piece, along], [item])
        found.append(items[::-1] if reverse else items)
    return found


def _collect(body: _Body, node: onnx.NodeProto, collected: Sequence[Sequence[str]]) -> None:
    """Join what the iterations give along a new axis."""
    axes = _integers(node, "scan_output_axes", len(collected))
    backwards = _integers(node, "scan_output_directions", len(collected))
    outputs = node.output[_carried(node) :]
    for output, items, axis, reverse in zip(outputs, collected, axes, backwards, strict=False):
        if not output:
            continue
        along = body.constant("axis", np.asarray([axis], np.int64))
        pieces = [body.graph.fresh(f"{output}_{step}") for step in range(len(items))]
        for item, piece in zip(items, pieces, strict=True):
            body.write("Unsqueeze", [item, along], [piece])
        body.write("Concat", pieces[::-1] if reverse else pieces, [output], axis=axis)
