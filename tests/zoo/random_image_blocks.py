"""Blocks of random networks on images, (N, C, H, W), and on signals, (N, C, L)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.zoo.draft import Draft, Value
from tests.zoo.random_blocks import Kind, activation, block

WIDEST = 16


def convolved(draft: Draft, x: Value, width: int, **attributes: Any) -> Value:
    """A convolution of kernel 1, with a bias or none."""
    ones = (1,) * (x.array.ndim - 2)
    bias = width if draft.chance(0.7) else None
    return draft.layer("Conv", x, draft.normal(width, x.width, *ones), bias, **attributes)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
@block(Kind.IMAGE)
def convolution(draft: Draft, x: Value) -> Value:
    """Any kernel, stride, dilation, number of groups and padding, and mostly an activation."""
    rank, shortest = x.array.ndim - 2, min(x.shape[2:])
    groups = draft.pick([g for g in (1, 1, 2, x.width) if x.width % g == 0])
    width = groups * int(draft.rng.integers(1, max(2, WIDEST // groups)))
    kernel = draft.pick([1, 2, 3, 5])
    dilation = draft.pick([1, 1, 2])
    stride = draft.pick([1, 1, 2]) if shortest >= 5 else 1
    attributes: dict[str, Any] = {
        "group": groups,
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
    }
    if dilation == 1 and draft.chance(0.3):
        attributes["auto_pad"] = draft.pick(["SAME_UPPER", "SAME_LOWER"])
    else:
        reach = (kernel - 1) * dilation
        attributes["pads"] = [reach // 2] * rank + [reach - reach // 2] * rank
    weight = draft.normal(width, x.width // groups, *(kernel,) * rank)
    y = draft.layer("Conv", x, weight, width if draft.chance(0.7) else None, **attributes)
    return activation(draft, y) if draft.chance(0.7) else y


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def transposed_convolution(draft: Draft, x: Value) -> Value:
    """A larger grid of fewer channels, while there is room."""
    rank = x.array.ndim - 2
    stride = 2 if max(x.shape[2:]) <= 7 else 1
    groups = draft.pick([g for g in (1, 2) if x.width % g == 0])
    weight = draft.normal(x.width, draft.pick([2, 3]), *(3,) * rank)
    return draft.layer(
        "ConvTranspose", x, weight, None, strides=[stride] * rank, pads=[1] * (2 * rank), group=groups,
        output_padding=[stride - 1] * rank,
    )  # fmt: skip


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def normalized(draft: Draft, x: Value) -> Value:
    """Batch, instance, group, layer, response or length normalization, and an activation."""
    gains, shifts = draft.gains(x.width), draft.normal(x.width, scale=0.3)
    choice = draft.pick(["batch", "batch", "instance", "group", "layer", "response", "length"])
    if choice == "batch":
        y = draft.op(
            "BatchNormalization", x, gains, shifts, draft.normal(x.width, scale=0.3), draft.gains(x.width)
        )
    elif choice == "instance":
        y = draft.op("InstanceNormalization", x, gains, shifts, epsilon=1e-2)
    elif choice == "group":
        groups = draft.pick([g for g in (1, 2, 3) if x.width % g == 0])
        y = draft.op("GroupNormalization", x, gains, shifts, num_groups=groups, epsilon=1e-2)
    elif choice == "layer":
        sizes = x.shape[1:]
        y = draft.op("LayerNormalization", x, draft.gains(*sizes), draft.normal(*sizes, scale=0.3), axis=1)
    elif choice == "response" and x.array.ndim == 4:
        y = draft.op("LRN", x, size=3, alpha=0.3)
    else:
        y = draft.op("LpNormalization", draft.op("Add", x, 0.2), axis=1, p=2)
    return activation(draft, y)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def pooled(draft: Draft, x: Value) -> Value:
    """A pool of any kind, padded, overlapping or rounded up."""
    rank, shortest = x.array.ndim - 2, min(x.shape[2:])
    kernel = min(draft.pick([2, 3]), shortest)
    attributes: dict[str, Any] = {
        "kernel_shape": [kernel] * rank,
        "strides": [draft.pick([1, 2]) if shortest >= 4 else 1] * rank,
        "pads": [draft.pick([0, 1]) if kernel == 3 else 0] * (2 * rank),
        "ceil_mode": int(draft.chance(0.3)),
    }
    op_type = draft.pick(["MaxPool", "AveragePool", "LpPool"])
    if op_type == "AveragePool":
        attributes["count_include_pad"] = int(draft.chance())
    if op_type == "LpPool":
        x = draft.op("Add", x, 0.2)
    return draft.op(op_type, x, **attributes)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def residual(draft: Draft, x: Value) -> Value:
    """A branch of two convolutions around a shortcut."""
    y = convolved(draft, activation(draft, convolved(draft, x, 6)), x.width)
    return activation(draft, draft.op("Add", x, y)) if draft.chance() else draft.op("Add", x, y)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def joined(draft: Draft, x: Value) -> Value:
    """New channels beside the old ones, or a second look at the input."""
    y = activation(draft, convolved(draft, x, 4))
    if x.width >= WIDEST:
        return convolved(draft, draft.op("Concat", y, x, axis=1), 6)
    return draft.op("Concat", x, y, axis=1)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def excited(draft: Draft, x: Value) -> Value:
    """Squeeze and excite: a gate for every channel, from its average or largest value."""
    op_type = draft.pick(["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"])
    axes = list(range(2, x.array.ndim))
    context = draft.op(op_type, x, *([axes] if op_type == "ReduceMean" else []))
    gate = convolved(draft, activation(draft, convolved(draft, context, 3)), x.width)
    return draft.op("Mul", x, draft.op(draft.pick(["Sigmoid", "HardSigmoid"]), gate))


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def gated(draft: Draft, x: Value) -> Value:
    """A product of two convolutions, of tanh and sigmoid, or of halves."""
    if draft.chance():
        y, gate = (convolved(draft, x, 5) for _ in range(2))
    else:
        y, gate = draft.ops("Split", 2, convolved(draft, x, 8), [5, 3], axis=1)
        gate = draft.op("ReduceSum", gate, [1])
    return draft.op("Mul", draft.op("Tanh", y) if draft.chance() else y, draft.op("Sigmoid", gate))


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def resized(draft: Draft, x: Value) -> Value:
    """Up or down, by any interpolation that every backend has for its rank."""
    rank = x.array.ndim - 2
    mode = draft.pick(["nearest", "linear", "cubic"]) if rank == 2 else draft.pick(["nearest", "linear"])
    way = draft.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    attributes = {"mode": mode, "coordinate_transformation_mode": way}
    if mode == "nearest":
        attributes["nearest_mode"] = draft.pick(["floor", "round_prefer_floor"])
    if draft.chance():
        scale = 2.0 if max(x.shape[2:]) <= 6 else draft.pick([0.5, 1.25])
        scales = np.array([1, 1] + [scale] * rank, np.float32)
        return draft.op("Resize", x, None, scales, **attributes)
    sizes = draft.rng.integers(4, 9, rank)
    return draft.op("Resize", x, None, None, sizes, axes=list(range(2, 2 + rank)), **attributes)


@block(Kind.SIGNAL)
@block(Kind.IMAGE)
def moved(draft: Draft, x: Value) -> Value:
    """Padded, cut, flipped or shuffled."""
    rank, shortest = x.array.ndim - 2, min(x.shape[2:])
    choice = draft.pick(["pad", "pad", "cut", "flip", "shuffle"])
    if choice == "pad" and max(x.shape[2:]) < 10:
        pads = [0, 0] + [1] * rank + [0, 0] + [draft.pick([0, 1])] * rank
        mode = draft.pick(["constant", "edge"] + ["reflect", "wrap"] * (shortest > 2))
        return draft.op("Pad", x, pads, *([0.3] if mode == "constant" else []), mode=mode)
    if choice == "cut" and shortest >= 4:
        return draft.op("Slice", x, [1], [-1], [draft.pick([2, x.array.ndim - 1])])
    if choice == "flip":
        return draft.op("Slice", x, [-1], [-100], [x.array.ndim - 1], [-1])
    if x.width % 2:
        return draft.op("Gather", x, draft.rng.permutation(x.width), axis=1)
    split = draft.reshape(x, 2, x.width // 2, *x.shape[2:])
    return draft.reshape(draft.op("Transpose", split, perm=[0, 2, 1, *range(3, rank + 3)]), *x.shape[1:])


@block(Kind.IMAGE)
def regrouped(draft: Draft, x: Value) -> Value:
    """Space to depth, depth to space, or height and width exchanged."""
    if x.width % 4 == 0 and max(x.shape[2:]) <= 6:
        return draft.op("DepthToSpace", x, blocksize=2, mode=draft.pick(["DCR", "CRD"]))
    if not any(size % 2 for size in x.shape[2:]) and x.width <= 6:
        return draft.op("SpaceToDepth", x, blocksize=2)
    return draft.op("Transpose", x, perm=[0, 1, 3, 2])


@block(Kind.IMAGE)
def channels_last(draft: Draft, x: Value) -> Value:
    """Two dense layers on every pixel, written channels-last, as a ConvNeXt block is."""
    y = draft.op("Transpose", x, perm=[0, 2, 3, 1])
    y = draft.op("LayerNormalization", y, draft.gains(x.width), draft.normal(x.width, scale=0.3), axis=-1)
    y = draft.op("Add", draft.layer("MatMul", y, draft.normal(x.width, 9), None), draft.normal(9))
    y = draft.layer("MatMul", activation(draft, y), draft.normal(9, x.width), None)
    return draft.op("Add", x, draft.op("Transpose", y, perm=[0, 3, 1, 2]))


@block(Kind.IMAGE)
def sampled(draft: Draft, x: Value) -> Value:
    """A spatial transformer: the image at places that it chooses itself."""
    height, width = x.shape[2:]
    rows, columns = np.meshgrid(np.linspace(-0.8, 0.7, height), np.linspace(-0.7, 0.8, width), indexing="ij")
    grid = np.stack([columns, rows], axis=-1)[None].astype(np.float32)
    shift = draft.op("Transpose", draft.op("Tanh", convolved(draft, x, 2)), perm=[0, 2, 3, 1])
    places = draft.op("Add", draft.op("Mul", shift, 0.1), grid)
    padding = draft.pick(["zeros", "border"])
    return draft.op("GridSample", x, places, mode="linear", padding_mode=padding)


@block(Kind.IMAGE, Kind.TOKENS)
def patches(draft: Draft, x: Value) -> Value:
    """Every pixel, or every patch, a token."""
    if max(x.shape[2:]) > 5:
        size = 2 if max(x.shape[2:]) < 12 else 3
        x = draft.layer("Conv", x, draft.normal(6, x.width, size, size), 6, strides=[size, size])
    y = draft.reshape(x, x.width, -1)
    return draft.op("Transpose", y, perm=[0, 2, 1])


@block(Kind.SIGNAL, Kind.TOKENS)
def time_first(draft: Draft, x: Value) -> Value:
    """Every moment a token."""
    return draft.op("Transpose", x, perm=[0, 2, 1])


@block(Kind.SIGNAL, Kind.TABLE)
@block(Kind.IMAGE, Kind.TABLE)
def pooled_globally(draft: Draft, x: Value) -> Value:
    """One number a channel."""
    axes = list(range(2, x.array.ndim))
    op_type = draft.pick(
        ["GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceL1", "ReduceL2"]
    )
    if not op_type.startswith("Reduce"):
        return draft.op("Flatten", draft.op(op_type, x))
    return draft.op(op_type, x, axes, keepdims=0)


@block(Kind.SIGNAL, Kind.TABLE)
@block(Kind.IMAGE, Kind.TABLE)
def flattened(draft: Draft, x: Value) -> Value:
    """Every element a feature."""
    return draft.op("Flatten", convolved(draft, x, 2))
