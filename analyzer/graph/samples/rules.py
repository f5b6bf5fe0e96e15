"""How each op passes labels on: what it moves, what it joins, and along which axes.

A rule takes a Step and returns the labels of each output. It raises Unknown where it needs a size or a constant that
the graph does not state. An op without a rule mixes all that it reads, which is never wrong, only weak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.samples.labels import FREE, MIXED, Labels, constant, in_full, join, over, packed
from analyzer.types import Sizes


class Unknown(Exception):
    """A size or a constant that a rule needs is not known."""


@dataclass(frozen=True)
class Step:
    """One node. labels: of every input, None of an omitted one. sizes: of every tensor, None where unknown."""

    graph: Graph
    node: Node
    labels: Sequence[Labels | None]
    sizes: Callable[[str], Sizes | None]

    def part(self, index: int) -> Labels:
        """The labels of one input."""
        found = self.labels[index]
        assert found is not None
        return found

    def shape(self, index: int = 0) -> Sizes:
        """The shape of one input. Raises Unknown."""
        return self._known(self.node.inputs[index])

    def output_shape(self, index: int = 0) -> Sizes:
        """The shape of one output. Raises Unknown."""
        return self._known(self.node.outputs[index])

    def constant(self, index: int) -> np.ndarray | None:
        """The constant of one input, None of an omitted one. Raises Unknown where it is computed."""
        if index >= len(self.node.inputs) or not self.node.inputs[index]:
            return None
        tensor: Tensor = self.graph.tensors[self.node.inputs[index]]
        if tensor.constant is None:
            raise Unknown(tensor.name)
        return tensor.constant

    def axes(self, index: int, rank: int) -> list[int]:
        """The axes that an input or an attribute names, counted from the first; empty where none is named."""
        given = self.node.attributes.get("axes") if index >= len(self.node.inputs) else self.constant(index)
        return [] if given is None else [int(axis) % rank for axis in np.reshape(given, -1)]

    def axis(self, default: int = 0) -> int:
        """The attribute `axis`, counted from the first."""
        given = self.node.attributes.get("axis")
        rank = self.part(0).ndim
        return int(default if given is None else given) % max(rank, 1)

    def _known(self, name: str) -> Sizes:
        found = self.sizes(name)
        if found is None:
            raise Unknown(name)
        return found


Rule = Callable[[Step], Sequence[Labels]]


def everything(step: Step) -> Sequence[Labels]:
    """Every output depends on every element that the node reads."""
    parts = [
        over(part, range(part.ndim)).reshape(()) for part in step.labels if part is not None and part.size
    ]
    label = int(join(*parts)) if parts else FREE
    return [constant(_rank(step, name), label) for name in step.node.outputs]


def _rank(step: Step, name: str) -> int:
    shape = step.graph.tensors[name].shape if name else ()
    if shape is None:
        sizes = step.sizes(name)
        if sizes is None:
            raise Unknown(name)
        return len(sizes)
    return len(shape)


def _given(step: Step) -> list[Labels]:
    return [part for part in step.labels if part is not None]


def _repeated(step: Step, labels: Labels) -> list[Labels]:
    return [labels] * len(step.node.outputs)


def _elementwise(step: Step) -> Sequence[Labels]:
    return _repeated(step, join(*_given(step)))


def _free(step: Step) -> Sequence[Labels]:
    """Outputs that depend on no value: sizes."""
    return [constant(_rank(step, name)) for name in step.node.outputs]


def _made(step: Step) -> Sequence[Labels]:
    """Constants of a computed size."""
    return everything(step)


def _with_weights(step: Step, data: Sequence[int], labels: Labels) -> Labels:
    """Labels joined with all that the remaining inputs depend on, which are weights as a rule."""
    rest = [part for k, part in enumerate(step.labels) if k not in data and part is not None]
    sums = [over(part, range(part.ndim)).reshape((1,) * labels.ndim) for part in rest]
    return join(labels, *sums)


def _per_first_axis(data: Sequence[int] = (0,)) -> Rule:
    """Ops that read all of a sample on the first axis, and no other: convolution, pooling, resizing."""

    def rule(step: Step) -> Sequence[Labels]:
        found = [k for k in data if k < len(step.labels) and step.labels[k] is not None]
        parts = [over(step.part(k), range(1, step.part(k).ndim)).reshape(-1) for k in found]
        first = {step.shape(k)[0] for k in found}
        if len(first) > 1 or (any(len(part) > 1 for part in parts) and first != {step.output_shape()[0]}):
            return everything(step)
        row = join(*parts)
        return [
            _with_weights(step, found, row.reshape(-1, *(1,) * (_rank(step, name) - 1)))
            for name in step.node.outputs
        ]

    return rule


def _normalized(axes: Callable[[Step, int], Sequence[int]]) -> Rule:
    """Ops that join along some axes and keep the shape."""

    def rule(step: Step) -> Sequence[Labels]:
        data = step.part(0)
        return _repeated(step, _with_weights(step, (0,), over(data, axes(step, data.ndim))))

    return rule


def _batch_normalization(step: Step) -> Sequence[Labels]:
    data = step.part(0)
    if step.node.attributes.get("training_mode"):
        # The statistics are the batch's own.
        mixed = _with_weights(step, (0,), over(data, [axis for axis in range(data.ndim) if axis != 1]))
        statistics = over(mixed, range(mixed.ndim)).reshape(1)
        return [mixed, *[statistics] * (len(step.node.outputs) - 1)]
    return [_with_weights(step, (0,), data)]


def _dynamic_quantization(step: Step) -> Sequence[Labels]:
    # The range is that of the whole batch. It moves a value by its rounding alone, and has no derivative.
    return [step.part(0), constant(0), constant(0)]


def _dequantization(step: Step) -> Sequence[Labels]:
    data, *rest = _given(step)
    if any((part != FREE).any() for part in rest):
        return everything(step)
    return [data]


def _reduced(step: Step) -> Sequence[Labels]:
    data = step.part(0)
    axes = step.axes(1, data.ndim)
    if not axes and step.node.attributes.get("noop_with_empty_axes"):
        return [data]
    axes = axes or list(range(data.ndim))
    found = over(data, axes)
    if step.node.attributes.get("keepdims", 1):
        return [found]
    return [found.reshape([size for axis, size in enumerate(found.shape) if axis not in axes])]


def _extreme_index(step: Step) -> Sequence[Labels]:
    axis = step.axis()
    found = over(step.part(0), [axis])
    return [found if step.node.attributes.get("keepdims", 1) else found.squeeze(axis)]


def _along_input_axis(step: Step) -> Sequence[Labels]:
    """CumSum: joined along the axis that its second input names."""
    return [over(step.part(0), step.axes(1, step.part(0).ndim))]


def _sorted(step: Step) -> Sequence[Labels]:
    return _repeated(step, over(step.part(0), [step.axis(-1)]))


def _product(a: Labels, b: Labels, drop_rows: bool, drop_columns: bool) -> Labels:
    found = join(over(a, [a.ndim - 1]), over(b, [b.ndim - 2]))
    if drop_columns:
        found = found.squeeze(-1)
    return found.squeeze(-1 if drop_columns else -2) if drop_rows else found


def _matmul(a_index: int = 0, b_index: int = 1) -> Rule:
    def rule(step: Step) -> Sequence[Labels]:
        a, b = step.part(a_index), step.part(b_index)
        rows, columns = a.ndim == 1, b.ndim == 1
        found = _product(a[None] if rows else a, b[:, None] if columns else b, rows, columns)
        return [_with_weights(step, (a_index, b_index), found)]

    return rule


def _gemm(step: Step) -> Sequence[Labels]:
    a = step.part(0).T if step.node.attributes["transA"] else step.part(0)
    b = step.part(1).T if step.node.attributes["transB"] else step.part(1)
    found = _product(a, b, False, False)
    added = step.labels[2] if len(step.labels) > 2 else None
    return [found if added is None else join(found, added)]


def _einsum(step: Step) -> Sequence[Labels]:
    equation = str(step.node.attributes["equation"]).replace(" ", "")
    if "." in equation or "->" not in equation:
        return everything(step)
    operands, result = equation.split("->")
    parts = []
    for labels, letters in zip(_given(step), operands.split(","), strict=True):
        if len(set(letters)) != len(letters):
            return everything(step)
        summed = over(labels, [k for k, letter in enumerate(letters) if letter not in result])
        kept = [letters.index(letter) for letter in result if letter in letters]
        moved = summed.transpose([*kept, *(k for k in range(len(letters)) if k not in kept)])
        sizes = iter(moved.shape[: len(kept)])
        parts.append(moved.reshape([next(sizes) if letter in letters else 1 for letter in result]))
    return [join(*parts)]


def _recurrent(step: Step) -> Sequence[Labels]:
    """A recurrent layer: each sample has its own sequence, length and state."""
    batch_first = bool(step.node.attributes.get("layout"))
    batch = 0 if batch_first else 1
    own = {0: batch, 4: 0, 5: batch, 6: batch}
    row = constant(1)
    for index, axis in own.items():
        part = step.labels[index] if index < len(step.labels) else None
        if part is not None:
            row = join(row, over(part, [k for k in range(part.ndim) if k != axis]).reshape(-1))
    places = [0 if batch_first else 2, batch, batch]
    found = []
    for place, name, rank in zip(places, step.node.outputs, (4, 3, 3), strict=False):
        labels = row.reshape([-1 if axis == place else 1 for axis in range(rank)])
        found.append(_with_weights(step, tuple(own), labels) if name else constant(rank))
    return found


_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid "
    "Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu Bernoulli "
    "RandomNormalLike RandomUniformLike"
)
_BROADCAST = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_WINDOWED = (
    "AveragePool Conv ConvInteger ConvTranspose Col2Im GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool "
    "DepthToSpace SpaceToDepth QLinearConv Resize STFT"
)

RULES: dict[str, Rule] = {
    **dict.fromkeys((*_UNARY.split(), *_BROADCAST.split()), _elementwise),
    "CastLike": lambda step: [step.part(0)],
    **{f"Reduce{name}": _reduced for name in _REDUCTIONS.split()},
    **dict.fromkeys(_WINDOWED.split(), _per_first_axis()),
    "GridSample": _per_first_axis((0, 1)),
    "DeformConv": _per_first_axis((0, 2, 4)),
    "ArgMax": _extreme_index,
    "ArgMin": _extreme_index,
    "BatchNormalization": _batch_normalization,
    "CumSum": _along_input_axis,
    **dict.fromkeys(("Shape", "Size"), _free),
    **dict.fromkeys(("ConstantOfShape", "EyeLike", "Range"), _made),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _normalized(lambda step, rank: [step.axis(-1)])),
    "LpNormalization": _normalized(lambda step, rank: [step.axis(-1)]),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization"),
        _normalized(lambda step, rank: range(step.axis(-1), rank)),
    ),
    "InstanceNormalization": _normalized(lambda step, rank: range(2, rank)),
    "GroupNormalization": _normalized(lambda step, rank: range(1, rank)),
    "LRN": _normalized(lambda step, rank: [1]),
    "DynamicQuantizeLinear": _dynamic_quantization,
    "DequantizeLinear": _dequantization,
    "QuantizeLinear": _dequantization,
    "TopK": _sorted,
    "MatMul": _matmul(),
    "MatMulInteger": _matmul(),
    "QLinearMatMul": _matmul(0, 3),
    "Gemm": _gemm,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}

__all__ = ["FREE", "MIXED", "RULES", "Rule", "Step", "Unknown", "everything", "in_full", "packed"]
