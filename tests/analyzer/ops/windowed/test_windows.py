"""How many taps of a window lie on the input: counted, not listed, so that huge windows take no memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import helper

from analyzer import Target, differentiate
from analyzer.autodiff.coverage import coverage, differentiable_path
from analyzer.ops.windowed.windows import MOST_TAPS, WindowAxis
from converters import load
from tests.converters.helpers import make_model, normal

SIZE = 5


@pytest.mark.parametrize("include_pad", [True, False])
def test_the_taps_of_a_window_are_counted(include_pad: bool) -> None:
    for kernel, stride, dilation, before, after, out in itertools.product(
        (1, 2, 5), (1, 3), (1, 2, 3), (0, 2), (0, 4), (1, 4)
    ):
        axis = WindowAxis(kernel, stride, dilation, before, after, SIZE, out)
        low, high = (-before, SIZE + after) if include_pad else (0, SIZE)
        expected = [
            sum(low <= window * stride - before + tap * dilation < high for tap in range(kernel))
            for window in range(out)
        ]
        assert axis.counts(include_pad).tolist() == expected


def test_a_window_of_a_thousand_million_elements_is_counted_at_once() -> None:
    many = 10**9
    axis = WindowAxis(many, many // 2, 1, many - 1, many - 1, 4, 3)
    # Windows begin at 1 - 10⁹, 1 - 10⁹ / 2 and 1.
    assert axis.counts(False).tolist() == [1, 4, 3]
    assert axis.counts(True).tolist() == [many, many, many]


def test_a_pool_with_too_many_windows_is_refused_before_they_are_listed() -> None:
    pads = 2 * MOST_TAPS
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2], pads=[1, pads])
    model = make_model(
        [pool, helper.make_node("ReduceMax", ["y"], ["z"])], {"x": ("N", 1, 4)}, ["z"], opset=22
    )
    fn = differentiate(load(model, verify=False, run=False))
    (blocker,) = coverage(fn.graph, differentiable_path(fn.graph))["onnxruntime"].blockers
    assert f"expected at most {MOST_TAPS:,} positions" in blocker.reason
    assert "Fix: pool in several steps" in blocker.reason


def test_gradients_through_a_pool_are_unchanged_by_the_count() -> None:
    pool = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 1], ceil_mode=1
    )
    fn = differentiate(load(make_model([pool], {"x": ("N", 1, 6)}, ["y"], opset=22)))
    x = normal(1, 1, 6)
    # The third window covers the elements 3, 4 and 5.
    found = fn.gradients(x, target=Target(output="y", index=(0, 2))).gradients["x"]
    np.testing.assert_allclose(found, np.array([[[0, 0, 0, 1, 1, 1]]]) / 3, rtol=1e-6)
