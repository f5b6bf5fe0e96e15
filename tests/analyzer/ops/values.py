"""Arrays for the tables of cases: clear of kinks by far more than the step of a central difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case

_RNG = np.random.default_rng(20)


def normal(*shape: int, rng: np.random.Generator = _RNG) -> np.ndarray:
    """Standard normal values, none closer to 0 than 0.05."""
    x = rng.normal(size=shape)
    return np.where(np.abs(x) < 0.05, np.copysign(0.05, x), x)


def positive(*shape: int, rng: np.random.Generator = _RNG) -> np.ndarray:
    return np.asarray(rng.uniform(0.3, 2.0, size=shape))


def distinct(*shape: int, rng: np.random.Generator = _RNG) -> np.ndarray:
    """Values at least 0.05 apart, none near 0."""
    count = int(np.prod(shape))
    return (rng.permutation(count).reshape(shape) - count / 2 + 0.5) * 0.05


def i64(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def f32(values: list[float]) -> np.ndarray:
    """Scales, which are float32 whatever the data is."""
    return np.asarray(values, np.float32)


def scalar(value: float) -> np.ndarray:
    return np.asarray(value, np.float64)


def case(
    op: str,
    *inputs: Any,
    active: tuple[int, ...] = (0,),
    symbolic: tuple[int, ...] = (),
    outputs: int = 1,
    fed: tuple[int, ...] = (),
    target: int = 0,
    **attributes: Any,
) -> Case:
    arrays = tuple(None if x is None else np.asarray(x) for x in inputs)
    return Case(op, arrays, attributes, active, outputs, symbolic, fed, target)
