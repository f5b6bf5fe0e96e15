"""Labels: the sample that each element of a tensor depends on.

A label array has the rank of its tensor; an axis along which the labels are equal has size 1. A label is the number of
a sample, FREE for an element that depends on none, or MIXED for one that may depend on several.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

FREE, MIXED = -1, -2
_LARGEST = np.iinfo(np.int32).max

Labels = np.ndarray


@dataclass(frozen=True)
class Span:
    """Where the samples of a tensor lie: `axis` holds `blocks` blocks of N runs, each of `runs` positions."""

    axis: int
    blocks: int = 1
    runs: int = 1

    @property
    def whole(self) -> bool:
        """Whether the axis counts the samples and nothing else."""
        return self.blocks == self.runs == 1


def constant(rank: int, label: int = FREE) -> Labels:
    """One label for all elements of a tensor."""
    return np.full((1,) * rank, label, np.int32)


def along(axis: int, rank: int, samples: int) -> Labels:
    """The labels of a tensor whose axis counts the samples."""
    return np.arange(samples, dtype=np.int32).reshape([-1 if k == axis else 1 for k in range(rank)])


def join(*parts: Labels) -> Labels:
    """The labels of elements that depend on one element of each part; the parts are broadcast."""

    def pair(a: Labels, b: Labels) -> Labels:
        return np.where(a == FREE, b, np.where((b == FREE) | (a == b), a, MIXED)).astype(np.int32)

    return reduce(pair, parts)


def over(labels: Labels, axes: Collection[int]) -> Labels:
    """The labels of elements that depend on all elements along these axes, which stay with size 1."""
    wide = tuple(axis for axis in axes if labels.shape[axis] > 1)
    if not wide:
        return labels
    low = np.where(labels == FREE, _LARGEST, labels).min(axis=wide, keepdims=True)
    high = labels.max(axis=wide, keepdims=True)
    found = np.where(low == high, high, np.where(low == _LARGEST, FREE, MIXED))
    return found.astype(np.int32)


def packed(labels: Labels) -> Labels:
    """The labels with size 1 along every axis on which they are equal."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = labels.take([0], axis)
            if (labels == first).all():
                labels = first
    return labels


def in_full(labels: Labels, shape: Sequence[int]) -> Labels:
    """The labels of every element."""
    return np.broadcast_to(labels, shape)


def span_of(labels: Labels, shape: Sequence[int], samples: int) -> Span | None:
    """Where N samples lie, each in the same way and in order; None where no single axis holds them so."""
    wide = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if len(wide) != 1:
        return None
    row = in_full(labels, [shape[axis] if axis == wide[0] else 1 for axis in range(len(shape))]).reshape(-1)
    runs = int(np.argmax(row != row[0])) or len(row)
    blocks = len(row) // (runs * samples) if len(row) % (runs * samples) == 0 else 0
    if not blocks or not np.array_equal(row, np.tile(np.repeat(np.arange(samples), runs), blocks)):
        return None
    return Span(wide[0], blocks, runs)
