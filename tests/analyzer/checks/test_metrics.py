"""The numbers of a report's row, on arrays whose distance is known."""

from __future__ import annotations

import numpy as np

from analyzer.checks.metrics import Distance, distance


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
