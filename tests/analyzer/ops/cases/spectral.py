"""Cases of the Fourier transforms."""

from __future__ import annotations

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal


def _transforms() -> list[Case]:
    along, count = np.asarray, np.asarray
    # Stated, for ONNX's shape inference takes the default for 0.
    halved = {"onesided": 1}
    cases = []
    for inverse in (0, 1):
        given = {"inverse": inverse}
        cases += [
            case("DFT", normal(2, 6, 3, 2), **given),
            case("DFT", normal(2, 6, 3, 2), None, along(1), symbolic=(0,), **given),
            case("DFT", normal(2, 5, 3, 2), None, along(-3), symbolic=(0, 1, 2), **given),
            case("DFT", normal(2, 6, 1), count(9), along(1), **given),
            case("DFT", normal(2, 6, 2), count(4), along(1), symbolic=(1,), **given),
        ]
    return [
        *cases,
        case("DFT", normal(2, 6, 3, 1), None, along(1), onesided=1),
        case("DFT", normal(2, 7, 1), None, along(1), onesided=1, symbolic=(0, 1)),
        case("DFT", normal(2, 7, 1), count(4), along(1), onesided=1),
        case("DFT", normal(2, 5, 1), count(8), along(1), onesided=1),
        case("DFT", normal(2, 4, 3, 2), None, along(1), onesided=1, inverse=1, symbolic=(0,)),
        case("DFT", normal(2, 4, 2), count(7), along(1), onesided=1, inverse=1),
        case("STFT", normal(2, 20, 1), count(3), normal(6), active=(0, 2), **halved),
        case("STFT", normal(2, 20, 1), count(3), normal(6), symbolic=(0, 1), **halved),
        case("STFT", normal(2, 20, 1), count(4), normal(7), active=(2,), **halved),
        case("STFT", normal(2, 20, 1), count(4), None, count(8), symbolic=(0,), **halved),
        case("STFT", normal(2, 20, 2), count(2), normal(5), count(5), onesided=0, active=(0, 2)),
    ]


CASES = [*_transforms()]
