"""Read the nodes between two tensors as units whose attributes and constants can be compared across frameworks.

From nodes of a graph to Units: attributes with their defaults filled in and paddings resolved, constants under common
names. A separate padding joins the window behind it, and a constant that is added to a linear map is its bias. Nodes
that only move values have no unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from analyzer.checks.match.layers import moves
from analyzer.graph.graph import Graph, Node

WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "DeformConv")
LINEAR, SCALED = "linear", "scale and shift"
# Of no influence on inference, or told by the weights.
SILENT = frozenset(
    {"kernel_shape", "momentum", "training_mode", "storage_order", "transA", "transB", "alpha", "beta"}
)
PLAIN = (int, float, str, list, np.ndarray)
SILENT_OF = {
    "linear": SILENT,
    "Conv": frozenset({"kernel_shape"}),
    "ConvTranspose": frozenset({"kernel_shape"}),
}
NAMES: Mapping[str, Sequence[str]] = {
    "Conv": ("x", "kernel", "bias"),
    "ConvTranspose": ("x", "kernel", "bias"),
    "Gemm": ("x", "weights", "bias"),
    "MatMul": ("weights", "weights"),
    "BatchNormalization": ("x", "scale", "bias", "mean", "variance"),
    "LayerNormalization": ("x", "scale", "bias"),
    "InstanceNormalization": ("x", "scale", "bias"),
    "GroupNormalization": ("x", "scale", "bias"),
    "LSTM": ("x", "weights", "recurrent weights", "bias", "", "initial state", "initial cell", "peepholes"),
    "GRU": ("x", "weights", "recurrent weights", "bias", "", "initial state"),
    "RNN": ("x", "weights", "recurrent weights", "bias", "", "initial state"),
    "PRelu": ("x", "slope"),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"), ("constant", "constant")),
}  # fmt: skip


@dataclass
class Unit:
    """One computation. kind: units of one kind are compared; op_type: as the graph spells it; reads: its operands that
    are not constant.
    """

    kind: str
    op_type: str
    reads: tuple[str, ...]
    properties: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)


def units_of(graph: Graph, nodes: Iterable[Node]) -> list[Unit]:
    """Return the units of nodes in topological order."""
    found: list[Unit] = []
    given: dict[str, Unit] = {}
    pads: dict[str, np.ndarray] = {}
    for node in nodes:
        source = _source(node, graph)
        if moves(graph, node):
            _pass_on(node, source, given, pads)
        elif _is_zero_padding(graph, node) and _windowed_reader(graph, node.outputs[0]):
            pads[node.outputs[0]] = np.asarray(graph.tensors[node.inputs[1]].constant).reshape(2, -1)
        elif not _joined(graph, node, given.get(source)):
            unit = _unit(graph, node, pads.get(node.inputs[0] if node.inputs else ""))
            found.append(unit)
            if len(graph.consumers.get(node.outputs[0], ())) == 1:
                given[node.outputs[0]] = unit
        elif source in given:
            given[node.outputs[0]] = given[source]
    return found


def _source(node: Node, graph: Graph) -> str:
    """The first input that is not a constant."""
    return next((name for name in node.inputs if name and graph.tensors[name].constant is None), "")


def _pass_on(node: Node, source: str, given: dict[str, Unit], pads: dict[str, np.ndarray]) -> None:
    """What is known of a tensor, for the tensor that it is moved into."""
    if source in given:
        given[node.outputs[0]] = given[source]
    if source in pads and node.op_type == "Transpose":
        pads[node.outputs[0]] = pads[source][:, node.attributes["perm"]]


def _joined(graph: Graph, node: Node, before: Unit | None) -> bool:
    """Whether a node belongs to the unit before it: a bias that is added apart, a shift after a scale."""
    if before is None or node.op_type not in ("Add", "Sub", "Mul"):
        return False
    constant = next((a for n in node.inputs if (a := graph.tensors[n].constant) is not None), None)
    if constant is None or constant.size != max(constant.shape, default=1):
        return False
    if node.op_type == "Sub" and graph.tensors[node.inputs[0]].constant is not None:
        return False
    vector = constant.reshape(-1) * (-1 if node.op_type == "Sub" else 1)
    if (
        node.op_type != "Mul"
        and before.kind in (LINEAR, "Conv", "ConvTranspose")
        and "bias" not in before.constants
    ):
        before.constants["bias"] = vector
        return True
    if node.op_type != "Mul" and before.op_type == "Mul" and "constant" in before.constants:
        if before.constants["constant"].size != max(before.constants["constant"].shape, default=1):
            return False
        before.kind, before.constants = (
            SCALED,
            {"scale": before.constants["constant"].reshape(-1), "shift": vector},
        )
        return True
    return False


def _unit(graph: Graph, node: Node, pads: np.ndarray | None) -> Unit:
    constants = _constants(graph, node)
    reads = tuple(name for name in node.inputs if name and graph.tensors[name].constant is None)
    kind = node.op_type
    # The bodies of loops and branches are left out.
    properties = {name: value for name, value in node.attributes.items() if isinstance(value, PLAIN)}
    if node.op_type in WINDOWED:
        properties = _window(graph, node, properties, pads)
    if node.op_type == "Gemm" and "weights" in constants:
        kind = LINEAR
        constants["weights"] = constants["weights"] * properties.get("alpha", 1.0)
        if properties.get("transB"):
            constants["weights"] = constants["weights"].T
        if "bias" in constants:
            constants["bias"] = constants["bias"].reshape(-1) * properties.get("beta", 1.0)
    elif node.op_type == "MatMul" and constants:
        kind = LINEAR
    silent = SILENT_OF.get(kind, SILENT - {"kernel_shape", "alpha", "beta"})
    properties = {name: value for name, value in properties.items() if name not in silent}
    return Unit(kind, node.op_type, reads, properties, constants)


def _constants(graph: Graph, node: Node) -> dict[str, np.ndarray]:
    """The constant inputs by a common name; those without one by the name of the ONNX schema."""
    names = NAMES.get(node.op_type) or _schema_names(node.op_type, graph.opset)
    found: dict[str, np.ndarray] = {}
    for place, name in enumerate(node.inputs):
        array = graph.tensors[name].constant if name else None
        if array is not None and place < len(names) and names[place] and array.dtype.kind in "fiub":
            found[names[place]] = array
    return found


def _schema_names(op_type: str, opset: int) -> list[str]:
    if not onnx.defs.has(op_type, opset, ""):
        return []
    return [one.name for one in onnx.defs.get_schema(op_type, opset, "").inputs]


def _window(graph: Graph, node: Node, given: Mapping[str, Any], padded: np.ndarray | None) -> dict[str, Any]:
    """The attributes of a window with the defaults that depend on the rank, and its padding in numbers."""
    sizes = graph.tensors[node.inputs[0]].shape
    kernel = given.get("kernel_shape")
    weights = graph.tensors[node.inputs[1]].constant if len(node.inputs) > 1 else None
    if kernel is None and weights is not None:
        kernel = list(weights.shape[2:])
    rank = len(kernel) if kernel is not None else len(sizes or ()) - 2
    found = dict(given)
    for name in ("strides", "dilations"):
        found[name] = list(given.get(name) or [1] * rank)
    pads = given.get("pads") or [0] * (2 * rank)
    automatic = found.pop("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        known = sizes[2:] if sizes is not None else ()
        if (
            kernel is None
            or node.op_type == "ConvTranspose"
            or not all(isinstance(size, int) for size in known)
        ):
            found["auto_pad"] = automatic
            return found
        pads = _same_pads([int(size or 0) for size in known], kernel, found, lower=automatic == "SAME_LOWER")
    if padded is not None:
        pads = (np.asarray(pads).reshape(2, -1) + padded[:, -rank:]).reshape(-1)
    return {**found, "pads": [int(pad) for pad in pads]}


def _same_pads(
    sizes: Sequence[int], kernel: Sequence[int], window: Mapping[str, Any], *, lower: bool
) -> list[int]:
    totals = [
        max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, width, stride, dilation in zip(
            sizes, kernel, window["strides"], window["dilations"], strict=True
        )
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return large + small if lower else small + large


def _is_zero_padding(graph: Graph, node: Node) -> bool:
    """Whether a node adds zeros around all axes; a padding of other values or of some axes is a unit."""
    if node.op_type != "Pad" or node.attributes.get("mode") != "constant" or len(node.inputs) < 2:
        return False
    pads, *values = (graph.tensors[name].constant if name else None for name in node.inputs[1:])
    value = values[0] if values else None
    zeros = not (len(node.inputs) > 2 and node.inputs[2]) or (value is not None and not np.any(value))
    return pads is not None and zeros and len(node.inputs) < 4 and not np.any(pads < 0)


def _windowed_reader(graph: Graph, name: str) -> bool:
    """Whether a convolution, and nothing else, reads a tensor, once it is moved."""
    while len(readers := graph.consumers.get(name, ())) == 1:
        if readers[0].op_type == "Conv":
            return readers[0].inputs[0] == name
        if readers[0].op_type != "Transpose":
            return False
        name = readers[0].outputs[0]
    return False
