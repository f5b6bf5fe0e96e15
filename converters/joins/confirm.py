"""Confirm that a region of a file computes what an op does, value by value, in the file's own precision.

Both are computed with every operation rounded to that precision. They must agree to the rounding error of the op's
definition, wherever the file's result is finite: an op that is more exact than the file computes something else there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from converters.joins.rounded import Array, Precision, Rounded

_SAMPLES = 8
_MARGIN = 8.0

Computation = Callable[[Rounded], Rounded]


def agrees(file: Computation, op: Computation, points: Iterable[Array], precision: Precision) -> bool:
    """Whether two computations agree at all points; points that the precision does not hold are left out."""
    with np.errstate(all="ignore"):
        return all(
            _agrees_at(file, op, x, precision) for x in map(precision.round, points) if np.isfinite(x).all()
        )


def _agrees_at(file: Computation, op: Computation, x: Array, precision: Precision) -> bool:
    found = file(Rounded(x, precision.round)).values
    expected = op(Rounded(x, precision.round)).values
    allowed = _rounding_error(op, x, precision) + 4 * precision.unit * np.abs(expected) + precision.smallest
    same = (found == expected) | (np.abs(found - expected) <= allowed)
    return found.shape == x.shape and bool((same | ~np.isfinite(found)).all())


def _rounding_error(op: Computation, x: Array, precision: Precision) -> Array:
    """Return how far roundings in every operation move the op's result: sampled, with a margin."""
    rng = np.random.default_rng(0)

    def exact(values: Array) -> Array:
        return np.asarray(values, np.float64)

    def moved(values: Array) -> Array:
        return values * (1 + precision.unit * rng.choice((-1.0, 1.0), np.shape(values)))

    centre = op(Rounded(x, exact)).values
    errors = [np.abs(op(Rounded(x, moved)).values - centre) for _ in range(_SAMPLES)]
    # A definition that overflows has no error to speak of: it is compared as it is.
    found: Array = np.nan_to_num(np.max(errors, axis=0), nan=0.0, posinf=0.0)
    return _MARGIN * found


def numbers(constants: Iterable[float]) -> Array:
    """Return the points at which a function of one number is compared.

    They are ordinary, tiny, huge and saturating ones, and the neighbourhood of the file's own constants.
    """
    powers = 10.0 ** np.arange(-30, 31, 3)
    kinks = np.array([value for value in constants if np.isfinite(value)])
    near = np.concatenate([kinks * factor for factor in (1, 1 - 1e-6, 1 + 1e-6, 1 - 1e-3, 1 + 1e-3)])
    parts = [[0.0], powers, np.linspace(0.0123, 30, 241), np.linspace(30, 110, 81), near]
    positive = np.concatenate([np.asarray(part, np.float64) for part in parts])
    return np.concatenate([positive, -positive])


def arrays(shape: tuple[int, ...]) -> list[Array]:
    """Return the points at which a function of many numbers is compared."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(shape)
    one = np.zeros(shape)
    one[..., 0] = 1.0
    scaled = [factor * noise for factor in (1e-30, 1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e18, 1e30)]
    moved = [0.3 + 2 * noise, 30 + noise, 1e3 + noise, -1e3 + noise, 1.0 + 1e-3 * noise]
    return [np.zeros(shape), np.ones(shape), *scaled, *moved, 80 * one, -120 * one, 1e4 * one]
