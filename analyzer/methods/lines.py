"""Straight lines from baselines to inputs, and what a model says at their points.

From a held target and one or several baselines to a line for each sample and baseline. The points of several lines are
evaluated together; the attributed tensors of a sample are one vector of D numbers throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analyzer.backends.base import Arrays
from analyzer.errors import AnalysisError
from analyzer.methods.held import Held, in_batches


@dataclass(frozen=True, eq=False)
class Point:
    """A point at `alpha` of a line. output (K,): what K targets explain there; gradient (K, D): of each.

    finite: whether the gradient is; it may not be at an end, as that of a square root at 0.
    """

    alpha: float
    output: np.ndarray
    gradient: np.ndarray
    finite: bool = True


@dataclass(frozen=True, eq=False)
class Lines:
    """held.samples · len(starts) lines, those of a sample one after the other. starts: {name: (N, *features)} each."""

    held: Held
    starts: Sequence[Arrays]
    batch_size: int

    @property
    def count(self) -> int:
        """The number of lines."""
        return self.held.samples * len(self.starts)

    @property
    def targets(self) -> int:
        """K: the scalars of a sample that are explained one by one, 1 for a single one."""
        return self.held.output.shape[1] if self.held.output.ndim == 2 else 1

    @cached_property
    def size(self) -> int:
        """D: the numbers that are attributed in a sample."""
        return sum(self.held.feeds[name][0].size for name in self.held.names)

    @cached_property
    def item_bytes(self) -> int:
        """Of a number of a gradient."""
        return max(self.held.feeds[name].itemsize for name in self.held.names)

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points at (line, alpha), in their order.

        open_ends: let the gradient at an end be infinite, where the output is not. Raises AnalysisError where it, or
        any other, is not finite.
        """
        lines = np.array([line for line, _ in wanted], int)
        alphas = np.array([alpha for _, alpha in wanted])
        for batch in in_batches(len(wanted), self.batch_size):
            rows = lines[batch] // len(self.starts)
            points = {name: self._points(name, lines[batch], alphas[batch]) for name in self.held.names}
            found = self.held.gradients(points, rows)
            outputs = np.asarray(found.output, np.float64).reshape(len(batch), self.targets)
            gradients = self._vectors(found.gradients)
            for k, place in enumerate(batch):
                alpha = float(alphas[place])
                point = Point(alpha, outputs[k], gradients[k], bool(np.isfinite(gradients[k]).all()))
                if not np.isfinite(point.output).all() or not (
                    point.finite or (open_ends and alpha in (0, 1))
                ):
                    raise AnalysisError(
                        f"at α = {alpha:.6g} on the path of sample {rows[k]}, from the baseline at 0 to the input at "
                        "1, the output or its gradient is not finite: choose another baseline or rule"
                    )
                yield point

    def direction(self, line: int) -> np.ndarray:
        """The input less the baseline, (D,), in double precision."""
        sample, which = divmod(line, len(self.starts))
        spans = [
            self.held.feeds[name][sample].astype(np.float64) - self.starts[which][name][sample]
            for name in self.held.names
        ]
        return np.concatenate([span.reshape(-1) for span in spans])

    def arrays(self, vectors: np.ndarray) -> Arrays:
        """Vectors (n, D) as {name: (n, *features)}."""
        arrays, begin = {}, 0
        for name in self.held.names:
            shape = self.held.feeds[name].shape[1:]
            end = begin + int(np.prod(shape))
            arrays[name] = vectors[:, begin:end].reshape(-1, *shape)
            begin = end
        return arrays

    def _points(self, name: str, lines: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """(n, *features): each point in the precision of the input, so that both ends are met."""
        rows, which = np.divmod(lines, len(self.starts))
        end = self.held.feeds[name][rows]
        start = np.stack([self.starts[k][name][row] for k, row in zip(which, rows, strict=True)])
        along = alphas.astype(end.dtype).reshape(-1, *(1,) * (end.ndim - 1))
        points: np.ndarray = (1 - along) * start + along * end
        return points

    def _vectors(self, gradients: Arrays) -> np.ndarray:
        """{name: (n, *features)}, or (n, K, *features), as (n, K, D)."""
        parts = [gradients[name].reshape(len(gradients[name]), self.targets, -1) for name in self.held.names]
        return np.concatenate(parts, axis=2)
