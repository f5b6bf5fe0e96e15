"""The gradient, its averages over noisy copies, and class activation maps, over a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.common import named, saliency_result, tensors_of
from analyzer.analysis.result import Inputs, MethodResult, Progress
from analyzer.methods.completeness import measure, sample_sums

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import Attribution
    from analyzer.target.target import TargetLike

Runner = Callable[..., MethodResult]

GRADIENT, INPUT_X_GRADIENT = "gradient", "input-x-gradient"
SMOOTH_GRAD, SMOOTH_GRAD_SQUARED, VAR_GRAD = "smooth-grad", "smooth-grad-squared", "var-grad"
GRAD_CAM, GRAD_CAM_PLUS_PLUS, LAYER_CAM = "grad-cam", "grad-cam-plus-plus", "layer-cam"


def run_gradient(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> MethodResult:
    """The gradient of every sample."""
    from analyzer.methods import gradient

    start = time.perf_counter()
    tensors = tensors_of(fn, wrt)
    found = gradient(fn, inputs, target, wrt=tensors, progress=progress)
    return _attributed(fn, GRADIENT, "Gradient", found, {"wrt": tensors}, start, tensors)


def run_input_x_gradient(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> MethodResult:
    """Input × gradient of every sample; how far its sum is from the output is stated and not judged."""
    from analyzer.methods import input_x_gradient

    start = time.perf_counter()
    tensors = tensors_of(fn, wrt)
    found = input_x_gradient(fn, inputs, target, wrt=tensors, progress=progress)
    result = _attributed(fn, INPUT_X_GRADIENT, "Input × gradient", found, {"wrt": tensors}, start, tensors)
    arrays = result.attributions.values()
    total = np.sum([sample_sums(array) for array in arrays], axis=0)
    absolute = np.sum([sample_sums(np.abs(array)) for array in arrays], axis=0)
    error = measure(result.explained, total, absolute).error
    return replace(result, total=total, error=error, note="biases and saturation, which FullGrad counts")


def _over_noise(method: str, label: str, function: str) -> Runner:
    """The runner of a method over noisy copies. function: its name in `analyzer.methods`."""

    def run(
        fn: Differentiable,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        samples: int = 25,
        noise: float = 0.15,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> MethodResult:
        from analyzer import methods

        start = time.perf_counter()
        settings = {"samples": samples, "noise": noise, "seed": seed}
        found = getattr(methods, function)(fn, inputs, target, progress=progress, **settings)
        return _attributed(fn, method, f"{label}, {samples} copies", found, settings, start)

    return run


def _at_layer(method: str, label: str, function: str) -> Runner:
    """The runner of a class activation map. function: its name in `analyzer.methods`."""

    def run(
        fn: Differentiable,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        wrt: Sequence[str] | None = None,
        layer: str | None = None,
        relu: bool = True,
        align_corners: bool = False,
        progress: Progress | None = None,
    ) -> MethodResult:
        from analyzer import methods

        start = time.perf_counter()
        tensors = tensors_of(fn, wrt)
        options = {"wrt": tensors, "layer": layer, "relu": relu, "align_corners": align_corners}
        found = getattr(methods, function)(fn, inputs, target, progress=progress, **options)
        layers = found.layer.values() if isinstance(found.layer, Mapping) else [found.layer]
        at = ", ".join(dict.fromkeys(layers))
        return saliency_result(fn, method, f"{label}, {at}", found, options | {"layer": at}, start, tensors)

    return run


run_smooth_grad = _over_noise(SMOOTH_GRAD, "SmoothGrad", "smooth_grad")
run_smooth_grad_squared = _over_noise(SMOOTH_GRAD_SQUARED, "SmoothGrad²", "smooth_grad_squared")
run_var_grad = _over_noise(VAR_GRAD, "VarGrad", "var_grad")
run_grad_cam = _at_layer(GRAD_CAM, "Grad-CAM", "grad_cam")
run_grad_cam_plus_plus = _at_layer(GRAD_CAM_PLUS_PLUS, "Grad-CAM++", "grad_cam_plus_plus")
run_layer_cam = _at_layer(LAYER_CAM, "LayerCAM", "layer_cam")


def _attributed(
    fn: Differentiable,
    method: str,
    label: str,
    found: Attribution,
    settings: Mapping[str, Any],
    start: float,
    wrt: Sequence[str] | None = None,
) -> MethodResult:
    """The result of a method that gives a number for every element of the inputs."""
    result = saliency_result(fn, method, label, found, settings, start, wrt)
    return replace(result, attributions=named(fn, found.attributions, wrt))
