"""Cases and draws of the ops that read at indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes, signed
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal


def _gathers() -> list[Case]:
    x = normal(3, 4, 5)
    rows = np.asarray([[0, 2], [2, -1]])
    return [
        case("Gather", x, np.asarray(1), axis=1),
        case("Gather", x, np.asarray(-1), axis=2, symbolic=(0,)),
        case("Gather", x, i64(1, 2), axis=1, symbolic=(0,)),
        case("Gather", x, rows),
        case("Gather", x, rows, axis=1, symbolic=(0,)),
        case("Gather", x, rows, axis=-1),
        case("Gather", x, i64(3, 1, 1), axis=1),
        case("Gather", x, rows.astype(np.int32), axis=2),
        case("Gather", x, np.asarray(0), axis=1, symbolic=(0, 1)),
        case("GatherElements", normal(3, 4), np.asarray([[0, 1, 2, -1], [0, 0, 2, 1]])),
        case("GatherElements", normal(3, 4), np.asarray([[0, 1], [-1, 3], [2, 2]]), axis=1),
        case("GatherND", x, np.asarray([[0, 1], [2, 3], [2, 3]])),
        case("GatherND", x, np.asarray([[0], [2]])),
        case("GatherND", x, np.asarray([[1], [0], [-1]]), batch_dims=1),
        case("TopK", distinct(3, 5), i64(2), outputs=2),
        case("TopK", distinct(3, 5), i64(2), axis=0, largest=0, outputs=2),
        case("OneHot", i64(1, -1, 7), np.asarray(4), np.asarray([0.2, 0.9]), active=(2,)),
    ]


def _known_at_run() -> list[Case]:
    x = normal(2, 3, 4)
    return [
        case("TopK", distinct(3, 5), i64(2), outputs=2, fed=(1,)),
        case("Gather", x, i64(1, -1, 1), axis=1, fed=(1,)),
        case("GatherElements", normal(3, 4), np.asarray([[0, 1], [-1, 3], [2, 2]]), axis=1, fed=(1,)),
        case("GatherND", x, np.asarray([[1], [-1]]), batch_dims=1, fed=(1,)),
        case("OneHot", i64(1, -1, 7), np.asarray(4), np.asarray([0.2, 0.9]), active=(2,), fed=(0, 1)),
    ]


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


CASES = [*_gathers(), *_known_at_run()]
