"""Whether samples depend on one another, found by running: other samples are put in the place of some, and those that
stayed must keep their outputs.

Samples are replaced in groups, so that every pair of samples is once in different groups. What two samples do to each
other elsewhere than at the inputs given is not seen; structure (analyzer/graph/samples) proves it where its rules
reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.errors import BackendError
from analyzer.graph.precision import epsilon
from analyzer.graph.samples.guesses import Guess

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

ROUNDING = 64
"""Units in the last place of the largest output by which rounding may move one, in a batch of one and the same size."""
_NOISE = 0.1


def separate_outputs(
    fn: Differentiable, feeds: Arrays, guess: Guess, outputs: Sequence[str]
) -> Mapping[str, int] | None:
    """The axis of each output that holds the samples of the guess; None where some depend on others.

    Raises BackendError where the model does not run.
    """
    name, axis = next(iter(guess.items()))
    samples = feeds[name].shape[axis]
    before = fn.engine.forward(feeds, outputs)
    axes = {
        output: [k for k, size in enumerate(before[output].shape) if size == samples] for output in outputs
    }
    for group in _groups(samples):
        try:
            after = fn.engine.forward(_replaced(feeds, guess, group), outputs)
        except BackendError:
            # Other values may break a rule of the model, such as the range of an index.
            return None
        for output in outputs:
            axes[output] = [
                k for k in axes[output] if _kept(before[output], after[output], np.flatnonzero(~group), k)
            ]
        if not all(axes.values()):
            return None
    return {output: found[0] for output, found in axes.items()}


def doubled(feeds: Arrays, guess: Guess) -> Arrays:
    """One sample twice, so that there is another that it may depend on."""
    return {
        name: np.repeat(array, 2, axis=guess[name]) if name in guess else array
        for name, array in feeds.items()
    }


def _groups(samples: int) -> list[np.ndarray]:
    """Masks of samples: by each bit of their numbers, and by its complement."""
    bits = [(np.arange(samples) >> k) & 1 == 1 for k in range(max(samples - 1, 1).bit_length())]
    return [mask for bit in bits for mask in (bit, ~bit)]


def _replaced(feeds: Arrays, guess: Guess, group: np.ndarray) -> Arrays:
    """The feeds with the samples of a group replaced by their neighbours, floats with some noise."""
    rng = np.random.default_rng(0)
    found = dict(feeds)
    for name, axis in guess.items():
        rows = np.moveaxis(feeds[name], axis, 0).copy()
        others = np.roll(rows, 1, axis=0)
        if rows.dtype.kind == "f":
            scale = _NOISE * float(np.std(rows, dtype=np.float64) or 1.0)
            others = (others + scale * rng.standard_normal(rows.shape)).astype(rows.dtype)
        rows[group] = others[group]
        found[name] = np.ascontiguousarray(np.moveaxis(rows, 0, axis))
    return found


def _kept(before: np.ndarray, after: np.ndarray, rows: np.ndarray, axis: int) -> bool:
    """Whether the outputs of some samples are the same but for rounding."""
    if before.shape != after.shape:
        return False
    a, b = (array.take(rows, axis) for array in (before, after))
    if before.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    known = np.isfinite(before)
    scale = float(np.abs(before[known]).max(initial=0.0))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        near = np.abs(a.astype(np.float64) - b) <= ROUNDING * epsilon(before.dtype) * scale
    return bool((same | near).all())


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same but for the rounding of kernels for other sizes."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b)
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return bool((same | (apart <= np.sqrt(epsilon(a.dtype)) * scale)).all())
