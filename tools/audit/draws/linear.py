"""Linear layers with what may be folded into them: BatchNorm, scales, shifts, biases, packed projections."""

from __future__ import annotations

import numpy as np

from tools.audit.sketch import Sketch
from tools.audit.values import SUMMED

PARAMETER = ("ordinary", "ordinary", "ordinary", "zero", "one", "tiny", "huge", "mixed", "rare")


def draw_folds(sketch: Sketch) -> None:
    """A layer, and one to three of BatchNorm, Mul, Div, Add and Sub behind it."""
    sketch.notes[SUMMED] = True
    name, shape = _layer(sketch)
    for _ in range(sketch.number(1, 3)):
        if sketch.chance(50):
            name = _batch_norm(sketch, name, shape)
        else:
            name, shape = _step(sketch, name, shape)
        sketch.leak(name, percent=6)
    if sketch.chance(20):
        name = str(sketch.add(sketch.choose("Relu", "Neg"), name))
    sketch.output(name)


def _layer(sketch: Sketch) -> tuple[str, tuple[int, ...]]:
    """A layer with a constant weight (a computed one, rarely), its output's shape known."""
    kind = sketch.choose(
        "Conv", "MatMul", "Gemm", "ConvTranspose", "BatchNormalization", "MatMul bias", "input"
    )
    channels = sketch.number(1, 3)
    flavour = sketch.choose("ordinary", "ordinary", "ordinary", "mixed", "tiny", "rare")
    if kind in ("Conv", "ConvTranspose"):
        return _convolution(sketch, kind, channels, flavour)
    if kind == "Gemm":
        return _gemm(sketch, channels, flavour)
    if kind in ("BatchNormalization", "input"):
        shape: tuple[int, ...] = (2, channels, *sketch.shape(sketch.number(0, 2), 2))
        x = sketch.input(*shape)
        return (_batch_norm(sketch, x, shape) if kind != "input" else x), shape
    rank = sketch.number(1, 3)
    shape = (*sketch.shape(rank - 1, 3), 3)
    x, w = sketch.input(*shape), sketch.weight(3, channels, flavour=flavour)
    product = str(sketch.add("MatMul", *((w, sketch.input(channels, 2)) if sketch.chance(5) else (x, w))))
    if product in sketch.nodes[-1].output and sketch.nodes[-1].input[0] == w:
        return product, (3, 2)
    shape = (*shape[:-1], channels)
    if kind == "MatMul":
        return product, shape
    sketch.leak(product, percent=6)
    bias = sketch.weight(*_broadcast(sketch, shape))
    pair = (bias, product) if sketch.chance(30) else (product, bias)
    return str(sketch.add("Add", *pair)), np.broadcast_shapes(shape, sketch.constants[bias].shape)


def _convolution(sketch: Sketch, kind: str, channels: int, flavour: str) -> tuple[str, tuple[int, ...]]:
    groups, axes = sketch.choose(1, 1, 2), sketch.choose(2, 1)
    inputs = sketch.number(1, 2) * groups
    outputs = channels * groups
    kernel = (1,) * axes if kind == "Conv" and sketch.chance(30) else (2,) * axes
    weight = (outputs, inputs // groups, *kernel) if kind == "Conv" else (inputs, channels, *kernel)
    size = 3 + (kernel[0] - 1) * (1 if kind == "Conv" else -1)
    x, parts = sketch.input(2, inputs, *(size,) * axes), [sketch.weight(*weight, flavour=flavour)]
    if sketch.chance(50):
        parts.append(sketch.weight(outputs, flavour=sketch.choose(*PARAMETER, "negative zero")))
    y = str(sketch.add(kind, x, *parts, group=groups if groups > 1 else None))
    return y, (2, outputs, *(3,) * axes)


def _gemm(sketch: Sketch, channels: int, flavour: str) -> tuple[str, tuple[int, ...]]:
    transposed = sketch.chance(50)
    parts = [
        sketch.input(2, 3),
        sketch.weight(*((channels, 3) if transposed else (3, channels)), flavour=flavour),
    ]
    if sketch.chance(70):
        parts.append(
            sketch.weight(*sketch.choose((channels,), (1, channels), (1,), (), (2, channels), (2, 1)))
        )
    y = sketch.add(
        "Gemm",
        *parts,
        transB=1 if transposed else None,
        alpha=sketch.choose(None, 0.5, 0.0, -2.0),
        beta=sketch.choose(None, 0.25, 0.0, 3.0),
    )
    return str(y), (2, channels)


def _batch_norm(sketch: Sketch, x: str, shape: tuple[int, ...]) -> str:
    if len(shape) < 2:
        return x
    channels = shape[1]
    variance = np.abs(sketch.array((channels,), sketch.choose(*PARAMETER)))
    if sketch.chance(10):
        variance = -variance
    parameters = [
        sketch.weight(channels, flavour=sketch.choose(*PARAMETER)),
        sketch.weight(channels, flavour=sketch.choose(*PARAMETER)),
        sketch.weight(channels, flavour=sketch.choose(*PARAMETER)),
        sketch.constant(variance),
    ]
    return str(
        sketch.add("BatchNormalization", x, *parameters, epsilon=sketch.choose(None, 0.0, 1e-12, 1e-3, 1.0))
    )


def _step(sketch: Sketch, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """A sum or product with a constant, on either side."""
    op_type = sketch.choose("Add", "Mul", "Sub", "Div")
    c = sketch.weight(*_broadcast(sketch, shape), flavour=sketch.choose(*PARAMETER, "negative zero"))
    reversed_ = sketch.chance(25)
    y = str(sketch.add(op_type, *((c, x) if reversed_ else (x, c))))
    return y, np.broadcast_shapes(shape, sketch.constants[c].shape)


def _broadcast(sketch: Sketch, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with another: a number, channels, part of it, all of it, more axes, larger sizes."""
    kind = sketch.choose("channels", "number", "last", "all", "some", "more", "larger")
    if kind == "number" or not shape:
        return sketch.choose((), (1,))
    if kind == "last":
        return shape[-1:]
    if kind == "channels":
        return (shape[1], *(1,) * (len(shape) - 2)) if len(shape) > 1 else shape
    if kind == "all":
        return shape
    if kind == "more":
        return (sketch.choose(1, 2), *(1,) * (len(shape) - 1), shape[-1])
    if kind == "larger":
        return tuple(2 if size == 1 else size for size in shape)
    return tuple(sketch.choose(1, size) for size in shape)


def draw_affine(sketch: Sketch) -> None:
    """A chain of sums and products with constants, behind an input, a product or an activation."""
    shape: tuple[int, ...] = sketch.shape(sketch.number(0, 3), 3)
    name = sketch.input(*shape)
    if len(shape) > 1 and sketch.chance(25):
        name = str(sketch.add("MatMul", name, sketch.weight(shape[-1], 2, flavour="ordinary")))
        shape = (*shape[:-1], 2)
    elif sketch.chance(20):
        name = str(sketch.add(sketch.choose("Relu", "Exp"), name))
    for _ in range(sketch.number(2, 6)):
        if sketch.chance(4):
            name = str(sketch.add("Add", name, name))
        name, shape = _step(sketch, name, shape)
        sketch.leak(name, percent=5)
    sketch.output(str(sketch.add("Neg", name)) if sketch.chance(20) else name)


def draw_biases(sketch: Sketch) -> None:
    """A convolution with a bias that may be zero."""
    name, _ = _convolution(sketch, sketch.choose("Conv", "ConvTranspose"), sketch.number(1, 3), "ordinary")
    node = sketch.nodes[-1]
    if len(node.input) > 2 and sketch.chance(60):
        bias = sketch.constants[node.input[2]]
        node.input[2] = sketch.weight(
            *bias.shape, flavour=sketch.choose("zero", "negative zero", "tiny", "rare")
        )
    sketch.output(name)


def draw_packed(sketch: Sketch) -> None:
    """A dense layer whose features are told apart by Split, Slice or Gather, of equal and unequal sizes."""
    sketch.notes[SUMMED] = True
    sizes = [sketch.number(1, 3) for _ in range(sketch.number(2, 3))]
    if sketch.chance(60):
        sizes = [sizes[0]] * len(sizes)
    features = sum(sizes)
    lead = sketch.shape(sketch.number(1, 2), 3)
    free = sketch.chance(40)
    x = sketch.input(*(("batch", *lead[1:], 3) if free else (*lead, 3)))
    bias = sketch.weight(
        *sketch.choose((features,), (1, features), (1, 1, features), (1, 1, 1, features), (1,))
    )
    if len(lead) == 1 and sketch.chance(50):
        transposed = sketch.chance(50)
        w = sketch.weight(*((features, 3) if transposed else (3, features)), flavour="ordinary")
        alpha, beta = sketch.choose(None, 2.0), sketch.choose(None, 0.5)
        if sketch.constants[bias].ndim > 2:
            bias = sketch.weight(features)
        y = str(sketch.add("Gemm", x, w, bias, transB=1 if transposed else None, alpha=alpha, beta=beta))
        rank = 2
    else:
        product = str(sketch.add("MatMul", x, sketch.weight(3, features, flavour="ordinary")))
        y = str(sketch.add("Add", *((bias, product) if sketch.chance(30) else (product, bias))))
        rank = max(len(lead) + 1, sketch.constants[bias].ndim)
    sketch.leak(y, percent=5)
    _part(sketch, y, sizes, rank)


def _part(sketch: Sketch, y: str, sizes: list[int], rank: int) -> None:
    kind = sketch.choose("Split", "Slice", "Gather", "moved")
    if kind == "moved" and len(set(sizes)) == 1:
        count, size = len(sizes), sizes[0]
        shape = sketch.integers(*[0] * (rank - 1), *sketch.choose((count, size), (count, -1), (-1, size)))
        moved = str(sketch.add("Reshape", y, shape))
        axis = rank - 1
        if sketch.chance(60):
            order = sketch.shuffled(range(rank + 1))
            moved = str(sketch.add("Transpose", moved, perm=order))
            axis = order.index(rank - 1)
        for index in range(count):
            index = index - count if sketch.chance(20) else index
            sketch.output(
                str(sketch.add("Gather", moved, sketch.constant(np.asarray(index, np.int64)), axis=axis))
            )
        return
    axis = sketch.choose(-1, rank - 1)
    ends = np.cumsum(sizes)
    if kind == "Slice":
        for start, end in zip(ends - sizes, ends, strict=True):
            if sketch.chance(5):
                start = 0
            bounds = [sketch.integers(int(v)) for v in (start, end, axis)]
            sketch.output(
                str(sketch.add("Slice", y, *bounds, *([sketch.integers(1)] if sketch.chance(30) else [])))
            )
    elif kind == "Gather":
        places = sketch.shuffled(range(int(ends[-1]))) if sketch.chance(50) else list(range(int(ends[-1])))
        for start, end in zip(ends - sizes, ends, strict=True):
            sketch.output(str(sketch.add("Gather", y, sketch.integers(*places[start:end]), axis=axis)))
    elif sketch.chance(20):
        count = len(sizes)
        if sum(sizes) > (count - 1) * -(-sum(sizes) // count):
            sketch.output(*sketch.add("Split", y, outputs=count, axis=axis, num_outputs=count))
        else:
            sketch.output(y)
    else:
        sketch.output(*sketch.add("Split", y, sketch.integers(*sizes), outputs=len(sizes), axis=axis))
