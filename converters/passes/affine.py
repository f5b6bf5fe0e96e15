"""Bring a chain of sums and products with constants to one product and one sum.

Rewrites a MutableGraph. Two sums in a row are two biases where one would do: x − mean, / deviation, · scale, + shift is
the BatchNormalization that other exporters write as one product and one sum. Only values that nobody else reads are
merged, and the bias of a layer stays its own. Arithmetic is in float64; each constant is rounded once, to the file's
type of unit u. So the result differs by at most 4u of the sum of the magnitudes of its terms. A chain stays where a
constant would be lost to underflow or overflow, where a factor on the way is so large or small that NaN or infinity
would arise elsewhere, where a constant is as large as those of masks, where a lone constant is so small beside the sum
so far that rounding would take its digits, or where the terms cancel: the file's own rounding is then all that is left
of them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import inherit_origin
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard
from converters.passes.exactness import is_bias, largest_factor, rounded

_SUMS, _STEPS = ("Add", "Sub"), ("Add", "Sub", "Mul", "Div")
# The sum behind one of these is the bias that it has no input for.
_WITHOUT_BIAS = ("MatMul", "Einsum")
_LARGEST = 1 << 24
# (x − 500) / 0.01 + 1 is accurate where x is near 500, and x / 0.01 − 49999 is not; (x + 1) − 1 rounds x.
_CANCELS = 1024.0
# erf(x) + 1 may be zero in the file; 1e-7 behind it then is all of the result.
_ABSORBED = 256.0


def merge_affine(graph: MutableGraph) -> int:
    """Merge every chain with two sums or more. Returns how many there were."""
    seen: set[int] = set()
    replaced, removed = {}, []
    for node in graph.nodes:
        if id(node) in seen or not _is_step(graph, node) or _is_bias(graph, node):
            continue
        chain = [node]
        while (following := graph.only_reader(chain[-1].output[0])) and _is_step(graph, following):
            chain.append(following)
        seen.update(id(one) for one in chain)
        merged = _merged(graph, chain) if sum(one.op_type in _SUMS for one in chain) > 1 else None
        if merged is not None:
            replaced[id(chain[-1])] = merged
            removed += chain[:-1]
    graph.replace(replaced)
    graph.remove(removed)
    return len(replaced)


def _is_step(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    """Whether a node adds a constant, or multiplies by one."""
    if not is_standard(node, *_STEPS):
        return False
    known = [graph.constants.get(name) for name in node.input]
    if (known[0] is None) == (known[1] is None) or (node.op_type == "Div" and known[1] is None):
        return False
    constant = known[0] if known[1] is None else known[1]
    assert constant is not None
    return constant.dtype.kind == "f" and (node.op_type != "Div" or bool(constant.all()))


def _is_bias(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    before = graph.producer(_computed(graph, node))
    return node.op_type == "Add" and before is not None and is_standard(before, *_WITHOUT_BIAS)


def _computed(graph: MutableGraph, node: onnx.NodeProto) -> str:
    return str(node.input[0] if node.input[1] in graph.constants else node.input[1])


def _merged(graph: MutableGraph, chain: list[onnx.NodeProto]) -> list[onnx.NodeProto] | None:
    """x·factor + shift in place of a chain; None where a chain must stay."""
    found = _composed(graph, chain)
    if found is None:
        return None
    factor, shift = found
    dtype = _constant(graph, chain[0]).dtype
    stored_factor, stored_shift = rounded(factor, dtype), rounded(shift, dtype)
    if stored_factor is None or stored_shift is None:
        return None
    last, name, nodes = chain[-1], _computed(graph, chain[0]), []
    if not (factor == 1).all():
        by, product = graph.fresh(f"{last.output[0]}.factor"), graph.fresh(f"{last.output[0]}.product")
        graph.constants[by] = stored_factor
        nodes.append(helper.make_node("Mul", [name, by], [product]))
        name = product
    to = graph.fresh(f"{last.output[0]}.shift")
    graph.constants[to] = stored_shift
    nodes.append(helper.make_node("Add", [name, to], list(last.output), last.name))
    inherit_origin(nodes, last)
    return nodes


def _composed(graph: MutableGraph, chain: list[onnx.NodeProto]) -> tuple[np.ndarray, np.ndarray] | None:
    """The factor and the shift of a chain, in float64; None where they may not take its place.

    The shift has at least the factor's shape, so that a factor of ones can be left out.
    """
    factor, shift, before = np.ones(()), np.zeros(()), np.zeros(())
    dtype, largest, peak = _constant(graph, chain[0]).dtype, 0, 0.0
    most = largest_factor(dtype)
    for node in chain:
        constant = _constant(graph, node).astype(np.float64)
        largest = max(largest, constant.size)
        if not _fits(factor, shift, constant):
            return None
        with np.errstate(all="ignore"):
            if node.op_type in _SUMS:
                before = shift
                if node.op_type == "Sub" and node.input[1] in graph.constants:
                    constant = -constant
                elif node.op_type == "Sub":
                    factor, before = -factor, -shift
                shift = before + constant
                if _is_absorbed(constant, before):
                    return None
            else:
                scale = constant if node.op_type == "Mul" else 1 / constant
                factor, shift, before = factor * scale, shift * scale, before * scale
                peak *= float(np.abs(scale).max(initial=0.0))
        peak = max(peak, float(np.abs(shift).max(initial=0.0)))
        if max(factor.size, shift.size) > max(_LARGEST, largest):
            return None
        # Between these, no term overflows or underflows that the chain itself keeps.
        sizes = np.abs(factor[factor != 0])
        if not (np.isfinite(shift).all() and (sizes <= most).all() and (sizes * most >= 1).all()):
            return None
        if not is_bias(shift, factor, dtype):
            return None
    if peak > _CANCELS * np.abs(shift).max(initial=0.0):
        return None
    added = np.abs(shift - before).max(initial=1.0)
    if not np.isfinite(factor).all() or np.abs(before).max(initial=0.0) > _CANCELS * added:
        return None
    return factor, np.broadcast_to(shift, np.broadcast_shapes(shift.shape, factor.shape))


def _fits(*arrays: np.ndarray) -> bool:
    """Return whether arrays broadcast. Constants that contradict one another fail when the model runs."""
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        return False
    return True


def _is_absorbed(constant: np.ndarray, before: np.ndarray) -> bool:
    """Return whether a lone constant is an ε beside the sum so far: of 1 + 1e-7 rounding leaves little of 1e-7."""
    most = float(np.abs(before).max(initial=0.0))
    return constant.size == 1 and 0 < abs(float(constant.reshape(()))) * _ABSORBED < most


def _constant(graph: MutableGraph, node: onnx.NodeProto) -> np.ndarray:
    return graph.constants[node.input[1] if node.input[1] in graph.constants else node.input[0]]
