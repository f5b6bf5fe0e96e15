"""Computed shapes: Shape, arithmetic and selections on it, and what reads the result; the batch is free.

Near misses: sizes along the second axis of a matrix of sizes, integers that do not fit int32, divisions that round,
an Expand whose symbol may be one, Reshapes with 0 and −1 behind one another.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tools.audit.sketch import BATCH, Size, Sketch

END = np.iinfo(np.int64).max


def draw(sketch: Sketch) -> None:
    """One or two uses of computed shapes, on one or two inputs."""
    free = sketch.choose((BATCH,), (BATCH, 2), (BATCH, 2, 3), (BATCH, "time", 2), (2, 3))
    x = sketch.input(*free)
    y = sketch.input(*free) if sketch.chance(30) else x
    for _ in range(sketch.number(1, 2)):
        kind = sketch.choose(_flatten, _expand, _arithmetic, _twice, _merged, _matrix)
        sketch.output(kind(sketch, x, y, free))


def _size(sketch: Sketch, x: str, axis: int) -> str:
    """One size, as a vector of one element, in one of the ways of exporters."""
    kind = sketch.choose("Gather", "Slice", "start", "scalar", "Cast", "negative")
    if kind == "start":
        return str(sketch.add("Shape", x, start=axis, end=axis + 1))
    shape = str(sketch.add("Shape", x))
    if kind == "Slice":
        bounds = [sketch.integers(v) for v in (axis, axis + 1, 0)]
        return str(sketch.add("Slice", shape, *bounds[: sketch.choose(3, 2)]))
    if kind in ("scalar", "negative"):
        index = axis if kind == "scalar" else axis - len(sketch.inputs[x][1])
        size = str(sketch.add("Gather", shape, sketch.constant(np.asarray(index, np.int64))))
        return str(sketch.add("Unsqueeze", size, sketch.integers(sketch.choose(0, -1))))
    size = str(sketch.add("Gather", shape, sketch.integers(axis)))
    if kind == "Cast":
        size = str(sketch.add("Cast", size, to=TensorProto.INT32))
        size = str(sketch.add("Cast", size, to=TensorProto.INT64))
    return size


def _flatten(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """[batch, −1], and the ways back."""
    rest = sketch.choose([-1], [1, -1], [-1, 1])
    target = sketch.add("Concat", _size(sketch, x, 0), sketch.integers(*rest), axis=0)
    return str(sketch.add("Reshape", x, str(target), allowzero=sketch.choose(None, 1)))


def _expand(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """An Expand to another input's shape, of something whose size is that, one, or a symbol that may be one."""
    other = sketch.input(*(sketch.choose(size, 1, "other") for size in free))
    inputs = sketch.inputs[other][1]
    if "other" in inputs:  # only 1 broadcasts to every size
        sketch.inputs[other] = (sketch.dtype, inputs)
        sketch.notes["sizes"] = {"other": 1}
    result = str(sketch.add("Expand", other, str(sketch.add("Shape", x))))
    back = str(sketch.add("Shape", result))
    return str(
        sketch.add(
            "Add",
            result,
            str(sketch.add("Cast", str(sketch.add("ReduceProd", back, keepdims=0)), to=_own(sketch))),
        )
    )


def _own(sketch: Sketch) -> int:
    return int(TensorProto.DOUBLE if sketch.dtype == np.float64 else TensorProto.FLOAT)


def _arithmetic(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """A number that is computed of sizes, as a factor."""
    size = _size(sketch, x, sketch.number(0, len(free) - 1))
    for _ in range(sketch.number(1, 3)):
        op_type = sketch.choose("Add", "Mul", "Sub", "Div", "Max", "Min", "Equal", "Mod", "Cast")
        if op_type == "Cast":
            narrow = sketch.add(
                "Cast", size, to=sketch.choose(TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL)
            )
            size = str(sketch.add("Cast", str(narrow), to=TensorProto.INT64))
            continue
        c = sketch.integers(sketch.choose(1, 2, -1, 3, -2, 0, 2**31, -(2**33)))
        if op_type in ("Div", "Mod") and not sketch.constants[c].all():
            c = sketch.integers(2)
        pair = (c, size) if op_type not in ("Div", "Mod") and sketch.chance(30) else (size, c)
        size = str(sketch.add(op_type, *pair))
        if op_type == "Equal":
            size = str(sketch.add("Where", size, sketch.integers(5), sketch.integers(7)))
    return str(sketch.add("Mul", x, str(sketch.add("Cast", size, to=_own(sketch)))))


def _twice(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """A Reshape or Unsqueeze, and a Reshape behind it."""
    first = sketch.choose([0, -1], [-1], [0, 0, -1], [-1, 1], [0, 1, -1], "Unsqueeze")
    if first == "Unsqueeze":
        rank = len(free) + 1
        z = str(sketch.add("Unsqueeze", x, sketch.integers(sketch.choose(1, 0, -1, -rank))))
    else:
        if first == [0, 0, -1] and len(free) < 2:
            first = [0, -1]
        z = str(sketch.add("Reshape", x, sketch.integers(*first)))
    sketch.leak(z, percent=10)
    second = sketch.choose([0, -1], [-1, 1], [-1], [0, 1, -1])
    return str(sketch.add("Reshape", z, sketch.integers(*second)))


def _merged(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """Batch and another axis become one, and are told apart again."""
    if len(free) < 3:
        return _twice(sketch, x, y, free)
    last = _size(sketch, x, 2)
    flat = sketch.add("Reshape", x, str(sketch.add("Concat", sketch.integers(-1), last, axis=0)))
    flat = sketch.add(sketch.choose("Neg", "Identity"), str(flat))
    sizes = [_size(sketch, x, axis) for axis in range(3)]
    if sketch.chance(50):
        sizes[sketch.number(0, 2)] = sketch.integers(-1)
    return str(sketch.add("Reshape", str(flat), str(sketch.add("Concat", *sizes, axis=0))))


def _matrix(sketch: Sketch, x: str, y: str, free: tuple[Size, ...]) -> str:
    """Sizes in a matrix: selections and joins along its second axis, products over one axis."""
    shape = str(sketch.add("Shape", x))
    rank = len(free)
    matrix = str(sketch.add("Reshape", shape, sketch.integers(1, rank)))
    kind = sketch.choose("Slice", "Concat", "Squeeze", "ReduceProd", "Gather", "noop")
    if kind == "Slice":
        bounds = [sketch.integers(v) for v in (sketch.choose(0, rank - 1), sketch.choose(END, rank), 1)]
        matrix = str(sketch.add("Slice", matrix, *bounds))
    elif kind == "Concat":
        matrix = str(sketch.add("Concat", matrix, matrix, axis=1))
    elif kind == "Squeeze":
        matrix = str(sketch.add("Squeeze", matrix, sketch.integers(0)))
    elif kind == "Gather":
        matrix = str(sketch.add("Gather", matrix, sketch.integers(0), axis=sketch.choose(1, -1)))
    elif kind == "noop":
        matrix = str(sketch.add("ReduceProd", shape, noop_with_empty_axes=1, keepdims=0))
    else:
        matrix = str(sketch.add("ReduceProd", matrix, sketch.integers(sketch.choose(0, 1)), keepdims=0))
    factor = str(sketch.add("Cast", matrix, to=_own(sketch)))
    total = str(sketch.add("ReduceSum", factor, keepdims=0))
    return str(sketch.add("Mul", x, total)) if sketch.chance(50) else factor
