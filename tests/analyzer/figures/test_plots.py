"""Figures of maps over signals, volumes and tables show the numbers that they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analyzer.figures import Look, plot_input

SIGNED = Look("complete", "logit", signed=True)


def panels(figure):
    """The axes of samples, without the bars of colours."""
    return [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]


def reddish(colour) -> bool:
    red, _, blue = to_rgb(colour)
    return red > blue


def test_a_table_has_a_bar_per_feature_with_its_name_and_its_sign():
    values = np.array([[0.5, -2.0, 0.0], [1.0, 3.0, -0.25]])
    figure = plot_input(
        values, None, Look("t", "logit", True, features=["age", "income", "region"]), table=True
    )
    assert len(figure.axes) == 2
    for axes, row in zip(figure.axes, values, strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], row)
        assert [reddish(bar.get_facecolor()[:3]) for bar in axes.patches] == [value >= 0 for value in row]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["age", "income", "region"]
    assert figure.axes[0].yaxis_inverted()  # the first feature on top
    assert figure.get_supxlabel() == "logit"
    with pytest.raises(ValueError, match="2 names for 3 features"):
        plot_input(values, None, Look(features=["a", "b"]), table=True)


def test_a_wide_table_keeps_its_sum():
    values = np.random.default_rng(0).normal(size=(1, 300))
    (axes,) = plot_input(values, None, SIGNED, table=True).axes
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 40
    np.testing.assert_allclose(sum(widths), values.sum())
    assert np.abs(values).max() in np.abs(widths)
    assert axes.get_yticklabels()[-1].get_text() == "the other 261"


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_a_signal_is_drawn_on_a_ground_shaded_by_its_map(last):
    rng = np.random.default_rng(0)
    signals, values = rng.normal(size=(2, 3, 30)), np.zeros((2, 30))
    values[:, 4], values[:, 9] = 1.0, -1.0
    given = signals.transpose(0, 2, 1) if last else signals
    figure = plot_input(values, given, SIGNED, table=False)
    drawn = panels(figure)
    assert len(drawn) == 2
    for axes, signal in zip(drawn, signals, strict=True):
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], signal)
        (shading,) = axes.images
        colours = np.asarray(shading.get_array())[0]
        assert reddish(colours[4, :3]) and not reddish(colours[9, :3])
        assert colours[4, 3] == colours[9, 3] > 0.5
        assert (np.delete(colours[:, 3], [4, 9]) == 0).all()
    assert figure.get_suptitle() == "complete · shaded by logit"


def test_a_signal_s_map_alone_is_a_curve():
    values = np.array([[0.0, 1.0, -1.0, 2.0]])
    figure = plot_input(values, None, SIGNED, table=False)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), values[0])
    assert figure.get_supylabel() == "logit"


def test_a_volume_is_seen_from_three_sides_and_the_strongest_shows():
    values = np.zeros((1, 4, 5, 6))
    values[0, 1, 2, 3], values[0, 2, 2, 3], values[0, 3, 0, 0] = 1.0, -3.0, 2.0
    volume = np.random.default_rng(0).random((1, 1, 4, 5, 6))
    for inputs in (None, volume):
        figure = plot_input(values, inputs, SIGNED, table=False)
        front, top, side = (np.asarray(axes.images[0].get_array())[..., :3] for axes in figure.axes[:3])
        assert front.shape[:2] == (5, 6) and top.shape[:2] == (4, 6) and side.shape[:2] == (4, 5)
        # −3 hides 1 behind it from the front, and 2 stands in its corner.
        assert not reddish(front[2, 3] / 255) and reddish(front[0, 0] / 255)
        assert reddish(top[1, 3] / 255) and not reddish(top[2, 3] / 255)
    assert ["front" in axes.get_title(loc="left") for axes in figure.axes[:3]] == [True, False, False]


def test_an_input_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"an input \(1, 2, 8\) cannot be drawn with a map \(1, 9\)"):
        plot_input(np.zeros((1, 9)), np.zeros((1, 2, 8)), SIGNED, table=False)
    with pytest.raises(ValueError, match="a map of 4 axes"):
        plot_input(np.zeros((1, 2, 2, 2, 2)), None, SIGNED, table=False)


def test_bars_have_their_standard_errors():
    values, errors = np.array([[3.0, -1.0]]), np.array([[0.5, 0.25]])
    (axes,) = plot_input(values, None, Look(signed=True, errors=errors), table=True).axes
    (lines,) = axes.collections
    ends = [segment[:, 0] for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [[2.5, 3.5], [-1.25, -0.75]])


def test_the_sum_of_the_other_features_has_no_error():
    values = np.random.default_rng(0).normal(size=(1, 300))
    look = Look(signed=True, errors=np.abs(values))
    (axes,) = plot_input(values, None, look, table=True).axes
    (lines,) = axes.collections
    ends = np.array([segment[:, 0] for segment in lines.get_segments() if len(segment)])
    widths = np.array([bar.get_width() for bar in axes.patches if hasattr(bar, "get_width")])[:39]
    np.testing.assert_allclose(ends, np.stack([widths - np.abs(widths), widths + np.abs(widths)], axis=1))
