"""Cases and draws of sums, products and extrema over axes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal


def _reduction() -> list[Case]:
    cases = []
    names = ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "Prod", "LogSumExp", "LogSum"]
    for name in (f"Reduce{name}" for name in names):
        x = distinct(2, 3, 4) + (4 if name == "ReduceLogSum" else 0)
        cases += [
            case(name, x, i64(1)),
            case(name, x, i64(-1, 0), keepdims=0, symbolic=(0,)),
            case(name, x, keepdims=0),
            case(name, x, noop_with_empty_axes=1),
            case(name, x, i64(0, 2), symbolic=(0, 1, 2)),
        ]
    with_zeros = normal(2, 3, 4)
    with_zeros[0, 1, 2] = with_zeros[1, :2, 1] = 0
    cases += [
        case("ReduceProd", with_zeros, i64(1)),
        case("ReduceSum", with_zeros, i64(1, -2, 1), keepdims=0),
        case("ReduceMax", with_zeros, i64(2, 2)),
        case("CumSum", normal(3, 4), np.asarray(1)),
        case("CumSum", normal(3, 4), np.asarray(-2), exclusive=1, reverse=1),
    ]
    return cases


def _known_at_run() -> list[Case]:
    cases = []
    x, none = distinct(2, 3, 4) + 4, np.zeros(0, np.int64)
    for name in ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "Prod", "LogSumExp", "LogSum"]:
        cases += [
            case(f"Reduce{name}", x, i64(1), keepdims=0, fed=(1,)),
            case(f"Reduce{name}", x, i64(-1, 0), fed=(1,), symbolic=(0,)),
            case(f"Reduce{name}", x, none, keepdims=0, fed=(1,)),
            case(f"Reduce{name}", x, none, noop_with_empty_axes=1, fed=(1,)),
        ]
    cases.append(case("CumSum", normal(2, 3, 4), np.asarray(-1), exclusive=1, fed=(1,)))
    return cases


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


CASES = [*_reduction(), *_known_at_run()]
