"""The layer chart: bars that keep their sum, labels that stay apart and shares that are of the output."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analyzer.figures import Bar, bar_labels, contribution_chart, share_text, short_names, shown_bars


def test_the_input_is_always_among_the_bars():
    bars = [Bar("input × gradient", 0.0, "input"), *(Bar(str(i), 1.0, "explicit") for i in range(40))]
    assert shown_bars(bars, most=5)[0].kind == "input"


def test_shown_bars_keep_order_and_sum():
    values = np.random.default_rng(0).standard_normal(60)
    bars = [Bar(f"layer {index}", float(value), "explicit") for index, value in enumerate(values)]
    shown = shown_bars(bars, most=10)
    assert len(shown) == 10 and shown[-1].kind == "rest"
    np.testing.assert_allclose(sum(bar.value for bar in shown), values.sum())
    kept = [int(bar.label.split()[1]) for bar in shown[:-1]]
    assert kept == sorted(kept) and set(kept) == set(np.argsort(-np.abs(values))[:9])


def test_outer_modules_that_all_layers_share_are_left_out():
    assert short_names(["model.features.0.conv", "model.features.1.norm"]) == ["0.conv", "1.norm"]
    assert short_names(["net/stem/conv", "net/stem2/conv"]) == ["stem/conv", "stem2/conv"]
    assert short_names(["a.b", "c.d"]) == ["a.b", "c.d"]
    assert short_names(["encoder.norm"]) == ["encoder.norm"]
    assert short_names(["encoder", "encoder.norm"]) == ["encoder", "encoder.norm"]


def test_long_names_are_cut_in_the_middle_and_stay_different():
    stages = [f"transformer.encoder.stage_{i}.attention.output.projection_of_heads" for i in range(3)]
    names = [*stages, "head.classifier"]
    short = short_names(names, most=34)
    assert short[-1] == "head.classifier" and len(set(short)) == len(names)
    long = short_names(["x" * 60 + ".weight", "head"], most=20)[0]
    assert len(long) == 20 and long.startswith("xxx") and long.endswith(".weight") and "…" in long


def test_bars_of_one_layer_have_one_label_and_other_bars_keep_theirs():
    bars = [
        Bar("input × gradient", 1, "input"),
        Bar("net.block.attention", 1, "explicit"),
        Bar("net.block.attention", 2, "implicit"),
        Bar("net.head", 1, "explicit"),
        Bar("the other 3", 1, "rest"),
    ]
    assert bar_labels(bars) == [
        "input × gradient",
        "block.attention",
        "block.attention",
        "head",
        "the other 3",
    ]


@pytest.mark.parametrize(
    ("value", "output", "text"),
    [
        (1, 2, "+50 %"),
        (-3, 2, "−150 %"),
        (-0.03, 1, "−3.0 %"),
        (2e-4, 1, "+0.02 %"),
        (1, 0, ""),
        (0, 1, "+0.0 %"),
    ],
)
def test_share_text(value, output, text):
    assert share_text(value, output) == text


def test_the_chart_draws_every_bar_in_its_colour_with_its_share():
    bars = [
        Bar("input × gradient", -2.0, "input"),
        Bar("conv", 1.0, "explicit"),
        Bar("clip", 0.5, "implicit"),
    ]
    figure = contribution_chart(bars, title="cat", output=2.0)
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [-2.0, 1.0, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["input × gradient", "conv", "clip"]
    assert len({patch.get_facecolor() for patch in axes.patches}) == 3
    assert [text.get_text() for text in axes.texts] == ["−100 %", "+50 %", "+25 %"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "input × gradient",
        "explicit bias",
        "implicit bias",
    ]


@pytest.mark.parametrize("count", [1, 24, 90])
def test_no_label_of_a_chart_overlaps_another_or_leaves_the_figure(count):
    rng = np.random.default_rng(0)
    names = [f"model.encoder.block_{i}.feed_forward_network.second_linear_projection" for i in range(count)]
    bars = [Bar(name, float(rng.standard_normal()), "explicit") for name in names]
    figure = contribution_chart(bars, most=count, output=0.1)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [label.get_window_extent() for label in axes.get_yticklabels()]
    for upper, lower in itertools.pairwise(labels):
        assert lower.y1 <= upper.y0 + 1
    for box in [*labels, *(text.get_window_extent() for text in axes.texts)]:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert all(text.get_window_extent().x0 >= axes.bbox.x0 - 1 for text in axes.texts)
