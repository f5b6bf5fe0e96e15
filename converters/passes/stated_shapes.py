"""Shapes that a file states of computed tensors: the computed shape wins, the stated one fills its gaps.

Works on a MutableGraph. Exporters state shapes of the example that they traced, and tools that edit a graph leave old
ones. A stated shape that contradicts the computed one in one place fills no gap in another.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import onnx
from onnx import helper

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard, subgraphs
from converters.graph.opset import all_nodes
from converters.graph.tensors import is_invented, shape_of
from converters.types import Shape

Claims = Mapping[str, Shape]


def set_aside(graph: MutableGraph) -> Claims:
    """Remove the stated shapes of computed tensors from a graph, and return them. Their types stay."""
    found = {}
    # The shape of a constant is that of its values.
    graph.types = {name: known for name, known in graph.types.items() if name not in graph.constants}
    for name, known in [*graph.types.items(), *((info.name, info.type) for info in graph.outputs)]:
        shape = shape_of(known) if known.HasField("tensor_type") else None
        if shape is not None:
            found[name] = shape
            known.tensor_type.ClearField("shape")
    return found


def forget_in_bodies(proto: onnx.ModelProto) -> None:
    """Remove the shapes stated inside loops and branches from a model, in place, where they contradict computed ones.

    ONNX Runtime takes such a file; shape inference does not. The inputs of a Loop for its count and its condition keep
    their shapes: ONNX Runtime hands them over as a number or a vector of one, as they state.
    """
    owners = [node for node in all_nodes(list(proto.graph.node)) if any(subgraphs(node))]
    if not owners:
        return
    try:
        onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        for node in owners:
            for body in subgraphs(node):
                del body.value_info[:]
                for info in (*body.input[2 if is_standard(node, "Loop") else 0 :], *body.output):
                    if info.type.HasField("tensor_type"):
                        info.type.tensor_type.ClearField("shape")


def fill_in(graph: MutableGraph, claims: Claims) -> None:
    """State the sizes that inference has left open.

    Warns of an output whose stated shape contradicts the computed one.
    """
    outputs = {info.name: info.type for info in graph.outputs}
    for name, claimed in claims.items():
        known = graph.type_of(name)
        if known is None or not known.HasField("tensor_type"):
            continue
        computed = shape_of(known)
        contradicts = computed is not None and _contradict(computed, claimed)
        merged = computed if contradicts else _merged(computed, claimed)
        if contradicts and name in outputs:
            assert computed is not None
            warnings.warn(
                f"the file states the shape {_text(claimed)} for its output {name!r}; its graph computes "
                f"{_text(computed)}, which is used",
                stacklevel=2,
            )
        if merged != computed:
            known.CopyFrom(helper.make_tensor_type_proto(known.tensor_type.elem_type, merged))


def _merged(computed: Shape | None, claimed: Shape) -> Shape:
    if computed is None:
        return claimed
    return tuple(b if is_invented(a) else a for a, b in zip(computed, claimed, strict=True))


def _contradict(computed: Shape, claimed: Shape) -> bool:
    """Return whether ranks differ, or a stated number is not the computed size."""
    return len(computed) != len(claimed) or any(
        isinstance(b, int) and not is_invented(a) and a != b for a, b in zip(computed, claimed, strict=True)
    )


def _text(shape: Shape) -> str:
    return f"({', '.join('?' if is_invented(size) else str(size) for size in shape)})"
