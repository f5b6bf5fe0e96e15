"""Small helpers that several op families share: shape arguments as ints, axes, and shapes inside rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.emitter import Emitter
from analyzer.graph import Tensor


def ints(value: Any) -> list[int]:
    """A shape, axes or pads argument of a framework's op (tensor, array or list) as a list of ints."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return [int(item) for item in np.asarray(value).reshape(-1)]


def static(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape where every axis is a known int, else None."""
    if tensor.shape is None or any(not isinstance(axis, int) for axis in tensor.shape):
        return None
    return tuple(int(axis) for axis in tensor.shape if isinstance(axis, int))


def shape_of(op: Emitter, x: Tensor) -> Tensor:
    """The shape of x as an int64 tensor: a constant where it is known, else a Shape node."""
    known = static(x)
    return op.tensor(np.asarray(known, np.int64)) if known is not None else op.Shape(x)


def constant_ints(x: Tensor | None) -> list[int] | None:
    """The value of a constant integer input of a rule, or None where it is not known before running."""
    return None if x is None or x.constant is None else [int(item) for item in x.constant.reshape(-1)]


def ones(rank: int) -> Sequence[int]:
    """[1] * rank, the default of strides and dilations."""
    return [1] * rank
