"""Draw every parameter of any PyTorch module, reproducibly: no bias is zero, no norm is the identity."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
"""Makes a network in evaluation mode, and its example arguments."""


@torch.no_grad()
def draw(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights at the scale of their fan-in, vectors of gains around 1, everything else around 0; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
        elif name.endswith(("weight", "gain")):
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(0, 0.3, generator=generator)
    for name, statistic in net.named_buffers():
        if name.endswith("running_mean"):
            statistic.normal_(0, 0.3, generator=generator)
        elif name.endswith("running_var"):
            statistic.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def normal(*shape: int, seed: int = 1) -> Tensor:
    """A seeded standard normal input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, count: int, seed: int = 1) -> Tensor:
    """Seeded integers from 0 to count − 1."""
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))
