"""Decide whether a constant is exactly what a rewriting needs, and store computed constants without loss.

Reads arrays. A zero has a sign: −0.0 + 0.0 is 0.0, so that a sum with 0.0 changes a number. A computed constant is
rounded once, from float64 to the file's type; None says that it does not survive that.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def is_zero(array: np.ndarray, *, negative: bool = False) -> bool:
    """Return whether all elements are 0.0, or −0.0 where `negative`; the zeros of integers have no sign."""
    if array.astype(bool).any():
        return False
    signed = array.dtype.kind not in "iub"
    return not signed or bool((np.signbit(array) == negative).all())


def is_float(array: np.ndarray) -> bool:
    """Return whether an array holds floats, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def rounded(exact: np.ndarray, dtype: np.dtype[Any], scale: float | np.ndarray = 0.0) -> np.ndarray | None:
    """Return float64 numbers in another float type; None where one of them would be lost.

    scale: the largest weight in the same sum as each number.
    A number is lost if it is not finite, overflows, becomes 0, or loses digits to underflow: its relative error exceeds
    the unit u of the type (2⁻²⁴ in float32), and its absolute error exceeds u² of `scale` (2⁻¹⁸ of it in float16).
    """
    if not np.isfinite(exact).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        stored: np.ndarray = exact.astype(dtype)
    unit, floor = _UNITS[dtype.name]
    error = np.abs(stored.astype(np.float64) - exact)
    kept = (error <= np.maximum(unit * np.abs(exact), floor * scale)) & (stored.astype(bool) | (exact == 0))
    return stored if bool(kept.all()) else None


_UNITS = {
    "float16": (2.0**-11, 2.0**-18),
    "bfloat16": (2.0**-8, 2.0**-16),
    "float32": (2.0**-24, 2.0**-48),
    "float64": (2.0**-53, 2.0**-106),
}


def is_bias(shift: np.ndarray, factor: np.ndarray, dtype: np.dtype[Any]) -> bool:
    """Return whether x·factor + shift keeps the digits of ordinary numbers x; the shift of a mask does not.

    A number is ordinary if it is near 1, before or after the product. A sum with −1e4 rounds it to 1e-3 in float32. The
    result then depends on every single rounding, so that such a sum may be neither merged nor moved.
    """
    with np.errstate(all="ignore"):
        before = np.where(factor == 0, np.abs(shift), np.abs(shift / factor))
    return bool((np.minimum(np.abs(shift), before) <= _LARGEST_BIAS[dtype.name]).all())


_LARGEST_BIAS = {"float16": 2.0**6, "bfloat16": 2.0**3, "float32": 2.0**10, "float64": 2.0**39}


def largest_factor(dtype: np.dtype[Any]) -> float:
    """Return the largest factor that may move into other constants: the reciprocal of the unit of the type.

    A larger one would make terms overflow that cancel in the file.
    """
    return 1 / _UNITS[dtype.name][0]
