"""Inputs at which a wrong rewriting shows and random ones miss it: zeros, tiny, large, and the ends of the range.

Reads an example, returns batches of its shapes. `allowed_at` bounds what two right computations may differ by there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from converters.types import NamedArrays
from converters.verification.norms import in_blocks, norm

Run = Callable[[NamedArrays], Sequence[np.ndarray]]

TINY, LARGE = 1e-4, 1e2
# Inputs are moved by this many of their last digits to see how far that moves the outputs.
_DIGITS = 8
# Two right computations round at every node, the moved inputs at the first alone.
_MARGIN = 10


def hard_points(example: NamedArrays, seed: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return (description, batch) pairs; integers and masks stay as in the example. Empty without a float input."""
    floats = {name: array for name, array in example.items() if is_floating(array) and array.size}
    if not floats:
        return []
    rng = np.random.default_rng(seed)
    corners = {name: rng.integers(0, 2, array.shape).astype(bool) for name, array in floats.items()}
    made: list[tuple[str, Callable[[str, np.ndarray], np.ndarray]]] = [
        ("inputs of zero", lambda name, array: np.zeros_like(array)),
        (f"inputs × {TINY:g}", lambda name, array: _scaled(array, TINY)),
        (f"inputs × {LARGE:g}", lambda name, array: _scaled(array, LARGE)),
        (f"inputs × −{LARGE:g}", lambda name, array: _scaled(array, -LARGE)),
        ("inputs at the least value", lambda name, array: np.full_like(array, array.min())),
        ("inputs at the greatest value", lambda name, array: np.full_like(array, array.max())),
        (
            "inputs at the ends of the range",
            lambda name, array: np.where(corners[name], array.max(), array.min()).astype(array.dtype),
        ),
    ]
    return [
        (told, {name: make(name, a) if name in floats else a for name, a in example.items()})
        for told, make in made
    ]


def is_floating(array: np.ndarray) -> bool:
    """Whether an array holds floats; ml_dtypes' bfloat16 has NumPy kind V."""
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def finite_distance(value: np.ndarray, expected: np.ndarray, floor: float) -> float:
    """Return the relative L2 distance over the elements where `expected` is finite; infinite where `value` is not.

    floor: the least norm per element that counts; smaller ones are rounding.
    """
    gaps = lost = False
    largest, count = 0.0, 0
    for v, e in in_blocks(value, expected):
        both = np.isfinite(v) & np.isfinite(e)
        gaps |= not np.isfinite(e).all()
        lost |= bool((np.isfinite(e) & ~both).any())
        count += int(both.sum())
        largest = max(largest, float(np.abs(e[both]).max(initial=0.0)))
    if lost and not gaps:
        # Where the original is not finite everywhere, which elements are may be a matter of its rounding.
        return float("inf")
    # Scaled, so that squares of large values do not overflow.
    scale = max(largest, floor)
    distances, lengths = [0.0], [0.0]
    for v, e in in_blocks(value, expected):
        both = np.isfinite(v) & np.isfinite(e)
        distances.append(norm((v[both] - e[both]) / scale))
        lengths.append(norm(e[both] / scale))
    least = floor * float(np.sqrt(max(count, 1))) / scale
    return math.hypot(*distances) / max(math.hypot(*lengths), least)


def spread(run: Run, given: NamedArrays, expected: Sequence[np.ndarray], floor: float) -> list[float]:
    """Return how far each output of the original moves, in relative L2, when its inputs move by a few last digits.

    Where this exceeds a difference, the inputs do not determine the outputs in the original's own precision.
    """
    most = [0.0] * len(expected)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        try:
            moved = run({name: _moved(array, rng) for name, array in given.items()})
        except Exception:  # the original is the user's code, at inputs that nobody meant for it
            continue
        for index, (value, truth) in enumerate(zip(moved, expected, strict=True)):
            if value.shape == truth.shape:
                most[index] = max(most[index], _MARGIN * finite_distance(value, truth, floor))
    return most


def _scaled(array: np.ndarray, factor: float) -> np.ndarray:
    scaled: np.ndarray = (array.astype(np.float64) * factor).astype(array.dtype)
    return scaled


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not is_floating(array):
        return array
    step = _DIGITS * float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
    moved: np.ndarray = (array.astype(np.float64) * (1 + step * rng.choice([-1, 1], array.shape))).astype(
        array.dtype
    )
    return moved
