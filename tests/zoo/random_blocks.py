"""Blocks that a random network is made of: the registry, activations, and the blocks of tables.

A block reads a Value of one kind and writes nodes into a Draft; it returns a Value of the kind it `gives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from tests.zoo.draft import Draft, Value


class Kind(Enum):
    """What the axes of a value are."""

    IMAGE = "image"  # (N, C, H, W)
    SIGNAL = "signal"  # (N, C, L)
    TOKENS = "tokens"  # (N, T, D)
    TABLE = "table"  # (N, D)


Write = Callable[[Draft, Value], Value]


@dataclass(frozen=True)
class Block:
    """A function that writes a block, and the kind of what it returns."""

    write: Write
    gives: Kind


BLOCKS: dict[Kind, list[Block]] = {kind: [] for kind in Kind}
HEADS: dict[Kind, list[Block]] = {kind: [] for kind in Kind}
"""Blocks that end a network of another kind: they give a table."""


def block(reads: Kind, gives: Kind | None = None) -> Callable[[Write], Write]:
    """Register a block; one that gives a table is a head."""

    def register(write: Write) -> Write:
        (HEADS if gives is Kind.TABLE else BLOCKS)[reads].append(Block(write, gives or reads))
        return write

    return register


ACTIVATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        (name, {})
        for name in ("Relu", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish")
    ),
    *((name, {}) for name in ("Erf", "Abs", "Sin", "Cos", "Atan", "Asinh", "Sinh", "Exp", "Selu")),
    ("Gelu", {"approximate": "none"}),
    ("Gelu", {"approximate": "tanh"}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Elu", {"alpha": 0.7}),
    ("Celu", {"alpha": 1.3}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("ThresholdedRelu", {"alpha": 0.1}),
    ("Shrink", {"lambd": 0.2, "bias": 0.1}),
    ("Softmax", {"axis": 1}),
    ("LogSoftmax", {"axis": -1}),
)


def activation(draft: Draft, x: Value) -> Value:
    """One of the activations, some with a parameter of their own."""
    special = draft.rng.random()
    if special < 0.06:
        return draft.op("Clip", x, -0.5, 1.2)
    if special < 0.12:
        return draft.op("Clip", x, 0.0, 6.0)
    if special < 0.18:
        return draft.op("PRelu", x, draft.gains(x.width, *(1,) * (x.array.ndim - 2)) * np.float32(0.3))
    if special < 0.24:
        return draft.op("Mul", x, draft.op("Sigmoid", draft.op("Mul", x, 1.7)))
    op_type, attributes = draft.pick(ACTIVATIONS)
    return draft.op(op_type, x, **attributes)


def dense(draft: Draft, x: Value, width: int) -> Value:
    """A linear map of a table: Gemm in several spellings, or MatMul and Add."""
    if draft.chance(0.3):
        y = draft.layer("MatMul", x, draft.normal(x.width, width), None)
        return draft.op("Add", y, draft.normal(width, scale=0.3))
    transposed = int(draft.chance())
    weight = draft.normal(*((width, x.width) if transposed else (x.width, width)))
    alpha, beta = (0.5, 1.5) if draft.chance(0.2) else (1.0, 1.0)
    bias = width if draft.chance(0.8) else None
    return draft.layer("Gemm", x, weight, bias, transB=transposed, alpha=alpha, beta=beta)


@block(Kind.TABLE)
def dense_activation(draft: Draft, x: Value) -> Value:
    """A layer of a perceptron."""
    return activation(draft, dense(draft, x, int(draft.rng.integers(4, 13))))


@block(Kind.TABLE)
def table_residual(draft: Draft, x: Value) -> Value:
    """Two layers and a shortcut."""
    return draft.op("Add", x, dense(draft, activation(draft, dense(draft, x, 8)), x.width))


@block(Kind.TABLE)
def table_norm(draft: Draft, x: Value) -> Value:
    """Layer or root-mean-square normalization, or one by recorded statistics."""
    gains, shifts = draft.gains(x.width), draft.normal(x.width, scale=0.3)
    choice = draft.pick(["layer", "rms", "batch", "length"])
    if choice == "layer":
        return draft.op("LayerNormalization", x, gains, shifts)
    if choice == "rms":
        return draft.op("RMSNormalization", x, gains)
    if choice == "length":
        return draft.op("LpNormalization", x, axis=-1, p=draft.pick([1, 2]))
    return draft.op("BatchNormalization", x, gains, shifts, draft.normal(x.width), draft.gains(x.width))


@block(Kind.TABLE)
def gated_unit(draft: Draft, x: Value) -> Value:
    """Half of the features gate the other half."""
    first, second = draft.ops("Split", 2, dense(draft, x, 12), axis=1, num_outputs=2)
    return draft.op("Mul", activation(draft, first), second)


@block(Kind.TABLE)
def feature_crosses(draft: Draft, x: Value) -> Value:
    """Every product of two features: an outer product, flattened."""
    y = dense(draft, x, 4)
    product = draft.op("MatMul", draft.op("Unsqueeze", y, [2]), draft.op("Unsqueeze", y, [1]))
    return draft.op("Concat", x, draft.op("Flatten", product), axis=1)


@block(Kind.TABLE)
def ratio(draft: Draft, x: Value) -> Value:
    """x over the root of its mean square, or over a positive function of itself."""
    if draft.chance():
        square = draft.op("Pow", x, 2.0) if draft.chance() else draft.op("Mul", x, x)
        mean = draft.op("Add", draft.op("ReduceMean", square, [1]), 1e-3)
        return draft.op("Div", x, draft.op("Sqrt", mean))
    return draft.op("Div", x, draft.op("Add", draft.op("Softplus", dense(draft, x, x.width)), 0.2))


@block(Kind.TABLE)
def choices(draft: Draft, x: Value) -> Value:
    """The larger, the smaller or the chosen of two values."""
    y = dense(draft, x, x.width)
    if draft.chance(0.3):
        return draft.op("Where", draft.op("Greater", x, 0.1), y, draft.op("Neg", x))
    return draft.op(draft.pick(["Max", "Min", "Mean", "Sum"]), x, y)


@block(Kind.TABLE)
def positive_functions(draft: Draft, x: Value) -> Value:
    """Logarithms and roots of what is positive."""
    positive = draft.op("Add", draft.op("Abs", x), 0.3)
    op_type = draft.pick(["Log", "Sqrt", "Reciprocal", "ReduceLogSum", "ReduceLogSumExp", "ReduceL2"])
    y = draft.op(op_type, positive, *([[1]] if op_type.startswith("Reduce") else []))
    return draft.op("Concat", x, y, axis=1)


@block(Kind.TABLE)
def rearranged(draft: Draft, x: Value) -> Value:
    """Features taken, repeated, accumulated or cut."""
    choice = draft.pick(["Gather", "Tile", "CumSum", "Slice", "Pad", "TopK"])
    if choice == "Gather":
        return draft.op("Gather", x, draft.rng.integers(0, x.width, 7), axis=1)
    if choice == "Tile":
        return draft.op("Tile", x, [1, 2]) if x.width <= 12 else x
    if choice == "CumSum":
        return draft.op("CumSum", x, np.array(1), exclusive=int(draft.chance()), reverse=int(draft.chance()))
    if choice == "Slice":
        return draft.op("Slice", x, [x.width], [0 if x.width < 4 else 1], [1], [-1])
    if choice == "Pad":
        return draft.op("Pad", x, [0, 1, 0, 2], 0.4)
    return draft.ops("TopK", 2, x, [min(4, x.width)], axis=1)[0]
