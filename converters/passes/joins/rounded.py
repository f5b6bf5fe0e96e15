"""Arrays whose every operation is rounded: how a file computes in its precision, and how exact that is.

Reads float64 arrays. A Rounded has the same methods as a Form, so that a formula can be read and computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray
Rounding = Callable[[Array], Array]


def erf(x: Array) -> Array:
    """Return the error function."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "erf": erf,
    "exp": np.exp,
    "log": np.log,
    "softplus": lambda x: np.logaddexp(x, 0),
    "tanh": np.tanh,
}


@dataclass(frozen=True)
class Precision:
    """A floating type, with what equality of constants means in it."""

    dtype: np.dtype[Any]

    @cached_property
    def unit(self) -> float:
        """The largest relative error of one rounding."""
        return float(ml_dtypes.finfo(self.dtype).eps) / 2  # type: ignore[no-untyped-call]

    @cached_property
    def smallest(self) -> float:
        """The smallest normal number."""
        return float(ml_dtypes.finfo(self.dtype).smallest_normal)  # type: ignore[no-untyped-call]

    @property
    def is_double(self) -> bool:
        """Whether an op's float32 attributes are less exact than the file."""
        return self.dtype == np.float64

    def round(self, x: Array | float) -> Array:
        """Round to the type, in float64."""
        with np.errstate(all="ignore"):
            return np.asarray(x, np.float64).astype(self.dtype).astype(np.float64)

    def holds(self, value: float) -> bool:
        """Whether a formula's number is one of the type's; in float64, where all are, one of float32's."""
        return float(np.float32(value)) == value if self.is_double else bool(self.round(value) == value)

    def equal(self, value: float, expected: float, roundings: int) -> bool:
        """Whether a number made of so many constants of a file is what the formula has there.

        A number that the type holds must be met exactly, any other after rounding. A divisor may be the rounded
        inverse. Several constants may differ by as many roundings.
        """
        if value == expected:
            return True
        if not math.isfinite(expected) or not math.isfinite(value) or value * expected <= 0:
            return False
        difference = abs(value / expected - 1)
        if self.holds(expected):
            return roundings > 1 and difference <= 2.0**-50
        if roundings > 1:
            return difference <= roundings * self.unit
        if self.is_double:
            return difference <= 2.0**-51  # as exact as the inverse of a constant can be computed here
        divisors = (1 / expected, 1 / float(self.round(expected)))
        return bool(
            self.round(value) == self.round(expected)
            or any(self.round(1 / value) == self.round(divisor) for divisor in divisors)
        )


class Rounded:
    """An array with a rounding that follows every operation."""

    def __init__(self, values: Array, rounding: Rounding) -> None:
        self.values = values
        self._rounding = rounding

    def constant(self, values: Array) -> Rounded:
        """Return a constant with the same rounding, which it has been through."""
        return Rounded(values.astype(np.float64), self._rounding)

    def _result(self, values: Array) -> Rounded:
        return Rounded(self._rounding(np.asarray(values)), self._rounding)

    def _moved(self, values: Array) -> Rounded:
        """Return values of the operands, which need no rounding."""
        return Rounded(np.asarray(values), self._rounding)

    def _operand(self, other: Rounded | float) -> Array:
        return other.values if isinstance(other, Rounded) else self._rounding(np.asarray(float(other)))

    def __add__(self, other: Rounded | float) -> Rounded:
        return self._result(self.values + self._operand(other))

    def __radd__(self, other: float) -> Rounded:
        return self + other

    def __sub__(self, other: Rounded | float) -> Rounded:
        return self._result(self.values - self._operand(other))

    def __rsub__(self, other: float) -> Rounded:
        return self._result(self._operand(other) - self.values)

    def __mul__(self, other: Rounded | float) -> Rounded:
        return self._result(self.values * self._operand(other))

    def __rmul__(self, other: float) -> Rounded:
        return self * other

    def __truediv__(self, other: Rounded | float) -> Rounded:
        return self._result(self.values / self._operand(other))

    def __rtruediv__(self, other: float) -> Rounded:
        return self._result(self._operand(other) / self.values)

    def __pow__(self, exponent: float) -> Rounded:
        return self._result(np.power(self.values, exponent))

    def __neg__(self) -> Rounded:
        return self._moved(-self.values)

    def function(self, name: str) -> Rounded:
        """Apply a function of one argument."""
        return self._result(FUNCTIONS[name](self.values))

    def clip(self, low: Rounded | float, high: Rounded | float) -> Rounded:
        """Bound from below and from above."""
        return self._moved(np.minimum(np.maximum(self.values, self._bound(low)), self._bound(high)))

    def _bound(self, bound: Rounded | float) -> Array:
        return bound.values if isinstance(bound, Rounded) else np.asarray(bound)

    def minimum(self, other: Rounded | float) -> Rounded:
        """Return the smaller of two."""
        return self._moved(np.minimum(self.values, self._bound(other)))

    def maximum(self, other: Rounded | float) -> Rounded:
        """Return the larger of two."""
        return self._moved(np.maximum(self.values, self._bound(other)))

    def above(self, other: Rounded | float) -> Rounded:
        """Return where this is larger than another."""
        return self._moved(self.values > self._bound(other))

    def at_least(self, other: Rounded | float) -> Rounded:
        """Return where this is not smaller than another. It differs from the opposite of "smaller" at NaN."""
        return self._moved(self.values >= self._bound(other))

    def choose(self, yes: Rounded | float, no: Rounded | float) -> Rounded:
        """Return one array where the condition holds and another where it does not."""
        return self._moved(np.where(self.values.astype(bool), self._bound(yes), self._bound(no)))

    def otherwise(self) -> Rounded:
        """Return the opposite of a condition."""
        return self._moved(np.logical_not(self.values))

    def total(self, axes: tuple[int, ...]) -> Rounded:
        """Sum over axes, which stay with one element each."""
        return self._result(self.values.sum(axes, keepdims=True))

    def largest(self, axes: tuple[int, ...]) -> Rounded:
        """Return the maximum over axes, which stay with one element each."""
        return self._moved(self.values.max(axes, keepdims=True))
