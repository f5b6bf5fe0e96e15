"""The table of cases that drives the forward, gradient and residual tests: ops by shapes, attributes, active inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.index_cases import indexing, scatters
from tests.analyzer.ops.recurrent_cases import recurrences
from tests.analyzer.ops.runtime_cases import COORDINATES, known_at_run
from tests.analyzer.ops.sampling_cases import sampling
from tests.analyzer.ops.values import case, distinct, f32, i64, normal, positive, scalar
from tests.analyzer.ops.window_cases import convolutions, pools


def _unary() -> list[Case]:
    plain = [
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
    plain += ["Mish", "Erf", "Gelu", "Abs", "Neg", "Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh"]
    plain += ["Identity", "Reciprocal", "Softmax", "LogSoftmax"]
    cases = [case(name, normal(3, 4)) for name in plain]
    cases += [case(name, positive(3, 4) * 0.5) for name in ["Sqrt", "Log", "Tan"]]
    cases += [case(name, positive(3, 4) * 0.4) for name in ["Asin", "Acos", "Atanh"]]
    cases += [
        case("Acosh", positive(3, 4) + 1),
        case("LeakyRelu", normal(3, 4), alpha=0.3),
        case("Elu", normal(3, 4), alpha=0.7),
        case("Celu", normal(3, 4), alpha=1.7),
        case("Selu", normal(3, 4), alpha=1.3, gamma=0.8),
        case("ThresholdedRelu", normal(3, 4), alpha=0.01),
        case("Shrink", normal(3, 4), lambd=0.03, bias=0.02),
        case("HardSigmoid", normal(3, 4) * 2 + 0.01, alpha=0.3, beta=0.4),
        case("HardSwish", normal(4, 5) * 3 + 0.01),
        case("Gelu", normal(3, 4), approximate="tanh"),
        case("Softmax", normal(2, 3, 4), axis=1),
        case("LogSoftmax", normal(2, 3, 4), axis=1),
        case("PRelu", normal(2, 3, 4), positive(3, 1), active=(0, 1)),
        case("PRelu", normal(2, 3, 4), positive(3, 1)),
        case("PRelu", normal(2, 3, 4), positive(3, 1), active=(1,)),
        case("Clip", normal(3, 4) * 3 + 0.01, scalar(0.0), scalar(2.0)),
        case("Clip", normal(3, 4), scalar(-0.51), scalar(0.61), active=(0, 1, 2)),
        case("Clip", normal(3, 4), scalar(0.3), scalar(-0.2), active=(0, 1, 2)),
        case("Clip", normal(3, 4), None, scalar(0.61), active=(0, 2)),
        case("Clip", normal(3, 4), scalar(-0.4), active=(0, 1)),
        case("Clip", normal(3, 4)),
        case("Cast", normal(3, 4), to=11),
        case("CastLike", normal(3, 4), scalar(0.0)),
        case("Dropout", normal(3, 4), outputs=1),
        case("Dropout", normal(3, 4), np.asarray(0.3), np.asarray(False), outputs=2),
    ]
    return cases


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


def _linear() -> list[Case]:
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


def _shape() -> list[Case]:
    x = normal(2, 3, 4)
    cases = [
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


def _resize() -> list[Case]:
    x, half = normal(2, 3, 4, 6), f32([1, 1, 0.5, 0.6])
    double, none = f32([1, 1, 2, 2.5]), None
    cases = []
    for coordinates in COORDINATES:
        given: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
        cases += [
            case("Resize", x, none, double, mode="linear", **given),
            case("Resize", x, none, half, mode="linear", symbolic=(0,), **given),
            case("Resize", x, none, none, i64(2, 3, 7, 5), mode="nearest", **given),
        ]
    return [
        *cases,
        case(
            "Resize",
            x,
            none,
            f32([1, 1, 2.0, 2.0]),
            mode="nearest",
            nearest_mode="floor",
            symbolic=(0,),
        ),
        # Ten times 1.3 is thirteen in single precision alone; there, a neighbour lies at an exact integer.
        case("Resize", normal(2, 2, 10), none, f32([1, 1, 1.3]), mode="nearest", symbolic=(2,)),
        case("Resize", normal(2, 2, 7), none, none, i64(2, 2, 9), mode="nearest", nearest_mode="floor"),
        case(
            "Resize", normal(2, 7), none, none, i64(2, 9), mode="nearest", nearest_mode="floor", symbolic=(1,)
        ),
        case("Resize", x, none, none, i64(5, 9), mode="cubic", axes=[2, 3]),
        case("Resize", x, none, half, mode="cubic", antialias=1, exclude_outside=1),
        case("Resize", x, none, half, mode="linear", antialias=1),
        case("Resize", normal(2, 3, 5), none, f32([1.0, 2.0, 1.0]), mode="linear"),
        case("Resize", normal(2, 3, 5), none, f32([2.0, 1.0, 1.0]), mode="linear"),
        case(
            "Resize",
            x,
            f32([0, 0, 0.2, 0.3, 1, 1, 0.9, 1.4]),
            none,
            i64(2, 3, 3, 5),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=0.7,
        ),
    ]


def _contraction() -> list[Case]:
    return [
        case("Einsum", normal(2, 3), normal(3, 4), equation="ij,jk->ik", active=(0, 1)),
        case("Einsum", normal(2, 3, 4), normal(2, 5, 4), equation="bij,bkj->bik", active=(0, 1)),
        case("Einsum", normal(2, 3, 4), equation="bij->b", symbolic=(0,)),
        case("Einsum", normal(2, 3), equation="ij->ji"),
        case("Einsum", normal(2, 3, 4), normal(2, 4, 5), equation="...ij,...jk->...ik", active=(0, 1)),
        case("Einsum", normal(3), normal(4), normal(3, 4), equation="i,j,ij", active=(0, 1, 2)),
        case("Einsum", normal(3, 3), equation="ii->i"),
        case("Einsum", normal(2, 3, 3), equation="bii->b", symbolic=(0,)),
        case("Einsum", normal(2, 3, 3), equation="...ii->...i", symbolic=(0, 1, 2)),
        case("Einsum", normal(3, 3, 3), equation="iii"),
        case("Einsum", normal(2, 3, 3), normal(3, 4), equation="bii,ij->bj", active=(0, 1)),
        case("Einsum", normal(2, 1), normal(3, 4), equation="ij,jk->ik", active=(0, 1)),
        case("Einsum", normal(1, 3), normal(2, 3), equation="ij,ij->", active=(0, 1)),
        case("Einsum", normal(1, 3, 4), normal(2, 4, 5), equation="...ij,...jk->...ik", active=(0, 1)),
        case("Einsum", normal(2, 3), normal(3, 4), equation="ij, jk", active=(0, 1)),
        case("Einsum", normal(2, 3), scalar(0.7), equation="ba,", active=(0, 1)),
    ]


CASES = [
    *_unary(),
    *_arithmetic(),
    *_linear(),
    *convolutions(),
    *pools(),
    *_normalization(),
    *_reduction(),
    *_shape(),
    *indexing(),
    *scatters(),
    *_resize(),
    *_contraction(),
    *sampling(),
    *known_at_run(),
    *recurrences(),
]
