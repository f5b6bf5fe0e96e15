"""Keep rows that are masked altogether out of a softmax whose result for them is thrown away.

Rewrites a MutableGraph whose types are inferred. The standard's attention puts 0 in the place of a softmax over
nothing but −∞, which is NaN. The value is mended so, its derivative is not: 0 · NaN is NaN. Where rows are
replaced behind a softmax, they are replaced before it as well.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard


def guard_masked_rows(graph: MutableGraph) -> None:
    """Put a Where before every Softmax whose rows a Where behind it replaces by a constant."""
    replaced = dict[int, list[onnx.NodeProto]]()
    for choice in graph.nodes:
        if not is_standard(choice, "Where") or choice.input[1] not in graph.constants:
            continue
        chain = [graph.producer(choice.input[2])]
        if chain[0] is not None and is_standard(chain[0], "Cast"):
            chain.insert(0, graph.producer(chain[0].input[0]))
        softmax = chain[0]
        if softmax is None or not is_standard(softmax, "Softmax") or not _by_rows(graph, choice, softmax):
            continue
        nodes = [node for node in chain if node is not None]
        if all(graph.use_count(node.output[0]) == 1 for node in nodes):
            replaced |= {id(node): [] for node in nodes}
            # The condition may be computed behind the softmax: the softmax moves down to where it is read.
            replaced[id(choice)] = [_guard(graph, choice, softmax), *nodes, choice]
    graph.replace(replaced)


def _by_rows(graph: MutableGraph, choice: onnx.NodeProto, softmax: onnx.NodeProto) -> bool:
    """Whether a choice is the same all along the softmax's axis, and broadcasts nothing."""
    condition, shape = graph.shape(choice.input[0]), graph.shape(softmax.input[0])
    if not condition or not shape or len(condition) > len(shape) or graph.shape(choice.output[0]) != shape:
        return False
    return attribute(softmax, "axis", -1) in (-1, len(shape) - 1) and condition[-1] == 1


def _guard(graph: MutableGraph, choice: onnx.NodeProto, softmax: onnx.NodeProto) -> onnx.NodeProto:
    """Zeros for the rows that the choice will replace; the softmax reads them."""
    known = graph.typed(softmax.input[0])
    assert known is not None, f"the shape of {softmax.input[0]!r} is known"
    zero, guarded = graph.fresh(f"{softmax.output[0]}.zero"), graph.fresh(f"{softmax.output[0]}.guarded")
    graph.constants[zero] = np.zeros((), helper.tensor_dtype_to_np_dtype(known.tensor_type.elem_type))
    guard = helper.make_node("Where", [choice.input[0], zero, softmax.input[0]], [guarded])
    guard.metadata_props.extend(softmax.metadata_props)
    softmax.input[0] = guarded
    return guard
