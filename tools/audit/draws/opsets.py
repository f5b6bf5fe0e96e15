"""Graphs of opsets 7 to 25: attributes that became inputs, flattened softmaxes, images that are enlarged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.audit.sketch import Sketch


def draw(sketch: Sketch) -> None:
    """One op of an opset before 13, where most meanings changed, or of a later one."""
    late = sketch.chance(25)
    sketch.opsets[""] = sketch.number(13, 24) if late else sketch.number(7, 12)
    shape = (2, 3, 4)
    y = sketch.choose(*(LATE if late else DRAWS))(sketch, sketch.input(*shape))
    sketch.output(str(sketch.add("Neg", y)) if sketch.chance(50) else y)


def _is_below(sketch: Sketch, opset: int) -> bool:
    return sketch.opsets[""] < opset


def _softmax(sketch: Sketch, x: str) -> str:
    return _over_axis(sketch, x, 0 if _is_below(sketch, 11) else -3)


def _over_axis(sketch: Sketch, x: str, low: int) -> str:
    """A softmax or a Hardmax, which has kernels for float32 alone."""
    op_type = sketch.choose("Softmax", "LogSoftmax", "Hardmax")
    narrow = op_type == "Hardmax"
    x = str(sketch.add("Cast", x, to=1)) if narrow else x
    y = str(sketch.add(op_type, x, axis=sketch.choose(None, *range(low, 3))))
    return str(sketch.add("Cast", y, to=11)) if narrow else y


def _clip(sketch: Sketch, x: str) -> str:
    low, high = sketch.choose((0.0, 6.0), (None, 1.0), (-1.0, None), (None, None), (2.0, 1.0))
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
    given = {"epsilon": sketch.choose(None, 1e-3), "momentum": sketch.choose(None, 0.5)}
    if _is_below(sketch, 9):
        given["spatial"] = sketch.choose(None, 1)
    return str(sketch.add("BatchNormalization", x, *parameters, variance, **given))


def _upsample(sketch: Sketch, x: str) -> str:
    """Only float32 has kernels; from opset 10 on, the op is Resize."""
    image = str(sketch.add("Cast", str(sketch.add("Unsqueeze", x, axes=[0])), to=1))
    scales = [1.0, 1.0, *sketch.choose((2.0, 2.0), (1.0, 3.0), (1.5, 2.0))]
    mode = sketch.choose(None, "nearest", "linear")
    if _is_below(sketch, 9):
        y = sketch.add("Upsample", image, scales=scales, mode=mode)
    elif _is_below(sketch, 10):
        y = sketch.add("Upsample", image, sketch.constant(scales, np.float32), mode=mode)
    elif _is_below(sketch, 11):
        y = sketch.add("Resize", image, sketch.constant(scales, np.float32), mode=mode)
    else:
        roi = sketch.constant([], np.float32)
        y = sketch.add("Resize", image, roi, sketch.constant(scales, np.float32), mode=mode)
    return str(sketch.add("Cast", str(y), to=11))


def _codes(sketch: Sketch, x: str) -> str:
    """A pair of QuantizeLinear and DequantizeLinear, which have float32 alone."""
    if _is_below(sketch, 10):
        return x
    grid = [sketch.constant(np.float32(0.25)), sketch.constant(np.asarray(3, np.int8))]
    codes = str(sketch.add("QuantizeLinear", str(sketch.add("Cast", x, to=1)), *grid))
    return str(sketch.add("Cast", str(sketch.add("DequantizeLinear", codes, *grid)), to=11))


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
    _upsample,
    _codes,
)
"""What draws one op."""


def _softmax_late(sketch: Sketch, x: str) -> str:
    return _over_axis(sketch, x, -3)


def _reduce_late(sketch: Sketch, x: str) -> str:
    op_type = sketch.choose("ReduceSum", "ReduceMean", "ReduceMax")
    axes = sketch.choose(None, [1], [0, 2])
    keepdims = sketch.choose(None, 0)
    if axes is None or op_type == "ReduceSum" or not _is_below(sketch, 18):
        given = [] if axes is None else [sketch.integers(*axes)]
        return str(sketch.add(op_type, x, *given, keepdims=keepdims))
    return str(sketch.add(op_type, x, axes=axes, keepdims=keepdims))


def _split_late(sketch: Sketch, x: str) -> str:
    count = {} if _is_below(sketch, 18) else {"num_outputs": 2}
    first, second = sketch.add("Split", x, outputs=2, axis=2, **count)
    return str(sketch.add("Sub", first, second))


def _norm_late(sketch: Sketch, x: str) -> str:
    parameters = [sketch.weight(3, flavour="ordinary") for _ in range(3)]
    variance = sketch.constant(np.abs(sketch.array((3,), "ordinary")))
    return str(sketch.add("BatchNormalization", x, *parameters, variance, epsilon=sketch.choose(None, 1e-3)))


LATE: tuple[Callable[[Sketch, str], str], ...] = (
    _softmax_late,
    _reduce_late,
    _split_late,
    _norm_late,
    _clip,
    _codes,
    _pad,
)
"""What draws one op of an opset from 13 on."""
