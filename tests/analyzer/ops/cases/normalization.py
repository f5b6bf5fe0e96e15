"""Cases and draws of the normalizations."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.analyzer.ops.drawing import SIDES, Draw, generators, open_axes, signed, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal, positive


def _normalization() -> list[Case]:
    statistics = (normal(3), normal(3), normal(3), positive(3))
    return [
        case("BatchNormalization", normal(2, 3, 4, 5), *statistics),
        case("BatchNormalization", normal(2, 3), *statistics, symbolic=(0,), epsilon=0.01),
        case("BatchNormalization", normal(2, 3, 4), *statistics, active=(0, 1, 2, 3, 4)),
        case("BatchNormalization", normal(2, 3, 4), *statistics, active=(1, 3)),
        case("LRN", normal(2, 5, 3, 4), size=3, alpha=0.3, beta=0.75, bias=1.2),
        case("LRN", normal(2, 5, 3, 4), size=4, alpha=0.3, beta=0.6, symbolic=(0,)),
        case("LRN", normal(2, 5, 3, 4), size=5, alpha=0.3, symbolic=(0, 2, 3)),
        case("LRN", normal(2, 5, 3, 4), size=3, alpha=0.3, symbolic=(0, 1)),
        case("LayerNormalization", normal(2, 3, 4), normal(4), normal(4), active=(0, 1, 2)),
        case("LayerNormalization", normal(2, 3, 4), normal(4), normal(4), epsilon=0.1),
        case("LayerNormalization", normal(2, 3, 4), normal(3, 4), axis=1, symbolic=(0,)),
        case("LayerNormalization", normal(2, 3, 4), normal(3, 1), normal(4), axis=1, active=(0, 1, 2)),
        case("LayerNormalization", normal(2, 3, 4), normal(4), normal(4), active=(1, 2)),
        case("LayerNormalization", normal(2, 3, 4), normal(4), active=(0, 1), outputs=3, target=1),
        case(
            "LayerNormalization", normal(2, 3, 4), normal(3, 4), axis=1, outputs=3, target=2, symbolic=(0, 1)
        ),
        case("RMSNormalization", normal(2, 3, 4), normal(4), epsilon=0.1),
        case("RMSNormalization", normal(2, 3, 4), normal(3, 4), axis=1, active=(0, 1)),
        case("InstanceNormalization", normal(2, 3, 4, 2), normal(3), normal(3), epsilon=0.1),
        case("InstanceNormalization", normal(2, 3, 4, 2), normal(3), normal(3), active=(0, 1, 2)),
        case("GroupNormalization", normal(2, 6, 4), normal(6), normal(6), num_groups=2, epsilon=0.1),
        case("GroupNormalization", normal(2, 6, 4, 2), normal(6), normal(6), num_groups=3, active=(0, 1, 2)),
        case("LpNormalization", normal(2, 3, 4), axis=1, p=2),
        case("LpNormalization", normal(2, 3, 4), p=1),
    ]


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


CASES = [*_normalization()]
