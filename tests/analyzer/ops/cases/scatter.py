"""Cases and draws of the ops that write at indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes, signed, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, normal


def _single() -> list[Case]:
    """Scatters at indices that differ, and sums at repeated ones."""
    x = normal(3, 4, 5)
    return [
        case(
            "ScatterElements",
            normal(3, 4),
            np.asarray([[0, 1, 2, -1], [1, 0, 0, 1]]),
            normal(2, 4),
            active=(0, 2),
        ),
        case(
            "ScatterElements", normal(3, 4), np.asarray([[0, 1], [-1, 2]]), normal(2, 2), axis=1, active=(0,)
        ),
        case(
            "ScatterElements", normal(3, 4), np.asarray([[0, 1], [-1, 2]]), normal(2, 2), axis=1, active=(2,)
        ),
        case(
            "ScatterElements",
            normal(3, 4),
            np.asarray([[0, 0]]),
            normal(1, 2),
            axis=1,
            reduction="add",
            active=(0, 2),
        ),
        case("ScatterND", x, np.asarray([[0, 1], [2, -1]]), normal(2, 5), active=(0, 2)),
        case("ScatterND", x, np.asarray([[0, 1], [2, 3]]), normal(2, 5), active=(2,)),
        case("ScatterND", x, np.asarray([[0], [0]]), normal(2, 4, 5), reduction="add", active=(0, 2)),
        case("ScatterND", x, np.asarray([[0], [0]]), normal(2, 4, 5), reduction="add"),
    ]


def _reducing() -> list[Case]:
    """Scatters that reduce, at repeated indices; the factors of products hold zeros."""
    data, updates = distinct(3, 4) + 1, distinct(3, 4) + 1.013
    data[0, 1] = updates[1, 2] = updates[0, 0] = 0
    repeated = np.asarray([[0, 1, 2, -1], [1, 0, 0, 1], [0, 1, 0, 0]])
    columns = np.asarray([[0, 0], [-1, 2]])
    slabs, wide = np.asarray([[0, 1], [0, 1], [2, -1]]), distinct(3, 4, 5) + 2
    cases = []
    for reduction in ("add", "mul", "max", "min"):
        cases += [
            case("ScatterElements", data, repeated, updates, reduction=reduction, active=(0, 2)),
            case("ScatterElements", data, columns, updates[:2, :2], axis=1, reduction=reduction, active=(0,)),
            case("ScatterElements", data, columns, updates[:2, :2], axis=1, reduction=reduction, active=(2,)),
            case(
                "ScatterND", wide, slabs, distinct(3, 5) + 2.013, reduction=reduction, active=(0, 2), fed=(1,)
            ),
            case("ScatterND", wide, slabs, distinct(3, 5) + 2.013, reduction=reduction, active=(0,)),
            case("ScatterND", wide, slabs, distinct(3, 5) + 2.013, reduction=reduction, active=(2,)),
        ]
    return cases


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


CASES = [*_single(), *_reducing()]
