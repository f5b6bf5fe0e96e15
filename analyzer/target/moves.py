"""How a tensor holds the elements of another one after reshapes and transpositions of its samples.

From the nodes between two tensors to Moves, which give for every element of a sample of the second its position in the
flattened sample of the first. Refuses nodes that move the axis of the samples or change its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.graph import Node, Tensor
from converters.types import Shape


@dataclass(frozen=True)
class Move:
    """One step: the order of the axes, the first among them, or else the shape before and after."""

    perm: tuple[int, ...] | None
    before: Shape
    after: Shape

    @classmethod
    def of(cls, node: Node, above: Tensor, below: Tensor) -> Move | None:
        """Return the step of a Transpose, or of a node that keeps the order in memory; None where samples move."""
        if above.shape is None or below.shape is None:
            return None
        if node.op_type != "Transpose":
            return cls(None, above.shape, below.shape) if _same_samples(above.shape, below.shape) else None
        perm = tuple(node.attributes["perm"] or reversed(range(above.rank)))
        return cls(perm, above.shape, below.shape) if perm[:1] == (0,) else None

    @property
    def changes(self) -> bool:
        """Whether an element has other coordinates after the step."""
        return self.before != self.after if self.perm is None else self.perm != tuple(sorted(self.perm))

    def axis(self, axis: int) -> int | None:
        """Return the axis that holds after the step what an axis held before; None where it was split or joined."""
        if self.perm is not None:
            return self.perm.index(axis)
        inner = _without_ones(self.before[axis + 1 :])
        fitting = (
            place
            for place, size in enumerate(self.after)
            if size == self.before[axis] and _without_ones(self.after[place + 1 :]) == inner
        )
        return next(fitting, None)

    def apply(self, places: np.ndarray) -> np.ndarray:
        """Move the axes of an array that is shaped like one sample."""
        if self.perm is not None:
            return places.transpose([axis - 1 for axis in self.perm[1:]])
        known = dict(zip(self.before[1:], places.shape, strict=True))
        return places.reshape([size if isinstance(size, int) else known[size] for size in self.after[1:]])


@dataclass(frozen=True)
class Moves:
    """The steps from a tensor to another one, which holds the same elements of each sample."""

    steps: tuple[Move, ...]

    def places(self, sizes: Sequence[int]) -> np.ndarray:
        """Return the position in a flattened sample of the first tensor for every element of one of the second.

        sizes: of a sample of the first.
        """
        places = np.arange(math.prod(sizes)).reshape(tuple(sizes))
        for step in self.steps:
            places = step.apply(places)
        return places


def _same_samples(before: Shape, after: Shape) -> bool:
    """Whether a reshape leaves the elements of every sample, a slice of the first axis, together."""
    if before == after:
        return True
    if not before or not after:
        return False
    if all(isinstance(size, int) for size in (*before[1:], *after[1:])):
        return math.prod(map(int, before[1:])) == math.prod(map(int, after[1:]))  # type: ignore[arg-type]
    symbols = {size for size in after[1:] if not isinstance(size, int)}
    return (
        _without_ones(before[1:]) == _without_ones(after[1:])
        and None not in symbols
        and len(symbols) == sum(not isinstance(size, int) for size in after[1:])
    )


def _without_ones(shape: Shape) -> list[int | str | None]:
    return [size for size in shape if size != 1]
