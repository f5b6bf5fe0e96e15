"""Cases of the ops that select slices."""

from __future__ import annotations

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal


def _selections() -> list[Case]:
    flags = np.asarray([True, False, True])
    return [
        case("Compress", normal(3, 4, 2), flags, axis=0, symbolic=(0,)),
        case("Compress", normal(3, 4, 2), flags, axis=-2, symbolic=(0,)),
        case("Compress", normal(3, 4), np.asarray([False, True, True, False, True])),
        case("Unique", distinct(6)),
        case("Unique", distinct(3, 4), sorted=0, outputs=4),
        case("Unique", distinct(4, 3), axis=0, symbolic=(0,)),
        case("Unique", distinct(4, 3), axis=1, sorted=0),
        case("ReverseSequence", normal(4, 3, 2), i64(1, 4, 2), time_axis=0, batch_axis=1),
        case("ReverseSequence", normal(3, 4), i64(1, 4, 2), time_axis=1, batch_axis=0, symbolic=(0, 1)),
    ]


CASES = [*_selections()]
