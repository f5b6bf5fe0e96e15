"""Give an untrained PyTorch network the statistics of a trained one, reproducibly.

Untrained networks hide errors: biases are zero, BatchNorm is the identity, signals vanish with depth.
Here every parameter is drawn from a seeded generator, and one forward pass sets the scales, layer by
layer (Mishkin & Matas 2016, "All you need is a good init"), so that every layer's output is O(1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_WEIGHTED = (nn.Conv2d, nn.Linear)


@torch.no_grad()
def initialize(net: nn.Module, input_shape: tuple[int, ...], seed: int = 0, batch: int = 4) -> nn.Module:
    """Draw all parameters and BatchNorm statistics of `net`; returns it in evaluation mode.

    input_shape: one sample's, without the batch axis.
    """
    generator = torch.Generator().manual_seed(seed)
    hooks: list[Any] = []
    for module in net.modules():
        if isinstance(module, _WEIGHTED):
            _draw_weights(module, generator)
            hooks.append(module.register_forward_hook(_scale_to_unit_output))
        elif isinstance(module, nn.BatchNorm2d):
            _draw_affine(module, generator)
            hooks.append(module.register_forward_pre_hook(_set_statistics(generator)))
    net.eval()
    net(torch.randn(batch, *input_shape, generator=generator))
    for hook in hooks:
        hook.remove()
    return net


def _draw_weights(module: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    nn.init.kaiming_normal_(module.weight, generator=generator)
    if module.bias is not None:
        module.bias.normal_(0, 0.3, generator=generator)


def _draw_affine(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    norm.weight.uniform_(0.5, 1.5, generator=generator)
    norm.bias.normal_(0, 0.3, generator=generator)


def _scale_to_unit_output(module: nn.Conv2d | nn.Linear, inputs: Any, output: Tensor) -> Tensor:
    scale = 1 / output.std()
    module.weight.mul_(scale)
    if module.bias is not None:
        module.bias.mul_(scale)
    return output * scale


def _set_statistics(generator: torch.Generator) -> Any:
    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        # A channel that hardly varies in a few samples would be blown up without a floor.
        variance = variance.clamp(min=0.1 * float(variance.mean()))
        drift = torch.randn(mean.shape, generator=generator)
        factor = torch.rand(mean.shape, generator=generator) + 0.5
        norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * drift)
        norm.running_var.copy_(variance * factor)

    return hook
