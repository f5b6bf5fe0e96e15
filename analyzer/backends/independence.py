"""Whether the samples of a batch depend on each other: by what two of them give together, and each alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.planning import Call
from analyzer.samples import Place, batched_inputs

if TYPE_CHECKING:
    from analyzer.backends.base import Arrays, Differentiable

# Relative L2 of what two samples give together and alone: rounding leaves 1e-6, a mixture of samples far more.
_INDEPENDENT = 1e-3


def independent(fn: Differentiable, call: Call, feeds: Arrays) -> bool:
    """Whether the first and the last sample give together what each gives alone."""
    names = call.names if call.seed is None else call.seed.outputs
    key = ("independent", names)
    if key not in fn.plans:
        batched = batched_inputs(fn.graph)

        def forward(rows: list[int]) -> Arrays:
            return fn.engine.forward({n: a[rows] if n in batched else a for n, a in feeds.items()}, names)

        together, first, last = forward([0, -1]), forward([0]), forward([-1])
        fn.plans[key] = all(
            _close(together[name], _place_in(fn, name).joined([first[name], last[name]], 1, 2))
            for name in names
        )
    return bool(fn.plans[key])


def _place_in(fn: Differentiable, name: str) -> Place:
    return fn.places.get(name) or Place(0)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    scale = np.linalg.norm(expected.astype(np.float64))
    return bool(np.linalg.norm(found.astype(np.float64) - expected) <= _INDEPENDENT * scale)
