"""Attribution methods, one file per paper, each over the same `gradients` call."""

from analyzer.methods.blur_ig import BlurIntegratedGradients, blur_integrated_gradients
from analyzer.methods.class_activation import ActivationMap
from analyzer.methods.conductance import Conductance, conductance
from analyzer.methods.expected_gradients import ExpectedGradients, expected_gradients
from analyzer.methods.full_grad import full_grad
from analyzer.methods.full_grad_variants import simple_full_grad, smooth_full_grad
from analyzer.methods.full_gradient.result import Contribution, FullGrad, Layer
from analyzer.methods.grad_cam import grad_cam, grad_cam_plus_plus
from analyzer.methods.guided_ig import GuidedIntegratedGradients, guided_integrated_gradients
from analyzer.methods.integrated_gradients import IntegratedGradients, integrated_gradients
from analyzer.methods.layer_cam import layer_cam
from analyzer.methods.paths.baselines import Dataset
from analyzer.methods.saliency import Attribution, gradient, input_x_gradient
from analyzer.methods.saliency_map import SaliencyMap
from analyzer.methods.smooth_grad import SmoothAttribution, smooth_grad, smooth_grad_squared, var_grad
from analyzer.methods.xrai import Xrai, xrai

__all__ = [
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
    "simple_full_grad",
    "smooth_full_grad",
    "smooth_grad",
    "smooth_grad_squared",
    "var_grad",
    "xrai",
]
