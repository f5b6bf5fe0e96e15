"""Attribution methods, one file per paper, each over the same `gradients` call.

METHODS has them by name, in the order in which the command line lists them: the order of the imports below. Any other
file of this package that registers a method with `@method` is found, too.
"""

import importlib
import pkgutil

# isort: off
from analyzer.methods.full_grad import full_grad
from analyzer.methods.full_grad_variants import simple_full_grad, smooth_full_grad
from analyzer.methods.full_gradient.result import Contribution, FullGrad, Layer
from analyzer.methods.integrated_gradients import IntegratedGradients, integrated_gradients
from analyzer.methods.conductance import Conductance, conductance
from analyzer.methods.expected_gradients import ExpectedGradients, expected_gradients
from analyzer.methods.blur_ig import BlurIntegratedGradients, blur_integrated_gradients
from analyzer.methods.guided_ig import GuidedIntegratedGradients, guided_integrated_gradients
from analyzer.methods.xrai import Xrai, xrai
from analyzer.methods.saliency import gradient, input_x_gradient
from analyzer.methods.smooth_grad import SmoothAttribution, smooth_grad, smooth_grad_squared, var_grad
from analyzer.methods.grad_cam import grad_cam, grad_cam_plus_plus
from analyzer.methods.layer_cam import layer_cam
from analyzer.methods.class_activation import ActivationMap
from analyzer.methods.paths.baselines import Dataset
from analyzer.methods.registry import METHODS, Method, method
from analyzer.methods.result import Attribution, SaliencyMap
# isort: on

# A method in a file of its own is found by its file alone.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "METHODS",
    "ActivationMap",
    "Attribution",
    "BlurIntegratedGradients",
    "Conductance",
    "Contribution",
    "Dataset",
    "ExpectedGradients",
    "FullGrad",
    "GuidedIntegratedGradients",
    "IntegratedGradients",
    "Layer",
    "Method",
    "SaliencyMap",
    "SmoothAttribution",
    "Xrai",
    "blur_integrated_gradients",
    "conductance",
    "expected_gradients",
    "full_grad",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "guided_integrated_gradients",
    "input_x_gradient",
    "integrated_gradients",
    "layer_cam",
    "method",
    "simple_full_grad",
    "smooth_full_grad",
    "smooth_grad",
    "smooth_grad_squared",
    "var_grad",
    "xrai",
]
