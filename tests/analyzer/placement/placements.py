"""What every vision network must hold: maps that keep the mass, and nothing unplaced but what sees the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer import Target, differentiate, full_grad
from analyzer.backends import Differentiable
from analyzer.methods import FullGrad
from converters import Model

BASES = 6


def assert_placed(model: Model, feeds: Mapping[str, np.ndarray], *, recurrent: bool = False) -> FullGrad:
    """All complete maps and what has no place make the output, and what has none sees all of every image.

    recurrent: the states between the steps of an unrolled loop over frames have no place, and see the frames so far.
    """
    fn = differentiate(model)
    output = fn.graph.outputs[0]
    y = fn.forward(feeds)[output]
    weights = np.random.default_rng(0).normal(size=y.shape).astype(y.dtype)
    fg = full_grad(fn, feeds, 1 if y.ndim == 2 else Target(output=output, weights=weights))
    maps = by_root(fg)
    samples = len(fg.completeness.output)
    total = np.sum([found.reshape(samples, -1).sum(1, dtype=np.float64) for found in maps.values()], axis=0)
    terms = np.sum([np.abs(one.total) for one in fg.contributions], axis=0)
    scale = np.maximum(np.abs(fg.completeness.output), 1e-2 * terms)
    assert (np.abs(total + fg.unplaced_total - fg.completeness.output) <= 1e-4 * scale).all()
    for root, found in maps.items():
        if feeds[root].ndim > 3 and fg.unplaced and not recurrent:
            assert_unplaced_sees_all(fn, feeds, root, found.shape[1:], fg.unplaced)
    return fg


def by_root(fg: FullGrad) -> dict[str, Any]:
    """The complete maps by input, also of one."""
    return (
        fg.complete_map
        if isinstance(fg.complete_map, Mapping)
        else {next(iter(fg.input_totals)): fg.complete_map}
    )


def assert_unplaced_sees_all(
    fn: Differentiable,
    feeds: Mapping[str, np.ndarray],
    root: str,
    sizes: tuple[int, ...],
    unplaced: tuple[str, ...],
) -> None:
    """Every element that changes with some border of the image changes with all of them: it has no place in it.

    A border is an outer quarter of the image. What is downstream of other inputs alone is not asked.
    """
    downstream = fn.graph.descendants([root])
    asked = [name for name in unplaced if name in downstream]
    x = feeds[root]
    first = 2 if x.shape[2:] == sizes else 1
    borders = [
        (slice(None),) * (first + axis) + (side,)
        for axis, size in enumerate(sizes)
        for side in (slice(0, -(-size // 4)), slice(size - -(-size // 4), size))
    ]
    rng = np.random.default_rng(1)
    base = (x.std() * rng.normal(size=(BASES, *x.shape[1:]))).astype(x.dtype)
    changed = np.concatenate([base] * (1 + len(borders)))
    for number, border in enumerate(borders, 1):
        part = changed[number * BASES : (number + 1) * BASES][border]
        part[...] = 2 * x.std() * rng.normal(size=part.shape)
    rest = {name: np.repeat(array[:1], len(changed), axis=0) for name, array in feeds.items() if name != root}
    values = fn.forward({root: changed, **rest}, asked)
    for name in asked:
        rows = by_sample(fn, name, values[name], len(changed))
        runs = rows.reshape(1 + len(borders), BASES, -1)
        # A share of each element: the gate of a closed channel is small and still moves.
        moved = np.abs(runs[1:] - runs[0]) > 1e-6 * np.maximum(np.abs(runs[0]), 1e-6 * np.abs(rows).max())
        seen = moved.any(axis=1)
        alive = seen.any(axis=0)
        # A saturated gate hides a change from float32: one element may, or one in a hundred.
        missed = (~seen[:, alive]).sum(axis=1)
        assert (missed <= max(1, alive.sum() // 100)).all() and (missed < max(alive.sum(), 1)).all(), (
            name,
            root,
            missed,
        )


def by_sample(fn: Differentiable, name: str, value: np.ndarray, samples: int) -> np.ndarray:
    """A tensor as (samples, elements), wherever its samples lie."""
    blocks = fn.places[name].blocks(value.shape, {})
    return value.reshape(blocks, samples, -1).swapaxes(0, 1).reshape(samples, -1)
