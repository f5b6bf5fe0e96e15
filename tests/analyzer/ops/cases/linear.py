"""Cases and draws of matrix products and determinants."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from tests.analyzer.ops.drawing import SIDES, Draw, generators, open_axes, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal, scalar


def _products() -> list[Case]:
    return [
        case("Gemm", normal(3, 4), normal(4, 5), normal(5)),
        case("Gemm", normal(3, 4), normal(5, 4), normal(5), transB=1, symbolic=(0,)),
        case("Gemm", normal(3, 4), normal(4, 5), np.zeros(5)),
        case("Gemm", normal(3, 4), normal(4, 5), alpha=0.5, active=(0, 1)),
        case(
            "Gemm",
            normal(4, 3),
            normal(5, 4),
            normal(3, 1),
            transA=1,
            transB=1,
            alpha=0.3,
            beta=1.7,
            active=(0, 1, 2),
        ),
        case("Gemm", normal(4, 3), normal(4, 5), scalar(0.8), transA=1, active=(0, 1, 2)),
        case("Gemm", normal(3, 4), normal(4, 5), normal(3, 5), beta=0.2, active=(2,)),
        case("Gemm", normal(3, 4), normal(4, 5), normal(1, 5), active=(1, 2)),
        case("MatMul", normal(3, 4), normal(4, 5), active=(0, 1)),
        case("MatMul", normal(2, 3, 4), normal(4, 5), active=(0, 1)),
        case("MatMul", normal(3, 4), normal(2, 4, 5), active=(0, 1)),
        case("MatMul", normal(2, 1, 3, 4), normal(5, 4, 2), active=(0, 1)),
        case("MatMul", normal(2, 1, 3, 4), normal(1, 5, 4, 2), active=(0, 1), symbolic=(0, 2)),
        case("MatMul", normal(2, 3, 4), normal(2, 4, 5), active=(0, 1), symbolic=(0, 1, 2)),
        case("MatMul", normal(4), normal(4), active=(0, 1)),
        case("MatMul", normal(4), normal(2, 4, 3), active=(0, 1)),
        case("MatMul", normal(2, 3, 4), normal(4), active=(0, 1)),
        case("MatMul", normal(2, 3, 4), normal(4, 5)),
    ]


def _determinants() -> list[Case]:
    return [
        case("Det", normal(2, 2)),
        case("Det", normal(3, 5, 5), symbolic=(0,)),
        case("Det", normal(2, 2, 3, 3), symbolic=(0, 1)),
        case("Det", normal(4, 1, 1)),
    ]


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


CASES = [*_products(), *_determinants()]
