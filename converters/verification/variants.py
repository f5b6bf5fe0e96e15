"""Make further inputs from an example, on which a graph is compared with its original.

Reads arrays by input name; returns attempts at one variant, the most different first. Floats are drawn from the
range of the example. Whole numbers, masks and one-hot rows often obey rules of the model, such as an index that
must exist, sorted lengths or an end token: their values are rows of the example, repeated or in another order.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np

from converters.types import NamedArrays

FreeAxes = Mapping[str, Mapping[int, str]]

# Floats with two values are codes, such as a mask or one-hot rows.
_CODES = 2


def variants(
    example: NamedArrays, free: frozenset[str], index: int, batch: int | None, seed: int, free_axes: FreeAxes
) -> list[dict[str, np.ndarray]]:
    """Return attempts at one variant; the original may refuse the first ones.

    free: inputs whose first axis is symbolic; they get index + 1 rows, or `batch` where it is stated.
    free_axes: {input: {axis: symbol}}, the axes that every other variant has twice as long.
    The attempts: rows with their whole numbers in another order, rows as they are, and the sizes of the example.
    """
    rng = np.random.default_rng(seed + index)
    size = batch or index + 1
    rows = _rows(example, free, size, rng)
    stretched = _stretched(rows, free_axes) if index % 2 else rows
    attempts = [_drawn(_reordered(stretched, rng), rng), _drawn(stretched, rng), _drawn(example, rng)]
    return [dict(attempt) for attempt in attempts]


def is_coded(array: np.ndarray) -> bool:
    """Return whether an array holds whole numbers, truth values, texts, or floats with two values."""
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        return True
    return array.size > _CODES and np.unique(array.astype(np.float64)).size == _CODES


def _rows(
    example: NamedArrays, free: frozenset[str], size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the example with `size` rows of it, the same ones of every input; sorted rows stay sorted."""
    counts = {len(example[name]) for name in free if example[name].ndim}
    chosen = {
        count: np.sort(rng.choice(count, size, replace=size > count)) for count in sorted(counts) if count
    }
    return {
        name: array[chosen[len(array)]] if name in free and array.ndim and len(array) else array
        for name, array in example.items()
    }


def _stretched(arrays: NamedArrays, free_axes: FreeAxes) -> dict[str, np.ndarray]:
    """Return the arrays with twice the size along their free axes."""
    found = dict(arrays)
    for name, axes in free_axes.items():
        for axis in axes:
            found[name] = np.concatenate([found[name], np.flip(found[name], axis)], axis)
    return found


def _reordered(arrays: NamedArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return coded inputs with their last axis in another order, the same one for all of one length."""
    orders: dict[int, np.ndarray] = {}
    found = dict(arrays)
    for name, array in arrays.items():
        # The only axis is that of the samples: lengths, or offsets.
        if array.ndim > 1 and is_coded(array):
            length = array.shape[-1]
            order = orders.setdefault(length, rng.permutation(length))
            found[name] = array[..., order]
    return found


def _drawn(arrays: NamedArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the arrays with new floats between the least and the greatest; noise where these coincide."""
    return {name: array if is_coded(array) else _floats(array, rng) for name, array in arrays.items()}


def _floats(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not low < high or not np.isfinite([low, high]).all():
        return rng.standard_normal(array.shape).astype(array.dtype)
    return rng.uniform(low, high, array.shape).astype(array.dtype)
