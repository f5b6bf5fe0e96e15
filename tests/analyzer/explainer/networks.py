"""Small networks of every kind for the tests of explainers, converted once a session."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from converters import Model, convert


class Block(nn.Module):
    """A layer of a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mix(self.norms[1](x))


class ViT(nn.Module):
    """Patches, a class token, positions and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token, self.positions = (nn.Parameter(torch.randn(1, n, 16)) for n in (1, 17))
        self.block, self.head = Block(16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.block(x)[:, 0])


class Recurrent(nn.Module):
    """An LSTM and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Text(nn.Module):
    """Embedded tokens, a layer of a transformer, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.block, self.head = nn.Embedding(50, 16), Block(16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.embedding(ids)).mean(1))


class UNet(nn.Module):
    """Down, up and a connection across."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.wide(x).relu()
        return self.out(torch.cat([wide, self.up(self.deep(wide).relu())], 1))


def cnn() -> nn.Module:
    """Return convolutions with BatchNorm, pooling and two activations."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


_MADE: dict[str, tuple[Any, tuple[int, ...]]] = {
    "CNN": (cnn, (3, 16, 16)),
    "ViT": (ViT, (3, 32, 32)),
    "LSTM": (Recurrent, (6, 5)),
    "text": (Text, (7,)),
    "U-Net": (UNet, (3, 16, 16)),
}
NAMES = tuple(_MADE)


@cache
def network(name: str) -> tuple[Model, np.ndarray]:
    """Return a converted network and three inputs of it."""
    build, shape = _MADE[name]
    rng = np.random.default_rng(1)
    size = (3, *shape)
    inputs = rng.integers(0, 50, size) if name == "text" else rng.standard_normal(size).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build().eval()
    return convert(net, torch.from_numpy(inputs[:2])), inputs
