"""Arithmetic in Python's own operators for NumPy arrays and for emitted nodes alike: a formula is written once.

A formula takes `xp`: NumPyArrays where its numbers are known before running, EmittedArrays where only the running model
knows them. Its values are numbers and arrays, or Emitted ones. Sizes are int64, read by `size_along`, and ints fold at
once. Other arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

_SINGLE = 1
_DOUBLE = 11
_INT64 = 7


def size_along(op: Builder, x: Tensor, axis: int) -> Any:
    """Return the size of one axis: an int where it is known, else an Emitted vector of one."""
    known = x.shape[axis] if x.shape is not None else None
    return known if isinstance(known, int) else Emitted(op, op.Shape(x, start=axis, end=axis + 1))


def vector(op: Builder, sizes: Sequence[Any]) -> list[int] | Tensor:
    """Return sizes as one vector: a list where all are ints, else a tensor."""
    runs: list[list[int] | Tensor] = []
    for one in sizes:
        if isinstance(one, Emitted):
            runs.append(one.tensor)
        elif runs and isinstance(runs[-1], list):
            runs[-1].append(int(one))
        else:
            runs.append([int(one)])
    if len(runs) < 2:
        return runs[0] if runs else []
    return op.Concat(*runs, axis=0)


class NumPyArrays:
    """Numbers that are known: NumPy's functions under the names that both have."""

    floor, ceil, abs, maximum, minimum = np.floor, np.ceil, np.abs, np.maximum, np.minimum
    where, logical_and, equal = np.where, np.logical_and, np.equal

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
    """Numbers that only the running model knows: the same functions as nodes. dtype: that of the numbers."""

    def __init__(self, op: Builder, dtype: Any = np.float64) -> None:
        self.op = op
        self.dtype = dtype

    def _plain(self, x: Any) -> Any:
        return x.tensor if isinstance(x, Emitted) else np.asarray(x, self.dtype)

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
        return Emitted(self.op, self.op.Max(self._plain(x), self._plain(y)))

    def minimum(self, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Min(self._plain(x), self._plain(y)))

    def where(self, condition: Any, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Where(self._plain(condition), self._plain(x), self._plain(y)))

    def equal(self, x: Any, y: Any) -> Emitted:
        return Emitted(self.op, self.op.Equal(self._plain(x), self._plain(y)))

    def logical_and(self, x: Emitted, y: Emitted) -> Emitted:
        return Emitted(self.op, self.op.And(x.tensor, y.tensor))

    def arange(self, start: Any, stop: Any) -> Emitted:
        return Emitted(
            self.op, self.op.Range(self._plain(start), self._plain(stop), np.asarray(1, self.dtype))
        )

    def single(self, x: Any) -> Any:
        if not isinstance(x, Emitted):
            return NumPyArrays.single(x)
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
        filled = op.Expand(self._plain(weights), op.Shape(places))
        return Emitted(op, op.ScatterElements(zeros, places, filled, axis=1, reduction="add"))


class Emitted:
    """A tensor of float64 or int64 (or of bool, after a comparison) with Python's operators.

    `//` is for integers that are not negative.
    """

    def __init__(self, op: Builder, tensor: Tensor) -> None:
        self.op = op
        self.tensor = tensor

    def _new(self, op_type: str, *arguments: Any) -> Emitted:
        # Python numbers take the dtype of the tensor.
        return Emitted(self.op, self.op.emit(op_type, [_tensor_or(a) for a in arguments]))

    def __add__(self, other: Any) -> Emitted:
        return self if _is_number(other, 0) else self._new("Add", self, other)

    def __sub__(self, other: Any) -> Emitted:
        return self if _is_number(other, 0) else self._new("Sub", self, other)

    def __rsub__(self, other: Any) -> Emitted:
        return self._new("Sub", other, self)

    def __mul__(self, other: Any) -> Emitted:
        return self if _is_number(other, 1) else self._new("Mul", self, other)

    def __truediv__(self, other: Any) -> Emitted:
        return self._new("Div", self, other)

    def __rtruediv__(self, other: Any) -> Emitted:
        return self._new("Div", other, self)

    def __floordiv__(self, other: Any) -> Emitted:
        return self if _is_number(other, 1) else self._new("Div", self, other)

    def __neg__(self) -> Emitted:
        return self._new("Neg", self)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Emitted:
        return self._new("Less", self, other)

    def __le__(self, other: Any) -> Emitted:
        return self._new("LessOrEqual", self, other)

    def __gt__(self, other: Any) -> Emitted:
        return self._new("Greater", self, other)

    def __ge__(self, other: Any) -> Emitted:
        return self._new("GreaterOrEqual", self, other)


def _is_number(x: Any, value: int) -> bool:
    """Return whether an operand is this number, which changes nothing."""
    return isinstance(x, (int, float)) and x == value


def _tensor_or(x: Any) -> Any:
    """Return the tensor of an Emitted operand; another operand as it is."""
    return x.tensor if isinstance(x, Emitted) else x
