"""Cases and draws of the ops that rearrange, join, split and repeat."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import SIDES, Draw, generators, open_axes, signed, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, i64, normal


def _shape() -> list[Case]:
    x = normal(2, 3, 4)
    return [
        case("Reshape", x, i64(6, 4)),
        case("Reshape", x, i64(0, -1), symbolic=(0,)),
        case("Reshape", x, i64(-1), symbolic=(0, 1)),
        case("Flatten", x),
        case("Flatten", x, axis=0),
        case("Flatten", x, axis=-1, symbolic=(0,)),
        case("Transpose", x),
        case("Transpose", x, perm=[1, 2, 0]),
        case("Squeeze", normal(2, 1, 3, 1), i64(1, -1)),
        case("Squeeze", normal(2, 1, 3, 1)),
        case("Unsqueeze", x, i64(0, -1)),
        case("Concat", x, normal(2, 1, 4), normal(2, 2, 4), axis=1, active=(0, 1, 2)),
        case("Concat", x, normal(2, 1, 4), axis=-2, active=(0,)),
        case("Concat", normal(2, 1, 4), x, axis=1, active=(1,), symbolic=(0,)),
        case("Concat", x, np.zeros((2, 1, 4)), axis=1, active=(0,)),
        case("Concat", x, normal(2, 1, 4), axis=1, active=(0, 1), symbolic=(1,)),
        case("Split", x, i64(1, 3), axis=2, outputs=2),
        case("Split", x, axis=1, num_outputs=2, outputs=2),
        case("Split", x, axis=0, num_outputs=1),
        case("Expand", normal(3, 1), i64(2, 3, 4)),
        case("Expand", normal(2, 3), i64(1)),
        case("Tile", normal(2, 3), i64(2, 3)),
        case("Tile", normal(2, 3), i64(2, 1), symbolic=(0, 1)),
        case("DepthToSpace", normal(2, 8, 2, 3), blocksize=2),
        case("DepthToSpace", normal(2, 8, 2, 3), blocksize=2, mode="CRD"),
        case("SpaceToDepth", normal(2, 2, 4, 6), blocksize=2, symbolic=(0,)),
        case("Trilu", normal(2, 4, 5)),
        case("Trilu", normal(4, 5), np.asarray(1), upper=0),
    ]


def _known_at_run() -> list[Case]:
    x = normal(2, 3, 4)
    return [
        case("Tile", x, i64(2, 1, 3), fed=(1,)),
        case("Tile", x, i64(2, 1, 3), fed=(1,), symbolic=(0, 1)),
        case("Expand", normal(3, 1), i64(2, 3, 4), fed=(1,)),
        case("Expand", normal(3, 1), i64(1, 1), fed=(1,), symbolic=(0,)),
        case("Unsqueeze", x, i64(0, -1), fed=(1,)),
        case("Squeeze", normal(2, 1, 3, 1), i64(1, -1), fed=(1,)),
        case("Reshape", x, i64(0, -1), fed=(1,), symbolic=(0,)),
        case("Split", x, i64(1, 3), axis=2, outputs=2, fed=(1,), target=1),
        case("Trilu", x, np.asarray(-1), upper=0, fed=(1,)),
    ]


@st.composite
def layouts(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    x, rank = normal(*shape, rng=rng), len(shape)
    axis = draw(st.integers(0, rank - 1))
    symbolic, fed = open_axes(draw, rank), (1,) if draw(st.booleans()) else ()
    name = draw(
        st.sampled_from(
            ["Transpose", "Reshape", "Flatten", "Expand", "Tile", "Unsqueeze", "Squeeze", "CumSum", "Trilu"]
        )
    )
    if name == "Transpose":
        return case(name, x, perm=draw(st.permutations(range(rank))), symbolic=symbolic)
    if name == "Flatten":
        return case(name, x, axis=draw(st.integers(-rank, rank)), symbolic=symbolic)
    if name == "Reshape":
        # 0 keeps an axis, −1 stands for all that is left.
        target = [0] * axis + draw(st.sampled_from([[-1], [-1, 1], [1, -1]]))
        return case(name, x, i64(*target), symbolic=symbolic, fed=fed)
    if name == "Expand":
        grown = [draw(st.integers(1, 3)) if size == 1 else draw(st.sampled_from([1, size])) for size in shape]
        lead = draw(st.lists(st.integers(1, 3), max_size=2))
        return case(name, x, i64(*lead, *grown), symbolic=symbolic, fed=fed)
    if name == "Tile":
        return case(name, x, i64(*[draw(st.integers(1, 3)) for _ in shape]), symbolic=symbolic, fed=fed)
    if name == "Unsqueeze":
        places = draw(st.sets(st.integers(0, rank + 1), min_size=2, max_size=2).map(sorted))
        return case(name, x, i64(*[signed(draw, p, rank + 2) for p in places]), symbolic=symbolic, fed=fed)
    if name == "Squeeze":
        wide = np.expand_dims(x, axis)
        return case(name, wide, i64(signed(draw, axis, rank + 1)), fed=fed)
    if name == "CumSum":
        given = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
        along = np.asarray(signed(draw, axis, rank))
        return case(name, x, along, symbolic=symbolic, fed=fed, **given)
    matrix = normal(*shape, draw(SIDES), rng=rng)
    diagonal = np.asarray(draw(st.integers(-3, 3)))
    return case("Trilu", matrix, diagonal, upper=draw(st.integers(0, 1)), symbolic=symbolic, fed=fed)


@st.composite
def joints(draw: Draw) -> Case:
    rng, shape = draw(generators()), draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    rank, axis = len(shape), draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    given = {"axis": signed(draw, axis, rank)}
    shapes = [tuple(n if i == axis else size for i, size in enumerate(shape)) for n in lengths]
    if draw(st.booleans()):
        parts = [normal(*part, rng=rng) for part in shapes]
        active = some_of(draw, range(len(parts)))
        return case("Concat", *parts, active=active, symbolic=open_axes(draw, rank), **given)
    whole = normal(*[sum(lengths) if i == axis else size for i, size in enumerate(shape)], rng=rng)
    count, target = len(lengths), draw(st.integers(0, len(lengths) - 1))
    fed = (1,) if draw(st.booleans()) else ()
    return case(
        "Split",
        whole,
        i64(*lengths),
        outputs=count,
        target=target,
        symbolic=open_axes(draw, rank),
        fed=fed,
        **given,
    )


CASES = [*_shape(), *_known_at_run()]
