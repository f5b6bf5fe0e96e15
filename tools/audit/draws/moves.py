"""Chains of nodes that move, copy, select or do nothing, and of nodes that nearly do nothing.

Casts through narrower types, sums with 0.0 and −0.0, products by one that broadcast, x·0, x − x, x / x, double
Transposes, Reshapes with 0 and −1, Squeezes with negative axes, Dropout in training, Concat of one, choices with
constant conditions, branches, recurrent layers with states of zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.audit.sketch import Sketch

Shape = tuple[int, ...]
Value = tuple[str, Shape]


def draw(sketch: Sketch) -> None:
    """One to seven steps, each on the newest tensor or on an older one of the same type."""
    shape = sketch.shape(sketch.number(0, 3), 3)
    pool: list[Value] = [(sketch.input(*shape), shape)]
    for _ in range(sketch.number(1, 7)):
        name, shape = pool[-1] if sketch.chance(85) else sketch.choose(*pool)
        step = sketch.choose(*STEPS)
        pool.append(step(sketch, name, shape))
        sketch.leak(pool[-1][0], percent=6)
    last = pool[-1][0]
    if sketch.chance(25):
        last = str(sketch.add("Reciprocal", last))
    for _ in range(sketch.choose(0, 0, 1, 2)):
        last = str(sketch.add("Identity", last))
    sketch.output(last)
    if sketch.chance(10):
        sketch.output(str(sketch.add("Identity", last)), pool[0][0])


def _identity(sketch: Sketch, x: str, shape: Shape) -> Value:
    return str(sketch.add("Identity", x)), shape


def _neutral(sketch: Sketch, x: str, shape: Shape) -> Value:
    """A sum with a zero of either sign, or a product by one, whose shape may raise the rank or a size."""
    op_type = sketch.choose("Add", "Sub", "Mul", "Div")
    wide = sketch.choose(
        (), (1,), shape, (1, *shape), tuple(2 if size == 1 else size for size in shape), (0,)
    )
    if wide == (0,) and shape[-1:] != (1,):
        wide = ()
    value = 1.0 if op_type in ("Mul", "Div") else sketch.choose(0.0, -0.0)
    c = sketch.floats(np.full(wide, sketch.choose(value, value, value, 1 + 1e-7, 1e-30)))
    y = str(sketch.add(op_type, *((c, x) if sketch.chance(20) else (x, c))))
    return y, np.broadcast_shapes(shape, wide)


def _cast(sketch: Sketch, x: str, shape: Shape) -> Value:
    """To the own type, or through another type and back."""
    own = helper.np_dtype_to_tensor_dtype(sketch.dtype)
    through = sketch.choose(
        own,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.BOOL,
        TensorProto.BFLOAT16,
    )
    y = str(sketch.add("Cast", x, to=through))
    if sketch.chance(30):
        y = str(sketch.add("Cast", y, to=sketch.choose(TensorProto.DOUBLE, TensorProto.FLOAT16, own)))
    if sketch.chance(30):
        return str(sketch.add("CastLike", y, sketch.floats(0))), shape
    return str(sketch.add("Cast", y, to=own)), shape


def _integer_cast(sketch: Sketch, x: str, shape: Shape) -> Value:
    """Integers that do not fit a narrower type, and floats with a fraction, are not what they were."""
    large = sketch.input(*shape, dtype=np.int64)
    sketch.notes["integers"] = (-(2**40), 2**40)
    narrow = sketch.choose(TensorProto.INT32, TensorProto.INT8, TensorProto.INT64, TensorProto.UINT8)
    y = sketch.add("Cast", str(sketch.add("Cast", large, to=narrow)), to=TensorProto.INT64)
    y = sketch.add("Add", str(y), sketch.integers(0)) if sketch.chance(50) else y
    y = sketch.add("Div", str(y), sketch.integers(1)) if sketch.chance(50) else y
    wide = str(sketch.add("Cast", str(y), to=helper.np_dtype_to_tensor_dtype(sketch.dtype)))
    return str(sketch.add("Max", x, wide)), np.broadcast_shapes(shape, shape or (1,))


def _transpose(sketch: Sketch, x: str, shape: Shape) -> Value:
    """One Transpose or two; the second may undo the first."""
    if not shape:
        return _identity(sketch, x, shape)
    order = sketch.shuffled(range(len(shape)))
    y = str(sketch.add("Transpose", x, perm=order))
    shape = tuple(shape[axis] for axis in order)
    if sketch.chance(15):
        return str(sketch.add("Transpose", y)), shape[::-1]
    if sketch.chance(60):
        sketch.leak(y, percent=10)
        second = np.argsort(order).tolist() if sketch.chance(50) else sketch.shuffled(order)
        y, shape = str(sketch.add("Transpose", y, perm=second)), tuple(shape[axis] for axis in second)
    return y, shape


def _reshape(sketch: Sketch, x: str, shape: Shape) -> Value:
    """One Reshape or two, with 0 and −1 among the sizes, and allowzero where there is no 0."""
    for _ in range(sketch.choose(1, 2)):
        size = int(np.prod(shape, dtype=int))
        target: Shape = sketch.choose(shape, (size,), (1, *shape), (*shape, 1), shape[::-1], (1, size, 1))
        stated = list(target)
        if sketch.chance(30) and stated:
            stated[sketch.number(0, len(stated) - 1)] = -1
        if sketch.chance(40):
            stated = [
                0 if i < len(shape) and shape[i] == target[i] and s > 0 and sketch.chance(60) else s
                for i, s in enumerate(stated)
            ]
        plain = 0 not in stated and sketch.chance(15)
        x = str(sketch.add("Reshape", x, sketch.integers(*stated), allowzero=1 if plain else None))
        shape = target
    return x, shape


def _squeeze(sketch: Sketch, x: str, shape: Shape) -> Value:
    """An Unsqueeze, and a Squeeze of the same or of other axes; some axes are negative."""
    rank = len(shape) + 2
    axes = sketch.shuffled(range(rank))[:2]
    wide = np.expand_dims(np.empty(shape), tuple(axes)).shape
    stated = [axis - rank if sketch.chance(25) else axis for axis in axes]
    y = str(sketch.add("Unsqueeze", x, sketch.integers(*stated)))
    sketch.leak(y, percent=8)
    if sketch.chance(25):
        y = str(sketch.add("Neg", y))
    if sketch.chance(60):
        return str(sketch.add("Squeeze", y, sketch.integers(*stated))), shape
    if sketch.chance(30):
        return str(sketch.add("Squeeze", y)), tuple(size for size in wide if size != 1)
    free = [axis for axis, size in enumerate(wide) if size == 1]
    one = sketch.choose(*free)
    y = str(sketch.add("Squeeze", y, sketch.integers(one)))
    other = sketch.choose(one, 0, -1)
    narrow = tuple(size for axis, size in enumerate(wide) if axis != one)
    return str(sketch.add("Unsqueeze", y, sketch.integers(other))), np.expand_dims(
        np.empty(narrow), other
    ).shape


def _dropout(sketch: Sketch, x: str, shape: Shape) -> Value:
    """Inference and training, ratios of 0 and more, with a mask that is read or not."""
    parts = [x, sketch.floats(sketch.choose(0.5, 0.0)) if sketch.chance(60) else ""]
    if sketch.chance(60):
        parts.append(sketch.constant(np.asarray(sketch.choose(False, True))))
    while not parts[-1]:
        parts.pop()
    if sketch.chance(40):
        y, mask = sketch.add("Dropout", *parts, outputs=2, seed=0)
        sketch.leak(mask, percent=0)
        if sketch.chance(50):
            sketch.output(mask)
        return y, shape
    return str(sketch.add("Dropout", *parts, seed=0)), shape


def _concat(sketch: Sketch, x: str, shape: Shape) -> Value:
    if not shape:
        return str(sketch.add("Sum", x)), shape
    count, axis = sketch.choose(1, 2), sketch.choose(-1, 0)
    sizes = list(shape)
    sizes[axis] *= count
    return str(sketch.add("Concat", *[x] * count, axis=axis)), tuple(sizes)


def _where(sketch: Sketch, x: str, shape: Shape) -> Value:
    """A condition that is constant, or And and Or of constants, over values that broadcast or not."""
    extent = sketch.choose((), shape, (1, *shape))
    condition = np.full(extent, sketch.choose(True, False))
    if sketch.chance(20) and condition.size:
        condition.flat[0] ^= True
    name = sketch.constant(condition)
    if sketch.chance(20):
        other = sketch.input(*shape, dtype=bool)
        name = str(sketch.add(sketch.choose("And", "Or"), name, other))
        extent = np.broadcast_shapes(extent, shape)
    other = sketch.choose(x, sketch.weight(), sketch.weight(*shape, flavour="rare"))
    inputs = (x, other) if sketch.chance(60) else (other, x)
    return str(sketch.add("Where", name, *inputs)), np.broadcast_shapes(extent, shape)


def _annihilate(sketch: Sketch, x: str, shape: Shape) -> Value:
    """x·0, x − x, x / x, 0·x, x⁰, min > max: none of them is a constant."""
    kind = sketch.choose("Mul", "Sub", "Div", "Pow", "Clip", "Where")
    if kind == "Mul":
        return str(sketch.add("Mul", x, sketch.floats(sketch.choose(0.0, -0.0)))), shape
    if kind in ("Sub", "Div"):
        return str(sketch.add(kind, x, x)), shape
    if kind == "Pow":
        return str(sketch.add("Pow", x, sketch.floats(sketch.choose(2.0, 1.0, 0.0, 0.5, -1.0)))), shape
    if kind == "Clip":
        low, high = sketch.choose((1.0, -1.0), (0.0, None), (None, 6.0), (None, None), (0.0, 6.0))
        bounds = ["" if bound is None else sketch.floats(bound) for bound in (low, high)]
        while bounds and not bounds[-1]:
            bounds.pop()
        return str(sketch.add("Clip", x, *bounds)), shape
    return str(sketch.add("Where", sketch.constant(np.asarray(True)), x, x)), shape


def _reduce(sketch: Sketch, x: str, shape: Shape) -> Value:
    """A mean over no axes, which is over all of them, or over none with noop_with_empty_axes."""
    noop = sketch.choose(0, 1)
    axes = [sketch.constant(np.zeros(0, np.int64))] if sketch.chance(50) else []
    y = str(
        sketch.add(sketch.choose("ReduceMax", "ReduceMean", "ReduceSum"), x, *axes, noop_with_empty_axes=noop)
    )
    return y, shape if noop else (1,) * len(shape)


def _expand(sketch: Sketch, x: str, shape: Shape) -> Value:
    target = sketch.choose(shape, (1,) * len(shape), (1, *shape), tuple(2 if s == 1 else s for s in shape))
    y = str(sketch.add("Expand", x, sketch.integers(*target)))
    return y, np.broadcast_shapes(shape, target)


def _slice(sketch: Sketch, x: str, shape: Shape) -> Value:
    """All of an axis, in order or reversed: the second is no copy."""
    if not shape:
        return _identity(sketch, x, shape)
    axis = sketch.choose(0, -1)
    if sketch.chance(50):
        bounds = [sketch.integers(v) for v in (0, np.iinfo(np.int64).max, axis)]
        return str(sketch.add("Slice", x, *bounds)), shape
    bounds = [sketch.integers(v) for v in (-1, np.iinfo(np.int64).min, axis, -1)]
    return str(sketch.add("Slice", x, *bounds)), shape


def _constant(sketch: Sketch, x: str, shape: Shape) -> Value:
    """A Constant node in one of its forms."""
    value = sketch.array(shape)
    if sketch.dtype == np.float32 and sketch.chance(40):
        c = str(sketch.add("Constant", value_float=float(sketch.rng.standard_normal())))
    else:
        c = str(sketch.add("Constant", value=onnx.numpy_helper.from_array(value)))
    return str(sketch.add(sketch.choose("Add", "Mul"), x, c)), shape


def draw_branches(sketch: Sketch) -> None:
    """Branches of unknown conditions, one after the other."""
    shape: Shape = (2, 3)
    x = sketch.input(*shape)
    for _ in range(sketch.choose(1, 2)):
        x, shape = _branch(sketch, x, shape, known=False)
    sketch.output(x)


def _branch(sketch: Sketch, x: str, shape: Shape, known: bool | None = None) -> Value:
    """An If whose branches compute, hand on a captured tensor, or hold a constant; its condition is known or not."""
    own = helper.np_dtype_to_tensor_dtype(sketch.dtype)
    bodies: dict[str, Any] = {}
    for role in ("then_branch", "else_branch"):
        result, held = sketch.name("r"), sketch.name("h")
        nodes: list[onnx.NodeProto] = []
        kind = sketch.choose("Neg", "Identity", "constant", "both")
        tensors = [onnx.numpy_helper.from_array(sketch.array(shape, "ordinary"), held)]
        if kind == "constant":
            nodes.append(helper.make_node("Identity", [held], [result]))
        elif kind == "both":
            nodes.append(helper.make_node("Mul", [x, held], [result]))
        else:
            nodes.append(helper.make_node(kind, [x], [result]))
        second = sketch.choose(result, sketch.name("s"))
        if second != result:
            nodes.append(helper.make_node("Abs", [result], [second]))
        outputs = [helper.make_tensor_value_info(name, own, shape) for name in (result, second)]
        bodies[role] = helper.make_graph(nodes, role, [], outputs, tensors)
    known = sketch.chance(80) if known is None else known
    condition = sketch.constant(np.asarray(sketch.choose(True, False))) if known else sketch.input(dtype=bool)
    first, second = sketch.add("If", condition, outputs=2, **bodies)
    sketch.leak(second, percent=30)
    return first, shape


def _recurrent(sketch: Sketch, x: str, shape: Shape) -> Value:
    """A recurrent layer with states that are zeros, −0.0, computed or nearly zeros."""
    op_type, gates = sketch.choose(("RNN", 1), ("GRU", 3), ("LSTM", 4))
    data = sketch.input(2, 1, 2)
    w, r = (
        sketch.weight(1, gates * 2, 2, flavour="ordinary"),
        sketch.weight(1, gates * 2, 2, flavour="ordinary"),
    )
    states = []
    for _ in range(2 if op_type == "LSTM" else 1):
        state = sketch.weight(1, 1, 2, flavour=sketch.choose("zero", "negative zero", "tiny", "ordinary"))
        states.append(str(sketch.add("Transpose", state, perm=[0, 1, 2])) if sketch.chance(30) else state)
    y, _ = sketch.add(op_type, data, w, r, "", "", *states, outputs=2, hidden_size=2)
    sketch.output(y)
    return str(sketch.add("Identity", x)), shape


STEPS: tuple[Callable[[Sketch, str, Shape], Value], ...] = (
    _identity,
    _neutral,
    _neutral,
    _cast,
    _integer_cast,
    _transpose,
    _reshape,
    _squeeze,
    _dropout,
    _concat,
    _where,
    _annihilate,
    _reduce,
    _expand,
    _slice,
    _constant,
    _branch,
    _recurrent,
)
"""What one step of a chain may be."""
