"""Attribution methods, one file per paper, each over the same `gradients` call."""

from analyzer.methods.full_grad import Contribution, FullGrad, full_grad
from analyzer.methods.integrated_gradients import IntegratedGradients, integrated_gradients

__all__ = ["Contribution", "FullGrad", "IntegratedGradients", "full_grad", "integrated_gradients"]
