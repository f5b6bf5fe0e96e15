"""Graphs of opsets 7 to 12: attributes that became inputs, flattened softmaxes, images that are enlarged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.audit.sketch import Sketch


def draw(sketch: Sketch) -> None:
    """One op of an old opset, and an Add behind it."""
    opset = sketch.number(7, 12)
    sketch.opsets[""] = opset
    shape = (2, 3, 4)
    y = sketch.choose(*DRAWS)(sketch, sketch.input(*shape))
    sketch.output(str(sketch.add("Neg", y)) if sketch.chance(50) else y)


def _is_below(sketch: Sketch, opset: int) -> bool:
    return sketch.opsets[""] < opset


def _softmax(sketch: Sketch, x: str) -> str:
    low = 0 if _is_below(sketch, 11) else -3
    return str(
        sketch.add(sketch.choose("Softmax", "LogSoftmax"), x, axis=sketch.choose(None, *range(low, 3)))
    )


def _clip(sketch: Sketch, x: str) -> str:
    low, high = sketch.choose((0.0, 6.0), (None, 1.0), (-1.0, None), (None, None))
    if _is_below(sketch, 11):
        # Only float32 has kernels.
        return str(
            sketch.add(
                "Cast", str(sketch.add("Clip", str(sketch.add("Cast", x, to=1)), min=low, max=high)), to=11
            )
        )
    x = x if not _is_below(sketch, 12) else str(sketch.add("Cast", x, to=1))
    dtype = np.float32 if _is_below(sketch, 12) else np.float64
    bounds = ["" if bound is None else sketch.constant(bound, dtype) for bound in (low, high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    y = str(sketch.add("Clip", x, *bounds))
    return y if dtype is np.float64 else str(sketch.add("Cast", y, to=11))


def _norm(sketch: Sketch, x: str) -> str:
    parameters = [sketch.weight(3, flavour="ordinary") for _ in range(3)]
    variance = sketch.constant(np.abs(sketch.array((3,), "ordinary")))
    return str(sketch.add("BatchNormalization", x, *parameters, variance, epsilon=sketch.choose(None, 1e-3)))


def _dropout(sketch: Sketch, x: str) -> str:
    if _is_below(sketch, 12):
        return str(sketch.add("Dropout", x, ratio=sketch.choose(None, 0.3)))
    return str(sketch.add("Dropout", x, *([sketch.floats(0.3)] if sketch.chance(50) else [])))


def _slice(sketch: Sketch, x: str) -> str:
    axes, starts, ends = sketch.choose(([1], [0], [2]), ([2, 0], [-3, 0], [1000, 1]), ([0], [-1], [2]))
    if _is_below(sketch, 10):
        return str(sketch.add("Slice", x, axes=axes, starts=starts, ends=ends))
    return str(sketch.add("Slice", x, *(sketch.integers(*values) for values in (starts, ends, axes))))


def _pad(sketch: Sketch, x: str) -> str:
    mode, pads = sketch.choose("constant", "reflect", "edge"), [0, 1, 0, 0, 1, 2]
    if _is_below(sketch, 11):
        return str(sketch.add("Pad", x, mode=mode, pads=pads, value=sketch.choose(None, 2.5)))
    value = [sketch.floats(2.5)] if sketch.chance(50) else []
    return str(sketch.add("Pad", x, sketch.integers(*pads), *value, mode=mode))


def _squeeze(sketch: Sketch, x: str) -> str:
    axes = sketch.choose([0], [1, 3], [2])
    y = str(sketch.add("Unsqueeze", x, axes=axes))
    return str(sketch.add("Squeeze", y, axes=axes)) if sketch.chance(60) else y


def _reduce(sketch: Sketch, x: str) -> str:
    op_type = sketch.choose("ReduceSum", "ReduceMean", "ReduceMax")
    return str(sketch.add(op_type, x, axes=sketch.choose(None, [1], [0, 2]), keepdims=sketch.choose(None, 0)))


DRAWS: tuple[Callable[[Sketch, str], str], ...] = (
    _softmax,
    _clip,
    _norm,
    _dropout,
    _slice,
    _pad,
    _squeeze,
    _reduce,
)
"""What draws one op."""
