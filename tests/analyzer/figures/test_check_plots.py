"""The plots of a check's page stand where the numbers put them: errors over depth, maps and curves side by side."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from analyzer.checks.read.attributions import Attributions
from analyzer.checks.report import Pair
from analyzer.figures.curves import MOST_ELEMENTS, curves
from analyzer.figures.depth import MOST_POINTS, depth_plot
from analyzer.figures.side_by_side import side_by_side
from tests.analyzer.report.test_check_page import FAILING, attributions, row

TOLERANCES = {"full grad": 1e-4, "integrated gradients": 1e-4}


def values_of(*rows):
    (panel, *_) = depth_plot([Pair("onnxruntime", "torch", rows)]).panels
    return panel


def test_points_stand_by_depth_and_by_the_logarithm_of_the_error():
    panel = values_of(*(row(tensor=f"t{k}", depth=k, error=10.0**-k) for k in range(1, 8)))
    xs, ys = np.array([(point.x, point.y) for point in panel.lines[0].points]).T
    np.testing.assert_allclose(np.diff(xs), np.diff(xs)[0])
    # Lower errors stand lower on the page, where y is larger; each power of ten by the same step.
    np.testing.assert_allclose(np.diff(ys), np.diff(ys)[0])
    assert np.diff(ys)[0] > 0
    ((bound, text),) = panel.tolerances
    assert text == "1e-04" and bound == pytest.approx(ys[3])


def test_what_is_equal_stands_on_the_lowest_line_and_what_is_no_number_on_the_highest():
    panel = values_of(
        row(tensor="a", depth=0, error=0.0),
        row(tensor="b", depth=1, error=1e-7),
        row(tensor="c", depth=2, error=float("inf"), passed=False),
    )
    equal, small, broken = panel.lines[0].points
    assert panel.top == broken.y < small.y < equal.y == panel.bottom
    assert panel.ticks[-1] == (panel.bottom, "0")
    assert (equal.state, broken.state) == ("", "fail")


def test_the_first_divergence_is_marked_where_it_stands():
    plot = depth_plot([Pair("onnxruntime", "torch", tuple(FAILING))])
    values, gradients = plot.panels
    (mark,) = values.marks
    point = next(point for point in values.lines[0].points if point.title.startswith("broken "))
    assert (mark.x, mark.y) == (point.x, point.y) and "broken (Relu)" in mark.label
    assert gradients.marks == ()
    assert [point.title.split()[0] for point in values.lines[0].points] == ["fine", "broken", "behind"]
    assert "disagrees" in point.title and "layer.1" in point.title


def test_explained_points_say_why():
    told = "1 decision of Relu 'r'"
    found = row("input gradient", "x", -1, 0.3, passed=True, explanation=told)
    (panel,) = depth_plot([Pair("onnxruntime", "torch", (found,))]).panels
    (point,) = panel.lines[0].points
    assert point.state == "explained" and told in point.title
    assert panel.title.startswith("Gradients")


def test_of_many_layers_the_worst_stay():
    rows = [row(tensor=f"t{k}", depth=k, error=1e-7) for k in range(5000)]
    rows[2345] = row(tensor="broken", depth=2345, error=0.1)
    points = values_of(*rows).lines[0].points
    assert 100 < len(points) <= MOST_POINTS
    assert [point.title.split()[0] for point in points if point.state == "fail"] == ["broken"]


def test_rows_without_a_place_make_no_plot():
    assert depth_plot([Pair("a", "b", (row("full grad", "map", -1),))]) is None


def sample_with(change, tolerance=1e-4):
    """Two sides whose maps are equal but for `change` of the largest value at two pixels."""
    inputs = np.full((1, 3, 4, 4), 0.5, np.float32)
    mine = np.zeros((1, 4, 4), np.float64)
    mine[0, 1, 1] = 8.0
    other = mine.copy()
    other[0, 2, 2:] = 8.0 * change
    found = Attributions((7,), {"x": inputs}, {"a": {"x": mine}, "b": {"x": other}}, {})
    (sample,) = side_by_side(found, {"full grad": tolerance})
    return sample


def test_a_difference_is_in_percent_of_the_largest_and_pale_within_the_tolerance():
    sample = sample_with(0.25)
    assert sample.name == "Sample 7"
    (strip,) = sample.strips
    a, b, difference = strip.pictures
    assert (a.caption, b.caption, difference.caption) == ("a", "b", "a − b")
    assert a.scale == b.scale and difference.scale.signed
    assert difference.scale.high == pytest.approx(25)
    strong = colourfulness(difference.png)
    assert strong > 50
    (strip,) = sample_with(1e-6).strips
    assert strip.pictures[2].scale.high == pytest.approx(0.01), "the tolerance, in percent"
    assert colourfulness(strip.pictures[2].png) < 3


def colourfulness(png: bytes) -> int:
    """The largest distance between the channels of a pixel: 0 of a grey picture."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int(np.ptp(pixels, axis=-1).max())


def test_what_is_not_finite_is_told_and_not_drawn():
    found = attributions()
    found.maps["torch"]["x"][0, 0, 0] = np.nan
    first, second = side_by_side(found, TOLERANCES)
    assert first.strips[0].note == "not drawn: not finite on torch" and not first.strips[0].pictures
    assert second.strips[0].pictures and not second.strips[0].note


def test_what_is_no_image_is_drawn_as_curves():
    first, _ = side_by_side(attributions(images=False), TOLERANCES)
    assert not first.photographs
    drawn = first.strips[0].curves
    assert [side.name for side in drawn.sides] == ["onnxruntime", "torch"]
    assert drawn.difference.name == "onnxruntime − torch" and drawn.elements == 50


def test_bars_rise_from_zero_in_proportion():
    drawn = curves(
        {"a": np.array([1.0, -1.0]), "b": np.array([2.0, 0.0])}, ("a − b", np.array([0.0, 50.0])), 50.0
    )
    zero, top, bottom = drawn.values.zero, drawn.values.top, drawn.values.bottom
    assert (zero - top) == pytest.approx(2 * (bottom - zero))
    assert drawn.sides[1].path.startswith("M") and f"V{top:.1f}" in drawn.sides[1].path
    assert f"V{bottom:.1f}" in drawn.sides[0].path
    assert (drawn.apart.high, drawn.apart.low) == ("50 %", "−50 %")
    assert f"V{drawn.apart.top:.1f}" in drawn.difference.path


def test_of_many_elements_the_largest_stand_for_their_stretch():
    vector = np.zeros(10 * MOST_ELEMENTS)
    vector[1234] = -3.0
    drawn = curves({"a": vector, "b": 0 * vector}, ("a − b", vector), 3.0)
    assert drawn.pooled and drawn.sides[0].path.count("L") == MOST_ELEMENTS - 1
    assert f"{drawn.values.bottom:.1f}" in drawn.sides[0].path, "the lowest value is the axis' end"
