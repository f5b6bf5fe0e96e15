"""Rules that write a layer another way: dense layers, convolutions, BatchNorm, pools, moves of elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.analyzer.methods.rewriter import Rewriter, Rule


def gemm(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Gemm: a MatMul and an Add."""
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in r.constants:
        return None
    weight = r.constants[node.input[1]]
    w = r.constant(weight.T if r.attribute(node, "transB", 0) else weight)
    return r.chain(node.input[0], node.output[0], ("MatMul", w), ("Add", node.input[2]))


def gemm_as_convolution(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Gemm: a convolution 1×1 over one pixel."""
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in r.constants:
        return None
    weight = r.constants[node.input[1]]
    w = r.constant((weight if r.attribute(node, "transB", 0) else weight.T)[:, :, None, None])
    axes = r.constant([2, 3], np.int64)
    b = node.input[2]
    return r.chain(node.input[0], node.output[0], ("Unsqueeze", axes), ("Conv", w, b), ("Squeeze", axes))


def dense(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """MatMul and Add over tokens: a Gemm over flattened tokens."""
    if node.op_type != "Add":
        return None
    for computed, bias in (tuple(node.input), tuple(reversed(node.input))):
        before = [n for n in r.nodes if n.output[0] == computed and n.op_type == "MatMul"]
        if not before or bias not in r.constants or r.constants[bias].ndim != 1:
            continue
        (x, w), shape = before[0].input, r.shapes.get(computed, [])
        if w not in r.constants or len(shape) != 3 or not all(isinstance(size, int) for size in shape[1:]):
            continue
        flat, back = (
            r.constant([-1, r.constants[w].shape[0]], np.int64),
            r.constant([-1, *shape[1:]], np.int64),
        )
        return r.chain(x, node.output[0], ("Reshape", flat), ("Gemm", w, bias), ("Reshape", back))
    return None


def bias(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A convolution's bias: an Add behind it."""
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
        return None
    b = r.constants[node.input[2]]
    bare = helper.make_node(node.op_type, list(node.input[:2]), [r.fresh()])
    bare.attribute.extend(node.attribute)
    rank = len(r.constants[node.input[1]].shape)
    return [
        bare,
        r.node("Add", r.constant(b.reshape(-1, *[1] * (rank - 2))), bare.output[0], to=node.output[0]),
    ]


def pads(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A convolution's padding: a Pad before it."""
    pads = r.attribute(node, "pads") if node.op_type == "Conv" else None
    if not pads or not any(pads):
        return None
    half = len(pads) // 2
    widths = r.constant([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    pad = r.node("Pad", node.input[0], widths)
    bare = helper.make_node("Conv", [pad.output[0], *node.input[1:]], list(node.output))
    bare.attribute.extend(entry for entry in node.attribute if entry.name not in ("pads", "auto_pad"))
    return [pad, bare]


def batch_norm(form: str) -> Rule:
    """BatchNormalization: a scale and a shift, by Mul and Add or by Sub, Div, Mul and Add."""

    def rule(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type != "BatchNormalization":
            return None
        scale, shift, mean, variance = (r.constants[name].astype(np.float64) for name in node.input[1:])
        deviation = np.sqrt(variance + r.attribute(node, "epsilon", 1e-5))
        rank = len(r.shapes[node.input[0]])

        def wide(array: np.ndarray) -> str:
            return r.constant(array.reshape(-1, *[1] * (rank - 2)))

        x, y = node.input[0], node.output[0]
        if form == "two":
            factor = scale / deviation
            return r.chain(x, y, ("Mul", wide(factor)), ("Add", wide(shift - mean * factor)))
        steps = (("Sub", wide(mean)), ("Div", wide(deviation)), ("Mul", wide(scale)), ("Add", wide(shift)))
        return r.chain(x, y, *steps)

    return rule


def global_pool(form: str) -> Rule:
    """A mean over all pixels: GlobalAveragePool, ReduceMean or AveragePool of the full size."""

    def rule(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        pooled = node.op_type == "GlobalAveragePool"
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            axes = r.constants.get(node.input[1])
            rank = len(r.shapes.get(node.input[0], []))
            pooled = axes is not None and sorted(a % rank for a in axes.tolist()) == [2, 3] and rank == 4
        if not pooled:
            return None
        x, y, size = node.input[0], node.output[0], r.shapes[node.input[0]][2:]
        kept = node.op_type == "GlobalAveragePool" or bool(r.attribute(node, "keepdims", 1))
        means = {
            "ReduceMean": ("ReduceMean", r.constant([-1, -2], np.int64)),
            "GlobalAveragePool": ("GlobalAveragePool",),
            "AveragePool": ("AveragePool", {"kernel_shape": size}),
        }
        after = [] if kept else [("Squeeze", r.constant([2, 3], np.int64))]
        return r.chain(x, y, means[form], *after)

    return rule


def flatten(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Reshape or Squeeze to (N, C): a Flatten."""
    before, after = r.shapes.get(node.input[0], []) if node.input else [], r.shapes.get(node.output[0], [])
    if (
        node.op_type not in ("Reshape", "Squeeze")
        or len(after) != 2
        or len(before) < 3
        or before[0] != after[0]
    ):
        return None
    return r.chain(node.input[0], node.output[0], ("Flatten",))


def split(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Split: a Slice for each part."""
    if node.op_type != "Split" or len(node.input) < 2:
        return None
    axis, made, start = r.constant([r.attribute(node, "axis", 0)], np.int64), [], 0
    for size, name in zip(r.constants[node.input[1]].tolist(), node.output, strict=True):
        ends = r.constant([start], np.int64), r.constant([start + size], np.int64)
        made.append(r.node("Slice", node.input[0], *ends, axis, to=name))
        start += size
    return made


def noise(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Behind a node: an Identity, a Dropout, a Cast, two Transposes, or an Unsqueeze and a Squeeze."""
    name, shape = node.output[0], r.shapes.get(node.output[0], [])
    if len(node.output) > 1 or len(shape) < 2 or name in r.outputs or node.op_type in ("Shape", "Gather"):
        return None
    turn = [0, *reversed(range(1, len(shape)))]
    first = r.constant([0], np.int64)
    forms: list[list[tuple[Any, ...]]] = [
        [("Identity",)],
        [("Dropout",)],
        [("Cast", {"to": onnx.TensorProto.FLOAT})],
        [("Transpose", {"perm": turn}), ("Transpose", {"perm": np.argsort(turn).tolist()})],
        [("Unsqueeze", first), ("Squeeze", first)],
        [("Mul", r.constant(1.0)), ("Add", r.constant([0.0]))],
    ]
    moved = onnx.NodeProto()
    moved.CopyFrom(node)
    moved.output[0] = r.fresh()
    chosen = forms[len(r.constants) % len(forms)]
    return [moved, *r.chain(moved.output[0], name, *chosen)]
