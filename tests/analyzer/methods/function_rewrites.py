"""Rules that write a function in primitives, or a sum or product the other way round."""

from __future__ import annotations

import numpy as np
import onnx

from tests.analyzer.methods.rewriter import Rewriter, Rule


def commuted(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Add and Mul: the other way round. Add of a constant: Sub. Mul by a constant: Div."""
    if node.op_type not in ("Add", "Mul"):
        return None
    a, b = node.input
    values = r.constants.get(b)
    if values is None:
        return r.chain(b, node.output[0], (node.op_type, a))
    if values.dtype != np.float32 or a in r.constants:
        return None
    if node.op_type == "Add":
        return r.chain(a, node.output[0], ("Sub", r.constant(-values)))
    return r.chain(a, node.output[0], ("Div", r.constant(1 / values))) if values.all() else None


def sums(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """(a + b) + c: a + (b + c)."""
    if node.op_type != "Add":
        return None
    for index in (0, 1):
        inner = [n for n in r.nodes if n.output[0] == node.input[index] and n.op_type == "Add"]
        if not inner or len(r.readers(node.input[index])) > 1:
            continue
        names = [*inner[0].input, node.input[1 - index]]
        if any(name in r.constants for name in names) or len({str(r.shapes.get(name)) for name in names}) > 1:
            continue
        return r.chain(names[1], node.output[0], ("Add", names[2]), ("Add", names[0]))
    return None


def layer_norm(form: str) -> Rule:
    """LayerNormalization over the last axis in primitives, as TensorFlow, PyTorch or a hand writes it."""

    def rule(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type != "LayerNormalization" or r.attribute(node, "axis", -1) not in (-1, 2):
            return None
        x, scale, shift = node.input
        y, last = node.output[0], r.constant([-1], np.int64)
        mean = r.node("ReduceMean", x, last)
        centred = r.node("Sub", x, mean.output[0])
        c = centred.output[0]
        square = r.node("Mul", c, c) if form == "tensorflow" else r.node("Pow", c, r.constant(2.0))
        epsilon = r.constant(r.attribute(node, "epsilon", 1e-5))
        steps = r.chain(square.output[0], "", ("ReduceMean", last), ("Add", epsilon), ("Sqrt",))
        head, root = [mean, centred, square, *steps], steps[-1].output[0]
        if form != "tensorflow":
            return [
                *head,
                *r.chain(c, y, ("Div", ..., root), ("Mul", scale), ("Add", ..., shift)),
            ]
        inverse = r.chain(root, "", ("Reciprocal",), ("Mul", scale))
        factor = inverse[-1].output[0]
        moved = r.node("Mul", mean.output[0], factor)
        rest = r.node("Sub", shift, moved.output[0])
        return [
            *head,
            *inverse,
            moved,
            rest,
            *r.chain(x, y, ("Mul", ..., factor), ("Add", ..., rest.output[0])),
        ]

    return rule


def gelu(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Gelu in primitives, by erf or by tanh."""
    if node.op_type != "Gelu":
        return None
    x, y, one, half = node.input[0], node.output[0], r.constant(1.0), r.constant([0.5])
    if r.attribute(node, "approximate", b"none") == b"tanh":
        cube = r.chain(x, "", ("Pow", r.constant(3.0)), ("Mul", r.constant(0.044715)), ("Add", ..., x))
        bend = r.chain(cube[-1].output[0], "", ("Mul", r.constant(np.sqrt(2 / np.pi))), ("Tanh",))
    else:
        cube = []
        bend = r.chain(x, "", ("Div", r.constant(np.sqrt(2))), ("Erf",))
    tail = r.chain(bend[-1].output[0], y, ("Add", one), ("Mul", x), ("Mul", half))
    return [*cube, *bend, *tail]


def softmax(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Softmax over the last axis in primitives."""
    if node.op_type != "Softmax" or r.attribute(node, "axis", -1) not in (
        -1,
        len(r.shapes[node.input[0]]) - 1,
    ):
        return None
    x, last = node.input[0], r.constant([-1], np.int64)
    most = r.node("ReduceMax", x, last)
    raised = r.chain(x, "", ("Sub", ..., most.output[0]), ("Exp",))
    total = r.node("ReduceSum", raised[-1].output[0], last)
    return [most, *raised, total, r.node("Div", raised[-1].output[0], total.output[0], to=node.output[0])]


def activations(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """HardSwish, HardSigmoid, Relu and Clip in primitives."""
    x, y = (node.input[0] if node.input else ""), node.output[0]
    zero, three, six = r.constant(0.0), r.constant(3.0), r.constant(6.0)
    if node.op_type == "HardSwish":
        gate = r.chain(x, "", ("Add", three), ("Clip", ..., zero, six), ("Div", six))
        return [*gate, r.node("Mul", x, gate[-1].output[0], to=y)]
    if node.op_type == "HardSigmoid" and abs(r.attribute(node, "alpha", 0.2) - 1 / 6) < 1e-6:
        return r.chain(x, y, ("Add", three), ("Relu",), ("Min", six), ("Mul", r.constant(1 / 6)))
    if node.op_type == "Relu":
        return r.chain(x, y, ("Max", zero))
    if (
        node.op_type == "Clip"
        and len(node.input) == 3
        and all(name in r.constants for name in node.input[1:])
    ):
        return r.chain(x, y, ("Max", node.input[1]), ("Min", node.input[2]))
    return None


def sigmoid(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Sigmoid: 1 / (1 + exp(−x))."""
    if node.op_type != "Sigmoid":
        return None
    return r.chain(
        node.input[0], node.output[0], ("Neg",), ("Exp",), ("Add", r.constant(1.0)), ("Reciprocal",)
    )
