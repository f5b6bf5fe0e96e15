"""Compute what depends on constants alone, once, with ONNX Runtime.

Rewrites a MutableGraph whose types are inferred: the outputs of constant nodes become initializers under their own
names. A result stays computed at run time where it is larger than what is left of the budget of bytes (budget.py), or
takes too many multiplications: a small file cannot fill memory. Folding that takes too long is an error. Random ops,
ops of other domains and ops with subgraphs are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.budget import current
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard, reads, subgraphs
from converters.graph.opset import RANDOM
from converters.graph.runtime import ReferenceSession, RuntimeFailure, run
from converters.weights.halves import HALVES, is_widening
from converters.weights.references import are_shared, is_large

LARGEST_PRODUCT = 1 << 37
"""Multiplications of one product of constants: a node that runs cannot be interrupted, and this takes seconds."""

_STEP = "computing constants"
_WEIGHT = 1024
"""Elements of a constant that are worth to be stored once."""

_PRODUCTS = (
    "Conv",
    "ConvTranspose",
    "Einsum",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
)

# ONNX Runtime's Sigmoid is clamped near 1e-8 in float32, and is 0 where float64 has 1e-24.
_INACCURATE = ("Sigmoid",)


def fold_constants(graph: MutableGraph) -> bool:
    """Replace constant nodes by their results. Returns whether any was replaced."""
    foldable = _without_repeats(graph, _foldable(graph))
    if not foldable:
        return False
    inside = {id(node) for node in foldable}
    computed = [name for node in foldable for name in node.output if name]
    outside = {name for name in computed if not inside.issuperset(map(id, graph.readers(name)))}
    wanted = [name for name in computed if name in outside] or computed
    results = _compute(graph, foldable, wanted)
    for name, array in results.items():
        current().take_bytes(array.nbytes, _STEP, name)
    graph.constants.update(results)
    graph.remove(_computed(foldable, outside, results))
    return bool(results)


def _computed(
    nodes: list[onnx.NodeProto], outside: set[str], results: Container[str]
) -> list[onnx.NodeProto]:
    """The nodes whose results are known, or read by no other node. A node that nobody computes keeps what it reads."""
    needed, found = set(outside), []
    for node in reversed(nodes):
        if all(name in results or name not in needed for name in node.output):
            found.append(node)
        else:
            needed.update(reads(node))
    return found


def _without_repeats(graph: MutableGraph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes less those that compute of the same weights what another computes: these leave the graph.

    A sequence that the exporter unrolled transposes its weights in every step, and would store them as often.
    """
    first: dict[tuple[object, ...], onnx.NodeProto] = {}
    same: dict[str, str] = {}
    repeats = []
    for node in nodes:
        inputs = tuple(same.get(name, name) for name in node.input)
        if not any(name in graph.constants and graph.constants[name].size >= _WEIGHT for name in inputs):
            continue
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        known = first.setdefault((node.op_type, inputs, attributes, tuple(map(bool, node.output))), node)
        if known is not node:
            same.update((own, other) for own, other in zip(node.output, known.output, strict=True) if own)
            repeats.append(node)
    graph.remove(repeats)
    graph.rename(same)
    gone = {id(node) for node in repeats}
    return [node for node in nodes if id(node) not in gone]


def _foldable(graph: MutableGraph) -> list[onnx.NodeProto]:
    """Nodes whose inputs are all known and whose results are known to be small enough."""
    known = set(graph.constants)
    found: list[onnx.NodeProto] = []
    left, shared = current().bytes_left, are_shared(graph.constants)
    for node in graph.nodes:
        if not is_standard(node) or node.op_type in RANDOM or any(subgraphs(node)):
            continue
        if shared and is_widening(node) and _is_large_half(graph, node.input[0]):
            continue
        if not known.issuperset(reads(node)) or not graph.output_names.isdisjoint(node.output):
            continue
        size = _bytes(graph, node)
        if size is None or size > left or _multiplications(graph, node) > LARGEST_PRODUCT:
            continue
        left -= size
        known.update(name for name in node.output if name)
        found.append(node)
    return found


def _is_large_half(graph: MutableGraph, name: str) -> bool:
    """Whether a constant is a weight in half precision, which stays so in memory."""
    array = graph.constants.get(name)
    return array is not None and array.dtype in HALVES and is_large(array)


def _bytes(graph: MutableGraph, node: onnx.NodeProto) -> int | None:
    """The size of a node's results; None where it is not known."""
    total = 0
    for name in node.output:
        if not name:
            continue
        shape, known = graph.shape(name), graph.type_of(name)
        if known is None or not known.HasField("tensor_type") or shape is None:
            return None
        if not all(isinstance(size, int) for size in shape):
            return None
        total += _itemsize(known) * math.prod(size for size in shape if isinstance(size, int))
    return total


def _itemsize(known: onnx.TypeProto) -> int:
    """The bytes of an element in NumPy; of a text, those of its address."""
    try:
        return helper.tensor_dtype_to_np_dtype(known.tensor_type.elem_type).itemsize
    except KeyError:
        return 8


def _multiplications(graph: MutableGraph, node: onnx.NodeProto) -> float:
    """The multiplications of a product of tensors; 0 of any other node."""
    sizes = [
        math.prod(n for n in graph.shape(name) or () if isinstance(n, int)) for name in node.input if name
    ]
    result = math.prod(n for n in graph.shape(node.output[0]) or () if isinstance(n, int))
    if node.op_type in ("MatMul", "Gemm"):
        # Each element of a factor is used once for each column, or row, of the other: (a·b)² = (m·k)(k·n)(m·n).
        return math.sqrt(float(sizes[0]) * sizes[1] * result)
    return float(sizes[0]) * sizes[1] if node.op_type in _PRODUCTS else 0.0


def _compute(graph: MutableGraph, nodes: list[onnx.NodeProto], wanted: list[str]) -> dict[str, np.ndarray]:
    needed = {name for node in nodes for name in node.input}
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    if any(node.op_type in _INACCURATE for node in nodes):
        return _compute_one_by_one(graph, nodes, constants)
    proto, large = _fragment(graph, nodes, constants, wanted)
    try:
        with current().watched(_STEP, nodes[-1]) as options:
            return dict(zip(wanted, run(proto, large, optimise=False, options=options), strict=True))
    except RuntimeFailure:
        # ONNX Runtime has no kernel for some node and type; the reference evaluator may, one node at a time.
        return _compute_one_by_one(graph, nodes, constants)


def _compute_one_by_one(
    graph: MutableGraph, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    known, results = dict(constants), dict[str, np.ndarray]()
    for node in nodes:
        if not all(name in known for name in node.input if name):
            continue
        names = [name for name in node.output if name]
        used = {name: known[name] for name in node.input if name}
        proto, large = _fragment(graph, [node], used, names)
        current().check(_STEP, node)
        values = _values_of(proto, large, accurate=node.op_type in _INACCURATE)
        if values is None:  # nobody here computes it: the node stays, for run time
            continue
        found = {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
        known.update(found)
        results.update(found)
    return results


def _values_of(
    proto: onnx.ModelProto, large: Mapping[str, np.ndarray], *, accurate: bool
) -> Sequence[np.ndarray] | None:
    """Return the outputs of one node, on ONNX's reference evaluator where ONNX Runtime is not accurate or fails."""
    if not accurate:
        try:
            with current().watched(_STEP, proto.graph.node[-1]) as options:
                return run(proto, large, optimise=False, options=options)
        except RuntimeFailure:
            pass
    try:
        return ReferenceSession(proto).run(large)
    except RuntimeFailure:
        return None


def _fragment(
    graph: MutableGraph, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], wanted: list[str]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The nodes as a model, and its inputs: the large constants, which a model would copy."""
    proto = onnx.ModelProto(ir_version=11)
    for domain, version in graph.opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    proto.graph.node.extend(nodes)
    large = {name: array for name, array in constants.items() if is_large(array)}
    for name, array in constants.items():
        if name in large:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        else:
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for name in wanted:
        proto.graph.output.add(name=name, type=graph.type_of(name))
    return proto, large
