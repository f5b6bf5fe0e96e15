"""The numbers of a report's row, on arrays whose distance is known."""

from __future__ import annotations

import numpy as np

from analyzer.checks.metrics import BLOCK, SMALL, Distance, distance, relative_distance


def test_distance_of_hand_solved_vectors():
    found = distance(np.array([3.0, 4.0]), np.array([3.0, 0.0]))
    assert found == Distance(4.0, 1.0, 4 / 5, 9 / 15)
    assert distance(np.zeros(3), np.zeros(3)) == Distance(0.0, 0.0, 0.0, 1.0)


def test_equal_infinities_are_no_difference_and_do_not_hide_one():
    mask = np.array([-np.inf, 1.0, 2.0])
    assert distance(mask, mask.copy()) == Distance(0.0, 0.0, 0.0, 1.0)
    assert distance(mask, np.array([-np.inf, 1.0, 4.0])).max_abs == 2
    assert distance(mask, np.array([np.inf, 1.0, 2.0])).relative_l2 == np.inf
    assert distance(mask, np.array([0.0, 1.0, 2.0])).relative_l2 == np.inf
    assert distance(mask, np.array([np.nan, 1.0, 2.0])).relative_l2 == np.inf


def test_the_relative_error_leaves_out_what_is_rounding_of_larger_elements():
    found = distance(np.array([1000.0, 10.0, 1e-4]), np.array([1000.0, 11.0, -1e-4]))
    assert found.max_relative == 1 / 11


def test_arrays_of_many_blocks_are_one_array():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, BLOCK + 7)).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    sizes = np.maximum(np.abs(x), np.abs(y))
    large = sizes > SMALL * sizes.max()
    expected = [
        np.abs(x - y).max(),
        (np.abs(x - y) / sizes)[large].max(),
        np.linalg.norm(x - y) / max(np.linalg.norm(x), np.linalg.norm(y)),
        x @ y / np.linalg.norm(x) / np.linalg.norm(y),
    ]
    found = distance(a, b)
    np.testing.assert_allclose(
        [found.max_abs, found.max_relative, found.relative_l2, found.cosine], expected, rtol=1e-12
    )
    assert relative_distance(a, b) == found.relative_l2


def test_squares_may_leave_the_range_of_numbers():
    for scale in (1e-200, 1.0, 1e200):
        found = distance(scale * np.array([3.0, 4.0]), scale * np.array([3.0, 0.0]))
        np.testing.assert_allclose([found.relative_l2, found.cosine], [4 / 5, 9 / 15], rtol=1e-12)
    last = np.zeros(BLOCK + 1)
    last[-1] = np.nan
    assert distance(last, np.zeros(BLOCK + 1)).relative_l2 == np.inf
