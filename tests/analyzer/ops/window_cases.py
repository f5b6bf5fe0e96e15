"""Cases of the ops with sliding windows: convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, normal

CONV_ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 0]},
    {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    {"strides": [3, 3]},
    {"strides": [4, 4]},
    {"strides": [2, 1], "pads": [1, 0, 1, 0]},
    {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    {"strides": [2, 2], "dilations": [2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 3]},
    {"auto_pad": "SAME_UPPER", "dilations": [2, 2]},
    {"auto_pad": "VALID"},
    {"pads": [3, 3, 3, 3]},
    {"strides": [2, 2], "pads": [3, 3, 4, 4]},
]


def convolutions() -> list[Case]:
    cases = []
    for given in CONV_ATTRIBUTES:
        cases += [
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), normal(4), **given),
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), symbolic=(0,), **given),
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), symbolic=(0, 2, 3), active=(0, 1), **given),
            case(
                "Conv", normal(2, 4, 9, 8), normal(6, 2, 3, 3), normal(6), group=2, active=(0, 1, 2), **given
            ),
            case(
                "Conv",
                normal(2, 3, 9, 8),
                normal(6, 1, 3, 3),
                group=3,
                symbolic=(0, 2),
                active=(0, 1),
                **given,
            ),
        ]
    for given in ({"strides": [2]}, {"strides": [3], "pads": [1, 2]}, {"dilations": [2]}, {"pads": [2, 2]}):
        cases.append(
            case("Conv", normal(2, 4, 9), normal(6, 2, 3), normal(6), group=2, active=(0, 1), **given)
        )
        cases.append(case("Conv", normal(2, 4, 9), normal(4, 1, 4), group=4, **given))
    # Large depthwise kernels: a Conv for each phase of the stride.
    for kernel, given in (
        ((5, 5), {"strides": [2, 2], "pads": [2, 2, 2, 2]}),
        ((5, 5), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
        ((5, 4), {"strides": [3, 2]}),
        ((7, 5), {"strides": [2, 3], "pads": [3, 0, 2, 1]}),
        ((4, 4), {"strides": [4, 4]}),
        ((5, 5), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 4), {"strides": [3, 3], "pads": [4, 4, 0, 0]}),
    ):
        weight = normal(3, 1, *kernel)
        cases.append(
            case("Conv", normal(2, 3, 11, 12), weight, group=3, active=(0, 1), symbolic=(0,), **given)
        )
    for given in ({"strides": [2, 2, 2]}, {"pads": [1, 1, 1, 1, 1, 1]}, {"dilations": [1, 2, 1]}):
        cases.append(case("Conv", normal(1, 2, 5, 6, 5), normal(3, 2, 3, 2, 3), active=(0, 1), **given))
    for given in ({}, {"strides": [2, 2]}, {"strides": [2, 3]}, {"strides": [2, 2], "pads": [1, 1, 0, 0]}):
        cases.append(case("Conv", normal(2, 3, 7, 8), normal(4, 3, 1, 1), normal(4), **given))
        cases.append(case("Conv", normal(2, 3, 7, 8), normal(4, 3, 1, 1), symbolic=(0, 2, 3), **given))
    cases += [
        case(
            "Conv", normal(1, 3, 11, 11), normal(4, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3], symbolic=(0,)
        ),
        case("Conv", normal(1, 3, 8, 8), normal(4, 3, 2, 2), strides=[2, 2], symbolic=(0,)),
        case("Conv", normal(1, 3, 9, 9), normal(4, 3, 4, 5), strides=[4, 4], pads=[1, 1, 1, 1]),
        case("Conv", normal(1, 3, 9, 9), normal(4, 3, 1, 5), pads=[0, 2, 0, 2]),
        case("Conv", normal(1, 3, 9, 9), normal(3, 1, 1, 5), group=3, strides=[1, 2]),
        case("Conv", normal(1, 2, 5, 5), normal(2, 2, 3, 3), normal(2), active=(2,)),
        case("Conv", normal(1, 2, 5, 5), normal(2, 2, 3, 3), np.zeros(2)),
    ]
    for given in (
        {},
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 1, 1]},
        {"dilations": [2, 1]},
        {"strides": [3, 2], "output_padding": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"strides": [2, 2], "output_shape": [9, 9]},
        {"dilations": [3, 3], "output_padding": [2, 0], "strides": [2, 1]},
    ):
        cases.append(
            case(
                "ConvTranspose", normal(2, 4, 4, 4), normal(4, 3, 3, 3), normal(3), active=(0, 1, 2), **given
            )
        )
        cases.append(
            case("ConvTranspose", normal(2, 4, 4, 4), normal(4, 2, 3, 3), group=2, active=(0, 1), **given)
        )
    cases.append(
        case(
            "ConvTranspose", normal(2, 4, 4, 4), normal(4, 3, 2, 2), normal(3), strides=[2, 2], symbolic=(0,)
        )
    )
    cases.append(case("ConvTranspose", normal(2, 4, 5), normal(4, 3, 3), strides=[2], active=(0, 1)))
    return cases


POOL_ATTRIBUTES: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 0, 0, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [3, 3]},
]


def pools() -> list[Case]:
    cases = []
    for given in POOL_ATTRIBUTES:
        cases += [
            case("MaxPool", distinct(2, 3, 7, 8), **given),
            case("MaxPool", distinct(2, 3, 7, 8), symbolic=(0, 2), **given),
            case("AveragePool", normal(2, 3, 7, 8), **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0,), count_include_pad=1, **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0, 2, 3), **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0, 2, 3), count_include_pad=1, **given),
            case("LpPool", normal(2, 3, 7, 8), p=3, **given),
        ]
    cases += [
        case("MaxPool", distinct(2, 3, 7, 8), kernel_shape=[2, 2], outputs=2),
        case("MaxPool", distinct(2, 3, 7, 8), kernel_shape=[2, 2], storage_order=1, outputs=2),
        case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[2]),
        # Windows that tile the input.
        case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[3]),
        case("MaxPool", distinct(2, 3, 6, 8), symbolic=(0,), kernel_shape=[3, 2], strides=[3, 2]),
        case("MaxPool", distinct(1, 2, 4, 3, 2), kernel_shape=[2, 3, 1], strides=[2, 3, 1]),
        case("MaxPool", distinct(1, 2, 5, 5, 5), kernel_shape=[2, 3, 2], strides=[2, 1, 1]),
        case("AveragePool", normal(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
        case("AveragePool", normal(1, 2, 5, 5, 5), kernel_shape=[2, 3, 2], strides=[2, 1, 1]),
        case("AveragePool", normal(1, 2, 7, 7), kernel_shape=[7, 7]),
        case("LpPool", normal(2, 3, 7, 8), p=1, kernel_shape=[2, 2]),
        case("GlobalAveragePool", normal(2, 3, 4, 5)),
        case("GlobalAveragePool", normal(2, 3, 4, 5), symbolic=(0, 2)),
        case("GlobalMaxPool", distinct(2, 3, 4, 5), symbolic=(0,)),
    ]
    return cases
