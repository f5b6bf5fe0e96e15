"""Rewrite an ONNX file into another that computes the same: the forms in which exporters write one network.

`REWRITES[name](proto, rng)` gives a new model and how many places it changed; `rewritten` draws several and holds the
result to the original's outputs. Each rewrite takes its places at random, each with probability ¾, one at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.converters.helpers import run

Rule = Callable[["Rewriter", onnx.NodeProto], list[onnx.NodeProto] | None]


class Rewriter:
    """A file that is being rewritten: its constants, shapes and readers, and fresh names."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        self.constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        self.shapes = {
            info.name: [axis.dim_value or axis.dim_param for axis in info.type.tensor_type.shape.dim]
            for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        }
        self.nodes = list(proto.graph.node)
        self.outputs = {info.name for info in proto.graph.output}
        self._taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}

    def fresh(self) -> str:
        name = f"rewritten_{len(self._taken)}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = self.fresh()
        self.constants[name] = np.asarray(value, dtype)
        return name

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def node(self, op_type: str, *inputs: str, to: str = "", **attributes: Any) -> onnx.NodeProto:
        """A node that computes `to`, or a fresh tensor."""
        return helper.make_node(op_type, list(inputs), [to or self.fresh()], **attributes)

    def attribute(self, node: onnx.NodeProto, name: str, default: Any = None) -> Any:
        return next(
            (helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default
        )

    def chain(self, x: str, to: str, *steps: tuple[Any, ...]) -> list[onnx.NodeProto]:
        """Nodes one after the other: (op, *further inputs, attributes), `...` standing for what came before."""
        made: list[onnx.NodeProto] = []
        for index, (op_type, *rest) in enumerate(steps):
            attributes = rest.pop() if rest and isinstance(rest[-1], dict) else {}
            inputs = [x if given is ... else given for given in rest] or [x]
            inputs = inputs if ... in rest or not rest else [x, *rest]
            name = to if to and index == len(steps) - 1 else self.fresh()
            made.append(helper.make_node(op_type, inputs, [name], **attributes))
            x = made[-1].output[0]
        return made


def _gemm(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Gemm: a MatMul and an Add."""
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in r.constants:
        return None
    weight = r.constants[node.input[1]]
    w = r.constant(weight.T if r.attribute(node, "transB", 0) else weight)
    return r.chain(node.input[0], node.output[0], ("MatMul", w), ("Add", node.input[2]))


def _gemm_as_convolution(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Gemm: a convolution 1×1 over one pixel."""
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in r.constants:
        return None
    weight = r.constants[node.input[1]]
    w = r.constant((weight if r.attribute(node, "transB", 0) else weight.T)[:, :, None, None])
    axes = r.constant([2, 3], np.int64)
    b = node.input[2]
    return r.chain(node.input[0], node.output[0], ("Unsqueeze", axes), ("Conv", w, b), ("Squeeze", axes))


def _dense(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _bias(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _pads(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _batch_norm(form: str) -> Rule:
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


def _noise(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _global_pool(form: str) -> Rule:
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


def _flatten(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _split(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Split: a Slice for each part."""
    if node.op_type != "Split" or len(node.input) < 2:
        return None
    axis, made, start = r.constant([r.attribute(node, "axis", 0)], np.int64), [], 0
    for size, name in zip(r.constants[node.input[1]].tolist(), node.output, strict=True):
        ends = r.constant([start], np.int64), r.constant([start + size], np.int64)
        made.append(r.node("Slice", node.input[0], *ends, axis, to=name))
        start += size
    return made


def _commuted(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _sums(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _layer_norm(form: str) -> Rule:
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


def _gelu(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _softmax(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _activations(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
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


def _sigmoid(r: Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Sigmoid: 1 / (1 + exp(−x))."""
    if node.op_type != "Sigmoid":
        return None
    return r.chain(
        node.input[0], node.output[0], ("Neg",), ("Exp",), ("Add", r.constant(1.0)), ("Reciprocal",)
    )


RULES: dict[str, Rule] = {
    "Gemm as MatMul and Add": _gemm,
    "Gemm as convolution": _gemm_as_convolution,
    "MatMul and Add as Gemm": _dense,
    "bias as Add": _bias,
    "padding as Pad": _pads,
    "BatchNorm as Mul and Add": _batch_norm("two"),
    "BatchNorm as four": _batch_norm("four"),
    "what does nothing": _noise,
    "mean as ReduceMean": _global_pool("ReduceMean"),
    "mean as GlobalAveragePool": _global_pool("GlobalAveragePool"),
    "mean as AveragePool": _global_pool("AveragePool"),
    "Flatten": _flatten,
    "Split as Slices": _split,
    "commuted": _commuted,
    "sums": _sums,
    "LayerNorm of TensorFlow": _layer_norm("tensorflow"),
    "LayerNorm by hand": _layer_norm("plain"),
    "Gelu": _gelu,
    "Softmax": _softmax,
    "activations": _activations,
    "Sigmoid": _sigmoid,
}


def rewrite(proto: onnx.ModelProto, name: str, rng: np.random.Generator) -> tuple[onnx.ModelProto, int]:
    """One rewrite, at places drawn at random. Returns the model and how many places were changed."""
    rewriter = Rewriter(proto)
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in proto.graph.node:
        made = RULES[name](rewriter, node) if changed == 0 or rng.random() < 0.75 else None
        changed += made is not None
        nodes += [node] if made is None else made
    made_proto = onnx.ModelProto()
    made_proto.CopyFrom(proto)
    del made_proto.graph.node[:], made_proto.graph.initializer[:], made_proto.graph.value_info[:]
    made_proto.graph.node.extend(_used(nodes, rewriter.outputs))
    read = {given for node in made_proto.graph.node for given in node.input}
    made_proto.graph.initializer.extend(
        numpy_helper.from_array(array, given) for given, array in rewriter.constants.items() if given in read
    )
    return made_proto, changed


def _used(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that an output needs, in order: a rewrite leaves those behind that it took up."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def rewritten(
    proto: onnx.ModelProto, names: list[str], rng: np.random.Generator, feeds: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Several rewrites one after the other, each held to the outputs of the original."""
    counts = {}
    expected = run(proto, feeds)
    for name in names:
        proto, counts[name] = rewrite(proto, name, rng)
        for value, truth in zip(run(proto, feeds), expected, strict=True):
            np.testing.assert_allclose(value, truth, rtol=1e-3, atol=1e-4, err_msg=name)
    return proto, counts


def draws(count: int) -> Iterator[tuple[int, list[str]]]:
    """Seeds, each with all rewrites in an order of its own."""
    for seed in range(count):
        yield seed, np.random.default_rng(seed).permutation(list(RULES)).tolist()
