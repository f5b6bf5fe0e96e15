"""The table of methods: one entry each, which the command line, pictures and reports read.

A new method needs a runner, run(fn, inputs, target, *, progress, **settings) -> MethodResult, and its entry here; a
setting of its own also needs an option (cli/method_options.py) of the same name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from analyzer.analysis.call import Arranged
from analyzer.analysis.full_grads import (
    FULL_GRAD,
    SIMPLE_FULL_GRAD,
    SMOOTH_FULL_GRAD,
    run_full_grad,
    run_simple_full_grad,
    run_smooth_full_grad,
)
from analyzer.analysis.gradients import (
    GRAD_CAM,
    GRAD_CAM_PLUS_PLUS,
    GRADIENT,
    INPUT_X_GRADIENT,
    LAYER_CAM,
    SMOOTH_GRAD,
    SMOOTH_GRAD_SQUARED,
    VAR_GRAD,
    run_grad_cam,
    run_grad_cam_plus_plus,
    run_gradient,
    run_input_x_gradient,
    run_layer_cam,
    run_smooth_grad,
    run_smooth_grad_squared,
    run_var_grad,
)
from analyzer.analysis.integrated import (
    CONDUCTANCE,
    INTEGRATED_GRADIENTS,
    run_conductance,
    run_integrated_gradients,
)
from analyzer.analysis.paths import (
    BLUR_IG,
    EXPECTED_GRADIENTS,
    GUIDED_IG,
    XRAI,
    run_blur_ig,
    run_expected_gradients,
    run_guided_ig,
    run_xrai,
)
from analyzer.analysis.result import MethodResult


@dataclass(frozen=True)
class Entry:
    """A method. caption, note: its name in pictures, and how they are read. signed: whether what it draws is: its map,
    or where it has none its attributions, summed over channels. by_class: whether it explains several classes of a
    sample one by one; `run` then gives a list.
    """

    run: Callable[..., MethodResult | list[MethodResult]]
    caption: str
    note: str
    signed: bool = False
    by_class: bool = False

    def results(self, *given: Any, **settings: Any) -> list[MethodResult]:
        """What the runner gives: one result, or one for each class that is explained of a sample."""
        call = Arranged.of(*given)
        found = self.run(call.fn, call.inputs, call.target, **call.options(settings))
        own = call.arrangement
        results = found if isinstance(found, list) else [found]
        return [replace(one, samples=own.samples, samples_note=own.note) for one in results]

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings that the runner takes."""
        known = inspect.signature(self.run).parameters.values()
        own = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
        return tuple(name for name in own if name != "progress")


METHODS: Mapping[str, Entry] = {
    FULL_GRAD: Entry(run_full_grad, "FullGrad", "input term and bias terms by size, without sign"),
    SIMPLE_FULL_GRAD: Entry(
        run_simple_full_grad, "Simple FullGrad", "the gradients at every layer that has a bias"
    ),
    SMOOTH_FULL_GRAD: Entry(run_smooth_full_grad, "Smooth FullGrad", "FullGrad averaged over noisy copies"),
    INTEGRATED_GRADIENTS: Entry(
        run_integrated_gradients,
        "Integrated Gradients",
        "red speaks for the class, blue against it",
        signed=True,
        by_class=True,
    ),
    CONDUCTANCE: Entry(
        run_conductance,
        "Conductance",
        "of units within the network: red speaks for the class, blue against it",
        signed=True,
        by_class=True,
    ),
    EXPECTED_GRADIENTS: Entry(
        run_expected_gradients,
        "Expected Gradients",
        "against a data set: red speaks for the class",
        signed=True,
    ),
    BLUR_IG: Entry(
        run_blur_ig,
        "Blur Integrated Gradients",
        "against its own blur: red speaks for the class",
        signed=True,
    ),
    GUIDED_IG: Entry(
        run_guided_ig, "Guided Integrated Gradients", "red speaks for the class, blue against it", signed=True
    ),
    XRAI: Entry(run_xrai, "XRAI", "the mean of Integrated Gradients in each region"),
    GRADIENT: Entry(run_gradient, "Gradient", "the largest size over channels"),
    INPUT_X_GRADIENT: Entry(
        run_input_x_gradient, "Input × gradient", "red speaks for the class, blue against it", signed=True
    ),
    SMOOTH_GRAD: Entry(run_smooth_grad, "SmoothGrad", "the gradient averaged over noisy copies, by size"),
    SMOOTH_GRAD_SQUARED: Entry(
        run_smooth_grad_squared, "SmoothGrad²", "the squared gradient averaged over noisy copies"
    ),
    VAR_GRAD: Entry(run_var_grad, "VarGrad", "the variance of the gradient over noisy copies"),
    GRAD_CAM: Entry(run_grad_cam, "Grad-CAM", "a layer's channels by their mean gradient"),
    GRAD_CAM_PLUS_PLUS: Entry(
        run_grad_cam_plus_plus, "Grad-CAM++", "a layer's channels by their positive gradients"
    ),
    LAYER_CAM: Entry(run_layer_cam, "LayerCAM", "a layer's activations by their own positive gradients"),
}
