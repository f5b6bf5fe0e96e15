"""Random healthy PyTorch modules of the layers that torch.nn has, each made by a seed: networks with a source.

`random_module(seed)` draws a chain of layers from an image or a sequence to logits, with every parameter drawn, in
evaluation mode. Unlike random_networks.py these are exported and converted, so that the original can be run beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.draw import draw, normal

CLASSES, SAMPLES = 5, 2

ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ELU,
    nn.Softplus, lambda: nn.LeakyReLU(0.2), lambda: nn.PReLU(3, 0.2), nn.Mish, nn.Hardsigmoid,
)  # fmt: skip


class Residual(nn.Module):
    """x plus a scaled branch."""

    def __init__(self, branch: nn.Module, scale: float) -> None:
        super().__init__()
        self.branch, self.scale = branch, scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


class Joined(nn.Module):
    """A branch's channels beside those of x."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch(x), x], 1)


class Excited(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = functional.silu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(context))


class Attention(nn.Module):
    """Attention of two heads, (N, T, D) to (N, T, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        heads = self.mixed(x).reshape(samples, steps, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        scores = heads[0] @ heads[1].transpose(-2, -1) / (width // 2) ** 0.5
        return self.out((scores.softmax(-1) @ heads[2]).transpose(1, 2).reshape(samples, steps, width))


class Recurrent(nn.Module):
    """Every step of a recurrent layer, (N, T, D) to (N, T, 6)."""

    def __init__(self, width: int, layer: type[nn.RNNBase], both: bool) -> None:
        super().__init__()
        self.layer = layer(width, 3 if both else 6, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Averaged(nn.Module):
    """The mean over one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis)


def random_module(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a seed in evaluation mode, and a batch of two for it."""
    rng = np.random.default_rng(seed)
    image = rng.random() < 0.6
    x = normal(SAMPLES, 3, *rng.integers(7, 11, 2), seed=seed) if image else normal(SAMPLES, 5, 6, seed=seed)
    layers: list[nn.Module] = []
    current = x
    for _ in range(int(rng.integers(2, 6))):
        layer = draw((_image_layer if image else _token_layer)(rng, current), seed + len(layers))
        layers.append(layer)
        with torch.no_grad():
            current = layer(current)
    width = current.shape[1 if image else 2]
    reduced: Any = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if image else [Averaged(1)]
    head = nn.Sequential(*reduced, nn.Linear(width, 8), _activation(rng, 8), nn.Linear(8, CLASSES))
    return nn.Sequential(*layers, draw(head, seed)).eval(), (x,)


def _activation(rng: np.random.Generator, width: int) -> nn.Module:
    made = ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]()
    return nn.PReLU(width, 0.2) if isinstance(made, nn.PReLU) else made


def _image_layer(rng: np.random.Generator, x: Tensor) -> nn.Module:
    width, smallest = x.shape[1], min(x.shape[2:])
    choice = int(rng.integers(9))
    if choice == 0 and smallest >= 4:
        pools = (
            nn.MaxPool2d(2),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(3, 2, 1),
            nn.AvgPool2d(2, ceil_mode=True),
        )
        return pools[int(rng.integers(4))]
    if choice == 1 and smallest <= 6:
        return nn.Upsample(scale_factor=2, mode=("nearest", "bilinear")[int(rng.integers(2))])
    if choice == 2:
        return nn.Sequential(nn.Conv2d(width, 6, 1), nn.GroupNorm(3, 6), _activation(rng, 6))
    if choice == 3:
        inner = nn.Sequential(nn.Conv2d(width, 4, 1), _activation(rng, 4), nn.Conv2d(4, width, 3, padding=1))
        return Residual(inner, float(rng.uniform(0.3, 0.8)))
    if choice == 4 and width <= 10:
        return Joined(nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), _activation(rng, 3)))
    if choice == 5:
        return Excited(width)
    if choice == 6 and smallest <= 6:
        return nn.ConvTranspose2d(width, 4, 3, stride=2, padding=1, output_padding=1)
    size, stride = int(rng.integers(1, 4)), 2 if smallest >= 6 and rng.random() < 0.4 else 1
    layers: list[nn.Module] = [nn.Conv2d(width, 6, size, stride, size // 2, bias=bool(rng.random() < 0.6))]
    if rng.random() < 0.6:
        layers.append(nn.BatchNorm2d(6))
    return nn.Sequential(*layers, _activation(rng, 6))


def _token_layer(rng: np.random.Generator, x: Tensor) -> nn.Module:
    width = x.shape[2]
    choice = int(rng.integers(4))
    if choice == 0:
        return Recurrent(width, (nn.LSTM, nn.GRU)[int(rng.integers(2))], bool(rng.random() < 0.4))
    if choice == 1:
        return Residual(nn.Sequential(nn.LayerNorm(width), Attention(width)), float(rng.uniform(0.3, 1)))
    if choice == 2:
        inner = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))
        return Residual(nn.Sequential(nn.LayerNorm(width, eps=1e-3), inner), float(rng.uniform(0.3, 1)))
    return nn.Sequential(nn.Linear(width, 6), nn.Softmax(-1) if rng.random() < 0.2 else nn.Tanh())
