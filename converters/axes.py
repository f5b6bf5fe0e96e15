"""Write the axes of Squeeze, Unsqueeze and the reductions as the standard says: a vector that is stated.

Rewrites a Draft whose types are inferred. Axes given as a scalar, as PyTorch's exporter does, become a vector.
A Squeeze without axes removes every axis of size 1 when it runs; a symbolic size counts as larger than 1, so that
the rank of the result is that of the export, and a batch of one keeps its axis. Refuses axes that the tensor does not
have, and axes that are stated twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from converters.draft import Draft, attribute, is_standard
from converters.errors import InvalidModel

_WITH_AXES = ("Squeeze", "Unsqueeze")
# Ops whose `axis` is one of their first input's.
_ALONG = (
    *("ArgMax", "ArgMin", "Concat", "Compress", "Flatten", "Gather", "GatherElements", "Hardmax"),
    *("LayerNormalization", "LogSoftmax", "LpNormalization", "RMSNormalization", "ScatterElements"),
    *("Softmax", "Split", "SplitToSequence", "TopK"),
)


def state_axes(draft: Draft) -> bool:
    """State the axes of every node as a vector. Returns whether a node changed."""
    changed = False
    for node in draft.nodes:
        if is_standard(node, *_ALONG):
            _refuse_beyond(draft, node)
        if is_standard(node, "Transpose"):
            _refuse_no_order(draft, node)
        if not is_standard(node) or not (node.op_type in _WITH_AXES or node.op_type.startswith("Reduce")):
            continue
        axes = draft.constants.get(node.input[1]) if len(node.input) > 1 else None
        _refuse_wrong(draft, node, attribute(node, "axes") if axes is None else axes)
        if axes is not None and axes.ndim == 0:
            _set_axes(draft, node, axes.reshape(1))
            changed = True
        elif node.op_type == "Squeeze" and not states_axes(node):
            changed |= _state_squeezed(draft, node)
    return changed


def _refuse_wrong(draft: Draft, node: onnx.NodeProto, axes: Sequence[int] | np.ndarray | None) -> None:
    """Raise InvalidModel for axes that the tensor does not have, or that are stated twice."""
    shape = draft.shape(node.input[0])
    if shape is None or axes is None:
        return
    given = np.ravel(axes).tolist()
    # A number is reduced along an axis that it does not have.
    rank = max(len(shape) + (len(given) if node.op_type == "Unsqueeze" else 0), 1)
    if len({axis % rank for axis in given}) < len(given) or any(not -rank <= axis < rank for axis in given):
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} ({node.op_type}): expected different axes of a tensor of {rank} axes"
            f", got {given}. Fix: export the model again"
        )


def _refuse_beyond(draft: Draft, node: onnx.NodeProto) -> None:
    """Raise InvalidModel for an axis that the tensor does not have."""
    shape, axis = draft.shape(node.input[0]), attribute(node, "axis")
    if shape is None or axis is None:
        return
    # A number has one axis for most runtimes. Flatten may take all axes for the first.
    rank = max(len(shape), 1)
    if not -rank <= axis < rank + (node.op_type == "Flatten"):
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} ({node.op_type}): expected an axis of a tensor of {len(shape)} "
            f"axes, got {axis}. Fix: export the model again"
        )


def _refuse_no_order(draft: Draft, node: onnx.NodeProto) -> None:
    """Raise InvalidModel for a permutation that is not one of the tensor's axes."""
    order, shape = attribute(node, "perm"), draft.shape(node.input[0])
    if order and sorted(order) != list(range(len(order if shape is None else shape))):
        axes = len(order if shape is None else shape)
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} (Transpose): expected a permutation of {axes} axes, got {order}. "
            "Fix: export the model again"
        )


def states_axes(node: onnx.NodeProto) -> bool:
    """Whether the axes of a Squeeze are stated, as an input or an attribute."""
    return (len(node.input) > 1 and bool(node.input[1])) or any(a.name == "axes" for a in node.attribute)


def _state_squeezed(draft: Draft, node: onnx.NodeProto) -> bool:
    """Give a Squeeze without axes those whose size is stated as 1. Returns whether they are known."""
    shape = draft.shape(node.input[0])
    if shape is None or None in shape or draft.opsets.get("", 0) < 13:
        return False
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    if axes:
        _set_axes(draft, node, np.array(axes, np.int64))
    else:
        del node.input[1:]
        node.op_type = "Identity"
    return True


def _set_axes(draft: Draft, node: onnx.NodeProto, axes: np.ndarray) -> None:
    name = draft.fresh(f"{node.output[0]}.axes")
    draft.constants[name] = axes.astype(np.int64)
    del node.input[1:]
    node.input.append(name)
