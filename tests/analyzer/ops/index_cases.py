"""Cases of the ops that read and write at indices."""

from __future__ import annotations

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal


def indexing() -> list[Case]:
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
        case("TopK", distinct(3, 5), i64(2), outputs=2),
        case("TopK", distinct(3, 5), i64(2), axis=0, largest=0, outputs=2),
        case("OneHot", i64(1, -1, 7), np.asarray(4), np.asarray([0.2, 0.9]), active=(2,)),
    ]


def scatters() -> list[Case]:
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
