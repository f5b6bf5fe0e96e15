"""Cases of arithmetic, casts and choices, and draws of ops that broadcast."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal, positive, scalar


def _unary() -> list[Case]:
    return [
        *[case(name, normal(3, 4)) for name in ["Abs", "Neg", "Identity", "Reciprocal"]],
        case("Sqrt", positive(3, 4) * 0.5),
        case("Cast", normal(3, 4), to=11),
        case("CastLike", normal(3, 4), scalar(0.0)),
        case("Dropout", normal(3, 4), outputs=1),
        case("Dropout", normal(3, 4), np.asarray(0.3), np.asarray(False), outputs=2),
    ]


def _arithmetic() -> list[Case]:
    cases = []
    for name in ["Add", "Sub", "Mul", "Div", "Max", "Min"]:
        cases += [
            case(name, normal(2, 3, 4), positive(3, 1) + 0.013, active=(0, 1)),
            case(name, normal(3, 4), positive(4) + 0.013),
            case(name, normal(4), positive(3, 4) + 0.013, active=(1,)),
            case(name, normal(3, 4), positive(1, 4) + 0.013, active=(0, 1), symbolic=(0,)),
            case(name, normal(3, 4), scalar(0.0) if name in ("Add", "Sub") else scalar(0.71)),
        ]
    cases += [
        case("Sum", normal(2, 3), normal(3), normal(2, 1), active=(0, 1, 2)),
        case("Sum", normal(2, 3), normal(3), normal(2, 1), active=(1,)),
        case("Sum", normal(2, 3)),
        case("Mean", normal(2, 3), normal(3), normal(2, 1), active=(0, 2)),
        case("Max", normal(2, 3), normal(3) + 0.007, normal(2, 1) - 0.009, active=(0, 1, 2)),
        case("Min", normal(2, 3), normal(3) + 0.007, normal(2, 1) - 0.009, active=(0, 2)),
        case("Max", normal(2, 3)),
        case("Pow", positive(3, 4), normal(4), active=(0, 1)),
        case("Pow", normal(3, 4), scalar(2.0)),
        case("Pow", normal(3, 4), scalar(3.0)),
        case("Pow", normal(3, 4), i64(3)),
        case("Pow", positive(3, 4), scalar(-0.5)),
        case("Pow", positive(3), positive(2, 3), active=(1,)),
        case("Mod", positive(3, 4) * 5, positive(4) + 0.37, active=(0, 1), fmod=1),
        case("Where", np.asarray([[True, False, True]]), normal(2, 3), normal(3), active=(1, 2)),
        case("Where", np.asarray([[True], [False]]), normal(2, 3), normal(3), active=(1,)),
        case("Where", np.asarray([[True], [False]]), normal(2, 3), normal(3), active=(2,)),
    ]
    return cases


def _known_at_run() -> list[Case]:
    return [
        case("Where", np.asarray([[True, False, True]]), normal(2, 1), normal(3), active=(1, 2), fed=(0,)),
        case("Pow", normal(3, 4), i64(2), fed=(1,)),
    ]


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


CASES = [*_unary(), *_arithmetic(), *_known_at_run()]
