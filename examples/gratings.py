"""Define a small transformer over patches and its task: the orientation of noisy gratings.

The transformer learns the task in seconds. All data is generated from seeds; no data set is read.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

SIZE, ORIENTATIONS = 16, 4


def example_gratings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy gratings (count, 1, 16, 16) of any phase and width, and their classes: the angle over 45°."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % ORIENTATIONS
    angles = (np.pi * classes / ORIENTATIONS)[:, None, None]
    y, x = np.mgrid[:SIZE, :SIZE]
    frequency, phase = rng.uniform(0.8, 1.6, (count, 1, 1)), rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(frequency * (x * np.cos(angles) + y * np.sin(angles)) + phase)
    noisy = waves + 0.3 * rng.standard_normal(waves.shape)
    return noisy[:, None].astype(np.float32), classes


class Block(nn.Module):
    """Apply attention and a two-layer perceptron, each after a LayerNorm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm1(x)
        x = x + self.attention(z, z, z, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class PatchTransformer(nn.Module):
    """Apply a convolution with BatchNorm and ReLU, patches of 4², two blocks, the mean and a linear head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.patches = nn.Conv2d(8, width, 4, 4)
        self.blocks = nn.Sequential(Block(width, 2), Block(width, 2))
        self.head = nn.Linear(width, ORIENTATIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.blocks(tokens).mean(1))


def train_gratings(steps: int = 150) -> tuple[PatchTransformer, float]:
    """Return the trained network in evaluation mode, and its accuracy on new gratings."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = PatchTransformer()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(steps):
        images, classes = example_gratings(64, seed=100 + step)
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images)), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval().requires_grad_(False)
    images, classes = example_gratings(400, seed=99)
    right = net(torch.from_numpy(images)).argmax(1).numpy() == classes
    return net, float(right.mean())
