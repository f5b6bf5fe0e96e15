"""FullGrad as its authors and pytorch-grad-cam compute it, restated with PyTorch hooks on the original network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


def decompose(net: nn.Module, x: np.ndarray, target: int):
    """Output, [input · gradient, bias · gradient, …], [layer gradient, …] of Srinivas & Fleuret 2019, eq. 3."""
    biases, outputs = [], []

    def record(module, _, output):
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            bias = module.bias - module.running_mean * scale
        else:
            bias = module.bias
        if bias is not None:
            biases.append(bias.detach())
            outputs.append(output)
        # What follows gets a copy: an in-place ReLU must not turn the recorded output into its own.
        return output.clone()

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    handles = [layer.register_forward_hook(record) for layer in layers]
    image = torch.tensor(x, requires_grad=True)
    logits = net(image)
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits[:, target].sum(), [image, *outputs])
    terms = [image.detach() * gradients[0]]
    for bias, gradient in zip(biases, gradients[1:], strict=True):
        terms.append(gradient * bias.reshape(1, -1, *(1,) * (gradient.ndim - 2)))
    return logits[:, target].detach().numpy(), terms, list(gradients[1:])


def saliency(terms: Sequence[torch.Tensor]) -> np.ndarray:
    """The authors' post-processing, their eq. 4."""
    total = 0
    for term in terms:
        if term.ndim == 4:
            magnitude = term.abs()
            rescaled = magnitude - magnitude.flatten(1).min(dim=1).values[:, None, None, None]
            high = rescaled.flatten(1).max(dim=1).values[:, None, None, None]
            up = nn.functional.interpolate(
                rescaled / (high + 1e-6), terms[0].shape[2:], mode="bilinear", align_corners=True
            )
            total = total + up.sum(1)
    return total.numpy()


def grad_cam_saliency(terms: Sequence[torch.Tensor]) -> np.ndarray:
    """pytorch-grad-cam's: every channel rescaled and resized by itself, the sum rescaled again."""
    total = 0
    for term in terms:
        if term.ndim == 4:
            magnitude = term.abs()
            raised = magnitude - magnitude.amin((2, 3), keepdim=True)
            scaled = raised / (1e-7 + raised.amax((2, 3), keepdim=True))
            up = nn.functional.interpolate(scaled, terms[0].shape[2:], mode="bilinear", align_corners=False)
            total = total + up.sum(1)
    raised = total - total.amin((1, 2), keepdim=True)
    return (raised / (1e-7 + raised.amax((1, 2), keepdim=True))).numpy()
