"""Refuse loops that cannot end within a lifetime: their condition never changes, and they count too far.

Reads a Loop and the constants around it; raises InvalidModel, which names the loop. A loop that ends by a condition, or
whose trip count is an input, may run: how long it takes is known only then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from converters.errors import InvalidModel
from converters.graph.nodes import subgraphs

MOST_TRIPS = 2**17
"""Iterations that nested loops of fixed trip counts may come to."""
_SMALL = 64
Constants = Mapping[str, np.ndarray]


def small_constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constants of a graph that hold a few numbers: sizes, axes, trip counts."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        for entry in node.attribute if node.op_type == "Constant" and node.output else ():
            if entry.name == "value":
                tensors[node.output[0]] = entry.t
            elif entry.name in ("value_int", "value_ints", "value_float", "value_floats"):
                found[node.output[0]] = np.asarray(onnx.helper.get_attribute_value(entry))
    for name, tensor in tensors.items():
        inside = tensor.data_location != onnx.TensorProto.EXTERNAL
        if inside and tensor.data_type != onnx.TensorProto.STRING and math.prod(tensor.dims) <= _SMALL:
            found[name] = numpy_helper.to_array(tensor)
    return found


def refuse_endless(node: onnx.NodeProto, constants: Constants, trips: int, place: str) -> int:
    """Return the iterations that the body of a node makes at least, where `trips` are those of the loops around it.

    Raises InvalidModel for a loop that makes more than MOST_TRIPS iterations, whatever it computes.
    """
    if node.op_type != "Loop" or (count := _trips(node, constants)) is None:
        return trips
    inner = trips * max(count, 1)
    if inner > MOST_TRIPS:
        raise InvalidModel(
            f"{place}: expected loops of at most {MOST_TRIPS} iterations, got {inner}, and its condition never "
            "changes. Fix: export the model with a trip count that ends"
        )
    return inner


def _trips(node: onnx.NodeProto, constants: Constants) -> int | None:
    """The iterations of a Loop whose condition stays as it begins; None where it may end it, or they are unknown."""
    body = next(subgraphs(node), None)
    if body is None or not body.output or len(body.input) < 2 or len(node.input) < 2:
        return None
    most, begins = node.input[:2]
    if begins in constants and not constants[begins].any():
        return 0
    if not _stays(body, constants):
        return None
    if most:
        return int(constants[most].flat[0]) if most in constants and constants[most].size == 1 else None
    return 2**63


def _stays(body: onnx.GraphProto, constants: Constants) -> bool:
    """Whether the condition that a body gives is the one that it takes, or true."""
    sources = {
        node.output[0]: node.input[0]
        for node in body.node
        if node.op_type == "Identity" and node.input and node.output
    }
    name, seen = body.output[0].name, set[str]()
    while name in sources and name not in seen:
        seen.add(name)
        name = sources[name]
    known = {**constants, **small_constants(body)}
    return name == body.input[1].name or (name in known and bool(known[name].all()))
