"""Large outputs are compared in blocks, and small ones as they are: both as the whole in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from converters.verification import norms
from converters.verification.hard_points import finite_distance
from converters.verification.reference import relative_l2

SHAPES = [(), (0,), (1,), (6,), (7,), (3, 4, 5)]


def pair(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(shape))
    truth = np.asarray(3 * rng.standard_normal(shape), dtype)
    return np.asarray(truth + 0.1 * rng.standard_normal(shape), dtype), truth


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "_BLOCK", 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_in_blocks_are_those_of_the_whole(shape: tuple[int, ...], dtype: str) -> None:
    value, truth = pair(shape, dtype)
    v, e = value.astype(np.float64), truth.astype(np.float64)
    if e.any():
        expected = np.sqrt(((v - e) ** 2).sum() / (e**2).sum())
        assert relative_l2(value, truth) == pytest.approx(expected, rel=1e-12)
        assert finite_distance(value, truth, 1e-12) == pytest.approx(expected, rel=1e-12)
    assert norms.largest_difference(value, truth) == (e.size, pytest.approx(np.abs(v - e).max(initial=0)))


@pytest.mark.parametrize("place", range(7))
def test_what_is_not_finite_in_any_block(place: int) -> None:
    value, truth = pair((7,), "float64")
    rest = np.arange(7) != place
    expected = np.linalg.norm((value - truth)[rest]) / np.linalg.norm(truth[rest])
    lost, unknown = value.copy(), truth.copy()
    lost[place] = unknown[place] = np.nan
    assert relative_l2(lost, truth) == finite_distance(lost, truth, 1e-12) == np.inf
    assert relative_l2(value, unknown) == np.inf
    assert relative_l2(lost, unknown) == pytest.approx(expected, rel=1e-12)
    assert finite_distance(value, unknown, 1e-12) == pytest.approx(expected, rel=1e-12)
    assert norms.largest_difference(value, unknown)[0] == 6
    # Where the original has gaps, the other may have others.
    lost[place - 1] = np.nan
    rest[place - 1] = False
    expected = np.linalg.norm((value - truth)[rest]) / np.linalg.norm(truth[rest])
    assert finite_distance(lost, unknown, 1e-12) == pytest.approx(expected, rel=1e-12)


def test_other_shapes_are_infinitely_far() -> None:
    assert relative_l2(np.zeros(6), np.zeros((2, 3))) == np.inf


def test_squares_of_large_values_do_not_overflow() -> None:
    truth = np.full(7, 1e300)
    assert finite_distance(1.5 * truth, truth, 1e-6) == pytest.approx(0.5)
