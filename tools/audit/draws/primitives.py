"""Functions in primitives, pools over whole images, and nodes that depend on constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from tools.audit.sketch import Sketch

EPSILONS = (0.0, 1e-12, 1e-8, 1e-6, 2.0**-17, 1e-5, 1e-3)


def draw_constants(sketch: Sketch) -> None:
    """One to four nodes on constants, whose result meets an input.

    In float32 the file's own arithmetic underflows and overflows: its constants are of ordinary size. Max and ReduceMax
    are left out: what they make of NaN is not defined.
    """
    plain = ("ordinary", "zero", "negative zero", "one", "rare", "saturated", "mixed")
    flavours = plain[:6] if sketch.dtype == np.float32 else (*plain, "tiny", "huge")

    def weight(*shape: int) -> str:
        return sketch.weight(*shape, flavour=sketch.choose(*flavours))

    name = weight(2, 3)
    for _ in range(sketch.number(1, 4)):
        kind = sketch.choose("unary", "binary", "move", "cast", "reduce", "matmul")
        if kind == "unary":
            op_type = sketch.choose(
                *(
                    "Sigmoid",
                    "Tanh",
                    "Exp",
                    "Sqrt",
                    "Erf",
                    "Softplus",
                    "Neg",
                    "Reciprocal",
                    "Relu",
                    "Softmax",
                ),
                *("LogSoftmax", "Elu", "Floor", "Log", "Abs", "Selu"),
            )
            name = str(sketch.add(op_type, name))
        elif kind == "binary":
            op_type = sketch.choose("Add", "Mul", "Sub", "Div", "Pow")
            name = str(sketch.add(op_type, name, weight(*sketch.choose((), (3,), (2, 1)))))
        elif kind == "move":
            name = str(sketch.add("Transpose", str(sketch.add("Transpose", name, perm=[1, 0])), perm=[1, 0]))
        elif kind == "cast":
            narrow = sketch.choose(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL)
            back = TensorProto.DOUBLE if sketch.dtype == np.float64 else TensorProto.FLOAT
            name = str(sketch.add("Cast", str(sketch.add("Cast", name, to=narrow)), to=back))
        elif kind == "reduce":
            op_type = sketch.choose("ReduceSum", "ReduceMean", "ReduceProd")
            name = str(sketch.add(op_type, name, sketch.integers(-1), keepdims=1))
            name = str(sketch.add("Expand", name, sketch.integers(2, 3)))
        else:
            name = str(sketch.add("MatMul", name, weight(3, 3)))
    x = sketch.input(2, 3)
    sketch.leak(name, percent=8)
    sketch.output(str(sketch.add(sketch.choose("Add", "Mul"), x, name)))


def draw_pools(sketch: Sketch) -> None:
    """Pools whose window is the image, nearly the image, padded or dilated."""
    axes = sketch.choose(2, 1)
    size = sketch.number(1, 3)
    x = sketch.input(2, 2, *(size,) * axes)
    op_type = sketch.choose("AveragePool", "MaxPool")
    kernel = [size] * axes
    pads = sketch.choose(None, [0] * 2 * axes, [1, 0] * axes if size > 1 else None)
    automatic = None if pads else sketch.choose(None, "VALID", "NOTSET", "SAME_UPPER")
    if sketch.chance(15) and size > 1:
        kernel[0] = size - 1
    given = {"count_include_pad": sketch.choose(None, 1)} if op_type == "AveragePool" else {}
    y = sketch.add(op_type, x, kernel_shape=kernel, pads=pads, auto_pad=automatic, **given)
    sketch.output(str(y))


def draw_joins(sketch: Sketch) -> None:
    """A function in primitives, its constants right or nearly so, with an ε or without."""
    x = sketch.input(2, 3, 4)
    name = sketch.choose(*FUNCTIONS)(sketch, x)
    if sketch.chance(20):
        name = sketch.choose(*FUNCTIONS)(sketch, name)
    sketch.leak(name, percent=5)
    sketch.output(str(sketch.add("Neg", name)) if sketch.chance(30) else name)


def _near(sketch: Sketch, value: float) -> str:
    """The number, mostly; else one that differs from it."""
    factor = sketch.choose(1.0, 1.0, 1.0, 1.0, 1 + 1e-4, 1.1)
    return sketch.floats(value * factor)


def _epsilon(sketch: Sketch, y: str) -> str:
    """y + ε, or y."""
    epsilon = sketch.choose(*EPSILONS)
    return str(sketch.add("Add", y, sketch.floats(epsilon))) if epsilon else y


def _of_softplus(sketch: Sketch, x: str) -> str:
    inner = sketch.choose("Relu", "Softplus", "Sigmoid", "Exp", "Softmax", "Abs")
    y = _epsilon(sketch, str(sketch.add(inner, x)))
    return str(sketch.add(sketch.choose("Log", "Reciprocal", "Sqrt"), y))


def _gelu(sketch: Sketch, x: str) -> str:
    if sketch.chance(50):
        inside = sketch.add("Div", x, _near(sketch, math.sqrt(2)))
        gate = sketch.add("Add", str(sketch.add("Erf", str(inside))), _near(sketch, 1.0))
    else:
        cube = sketch.add("Mul", str(sketch.add("Pow", x, sketch.floats(3.0))), _near(sketch, 0.044715))
        inside = sketch.add(
            "Mul", str(sketch.add("Add", x, str(cube))), _near(sketch, math.sqrt(2 / math.pi))
        )
        gate = sketch.add("Add", str(sketch.add("Tanh", str(inside))), _near(sketch, 1.0))
    half = sketch.add("Mul", x, _near(sketch, 0.5))
    return str(sketch.add("Mul", str(half), str(gate)))


def _sigmoid(sketch: Sketch, x: str) -> str:
    below = sketch.add("Add", str(sketch.add("Exp", str(sketch.add("Neg", x)))), _near(sketch, 1.0))
    gate = str(sketch.add("Div", sketch.floats(1.0), str(below)))
    return str(sketch.add("Mul", x, gate)) if sketch.chance(50) else gate


def _softplus(sketch: Sketch, x: str) -> str:
    y = str(sketch.add("Log", str(sketch.add("Add", str(sketch.add("Exp", x)), _near(sketch, 1.0)))))
    return str(sketch.add("Mul", x, str(sketch.add("Tanh", y)))) if sketch.chance(50) else y


def _hard(sketch: Sketch, x: str) -> str:
    low, high = sketch.floats(0.0), _near(sketch, 6.0)
    y = str(sketch.add("Clip", str(sketch.add("Add", x, _near(sketch, 3.0))), low, high))
    gate = str(sketch.add("Div", y, sketch.floats(6.0)))
    return str(sketch.add("Mul", x, gate)) if sketch.chance(50) else gate


def _bounds(sketch: Sketch, x: str) -> str:
    kind = sketch.choose("relu", "leaky", "clip", "where", "zero", "range")
    if kind == "relu":
        return str(sketch.add("Max", x, _epsilon_number(sketch)))
    if kind == "leaky":
        return str(
            sketch.add("Max", x, str(sketch.add("Mul", x, sketch.floats(sketch.choose(0.1, 0.01, 1e-7)))))
        )
    if kind == "clip":
        return str(sketch.add("Min", str(sketch.add("Max", x, _epsilon_number(sketch))), sketch.floats(6.0)))
    if kind == "range":
        return _range(sketch, x)
    positive = sketch.add(sketch.choose("Greater", "GreaterOrEqual"), x, _epsilon_number(sketch))
    if kind == "zero":
        return str(sketch.add("Where", str(positive), x, _epsilon_number(sketch)))
    return str(sketch.add("Where", str(positive), x, str(sketch.add("Mul", x, sketch.floats(0.2)))))


def _range(sketch: Sketch, x: str) -> str:
    """Two bounds in a row: a range in a range, one without numbers between, one that NaN bounds."""
    for _ in range(2):
        kind = sketch.choose("Relu", "Clip", "Min", "Max", "Abs")
        bounds = [sketch.floats(sketch.choose(0.0, 6.0, -100.0, 100.0, np.inf, -np.inf, np.nan))]
        if kind == "Clip":
            # A range without numbers, and NaN in Clip, are not defined alike.
            low, high = sketch.choose((0.0, 6.0), (-100.0, 100.0), (-np.inf, 1.0), (2.0, 3.0))
            bounds = [sketch.floats(low), sketch.floats(high)]
        x = str(sketch.add(kind, x, *([] if kind in ("Relu", "Abs") else bounds)))
    return x


def _epsilon_number(sketch: Sketch) -> str:
    return sketch.floats(sketch.choose(*EPSILONS))


def _softmax(sketch: Sketch, x: str) -> str:
    axis = sketch.choose(-1, 1)
    shifted = str(sketch.add("Sub", x, str(sketch.add("ReduceMax", x, sketch.integers(axis)))))
    powers = str(sketch.add("Exp", shifted))
    total = _epsilon(sketch, str(sketch.add("ReduceSum", powers, sketch.integers(axis))))
    y = str(sketch.add("Div", powers, total))
    return str(sketch.add("Log", _epsilon(sketch, y))) if sketch.chance(40) else y


def _norm(sketch: Sketch, x: str) -> str:
    axis = sketch.choose(-1, 1)
    centred = x
    if sketch.chance(70):
        centred = str(sketch.add("Sub", x, str(sketch.add("ReduceMean", x, sketch.integers(axis)))))
    squares = str(
        sketch.add("Pow", centred, sketch.floats(2.0))
        if sketch.chance(50)
        else sketch.add("Mul", centred, centred)
    )
    variance = str(sketch.add("ReduceMean", squares, sketch.integers(axis)))
    if sketch.chance(60):
        deviation = str(sketch.add("Sqrt", _epsilon(sketch, variance)))
    else:
        deviation = _epsilon(sketch, str(sketch.add("Sqrt", variance)))
    y = str(sketch.add("Div", centred, deviation))
    extent = (4,) if axis == -1 else (3, 1)
    if sketch.chance(60):
        y = str(sketch.add("Mul", y, sketch.weight(*extent, flavour="ordinary")))
    if sketch.chance(60):
        y = str(sketch.add("Add", y, sketch.weight(*extent, flavour="ordinary")))
    return y


FUNCTIONS: tuple[Callable[[Sketch, str], str], ...] = (
    _of_softplus,
    _gelu,
    _sigmoid,
    _softplus,
    _hard,
    _bounds,
    _softmax,
    _norm,
)
"""What draws one function in primitives."""
