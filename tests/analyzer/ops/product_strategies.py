"""hypothesis strategies of products, normalizations and layouts: each draws a Case."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.strategies import Draw, generators, open_axes, signed, some_of
from tests.analyzer.ops.values import case, i64, normal, positive

SIDES = st.integers(1, 4)


@st.composite
def matmuls(draw: Draw) -> Case:
    rng = draw(generators())
    rows, inner, columns = draw(SIDES), draw(SIDES), draw(SIDES)
    batches = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    left = (inner,) if draw(st.booleans()) and not batches[0] else (*batches[0], rows, inner)
    right = (inner,) if draw(st.booleans()) and not batches[1] else (*batches[1], inner, columns)
    a, b = normal(*left, rng=rng), normal(*right, rng=rng)
    active = some_of(draw, (0, 1))
    return case("MatMul", a, b, active=active, symbolic=open_axes(draw, (a, b)[active[0]].ndim))


@st.composite
def gemms(draw: Draw) -> Case:
    rng = draw(generators())
    rows, inner, columns = draw(SIDES), draw(SIDES), draw(SIDES)
    given: dict[str, Any] = {name: draw(st.integers(0, 1)) for name in ("transA", "transB")}
    given |= {name: draw(st.sampled_from([1.0, 0.3, -2.0])) for name in ("alpha", "beta")}
    a = normal(*((inner, rows) if given["transA"] else (rows, inner)), rng=rng)
    b = normal(*((columns, inner) if given["transB"] else (inner, columns)), rng=rng)
    shapes = [None, (), (1,), (columns,), (1, columns), (rows, 1), (1, 1), (rows, columns)]
    shape = draw(st.sampled_from(shapes))
    inputs = [a, b] if shape is None else [a, b, normal(*shape, rng=rng)]
    active = some_of(draw, range(len(inputs)))
    return case("Gemm", *inputs, active=active, symbolic=open_axes(draw, inputs[active[0]].ndim), **given)


@st.composite
def einsums(draw: Draw) -> Case:
    rng, letters = draw(generators()), "ijkl"
    sizes = {letter: draw(SIDES) for letter in letters}
    words = st.text(st.sampled_from(list(letters)), max_size=3)
    terms = draw(st.lists(words, min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    result = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
    equation = ",".join(terms) + "->" + "".join(result)
    dots = draw(st.booleans())
    lead = (draw(SIDES),) if dots else ()
    if dots:
        equation = ",".join(f"...{term}" for term in terms) + "->..." + "".join(result)
    operands = [normal(*lead, *[sizes[c] for c in term], rng=rng) for term in terms]
    active = some_of(draw, range(len(operands)))
    symbolic = open_axes(draw, operands[active[0]].ndim)
    return case("Einsum", *operands, equation=equation, active=active, symbolic=symbolic)


@st.composite
def normalizations(draw: Draw) -> Case:
    rng, rank = draw(generators()), draw(st.integers(2, 4))
    groups = draw(st.integers(1, 3))
    shape = (
        draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 2)),
        *[draw(SIDES) for _ in range(rank - 2)],
    )
    x, channels = normal(*shape, rng=rng), shape[1]
    names = ["Batch", "Layer", "RMS", "Lp", "Group"] + (["Instance"] if rank > 2 else [])
    names += ["LRN"] if rank == 4 else []
    name = draw(st.sampled_from(names))
    symbolic, epsilon = open_axes(draw, rank), draw(st.sampled_from([0.01, 0.1]))
    if name == "LRN":
        return case("LRN", x, size=draw(st.sampled_from([1, 3, 5])), alpha=0.3, bias=1.2, symbolic=symbolic)
    if name == "Lp":
        axis = draw(st.integers(-rank, rank - 1))
        return case("LpNormalization", x, axis=axis, p=draw(st.integers(1, 2)), symbolic=symbolic)
    given: dict[str, Any] = {"epsilon": epsilon}
    parameters = [normal(channels, rng=rng) for _ in range(2)]
    if name == "Batch":
        parameters += [normal(channels, rng=rng), positive(channels, rng=rng)]
    elif name in ("Layer", "RMS"):
        axis = draw(st.integers(0, rank - 1))
        given["axis"] = signed(draw, axis, rank)
        count = 2 if name == "Layer" and draw(st.booleans()) else 1
        parameters = [normal(*shape[axis:], rng=rng) for _ in range(count)]
    elif name == "Group":
        given["num_groups"] = groups
    active = some_of(draw, range(1 + len(parameters)))
    symbolic = symbolic if active[0] == 0 else ()
    return case(f"{name}Normalization", x, *parameters, active=active, symbolic=symbolic, **given)


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
