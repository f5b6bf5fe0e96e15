"""The values that drawn graphs are evaluated at: ordinary, tiny, huge, saturated, masked and special numbers.

Reads the dtype and shape of each input; returns arrays by input name. Free sizes take 1, 2 and 3 in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tools.audit.sketch import BATCH, Drawn

Rng = np.random.Generator


def _ordinary(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return rng.standard_normal(shape)


def _tiny(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return rng.standard_normal(shape) * (1e-4 if dtype == np.float16 else 1e-24)


def _huge(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return rng.standard_normal(shape) * (1e3 if dtype == np.float16 else 1e18)


def _saturated(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return rng.uniform(16, 90, shape) * rng.choice([-1.0, 1.0], shape)


def _masked(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Some elements, and some whole rows, hold what masks are made of."""
    values = rng.standard_normal(shape)
    # The least float32 is what masks hold in float64, too.
    least = np.finfo(np.float32 if dtype == np.float64 else dtype).min
    mask = rng.choice([-np.inf, float(least), -1e4])
    hidden = rng.random(shape) < 0.3
    if shape:
        hidden |= rng.random((*shape[:-1], 1)) < 0.3
    return np.where(hidden, mask, values)


def _special(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return rng.choice(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], shape, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.05, 0.05]
    )


KINDS: dict[str, Callable[[Rng, tuple[int, ...], np.dtype[Any]], np.ndarray]] = {
    "ordinary": _ordinary,
    "tiny": _tiny,
    "huge": _huge,
    "saturated": _saturated,
    "masked": _masked,
    "special": _special,
}
"""What makes an array of floats, by name of the kind."""


def feeds(drawn: Drawn) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the kind and the arrays of one evaluation after the other."""
    for index, kind in enumerate(KINDS):
        rng = np.random.default_rng([drawn.seed, 1 + index])
        sizes: dict[str, int] = dict(drawn.notes.get("sizes", {}))
        found = {}
        for name, (dtype, shape) in drawn.inputs.items():
            for symbol in shape:
                if isinstance(symbol, str):
                    samples = drawn.notes.get(SAMPLES, 1) if symbol == BATCH else 1
                    sizes.setdefault(symbol, ((index + len(sizes)) % 3 + 1) * samples)
            exact = tuple(sizes[size] if isinstance(size, str) else size for size in shape)
            found[name] = _array(kind, rng, exact, dtype, drawn.notes)
        yield kind, found


SAMPLES = "samples"
"""The note of a graph that takes so many samples at once, and more of them after the pass."""

SUMMED = "summed"
"""The note of a graph that sums its inputs: sums of the least number overflow in one order and not in another."""


DEFINED = "defined"
"""The note of a graph that does not define what it makes of NaN."""


def _array(
    kind: str, rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any], notes: Mapping[str, Any]
) -> np.ndarray:
    if dtype.kind == "b":
        return rng.random(shape) < (1.0 if kind == "masked" else 0.5)
    if dtype.kind in "iu":
        low, high = notes.get("integers", (0 if dtype.kind == "u" else -5, 6))
        return rng.integers(low, high, shape).astype(dtype)
    with np.errstate(over="ignore"):
        values = np.asarray(KINDS[kind](rng, shape, dtype), dtype)
    if DEFINED in notes:
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if SUMMED in notes:
        least = np.finfo(np.float32 if dtype == np.float64 else dtype).min
        values = np.where(values == least, least * dtype.type(2**-6), values)
    return values
