"""Graphs that state their batch, sizes and axes as exporters do: fixed, open, wrong, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.audit.draws import shapes
from tools.audit.sketch import BATCH, Size, Sketch
from tools.audit.values import SAMPLES

FIXED = {BATCH: 2, "time": 3, "other": 1}
"""The sizes of symbols where a pass is given some."""


def draw_batches(sketch: Sketch) -> None:
    """A graph with a fixed batch whose constants may spell it; in some, samples meet."""
    batch = sketch.choose(1, 2)
    sketch.notes[SAMPLES] = batch
    shape: tuple[int, ...] = (batch, 2, 3)
    y = sketch.input(BATCH, 2, 3)
    sketch.stated[y] = shape
    for _ in range(sketch.number(1, 3)):
        y, shape = sketch.choose(*BATCHED)(sketch, y, shape, batch)
    sketch.output(str(sketch.add("Neg", y)) if sketch.chance(40) else y)


Batched = tuple[str, tuple[int, ...]]


def _reshape(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    count = int(np.prod(shape))
    rest = count // batch
    target = sketch.choose(
        (batch, rest),
        (batch, -1),
        (batch, 1, rest),
        (-1, rest),
        (batch, rest, 1),
        (-1, 1, rest),
        (1, -1, rest),
    )
    y = str(sketch.add("Reshape", x, sketch.integers(*target)))
    return y, tuple(np.zeros(count).reshape(target).shape)


def _merged(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """The batch is joined with the next axis, and taken out again."""
    merged = (shape[0] * shape[1], *shape[2:]) if len(shape) > 2 else shape
    y = str(sketch.add("Reshape", x, sketch.integers(*merged)))
    y = str(sketch.add(sketch.choose("Tanh", "Softmax"), y))
    if sketch.chance(80):
        return str(sketch.add("Reshape", y, sketch.integers(*shape))), shape
    return y, merged


def _token(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """A constant is joined on: the same for all samples, or one each."""
    size = (shape[0], 1, *shape[2:])
    if len(shape) < 2:
        return x, shape
    token = sketch.array(size, "ordinary")
    if sketch.chance(70):
        token = np.broadcast_to(token[:1], size)
    pair = (sketch.constant(token), x)
    y = str(sketch.add("Concat", *(pair if sketch.chance(60) else pair[::-1]), axis=1))
    return y, (shape[0], shape[1] + 1, *shape[2:])


def _expanded(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """A row of constants is repeated for the batch."""
    row = sketch.weight(1, *shape[1:], flavour="ordinary")
    wide = str(sketch.add("Expand", row, sketch.integers(*shape)))
    return str(sketch.add("Add", x, wide)), shape


def _per_sample(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """A sum with constants of the batch, equal or not."""
    rows = sketch.choose(1, shape[0])
    return str(sketch.add("Add", x, sketch.weight(rows, *shape[1:], flavour="ordinary"))), shape


def _meeting(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """Samples see one another, much or little."""
    mean = str(sketch.add("ReduceMean", x, sketch.integers(0)))
    share = str(sketch.add("Mul", mean, sketch.floats(sketch.choose(1.0, 1e-3, 1e-5, 1e-7))))
    return str(sketch.add("Sub", x, share)), shape


def _swapped(sketch: Sketch, x: str, shape: tuple[int, ...], batch: int) -> Batched:
    """The first two axes change places, and back again."""
    if len(shape) < 3:
        return x, shape
    order = [1, 0, *range(2, len(shape))]
    y = str(sketch.add("Transpose", x, perm=order))
    y = str(sketch.add("Softmax", y, axis=sketch.choose(-1, 1, 0)))
    if sketch.chance(80):
        return str(sketch.add("Transpose", y, perm=order)), shape
    return y, (shape[1], shape[0], *shape[2:])


BATCHED: tuple[Callable[[Sketch, str, tuple[int, ...], int], Batched], ...] = (
    _reshape,
    _merged,
    _token,
    _expanded,
    _per_sample,
    _meeting,
    _swapped,
)
"""What draws one step of a graph with a fixed batch."""


def draw_claims(sketch: Sketch) -> None:
    """Computed shapes, and stated shapes that contradict what is computed: old sizes, or another rank."""
    shapes.draw(sketch)
    # A copy keeps the first axis of an input: the shape that is stated of it cannot be right.
    for name in list(sketch.inputs)[:1]:
        copy = str(sketch.add("Neg", name))
        flat = str(sketch.add("Reshape", copy, sketch.integers(0, -1)))
        sketch.output(flat)
        rank = sketch.choose(2, 1, 3)
        sketch.stated[flat] = (9, 7, 5)[:rank]
        if sketch.chance(50):
            sketch.stated[copy] = (9, 7, 5)[: sketch.number(1, 3)]


def draw_sizes(sketch: Sketch) -> None:
    """Computed shapes whose symbols have the sizes of FIXED."""
    shapes.draw(sketch)
    sketch.notes["sizes"] = FIXED


def draw_inputs(sketch: Sketch) -> None:
    """Two inputs whose free axes are stated as exporters do: by one symbol, many symbols, −1, or nothing."""
    spell = sketch.choose("own", "one", "minus", "none", "many")
    x = sketch.input(BATCH, "time", 2)
    y = sketch.input(BATCH, *sketch.choose(("time", 2), ("length", 2), (2, 2), (1, 2)))
    for name in (x, y):
        for_symbol = {
            "own": lambda size, axis: size,
            "one": lambda size, axis: "N",
            "minus": lambda size, axis: sketch.choose(-1, 0, "?", ""),
            "none": lambda size, axis: None,
            "many": lambda size, axis, name=name: f"{name}_{axis}",
        }[spell]
        sketch.stated[name] = tuple(
            for_symbol(size, axis) if isinstance(size, str) else size
            for axis, size in enumerate(sketch.inputs[name][1])
        )
    means = [str(sketch.add("ReduceMean", name, sketch.integers(1))) for name in (x, y)]
    sketch.output(str(sketch.add("Sub", *means)))
    if sketch.inputs[y][1][1:] == ("time", 2) and sketch.chance(60):
        sketch.output(str(sketch.add("Mul", x, y)))
    if sketch.chance(50):
        size = str(sketch.add("Shape", x))
        flat = sketch.add(
            "Concat", str(sketch.add("Slice", size, *map(sketch.integers, (0, 1)))), sketch.integers(-1)
        )
        sketch.nodes[-1].attribute.add(name="axis", i=0, type=2)
        sketch.output(str(sketch.add("Reshape", x, str(flat))))


def draw_axes(sketch: Sketch) -> None:
    """Squeezes without axes, and axes as a scalar or a vector, of free and of stated sizes."""
    shape: tuple[Size, ...] = sketch.choose(
        (2, 1, 3), (1, 2, 1), (1, 1), (2, 3), (BATCH, 1, 3), (1, BATCH, 2)
    )
    x = sketch.input(*shape)
    if BATCH in shape:
        # A free size of one is not one that a Squeeze without axes removes.
        sketch.notes["sizes"] = {BATCH: sketch.choose(2, 3)}
    kind = sketch.choose("Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean", "ReduceMax", "Squeeze all")
    if kind == "Squeeze all":
        y = sketch.add("Squeeze", x)
    elif kind == "Squeeze":
        axis = shape.index(1) if 1 in shape else None
        y = sketch.add(
            "Squeeze", x, *([] if axis is None else [_axes(sketch, axis - sketch.choose(0, len(shape)))])
        )
    else:
        y = sketch.add(kind, x, _axes(sketch, sketch.choose(0, 1, -1)))
    sketch.output(str(y))


def _axes(sketch: Sketch, axis: int) -> str:
    return sketch.constant(np.asarray(axis if sketch.chance(60) else [axis], np.int64))
