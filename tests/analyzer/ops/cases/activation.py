"""Cases of the activations, and draws of ops of one input."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tests.analyzer.ops.drawing import Draw, generators, open_axes
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal, positive, scalar


def _plain() -> list[Case]:
    names = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Elu",
        "Selu",
        "Celu",
        "LeakyRelu",
        "HardSwish",
    ]
    return [case(name, normal(3, 4)) for name in [*names, "Mish", "Erf", "Gelu"]]


def _with_attributes() -> list[Case]:
    return [
        case("LeakyRelu", normal(3, 4), alpha=0.3),
        case("Elu", normal(3, 4), alpha=0.7),
        case("Celu", normal(3, 4), alpha=1.7),
        case("Selu", normal(3, 4), alpha=1.3, gamma=0.8),
        case("ThresholdedRelu", normal(3, 4), alpha=0.01),
        case("Shrink", normal(3, 4), lambd=0.03, bias=0.02),
        case("HardSigmoid", normal(3, 4) * 2 + 0.01, alpha=0.3, beta=0.4),
        case("HardSwish", normal(4, 5) * 3 + 0.01),
        case("Gelu", normal(3, 4), approximate="tanh"),
    ]


def _bounded() -> list[Case]:
    return [
        case("PRelu", normal(2, 3, 4), positive(3, 1), active=(0, 1)),
        case("PRelu", normal(2, 3, 4), positive(3, 1)),
        case("PRelu", normal(2, 3, 4), positive(3, 1), active=(1,)),
        case("Clip", normal(3, 4) * 3 + 0.01, scalar(0.0), scalar(2.0)),
        case("Clip", normal(3, 4), scalar(-0.51), scalar(0.61), active=(0, 1, 2)),
        case("Clip", normal(3, 4), scalar(0.3), scalar(-0.2), active=(0, 1, 2)),
        case("Clip", normal(3, 4), None, scalar(0.61), active=(0, 2)),
        case("Clip", normal(3, 4), scalar(-0.4), active=(0, 1)),
        case("Clip", normal(3, 4)),
        case("Clip", normal(3, 4), scalar(-0.51), scalar(0.61), fed=(1, 2)),
    ]


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


CASES = [*_plain(), *_with_attributes(), *_bounded()]
