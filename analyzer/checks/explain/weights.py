"""Say in a phrase how two constants differ: transposed, flipped, reordered, scaled, or by how much.

From two arrays to a phrase, or None where they are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations

import numpy as np

# Far above the rounding of float32 weights that two frameworks folded, and far below any change of a weight.
EQUAL = 1e-6
# A relation, such as a scale, is found with the rounding of its own arithmetic.
RELATED = 1e-5
# Arrays up to this size are written out in full.
MOST_SHOWN = 4


def relation(a: np.ndarray, b: np.ndarray) -> str | None:
    """Return how b differs from a, as a phrase that follows the name of the constants; None where they are equal."""
    left, right = (np.asarray(array, np.float64) for array in (a, b))
    if left.shape == right.shape and _near(left, right, EQUAL):
        return None
    if left.size != right.size:
        return f"of shape {shape_text(a.shape)} against {shape_text(b.shape)}"
    if left.size <= 1:
        return f"{number(left.reshape(-1)[0])} against {number(right.reshape(-1)[0])}" if left.size else None
    found = _moved(left, right)
    if found is None and left.shape == right.shape:
        found = _scaled(left, right) or _some(left, right)
    if found is not None:
        return found
    if left.shape != right.shape:
        return f"of shape {shape_text(a.shape)} against {shape_text(b.shape)}"
    if left.ndim == 1 and left.size <= MOST_SHOWN:
        return f"{listed(left)} against {listed(right)}"
    return f"differ by relative L2 {_apart(left, right):.1e}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as 64x3x3x3."""
    return "x".join(map(str, shape)) or "()"


def number(value: float) -> str:
    """Return a number with six digits at most, small and large ones as 1e-5."""
    value = float(f"{value:.6g}")
    if value and not 0.01 <= abs(value) < 1e6 and np.isfinite(value):
        digits, _, power = f"{value:.5e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.6g}"


def listed(values: np.ndarray) -> str:
    """Return numbers separated by commas."""
    return ",".join(number(value) for value in np.reshape(values, -1))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(a))
    return float(np.linalg.norm(a - b)) / size if size else float(np.linalg.norm(b) > 0)


def _near(a: np.ndarray, b: np.ndarray, tolerance: float = RELATED) -> bool:
    return _apart(a, b) <= tolerance


def _moved(a: np.ndarray, b: np.ndarray) -> str | None:
    """The same values elsewhere: axes exchanged, flipped, or slices of an axis in another order."""
    sizes = [float(np.linalg.norm(array)) for array in (a, b)]
    # Sorting takes long, and sizes that differ tell enough.
    if abs(sizes[0] - sizes[1]) > RELATED * max(sizes):
        return None
    if not _near(np.sort(a, axis=None), np.sort(b, axis=None)):
        return None
    for order in _orders(a.shape, b.shape):
        turned = a.transpose(order)
        for axes in _flips(a.ndim):
            if _near(np.flip(turned, axes), b):
                return _movement(order, axes)
    if a.shape == b.shape:
        axis = next((axis for axis in range(a.ndim) if _reordered(a, b, axis)), None)
        return None if axis is None else f"in another order along axis {axis}{_exchanged(a, b, axis)}"
    return "of the same values in another shape"


def _orders(a: tuple[int, ...], b: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(a) == len(b) and len(a) <= 5:
        yield from (order for order in permutations(range(len(a))) if tuple(a[k] for k in order) == b)


def _flips(rank: int) -> Iterator[tuple[int, ...]]:
    for count in range(rank + 1):
        yield from combinations(range(rank), count)


def _movement(order: tuple[int, ...], axes: tuple[int, ...]) -> str:
    parts = []
    exchanged = [axis for axis, source in enumerate(order) if axis != source]
    if exchanged:
        parts.append(f"transposed, axes {_names(exchanged)} exchanged")
    if axes:
        parts.append(f"flipped along {'axis' if len(axes) == 1 else 'axes'} {_names(axes)}")
    return " and ".join(parts)


def _names(axes: list[int] | tuple[int, ...]) -> str:
    texts = [str(axis) for axis in axes]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _reordered(a: np.ndarray, b: np.ndarray, axis: int) -> bool:
    """Whether the slices along an axis are the same in another order. Random projections sort the slices alike."""
    left, right = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (a, b))
    direction = np.random.default_rng(0).standard_normal(left.shape[1])
    return _near(left[np.argsort(left @ direction)], right[np.argsort(right @ direction)])


def _exchanged(a: np.ndarray, b: np.ndarray, axis: int) -> str:
    """Name two slices that are exchanged; empty where more of them are elsewhere."""
    others = tuple(one for one in range(a.ndim) if one != axis)
    differing = np.flatnonzero(np.any(a != b, axis=others))
    return f": slices {differing[0]} and {differing[1]} exchanged" if len(differing) == 2 else ""


def _scaled(a: np.ndarray, b: np.ndarray) -> str | None:
    """One multiple of the other: in all, or slice by slice of an axis."""
    if not a.any() or not b.any():
        return None
    factor = float((a * b).sum() / (a * a).sum())
    if _near(factor * a, b):
        return "negated" if abs(factor + 1) < RELATED else f"scaled by {number(round(factor, 6))}"
    for axis in range(a.ndim if a.ndim > 1 else 0):
        others = tuple(one for one in range(a.ndim) if one != axis)
        squares = (a * a).sum(axis=others, keepdims=True)
        factors = (a * b).sum(axis=others, keepdims=True) / np.where(squares > 0, squares, 1)
        if a.size > 2 * factors.size and _near(factors * a, b):
            return _by_slice(factors[squares > 0], axis)
    return None


def _by_slice(factors: np.ndarray, axis: int) -> str:
    """Factors of the slices along an axis; of a few slices alone where the others are equal."""
    changed = np.flatnonzero(np.abs(factors - 1) > RELATED)
    if len(changed) == 1:
        return (
            f"scaled by {number(round(float(factors[changed[0]]), 5))} in slice {changed[0]} of axis {axis}"
        )
    return f"scaled along axis {axis}, by {factors.min():.4g} to {factors.max():.4g}"


def _some(a: np.ndarray, b: np.ndarray) -> str | None:
    """A few elements alone."""
    differing = np.abs(a - b) > EQUAL * np.abs(a).max()
    count = int(differing.sum())
    if a.size <= MOST_SHOWN or count > a.size // 10:
        return None
    return f"differ in {count} of {a.size} elements, by relative L2 {_apart(a, b):.1e}"
