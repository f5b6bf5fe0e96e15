"""Convolutions and pools of any geometry, drawn by hypothesis: every engine against PyTorch's autodiff."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.analyzer.ops.harness import (
    Case,
    forward,
    gradients,
    native_gradients,
    onnxruntime_forward,
    onnxruntime_gradients,
)


@st.composite
def geometries(draw, most_pad=3):
    """(spatial sizes, kernel, attributes) of one to three axes, each with at least one window."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    if draw(st.booleans()):
        strides = [strides[0]] * rank
    dilations = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(rank)]
    pads = [draw(st.integers(0, most_pad)) for _ in range(2 * rank)]
    sizes = [draw(st.integers(1, 9)) for _ in range(rank)]
    for size, k, d, before, after in zip(sizes, kernel, dilations, pads[:rank], pads[rank:], strict=True):
        assume(size + before + after >= (k - 1) * d + 1)
    return sizes, kernel, {"strides": strides, "dilations": dilations, "pads": pads}


def agree(case: Case, rng: np.random.Generator) -> None:
    """The gradient graph on two engines, and TensorFlow's autodiff, against PyTorch's autodiff."""
    y = forward(case, case.feeds)
    np.testing.assert_allclose(forward(case, case.feeds, "tensorflow"), y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(onnxruntime_forward(case), y, rtol=1e-4, atol=1e-4)
    g = rng.normal(size=y.shape)
    expected = native_gradients(case, g, "torch")
    for one, other in zip(gradients(case, g, "torch"), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(native_gradients(case, g, "tensorflow"), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(onnxruntime_gradients(case, g), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@settings(max_examples=40)
@given(
    geometries(),
    st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_conv_of_any_geometry(geometry, channels, symbolic, seed):
    sizes, kernel, attributes = geometry
    group, inputs, outputs = channels
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, group * inputs, *sizes))
    w = rng.normal(size=(group * outputs, inputs, *kernel))
    open_axes = tuple(range(2, x.ndim)) if symbolic else ()
    agree(Case("Conv", (x, w), {**attributes, "group": group}, (0, 1), symbolic=open_axes), rng)


@settings(max_examples=40)
@given(geometries(), st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.booleans(), st.integers(0, 99))
def test_pools_of_any_geometry(geometry, ceil_mode, include_pad, symbolic, seed):
    sizes, kernel, attributes = geometry
    rank = len(kernel)
    pads = attributes["pads"]
    # ONNX Runtime takes no pad as wide as the kernel, and with ceil_mode none that a window could lie in.
    pads = [min(pad, (k - 1) // 2) for pad, k in zip(pads, kernel * 2, strict=True)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, attributes["dilations"], strict=True)]
    assume(all(s + pads[i] + pads[rank + i] >= spans[i] for i, s in enumerate(sizes)))
    rng = np.random.default_rng(seed)
    x = rng.permutation(2 * 2 * int(np.prod(sizes))).reshape(2, 2, *sizes) * 0.1
    given_attributes = {**attributes, "pads": pads, "kernel_shape": kernel, "ceil_mode": ceil_mode}
    open_axes = tuple(range(2, x.ndim)) if symbolic else ()
    agree(Case("MaxPool", (x,), given_attributes, symbolic=open_axes), rng)
    average = {**given_attributes, "count_include_pad": include_pad}
    agree(Case("AveragePool", (x,), average, symbolic=open_axes), rng)
