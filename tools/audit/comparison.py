"""Compare what a graph computes before and after a pass.

The rule. A pass that only moves, copies, selects or removes ("bitwise") must give the same bits in the graph's own
types, the sign of zero included; one NaN equals another. A pass that changes the order or the rounding of sums and
products is compared in float64. Each element may differ by 1e-12 of its condition: the effect of relative noise in
every input, constant and intermediate value, which is measured by evaluating the graph with such noise. So an element
is compared with the size of the terms that it is the sum of, never with a constant. NaN and infinity must be where
they were, unless the noise moves them, too. Where a pass stores new constants in float32 or float16, 32 units of that
type, 2⁻²⁴ or 2⁻¹¹, take the place of 1e-12. In the graph's own type, every finite number must stay finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TOLERANCE = 1e-12
"""Relative to the condition, in float64."""

_NOISE = 2.0**-40
_RUNS = 8
_UNITS = {"float16": 2.0**-11, "float32": 2.0**-24}
_ROUNDINGS = 32

Noisy = Callable[[tuple[np.random.Generator, float]], Sequence[Any]]


def tolerance_of(dtype: np.dtype[Any]) -> float:
    """Return what an element may differ by, relative to its condition, where constants are stored in a type."""
    return _ROUNDINGS * _UNITS[dtype.name] if dtype.name in _UNITS else TOLERANCE


def bitwise(before: Sequence[Any], after: Sequence[Any]) -> str | None:
    """Return how two lists of outputs differ; None where their bits are the same."""
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"output {index} is {a.dtype}{list(a.shape)} before and {b.dtype}{list(b.shape)} after"
        same = a == b
        if a.dtype.kind in "fV":
            same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
        if not np.all(same):
            return _first(index, a, b, np.asarray(same))
    return None


def within(
    before: Sequence[Any], after: Sequence[Any], noisy: Noisy, tolerance: float = TOLERANCE
) -> str | None:
    """Return how two lists of outputs differ by more than `tolerance` of their condition; None where they do not.

    noisy: evaluates the graph before the pass with the given noise.
    """
    spread: list[np.ndarray] | None = None
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or (a.dtype.kind == "f") != (b.dtype.kind == "f"):
            return f"output {index} is {a.dtype}{list(a.shape)} before and {b.dtype}{list(b.shape)} after"
        same = a == b
        if a.dtype.kind == "f":
            same = same | (np.isnan(a) & np.isnan(b))
        if np.all(same):
            continue
        if a.dtype.kind != "f":
            return _first(index, a, b, np.asarray(same))
        spread = spread or _spread(before, noisy)
        with np.errstate(all="ignore"):
            close = (np.abs(a - b) <= tolerance * (spread[index] + np.abs(a))) | np.isinf(spread[index])
        if not np.all(same | close):
            return _first(index, a, b, np.asarray(same | close))
    return None


def stays_finite(
    before: Sequence[Any], after: Sequence[Any], exact: Sequence[Any], noisy: Noisy
) -> str | None:
    """Return where a finite number became NaN or infinite; None where none did.

    exact, noisy: the outputs before the pass in float64, and what evaluates them with noise. Sums of terms near the
    largest number are left out: the order of the terms decides whether they overflow.
    """
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.kind == "f":
            fine = np.isfinite(b) | ~np.isfinite(a)
            if not np.all(fine):
                fine = fine | (_spread(exact, noisy)[index] > np.finfo(a.dtype).max / 64)
            if not np.all(fine):
                return f"in its own type, {_first(index, a, b, fine)}"
    return None


def _spread(before: Sequence[Any], noisy: Noisy) -> list[np.ndarray]:
    """Return the mean effect of noise on every element of every output, in units of the noise.

    It is infinite where noise makes a number NaN or infinite, or the other way round.
    """
    found = [np.zeros(np.shape(a)) for a in before]
    for run in range(_RUNS):
        for total, a, b in zip(found, before, noisy((np.random.default_rng(run), _NOISE)), strict=True):
            if np.shape(a) == np.shape(b) and np.asarray(a).dtype.kind == "f":
                with np.errstate(all="ignore"):
                    total += np.nan_to_num(np.abs(b - a), posinf=0.0) / (_NOISE * _RUNS)
                total[(np.isfinite(a) != np.isfinite(b)) | (np.isnan(a) != np.isnan(b))] = np.inf
    return found


def _first(index: int, a: np.ndarray, b: np.ndarray, fine: np.ndarray) -> str:
    where = tuple(int(i) for i in np.argwhere(~fine)[0])
    return f"output {index}{list(where)} is {a[where]!r} before and {b[where]!r} after"
