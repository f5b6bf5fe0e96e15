"""hypothesis strategies that draw a Case of a family of ops: shapes, attributes, active inputs, unknown axes.

Values are kept clear of kinks by far more than the step of a central difference, and within what ONNX Runtime runs.
Windows have a file of their own, window_strategies.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, f32, i64, normal, positive, scalar

Draw = st.DrawFn


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Random generators, by a drawn seed."""
    return st.integers(0, 9999).map(np.random.default_rng)


def open_axes(draw: Draw, rank: int) -> tuple[int, ...]:
    """Some of the axes, often none."""
    axes = st.lists(st.integers(0, rank - 1), unique=True).map(lambda found: tuple(sorted(found)))
    return draw(st.one_of(st.just(()), axes)) if rank else ()


def some_of(draw: Draw, indices: Sequence[int]) -> tuple[int, ...]:
    """At least one of several inputs, ascending."""
    return tuple(sorted(draw(st.sets(st.sampled_from(list(indices)), min_size=1))))


def signed(draw: Draw, axis: int, rank: int) -> int:
    """An axis, counted from the front or from the back."""
    return draw(st.sampled_from([axis, axis - rank]))


SMOOTH = [
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "Mish",
    "Erf",
    "Gelu",
    "Exp",
    "Sin",
    "Cos",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Reciprocal",
]
PIECEWISE = [
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "HardSwish",
    "HardSigmoid",
    "ThresholdedRelu",
    "Shrink",
    "Abs",
    "Neg",
    "Identity",
]


@st.composite
def unary(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=0, max_dims=4, max_side=4))
    name = draw(st.sampled_from([*SMOOTH, *PIECEWISE, "Sqrt", "Log", "Softmax", "LogSoftmax"]))
    x = positive(*shape, rng=rng) if name in ("Sqrt", "Log") else normal(*shape, rng=rng) + 0.011
    attributes: dict[str, Any] = {}
    if name in ("LeakyRelu", "Elu", "Celu"):
        attributes["alpha"] = draw(st.floats(0.1, 2.0))
    if name == "Gelu":
        attributes["approximate"] = draw(st.sampled_from(["none", "tanh"]))
    if name in ("Softmax", "LogSoftmax"):
        x = normal(*(shape or (3,)), rng=rng)
        attributes["axis"] = draw(st.integers(-x.ndim, x.ndim - 1))
    return case(name, x, symbolic=open_axes(draw, x.ndim), **attributes)


@st.composite
def broadcasting(draw: Draw) -> Case:
    name = draw(
        st.sampled_from(
            ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Mod", "Where", "PRelu", "Sum", "Mean", "Clip"]
        )
    )
    rng = draw(generators())
    count = draw(st.integers(1, 3)) if name in ("Max", "Min", "Sum", "Mean") else 2
    shapes = draw(mutually_broadcastable_shapes(num_shapes=count + (name == "Where"), max_dims=4, max_side=3))
    parts = shapes.input_shapes
    if name == "Clip":
        x = normal(*shapes.result_shape, rng=rng)
        bounds = scalar(-0.511), scalar(0.611)
        return case("Clip", x, *bounds, active=some_of(draw, range(3)), symbolic=open_axes(draw, x.ndim))
    if name == "PRelu":
        parts = (shapes.result_shape, parts[1])
    if name in ("Max", "Min"):
        values = [distinct(*part, rng=rng) + 0.011 * i for i, part in enumerate(parts)]
    elif name in ("Div", "Pow", "Mod"):
        values = [positive(*part, rng=rng) for part in parts]
        # Clear of the multiples: a between b and 2b.
        values[0] = values[0] * 0 + 1.5 * values[1].max() if name == "Mod" else values[0]
        values[1] = values[1] * 0.05 + values[1].max() if name == "Mod" else values[1]
    else:
        values = [normal(*part, rng=rng) for part in parts]
    active = some_of(draw, range(name == "Where", len(values)))
    if name == "Where":
        values[0] = values[0] > 0
    given = {"fmod": 1} if name == "Mod" else {}
    return case(name, *values, active=active, symbolic=open_axes(draw, values[active[0]].ndim), **given)


@st.composite
def reductions(draw: Draw) -> Case:
    names = ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "Prod", "LogSumExp", "LogSum"]
    name, rng = draw(st.sampled_from(names)), draw(generators())
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    rank = len(shape)
    # Off the middle, so that no sum cancels.
    x = distinct(*shape, rng=rng) + 0.311
    x = np.abs(x) + 0.3 if name in ("Prod", "LogSum") else x
    # Negative and repeated axes, and none: all of them, or with noop_with_empty_axes none.
    axes = draw(st.one_of(st.none(), st.lists(st.integers(-rank, rank - 1), max_size=rank + 1)))
    given = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    fed = (1,) if axes is not None and draw(st.booleans()) else ()
    inputs = [x] if axes is None else [x, np.asarray(axes, np.int64)]
    return case(f"Reduce{name}", *inputs, symbolic=open_axes(draw, rank), fed=fed, **given)


@st.composite
def resizes(draw: Draw) -> Case:
    rng, rank = draw(generators()), draw(st.integers(1, 2))
    x = normal(2, 2, *[draw(st.integers(2, 6)) for _ in range(rank)], rng=rng)
    # ONNX Runtime's cubic kernel takes two axes.
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"]))
    transform = draw(st.sampled_from([*COORDINATES, "tf_crop_and_resize"]))
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
    factors = [draw(st.sampled_from([0.5, 0.61, 1.0, 1.31, 2.0, 2.5, 3.0])) for _ in range(rank)]
    sizes = [max(1, int(size * f)) for size, f in zip(x.shape[2:], factors, strict=True)]
    roi = None
    if transform == "tf_crop_and_resize":
        starts, ends = ([draw(st.floats(a, b)) for _ in range(rank)] for a, b in ((-0.2, 0.4), (0.6, 1.2)))
        roi = f32([0, 0, *starts, 1, 1, *ends])
        given |= {"extrapolation_value": 0.7, "mode": "linear"}
    elif mode != "nearest":
        smooth = draw(st.booleans())
        given |= {"antialias": int(smooth), "exclude_outside": int(smooth or mode == "cubic")}
    elif mode == "nearest":
        given["nearest_mode"] = draw(
            st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        )
    by_scales = draw(st.booleans())
    inputs = [x, roi, f32([1, 1, *factors])] if by_scales else [x, roi, None, i64(2, 2, *sizes)]
    fed = (len(inputs) - 1,) if draw(st.booleans()) else ()
    return case("Resize", *inputs, symbolic=open_axes(draw, x.ndim), fed=fed, **given)


COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]


@st.composite
def pads(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5))
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted))
    widths: list[list[int]] = [[], []]
    for axis in axes:
        # What is cut leaves two elements, and neither a reflection nor a wrap reaches around twice.
        cut = draw(st.integers(0, shape[axis] - 2))
        left = shape[axis] - cut
        widths[0].append(-cut if cut else draw(st.integers(0, left - 1)))
        widths[1].append(draw(st.integers(0, left - 1)))
    flat = i64(*widths[0], *widths[1])
    named = i64(*[signed(draw, axis, len(shape)) for axis in axes])
    value = scalar(0.7) if mode == "constant" and draw(st.booleans()) else None
    active = some_of(draw, (0, 2)) if value is not None else (0,)
    x = normal(*shape, rng=rng)
    symbolic = open_axes(draw, x.ndim) if active[0] == 0 else ()
    fed = (1,) if draw(st.booleans()) else ()
    return case("Pad", x, flat, value, named, mode=mode, active=active, symbolic=symbolic, fed=fed)


@st.composite
def slices(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=4, max_side=5))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    bound = st.integers(-7, 7)
    starts, ends = ([draw(bound) for _ in axes] for _ in range(2))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes]
    named = i64(*[signed(draw, axis, len(shape)) for axis in axes])
    fed = (1, 2) if draw(st.booleans()) else ()
    x = normal(*shape, rng=rng)
    return case(
        "Slice", x, i64(*starts), i64(*ends), named, i64(*steps), symbolic=open_axes(draw, x.ndim), fed=fed
    )


@st.composite
def gathers(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    x, rank = normal(*shape, rng=rng), len(shape)
    name = draw(st.sampled_from(["Gather", "GatherElements", "GatherND", "TopK"]))
    fed = (1,) if draw(st.booleans()) else ()
    axis = draw(st.integers(0, rank - 1))
    given: dict[str, Any] = {"axis": signed(draw, axis, rank)}
    outputs = 1
    if name == "TopK":
        x, outputs = distinct(*shape, rng=rng), 2
        indices = i64(draw(st.integers(1, shape[axis])))
        given["largest"] = draw(st.integers(0, 1))
    elif name == "Gather":
        wanted = draw(array_shapes(min_dims=0, max_dims=2, max_side=3))
        indices = rng.integers(-shape[axis], shape[axis], size=wanted)
    elif name == "GatherElements":
        wanted = tuple(draw(st.integers(1, 4)) if i == axis else size for i, size in enumerate(shape))
        indices = rng.integers(-shape[axis], shape[axis], size=wanted)
    else:
        batch = draw(st.integers(0, rank - 1))
        depth = draw(st.integers(1, rank - batch))
        wanted = (*shape[:batch], *draw(array_shapes(min_dims=1, max_dims=2, max_side=3)))
        given = {"batch_dims": batch}
        limits = np.asarray(shape[batch : batch + depth])
        indices = rng.integers(-limits, limits, size=(*wanted, depth))
    return case(
        name, x, np.asarray(indices), symbolic=open_axes(draw, rank), fed=fed, outputs=outputs, **given
    )


@st.composite
def scatters(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=4))
    rank, axis = len(shape), draw(st.integers(0, len(shape) - 1))
    reduction = draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    given: dict[str, Any] = {"reduction": reduction}
    name = draw(st.sampled_from(["ScatterElements", "ScatterND"]))
    # Without a reduction repeated indices are undefined.
    repeats = reduction != "none"
    if name == "ScatterElements":
        wanted = tuple(draw(st.integers(1, size)) for size in shape)
        order = np.argsort(rng.random(shape), axis=axis)[tuple(slice(size) for size in wanted)]
        indices = rng.integers(-shape[axis], shape[axis], size=wanted) if repeats else order
        given["axis"] = signed(draw, axis, rank)
    else:
        depth, limits = axis + 1, np.asarray(shape[: axis + 1])
        places = np.stack(np.unravel_index(np.arange(np.prod(limits)), limits), -1)
        count = draw(st.integers(1, len(places)))
        indices = places[rng.choice(len(places), count, replace=repeats)]
        wanted = (count, *shape[depth:])
    data, updates = distinct(*shape, rng=rng) + 0.4, distinct(*wanted, rng=rng) + 0.411
    active = some_of(draw, (0, 2))
    symbolic = open_axes(draw, rank) if active[0] == 0 else ()
    fed = (1,) if draw(st.booleans()) else ()
    return case(name, data, np.asarray(indices), updates, active=active, symbolic=symbolic, fed=fed, **given)
