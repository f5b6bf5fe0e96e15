"""Where a map has its mass, in words: on maps whose mass is known."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.methods import Attribution
from analyzer.methods.answers import answer, half, place
from analyzer.report.page import Prediction


def result(maps, signed=False, target=(3,)):
    return Attribution(
        maps=np.asarray(maps, np.float32),
        output=np.ones(len(maps)),
        target=np.asarray(target),
        signed=signed,
        wrt=("x",),
        method="grad-cam",
    )


def spot(row, column, size=30):
    values = np.zeros((1, size, size))
    values[0, row - 2 : row + 2, column - 2 : column + 2] = 1.0
    return values


@pytest.mark.parametrize(
    ("row", "column", "where"),
    [
        (4, 4, "at the top left"),
        (15, 26, "at the middle right"),
        (15, 15, "in the middle"),
        (26, 15, "at the bottom centre"),
    ],
)
def test_a_spot_is_found(row, column, where):
    # 8 of its 16 equal pixels, of 900.
    assert place(result(spot(row, column)), 0).endswith(
        f"{where}; half of its map lies on 0.89 % of the image."
    )


def test_what_speaks_against_the_target_is_no_reason():
    values = spot(4, 4) - 5 * spot(26, 26)
    assert "top left" in place(result(values, signed=True), 0)
    assert "several places" in place(result(values), 0)


def test_several_spots_are_several_places():
    assert "in several places" in place(result(spot(4, 4) + spot(26, 26)), 0)


def test_rows_name_their_strongest_element():
    assert "element 7 of 20" in place(result(np.eye(20)[None, 7]), 0)


@pytest.mark.parametrize("values", [np.zeros((1, 8, 8)), np.full((1, 8, 8), np.nan)])
def test_nothing_is_said_of_no_map(values):
    assert place(result(values), 0) == ""


def test_half_is_the_smallest_region_with_half_of_the_sum():
    assert half(np.array([5.0, 1, 1, 1, 2])).tolist() == [True, False, False, False, False]
    assert half(np.ones((4, 4))).sum() == 8


def test_another_target_than_the_highest_class_is_said():
    predicted = (Prediction(5, "cat", 2.0, 0.9),)
    assert answer([result(spot(4, 4))], 0, predicted, "dog (3)").startswith(
        "The model says cat, 90 %. Explained is dog (3)."
    )
