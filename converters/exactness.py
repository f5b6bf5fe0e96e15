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

    A number is lost if it is NaN or infinite, overflows, or underflows: its relative error exceeds the unit u of the
    type, and its absolute error exceeds u² of the largest of the numbers and of `scale` (what it is added to).
    """
    if not np.isfinite(exact).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        stored: np.ndarray = exact.astype(dtype)
    if exact.dtype == dtype:
        return stored
    unit = float(_unit(dtype))
    largest = max(float(np.abs(exact).max(initial=0.0)), float(np.max(scale, initial=0.0)))
    error = np.abs(stored.astype(np.float64) - exact)
    return stored if bool((error <= np.maximum(unit * np.abs(exact), unit * unit * largest)).all()) else None


def _unit(dtype: np.dtype[Any]) -> float:
    """Return the largest relative error of rounding to a type."""
    bits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype.name]
    return 2.0**-bits
