"""Blur Integrated Gradients: the gradient integrated along the path on which the input loses its detail.

The path runs through the input under a Gaussian blur of growing σ, so that what a feature owes to each scale is
counted and no baseline is chosen: −∫ ∂f/∂L · ∂L/∂σ dσ, which sums to f(input) − f(most blurred). ∂L/∂σ is the exact
derivative of the sampled blur. From a Differentiable and inputs to attributions; refuses models none of whose inputs
has spatial axes.
Source: Xu, Venugopalan & Sundararajan 2020, "Attribution in Scale and Space".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import AnalysisError
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.methods.exporting import Hosted
from analyzer.methods.paths.blur import Border, blurred_with_slope
from analyzer.methods.paths.fixed_target import Held, hold, in_batches
from analyzer.methods.paths.path_result import PathAttribution, path_attributions
from analyzer.methods.paths.quadrature import RuleName, quadrature
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Progress


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class BlurIntegratedGradients(PathAttribution):
    """The result of `blur_integrated_gradients`; the attributions sum to f(inputs) − f(baseline).

    baseline: the most blurred inputs, in their form.
    max_sigma: their σ, in pixels.
    steps, rule: the quadrature over σ.
    border: what the blur takes to lie beyond the border.
    """

    baseline: Any
    max_sigma: float
    steps: int
    rule: str
    border: str


@method(
    "blur-ig",
    export=Hosted(
        "its path blurs the input with kernels of its size",
        "export integrated-gradients, with the blurred input as its baseline",
    ),
    line="what detail adds, from a blurred image",
    caption="Blur Integrated Gradients",
    note="against its own blur: red speaks for the class",
    source="Xu, Venugopalan & Sundararajan 2020",
    cost="{steps} gradients (steps)",
    signed=True,
)
def blur_integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    max_sigma: float = 50.0,
    steps: int = 100,
    rule: RuleName = "gauss-legendre",
    border: Border = "edge",
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> BlurIntegratedGradients:
    """Integrate the gradient from the inputs to the inputs under a Gaussian blur.

    inputs: (N, channels, *spatial) or channels last, or {input name: array}; inputs without spatial axes are held.
    target: see `Target`; None explains the class that is highest at the inputs.
    max_sigma: standard deviation of the widest blur, at the end of the path, in pixels.
    steps: points on the path.
    rule: quadrature rule over σ.
    border: what lies beyond the border: "edge" repeats it, so that a flat image stays flat; "zero" is the choice of the
        published code.
    batch_size: points evaluated at once.
    progress: called with (points done, points planned).
    Returns attributions that sum to f(inputs) − f(most blurred) up to `delta` (N,).
    Raises AnalysisError where no input has spatial axes, or for a σ that is not above 0; InputError, TargetError,
    UnsupportedOp.
    Source: Xu, Venugopalan & Sundararajan 2020.
    """
    if not 0 < max_sigma < np.inf:
        raise AnalysisError(f"expected max_sigma above 0, got {max_sigma}. Fix: give pixels, such as 50.0")
    nodes, weights = quadrature(rule, steps)
    held = hold(differentiate(model, verify=verify).bind(inputs, target))
    axes = _blurred_axes(held)

    totals = {name: np.zeros(held.feeds[name].shape) for name in axes}
    planned = held.samples * len(nodes)
    for batch in in_batches(planned, batch_size):
        numbers, rows = np.divmod(batch, held.samples)
        points, slopes = _on_path(held, axes, max_sigma * nodes[numbers], rows, border)
        gradients = held.finite_gradients(points, rows).gradients
        for name in axes:
            shares = -max_sigma * weights[numbers].reshape(-1, *(1,) * (slopes[name].ndim - 1))
            # Not fancy addition: a sample may stand in a batch more than once.
            np.add.at(totals[name], rows, shares * slopes[name] * gradients[name])
        if progress is not None:
            progress(int(batch[-1]) + 1, planned)

    everyone = np.arange(held.samples)
    end, _ = _on_path(held, axes, np.full(held.samples, max_sigma), everyone, border)
    difference = held.output - held.outputs(end, everyone)
    found = path_attributions(held, totals, difference, len(nodes))
    return BlurIntegratedGradients(
        **found, baseline=held.form(end), max_sigma=max_sigma, steps=steps, rule=rule, border=border
    )


def _blurred_axes(held: Held) -> dict[str, int]:
    """The channel axis of every input that has spatial axes besides."""
    known = channel_axes(held.fn.graph)
    axes = {
        name: input_channel_axis(held.fn.graph, name, known)
        for name in held.names
        if held.feeds[name].ndim >= 3
    }
    if not axes:
        shapes = ", ".join(f"{name!r} {held.feeds[name].shape}" for name in held.names)
        raise AnalysisError(
            f"Blur Integrated Gradients needs an input with spatial axes, got {shapes}. Fix: use "
            "integrated_gradients (--method integrated-gradients)"
        )
    return axes


def _on_path(
    held: Held, axes: dict[str, int], sigmas: np.ndarray, rows: np.ndarray, border: Border
) -> tuple[Arrays, Arrays]:
    """The inputs of some samples, each at its σ, and their derivatives in σ: {input name: (n, *features)}."""
    points = {name: held.feeds[name][rows].astype(np.float64) for name in held.names}
    slopes = {name: np.empty_like(points[name]) for name in axes}
    for sigma in np.unique(sigmas):
        at = sigmas == sigma
        for name, axis in axes.items():
            points[name][at], slopes[name][at] = blurred_with_slope(points[name][at], sigma, axis, border)
    return points, slopes
