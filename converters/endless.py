"""Refuse loops that cannot end within a lifetime: their condition never changes, and they count too far.

Reads the graph of a ModelProto; raises InvalidModel, which names the loop. A loop that ends by a condition, or whose
trip count is an input, may run: how long it takes is known only then.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from converters.draft import subgraphs
from converters.errors import InvalidModel

MOST_TRIPS = 2**17
"""Iterations that nested loops of fixed trip counts may come to."""
_Constants = Mapping[str, np.ndarray]


def refuse_endless(graph: onnx.GraphProto, outer: _Constants | None = None, trips: int = 1) -> None:
    """Raise InvalidModel for the first loop that makes more than MOST_TRIPS iterations, whatever it computes.

    outer: the constants around the graph. trips: the iterations of the loops around it.
    """
    constants = {**(outer or {}), **_scalars(graph)}
    for node in graph.node:
        inner = trips
        if node.op_type == "Loop" and len(node.input) > 1 and (count := _trips(node, constants)) is not None:
            inner = trips * max(count, 1)
            if inner > MOST_TRIPS:
                raise InvalidModel(
                    f"node {node.name or ', '.join(node.output)!r} (Loop): expected loops of at most {MOST_TRIPS} "
                    f"iterations, got {inner}, and its condition never changes. Fix: export the model with a trip "
                    "count that ends"
                )
        for body in subgraphs(node):
            refuse_endless(body, constants, inner)


def _scalars(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constants of a graph that hold one number."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        for entry in node.attribute if node.op_type == "Constant" and node.output else ():
            if entry.name == "value":
                tensors[node.output[0]] = entry.t
            elif entry.name == "value_int":
                found[node.output[0]] = np.asarray(entry.i)
    for name, tensor in tensors.items():
        inside = tensor.data_location != onnx.TensorProto.EXTERNAL
        if inside and tensor.data_type != onnx.TensorProto.STRING and all(size == 1 for size in tensor.dims):
            found[name] = numpy_helper.to_array(tensor).reshape(())
    return found


def _trips(node: onnx.NodeProto, constants: _Constants) -> int | None:
    """The iterations of a Loop whose condition stays as it begins; None where it may end it, or they are unknown."""
    body = next(subgraphs(node), None)
    if body is None or not body.output or len(body.input) < 2:
        return None
    most, begins = node.input[:2]
    if begins in constants and not constants[begins]:
        return 0
    if not _stays(body, constants):
        return None
    if most and most not in constants:
        return None
    return int(constants[most]) if most else 2**63


def _stays(body: onnx.GraphProto, constants: _Constants) -> bool:
    """Whether the condition that a body gives is the one that it takes, or true."""
    sources = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity" and node.input}
    name, seen = body.output[0].name, set[str]()
    while name in sources and name not in seen:
        seen.add(name)
        name = sources[name]
    known = {**constants, **_scalars(body)}
    return name == body.input[1].name or (name in known and bool(known[name]))
