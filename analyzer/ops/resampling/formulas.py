"""Arithmetic in Python's own operators for NumPy arrays and for emitted nodes alike: a formula is written once.

A formula takes `xp`, which is NumPyArrays where its numbers are known before running and EmittedArrays where only
the running model knows them. Its values are float64 arrays, or Emitted ones; scalars are numbers, or Emitted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

_SINGLE = 1
_DOUBLE = 11
_INT64 = 7


class NumPyArrays:
    """Numbers that are known: NumPy's functions under the names that both have."""

    floor, ceil, abs, maximum, minimum = np.floor, np.ceil, np.abs, np.maximum, np.minimum
    where, logical_and = np.where, np.logical_and

    @staticmethod
    def arange(start: Any, stop: Any) -> Any:
        """start, start + 1, … below stop."""
        return np.arange(start, stop, dtype=np.float64)

    @staticmethod
    def single(x: Any) -> Any:
        """x rounded to single precision. Done after each step, it is that precision's own arithmetic."""
        return np.asarray(x, np.float32).astype(np.float64)

    @staticmethod
    def column(x: Any) -> Any:
        """A vector as a matrix of one column."""
        return x[:, None]

    @staticmethod
    def row_sums(x: Any) -> Any:
        """The sums of a matrix's rows, as a column."""
        return x.sum(axis=1, keepdims=True)

    @staticmethod
    def spread(positions: Any, weights: Any, size: Any) -> Any:
        """The matrix with `size` columns whose rows have weights[i, k] added at column positions[i, k]."""
        matrix = np.zeros((len(positions), int(size)))
        np.add.at(matrix, (np.arange(len(positions))[:, None], positions.astype(np.int64)), weights)
        return matrix


class EmittedArrays:
    """Numbers that only the running model knows: the same functions as nodes."""

    def __init__(self, op: Builder) -> None:
        self.op = op

    def scalar(self, x: Tensor, index: int) -> Emitted:
        """One element of a vector, such as a shape, as a number."""
        return Emitted(self.op, self.op.Cast(self.op.Gather(x, np.asarray(index)), to=_DOUBLE))

    def floor(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.Floor(x.tensor))

    def ceil(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.Ceil(x.tensor))

    def abs(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.Abs(x.tensor))

    def maximum(self, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Max(_plain(x), _plain(y)))

    def minimum(self, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Min(_plain(x), _plain(y)))

    def where(self, condition: Any, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Where(_plain(condition), _plain(x), _plain(y)))

    def logical_and(self, x: Emitted, y: Emitted) -> Emitted:
        return Emitted(self.op, self.op.And(x.tensor, y.tensor))

    def arange(self, start: Any, stop: Any) -> Emitted:
        return Emitted(self.op, self.op.Range(_plain(start), _plain(stop), np.asarray(1.0)))

    def single(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.Cast(self.op.Cast(x.tensor, to=_SINGLE), to=_DOUBLE))

    def column(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.Unsqueeze(x.tensor, [1]))

    def row_sums(self, x: Emitted) -> Emitted:
        return Emitted(self.op, self.op.ReduceSum(x.tensor, [1], keepdims=1))

    def spread(self, positions: Emitted, weights: Any, size: Emitted) -> Emitted:
        op = self.op
        places = op.Cast(positions.tensor, to=_INT64)
        width = op.Cast(op.Reshape(size.tensor, [1]), to=_INT64)
        shape = op.Concat(op.Shape(places, start=0, end=1), width, axis=0)
        zeros = op.Expand(np.zeros(()), shape)
        filled = op.Expand(_plain(weights), op.Shape(places))
        return Emitted(op, op.ScatterElements(zeros, places, filled, axis=1, reduction="add"))


class Emitted:
    """A tensor of float64 (or of bool, after a comparison) with Python's operators."""

    def __init__(self, op: Builder, tensor: Tensor) -> None:
        self.op = op
        self.tensor = tensor

    def _new(self, op_type: str, *arguments: Any) -> Emitted:
        return Emitted(self.op, self.op.emit(op_type, [_plain(argument) for argument in arguments]))

    def __add__(self, other: Any) -> Emitted:
        return self._new("Add", self, other)

    def __sub__(self, other: Any) -> Emitted:
        return self._new("Sub", self, other)

    def __rsub__(self, other: Any) -> Emitted:
        return self._new("Sub", other, self)

    def __mul__(self, other: Any) -> Emitted:
        return self._new("Mul", self, other)

    def __truediv__(self, other: Any) -> Emitted:
        return self._new("Div", self, other)

    def __rtruediv__(self, other: Any) -> Emitted:
        return self._new("Div", other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Emitted:
        return self._new("Less", self, other)

    def __le__(self, other: Any) -> Emitted:
        return self._new("LessOrEqual", self, other)

    def __gt__(self, other: Any) -> Emitted:
        return self._new("Greater", self, other)

    def __ge__(self, other: Any) -> Emitted:
        return self._new("GreaterOrEqual", self, other)


def _plain(x: Any) -> Any:
    """An operand as the Builder takes it: numbers are float64."""
    if isinstance(x, Emitted):
        return x.tensor
    return np.asarray(x, np.float64)
