"""For every kink that an op's class states: inputs that lie on it exactly, and the gradient of the sum of the outputs.

The expected numbers are worked out by hand from the choice that the class states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case


@dataclass(frozen=True)
class Planted:
    """A case on the kink `where` of its op, and the gradient of each active input."""

    where: str
    case: Case
    gradients: list[Any]

    def __str__(self) -> str:
        return f"{self.case.op}: {self.where}"


def f64(*values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


def scalar(value: float) -> np.ndarray:
    return np.asarray(value, np.float64)


def i64(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def planted(
    op: str,
    where: str,
    inputs: tuple[Any, ...],
    *gradients: Any,
    active: tuple[int, ...] = (0,),
    outputs: int = 1,
    **attributes: Any,
) -> Planted:
    return Planted(where, Case(op, inputs, attributes, active, outputs), list(gradients))


def _activations() -> list[Planted]:
    x = f64(-1, 0, 1)
    return [
        planted("Relu", "x = 0", (x,), [0, 0, 1]),
        planted("LeakyRelu", "x = 0", (x,), [0.25, 0.25, 1], alpha=0.25),
        planted("PRelu", "x = 0", (x, f64(0.5, 0.5, 0.5)), [0.5, 0.5, 1], [-1, 0, 0], active=(0, 1)),
        planted("Elu", "x = 0", (f64(0, 1),), [0.5, 1], alpha=0.5),
        planted("Selu", "x = 0", (f64(0, 1),), [1.0, 2], alpha=0.5, gamma=2.0),
        planted("Celu", "x = 0", (f64(0, 1),), [1, 1], alpha=2.0),
        planted("ThresholdedRelu", "x = alpha", (f64(1, 2),), [0, 1], alpha=1.0),
        planted("Shrink", "x = ±lambd", (f64(-1, -0.5, 0, 0.5, 1),), [1, 0, 0, 0, 1], lambd=0.5),
        planted(
            "HardSigmoid", "alpha · x + beta at 0 or 1", (f64(-2, 0, 2),), [0, 0.25, 0], alpha=0.25, beta=0.5
        ),
        planted("HardSwish", "x = −3", (f64(-3, 0),), [0, 0.5]),
        planted("HardSwish", "x = 3", (f64(3, 0),), [1, 0.5]),
        planted("Clip", "x at a bound", (f64(-1, 0, 3, 6, 7), scalar(0), scalar(6)), [0, 0, 1, 0, 0]),
        planted(
            "Clip", "x at a bound", (f64(0, 3, 6), scalar(0), scalar(6)), [0, 1, 0], 1, 1, active=(0, 1, 2)
        ),
        planted(
            "Clip", "low > high", (f64(0, 1, 2), scalar(2), scalar(1)), [0, 0, 0], 0, 3, active=(0, 1, 2)
        ),
    ]


def _arithmetic() -> list[Planted]:
    return [
        planted("Abs", "x = 0", (f64(-2, 0, 2),), [-1, 0, 1]),
        planted("Sqrt", "x = 0", (f64(0, 4),), [np.inf, 0.25]),
        planted("Pow", "base 0, exponent 0", (f64(0, 2), f64(0, 0)), [0, 0], [0, np.log(2)], active=(0, 1)),
        planted("Pow", "base 0, exponent 1", (f64(0, 1), f64(1, 1)), [1, 1], [0, 0], active=(0, 1)),
        planted("Pow", "base 0, exponent above 1", (f64(0, 1), f64(2, 2)), [0, 2], [0, 0], active=(0, 1)),
        planted("Max", "operands that are equal", (f64(1, 2), f64(1, 0)), [0.5, 1], [0.5, 0], active=(0, 1)),
        planted(
            "Min",
            "operands that are equal",
            (f64(1), f64(1), f64(1)),
            [1 / 3],
            [1 / 3],
            [1 / 3],
            active=(0, 1, 2),
        ),
        planted(
            "Mod", "a at a multiple of b", (f64(6, 7), f64(3, 3)), [1, 1], [-2, -2], active=(0, 1), fmod=1
        ),
    ]


def _pools() -> list[Planted]:
    # Windows of two by two: all equal; the maximum twice on the diagonal; twice in a column; twice again.
    plane = f64([[[1, 1, 0, 2], [1, 1, 2, 0], [0, 3, 1, 0], [0, 3, 0, 1]]])
    first = [[[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]]
    where = "equal maxima in a window"
    return [
        planted("MaxPool", where, (plane,), first, kernel_shape=[2, 2], strides=[2, 2]),
        planted(
            "MaxPool", where, (plane,), first, kernel_shape=[2, 2], strides=[2, 2], storage_order=1, outputs=2
        ),
        planted("MaxPool", where, (f64([[0, 0, 0]]),), [[[2, 1, 0]]], kernel_shape=[3], pads=[1, 1]),
        planted(
            "LpPool",
            "a window of zeros",
            (f64([[0, 0, 3, 4]]),),
            [[[0, 0, 0.6, 0.8]]],
            kernel_shape=[2],
            strides=[2],
        ),
        planted("LpPool", "x = 0, p = 1", (f64([[0, -3, 5]]),), [[[0, -1, 1]]], kernel_shape=[3], p=1),
        planted("GlobalLpPool", "a plane of zeros", (f64([[0, 0], [3, 4]]),), [[[0, 0], [0.6, 0.8]]]),
        planted("GlobalLpPool", "x = 0, p = 1", (f64([[0, -3, 5]]),), [[[0, -1, 1]]], p=1),
        planted("GlobalMaxPool", "equal maxima", (f64([[2, 1, 2, 2]]),), [[[1 / 3, 0, 1 / 3, 1 / 3]]]),
    ]


def _reductions() -> list[Planted]:
    x = f64([1, 1], [0, 2])
    return [
        planted("ReduceMax", "equal extrema", (x, i64(1)), [[0.5, 0.5], [0, 1]]),
        planted("ReduceMin", "equal extrema", (x, i64(1)), [[0.5, 0.5], [1, 0]]),
        planted("ReduceL1", "x = 0", (f64([-1, 0, 2]), i64(1)), [[-1, 0, 1]]),
        planted("ReduceL2", "all of x is 0", (f64([0, 0], [3, 4]), i64(1)), [[0, 0], [0.6, 0.8]]),
        planted("LpNormalization", "all of x is 0", (f64([0, 0]),), [[1, 1]], p=2),
        planted("LpNormalization", "all of x is 0", (f64([0, 0]),), [[1, 1]], p=1),
        # y = x / |x|₁: 1/2 − sign(x)·Σ x / 4 for each element.
        planted("LpNormalization", "x = 0, p = 1", (f64([0, 2]),), [[0.5, 0]], p=1),
    ]


def _indices() -> list[Planted]:
    extrema = "equal extrema, reduction max or min"
    both = {"active": (0, 2)}
    line = (f64([0], [1], [1]), i64(0)[None])
    return [
        planted(
            "TopK",
            "equal values, not all among the k",
            (f64([1, 2, 2, 2]), i64(2)),
            [[0, 1, 1, 0]],
            outputs=2,
        ),
        planted(
            "TopK",
            "equal values, not all among the k",
            (f64([1, 1, 1]), i64(2)),
            [[1, 1, 0]],
            outputs=2,
            largest=0,
        ),
        planted(
            "ScatterElements",
            extrema,
            (f64(1, 2), i64(0, 0), f64(1, 1)),
            [1 / 3, 1],
            [1 / 3, 1 / 3],
            reduction="max",
            **both,
        ),
        planted(
            "ScatterND",
            extrema,
            (line[0], np.asarray([[1], [2]]), f64([1], [3])),
            [[1], [0.5], [1]],
            [[0.5], [0]],
            reduction="min",
            **both,
        ),
    ]


def _samples() -> list[Planted]:
    # One row of pixels at −1, 0 and 1; the grid names x, then y.
    image, centre = f64([[[1, 3, 7]]]), f64([[[0, 0]]])
    slopes = {"align_corners": 1, "active": (1,)}
    # A kernel of one tap, at each pixel; behind the last one are zeros.
    deformed = (image, f64([[[1]]]), np.zeros((1, 2, 1, 3)))
    return [
        planted("GridSample", "grid at a whole pixel, mode linear", (image, centre), [[[[4, 0]]]], **slopes),
        planted("GridSample", "mode nearest", (image, centre), [[[[0, 0]]]], mode="nearest", **slopes),
        planted(
            "DeformConv", "a tap at a whole pixel", deformed, [[[[-1, -3, -7]], [[2, 4, -7]]]], active=(2,)
        ),
    ]


def _regions() -> list[Planted]:
    # The whole image is one bin; RoiAlign reads it at the centre of each pixel, where all but one weight is 0.
    image = f64([[[2, 2], [2, 1]]])
    whole = f64([0, 0, 0, 1, 1])
    one = {"output_height": 1, "output_width": 1, "sampling_ratio": 2, "mode": "max"}
    first = [[[[1, 0], [0, 0]]]]
    return [
        planted("MaxRoiPool", "equal maxima in a bin", (image, whole), first, pooled_shape=[1, 1]),
        planted(
            "RoiAlign", "equal maxima in a bin, mode max", (image, f64([0, 0, 2, 2]), i64(0)), first, **one
        ),
    ]


def _recurrences() -> list[Planted]:
    # One step of one hidden unit from a state of 0, at the kink of Elu: its slope there is alpha, a half.
    where, x = "an activation or the clip at its kink", f64([[0]])
    elu = {"activation_alpha": [0.5], "hidden_size": 1}
    return [
        planted("RNN", where, (x, f64([[1]]), f64([[0]])), [[[0.5]]], activations=["Elu"], outputs=2, **elu),
        # h = (1 − σ(0))·elu(x)
        planted(
            "GRU",
            where,
            (x, f64([[0], [0], [1]]), f64([[0], [0], [0]])),
            [[[0.25]]],
            activations=["Sigmoid", "Elu"],
            outputs=2,
            **elu,
        ),
        # h = σ(0)·tanh(σ(0)·elu(x))
        planted(
            "LSTM",
            where,
            (x, f64([[0], [0], [0], [1]]), f64([[0], [0], [0], [0]])),
            [[[0.125]]],
            activations=["Sigmoid", "Elu", "Tanh"],
            outputs=3,
            **elu,
        ),
    ]


PLANTED = [
    *_activations(),
    *_arithmetic(),
    *_pools(),
    *_reductions(),
    *_indices(),
    *_samples(),
    *_regions(),
    *_recurrences(),
]
