"""Confirm that a region of a file computes what an op does, value by value, in the file's own precision.

Both are computed with every operation rounded to that precision. They must agree to the rounding error of the op's
definition. NaN and infinity must be where the file has them: an op that overflows later computes something else there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from converters.passes.joins.rounded import Array, Precision, Rounded

_SAMPLES = 6
_MARGIN = 8.0
_ELEMENTS = 1 << 16

Computation = Callable[[Rounded], Rounded]


def agrees(file: Computation, op: Computation, points: Iterable[Array], precision: Precision) -> bool:
    """Whether two computations agree at all points, which must be numbers of the precision."""
    with np.errstate(all="ignore"):
        return all(_agrees_at(file, op, x, precision) for x in points)


def _agrees_at(file: Computation, op: Computation, x: Array, precision: Precision) -> bool:
    found = file(Rounded(x, precision.round)).values
    expected = op(Rounded(x, precision.round)).values
    allowed = _rounding_error(op, x, precision) + 4 * precision.unit * np.abs(expected) + precision.smallest
    same = (
        (found == expected) | (np.abs(found - expected) <= allowed) | (np.isnan(found) & np.isnan(expected))
    )
    return found.shape == x.shape and bool(same.all())


def _rounding_error(op: Computation, x: Array, precision: Precision) -> Array:
    """Return how far roundings in every operation move the op's result: sampled, with a margin."""
    rng = np.random.default_rng(0)

    def exact(values: Array) -> Array:
        return np.asarray(values, np.float64)

    def moved(values: Array) -> Array:
        signs = rng.integers(0, 2, np.shape(values)) * 2 - 1
        moved: np.ndarray = values * (1 + precision.unit * signs)
        return moved

    centre = op(Rounded(x, exact)).values
    errors = [np.abs(op(Rounded(x, moved)).values - centre) for _ in range(_SAMPLES)]
    # A definition that overflows has no error to speak of: it is compared as it is.
    found: Array = np.nan_to_num(np.max(errors, axis=0), nan=0.0, posinf=0.0)
    return _MARGIN * found


def numbers(constants: Iterable[float], precision: Precision) -> list[Array]:
    """Return the points at which a function of one number is compared.

    They are ordinary, tiny, huge and saturating ones, NaN, infinity, and the neighbourhood of the file's own constants.
    """
    powers = 10.0 ** np.arange(-30, 31, 3)
    kinks = np.array([value for value in constants if np.isfinite(value)])
    near = np.concatenate([kinks * factor for factor in (1, 1 - 1e-6, 1 + 1e-6, 1 - 1e-3, 1 + 1e-3)])
    parts = [[0.0, np.nan, np.inf], powers, np.linspace(0.0123, 30, 241), np.linspace(30, 110, 81), near]
    positive = np.concatenate([np.asarray(part, np.float64) for part in parts])
    points = precision.round(np.concatenate([positive, -positive]))
    return [points]


def arrays(shape: Sequence[int], axes: Sequence[int], precision: Precision) -> list[Array]:
    """Return the points at which a function of all elements along axes is compared, large ones at fewer points.

    shape: of one point, with one element along the other axes. The points lie along the first of these.
    """
    rng = np.random.default_rng(0)
    noise, one = rng.standard_normal(shape), np.zeros(shape)
    one[tuple(-1 if axis in axes else 0 for axis in range(len(shape)))] = 1.0
    points = [0.3 + 2 * noise, 1e3 + noise, 1e-6 * noise, 1e30 * noise, 0 * noise, 80 * one, -120 * one]
    points += [factor * noise for factor in (1e-30, 1e-12, 1e-3, 1e3, 1e6, 1e18)]
    points += [30 + noise, -1e3 + noise, 1 + 1e-3 * noise, 1 + 0 * noise, 1e4 * one]
    rounded = [precision.round(x) for x in points[: max(5, _ELEMENTS // noise.size)]]
    finite = [x for x in rounded if np.isfinite(x).all()]
    others = [axis for axis in range(len(shape)) if axis not in axes]
    return [np.concatenate(finite, others[0])] if others else finite
