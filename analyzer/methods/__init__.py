"""Attribution methods, one file per paper, each over the same `gradients` call."""

from analyzer.methods.full_grad import full_grad
from analyzer.methods.full_grad_result import Contribution, FullGrad, Layer
from analyzer.methods.full_grad_variants import SaliencyMap, simple_full_grad, smooth_full_grad
from analyzer.methods.integrated_gradients import IntegratedGradients, integrated_gradients

__all__ = [
    "Contribution",
    "FullGrad",
    "IntegratedGradients",
    "Layer",
    "SaliencyMap",
    "full_grad",
    "integrated_gradients",
    "simple_full_grad",
    "smooth_full_grad",
]
