"""Cases and draws of Slice and Pad."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes, signed, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, i64, normal, scalar


def _slices() -> list[Case]:
    cases = []
    sliced = normal(4, 7, 6)
    for symbolic in ((), (0,), (0, 1, 2)):
        cases += [
            case("Slice", sliced, i64(1), i64(3), symbolic=symbolic),
            case("Slice", sliced, i64(1, -5), i64(99, -1), i64(-1, 1), symbolic=symbolic),
            case("Slice", sliced, i64(0, 1), i64(9, 6), i64(1, 2), i64(2, 3), symbolic=symbolic),
            case("Slice", sliced, i64(-1, 5), i64(-(2**62), 0), i64(1, 2), i64(-1, -2), symbolic=symbolic),
            case("Slice", sliced, i64(6), i64(-8), i64(1), i64(-2), symbolic=symbolic),
            case("Slice", sliced, i64(1), i64(2), None, i64(1), symbolic=symbolic),
        ]
    cases.append(
        case("Slice", normal(2, 3, 4), i64(3, -1), i64(0, -99), i64(2, 1), i64(-2, -1), fed=(1, 2, 3, 4))
    )
    cases.append(case("Slice", normal(2, 3, 4), i64(1), i64(3), i64(-1), fed=(1, 2)))
    return cases


def _slices_known_at_run() -> list[Case]:
    """Starts and ends that only the running model knows, along axes and by steps that are known."""
    x, narrow = normal(2, 5, 7), np.asarray([-3, 1], np.int32)
    bounds: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
        ((-4, 9), (99, -99), (1, -2)),
        ((1, -99), (-1, 99), (2, 3)),
        ((3, 2), (0, -9), (-1, -3)),
        # Nothing is taken.
        ((3, 0), (3, 7), (1, 1)),
        ((1, 0), (4, 7), (-2, 1)),
    ]
    cases = []
    for starts, ends, steps in bounds:
        given = (i64(*starts), i64(*ends), i64(1, 2), i64(*steps))
        cases += [
            case("Slice", x, *given, fed=(1, 2)),
            case("Slice", x, *given, fed=(1,), symbolic=(0, 1, 2)),
            case("Slice", x, *given, symbolic=(1, 2)),
        ]
    return [*cases, case("Slice", x, narrow, narrow + 9, np.asarray([1, 2], np.int32), fed=(1, 2))]


def _pads() -> list[Case]:
    cases = []
    for mode in ("reflect", "edge", "wrap"):
        cases += [
            case("Pad", normal(3, 4), i64(1, 2, 2, 1), mode=mode),
            case("Pad", normal(2, 3, 4), i64(1, -1), None, i64(2), mode=mode, symbolic=(0,)),
        ]
    cases += [
        case("Pad", normal(3, 4), i64(1, 2, 2, 1)),
        case("Pad", normal(3, 4), i64(1, -2, -1, 1), scalar(0.7)),
        case("Pad", normal(3, 4), i64(0, 2), scalar(0.7), i64(-1), active=(0, 2)),
        case("Pad", normal(3, 4), i64(-1, 2, 1, -1), scalar(0.7), active=(2,)),
        case("Pad", normal(3, 4), i64(0, 0, 0, 0)),
        case("Pad", normal(3, 4), i64(1, 2, 2, 1), scalar(0.3), symbolic=(0, 1)),
    ]
    return cases


def _pads_known_at_run() -> list[Case]:
    cases = [case("Pad", normal(3, 4), i64(1, 2, 2, 1), scalar(0.7), fed=(1,), active=(0, 2))]
    for mode in ("constant", "reflect", "edge", "wrap"):
        cases += [
            case("Pad", normal(3, 4), i64(1, 2, 2, 1), fed=(1,), mode=mode),
            case("Pad", normal(3, 3, 4), i64(1, -1, 2, 1), None, i64(-1, 0), fed=(1, 3), mode=mode),
        ]
    return cases


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


CASES = [*_slices(), *_slices_known_at_run(), *_pads(), *_pads_known_at_run()]
