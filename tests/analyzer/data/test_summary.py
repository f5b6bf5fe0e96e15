"""Statistics of the maps of a data set against cases that are solved by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analyzer.data.statistics import MOST_COMPARED, ClassMaps, area_of_half, in_cells, share_inside
from analyzer.data.summary import SummaryRow, summarize


def test_half_of_a_map_lies_in_the_fewest_elements_that_hold_it() -> None:
    assert area_of_half(np.ones((4, 8))) == 0.5
    assert area_of_half(np.eye(4)) == 2 / 16
    spot = np.full((10, 10), 1e-3)
    spot[3, 4] = -5.0  # The sign does not count.
    assert area_of_half(spot) == 1 / 100
    assert np.isnan(area_of_half(np.zeros((3, 3)))) and np.isnan(area_of_half(np.array([1.0, np.nan])))


def test_cells_hold_the_sums_of_their_parts() -> None:
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(in_cells(values, (1, 1)), [[15]])
    # Three columns in two cells: the middle one is divided.
    np.testing.assert_allclose(in_cells(values, (2, 2)), [[0.5, 2.5], [5.0, 7.0]])
    np.testing.assert_allclose(in_cells(np.array([4.0, 8.0]), (4,)), [2, 2, 4, 4])
    np.testing.assert_array_equal(in_cells(values, (2, 3)), values)


def spot(row: int, column: int, size: float = 1.0) -> np.ndarray:
    values = np.zeros((16, 16))
    values[row : row + 2, column : column + 2] = size
    return values


def test_the_most_similar_and_the_most_different_maps_of_a_class_are_found() -> None:
    maps = ClassMaps()
    for place, values in enumerate([spot(0, 0), spot(8, 8), spot(0, 0, 7.0), spot(0, 0) + spot(8, 8)]):
        maps.add(place, values)
    alike, different = maps.extremes() or pytest.fail("no pairs")
    # The size of a map does not count: each is divided by its sum.
    assert (alike.first, alike.second) == (0, 2) and alike.correlation == pytest.approx(1)
    assert {different.first, different.second} in ({0, 1}, {1, 2})
    # Two of 64 cells, one each: by hand, −1/63.
    assert different.correlation == pytest.approx(-1 / 63)
    np.testing.assert_allclose(maps.mean[0, 0], (0.25 * 2 + 0.125) / 4)  # type: ignore[index]


def test_many_samples_of_one_class_are_compared_in_part() -> None:
    maps, rng = ClassMaps(), np.random.default_rng(0)
    for place in range(MOST_COMPARED + 500):
        maps.add(place, rng.random((4, 4)))
    assert maps.extremes() is not None


def test_a_mark_in_the_corner_shows_in_the_mean_map() -> None:
    """Class 0 looks at one corner in every image, class 1 at an object that moves."""
    rng = np.random.default_rng(1)
    rows = []
    for place in range(80):
        target = place % 2
        where = (1, 1) if target == 0 else tuple(rng.integers(0, 14, 2))
        rows.append(
            SummaryRow(
                f"{place}.png",
                label_index=target if place < 60 else 1 - target,
                target=target,
                predicted=target,
                error=1e-6 * (place + 1),
                map=spot(*where),
            )
        )
    mask = np.zeros((16, 16))
    mask[:4, :4] = 1
    found = summarize(rows, class_names=["marked", "free"], mask_of=lambda row: mask)
    assert found.samples == 80 and found.labelled == 80 and found.accuracy == 60 / 80
    marked, free = found.classes
    assert (marked.name, free.name) == ("marked", "free") and marked.samples == free.samples == 40
    assert marked.right == free.right == 30 / 40
    # One map and the mean map have the same area where the model looks at a fixed place.
    assert marked.area_of_half == marked.mean_map_area_of_half == 2 / 256
    assert free.mean_map_area_of_half > 10 * free.area_of_half
    assert marked.inside_mask == 1 and (free.inside_mask or 0) < 0.3
    document = found.to_json()
    assert document["uniform_inside_mask"] == 16 / 256
    assert document["completeness_error"]["largest"] == pytest.approx(8e-5)
    assert document["classes"][0]["alike"]["correlation"] == pytest.approx(1)
    json.dumps(document, allow_nan=False)


def test_samples_without_a_map_or_a_label_are_counted() -> None:
    rows = [SummaryRow("a", target=3), SummaryRow("b", target=3, map=np.zeros((4, 4))), SummaryRow("c")]
    found = summarize(rows, errors={"truncated file": 2})
    assert found.samples == 3 and found.accuracy is None and found.errors == {"truncated file": 2}
    assert [one.name for one in found.classes] == ["class 3", "all samples"]
    assert found.classes[0].mean_map is None and found.classes[0].alike is None
    json.dumps(found.to_json(), allow_nan=False)


def test_shares_inside_a_mask() -> None:
    assert share_inside(np.array([[3.0, -1.0]]), np.array([[1.0, 0.0]])) == 0.75
    assert np.isnan(share_inside(np.zeros((1, 2)), np.ones((1, 2))))
