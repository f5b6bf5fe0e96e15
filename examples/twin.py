"""Build one small network twice: a PyTorch module and a subclassed Keras model with the same weights.

`build_twins(seed)` returns both networks. `example_images(n, seed)` returns the same images in both layouts. The
network has these layers: convolution, BatchNorm, ReLU, max pool; strided convolution, BatchNorm, ReLU, max pool;
flatten; dense, ReLU, dense. Images are higher than wide, so a swapped axis is noticed.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from torch import nn

CLASSES = 10
HEIGHT, WIDTH = 24, 20

# The features before flattening, (channels, height, width). Each pool halves the size; the last pool drops a row.
FEATURES = (12, 3, 2)


class TorchTwin(nn.Module):
    """Read (N, 3, 24, 20), return (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.pool = nn.MaxPool2d(2)
        self.dense1 = nn.Linear(int(np.prod(FEATURES)), 32)
        self.dense2 = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = torch.relu(self.dense1(torch.flatten(x, 1)))
        return self.dense2(x)


@keras.saving.register_keras_serializable("onnxplain")
class KerasTwin(keras.Model):
    """Read (N, 24, 20, 3), return (N, 10) logits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conv1 = keras.layers.Conv2D(8, 3, padding="same")
        # Keras' default epsilon is 1e-3, PyTorch's is 1e-5.
        self.bn1 = keras.layers.BatchNormalization(epsilon=1e-5)
        # PyTorch pads a strided convolution on both sides; "same" pads only at the bottom right.
        self.pad2 = keras.layers.ZeroPadding2D(1)
        self.conv2 = keras.layers.Conv2D(12, 3, strides=2, padding="valid")
        self.bn2 = keras.layers.BatchNormalization(epsilon=1e-5)
        self.pool = keras.layers.MaxPooling2D(2, padding="valid")
        self.flatten = keras.layers.Flatten()
        self.dense1 = keras.layers.Dense(32)
        self.dense2 = keras.layers.Dense(CLASSES)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.pool(keras.ops.relu(self.bn1(self.conv1(inputs), training=training)))
        x = self.pool(keras.ops.relu(self.bn2(self.conv2(self.pad2(x)), training=training)))
        x = keras.ops.relu(self.dense1(self.flatten(x)))
        return self.dense2(x)


def build_twins(seed: int = 0) -> tuple[TorchTwin, KerasTwin]:
    """Return two networks of the same function in evaluation mode, with non-zero biases and statistics."""
    source, copy = TorchTwin(), KerasTwin()
    randomise(source, seed)
    copy(
        np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
    )  # a subclassed model has no weights before its first call
    copy_weights(source, copy)
    return source.eval(), copy


@torch.no_grad()
def randomise(net: nn.Module, seed: int) -> None:
    """Draw every parameter and every BatchNorm statistic from one seeded generator."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, std=0.3, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)


def copy_weights(source: TorchTwin, copy: KerasTwin) -> None:
    """Copy the weights of the PyTorch module to the Keras model, in the layout of Keras."""
    for name in ("conv1", "conv2"):
        _copy_convolution(getattr(source, name), getattr(copy, name))
    for name in ("bn1", "bn2"):
        _copy_batch_norm(getattr(source, name), getattr(copy, name))
    _copy_dense(source.dense1, copy.dense1, flattened=FEATURES)
    _copy_dense(source.dense2, copy.dense2)


def _copy_convolution(source: nn.Conv2d, copy: keras.layers.Conv2D) -> None:
    kernel = source.weight.detach().numpy().transpose(2, 3, 1, 0)  # OIHW to HWIO
    copy.set_weights([kernel, source.bias.detach().numpy()])


def _copy_batch_norm(source: nn.BatchNorm2d, copy: keras.layers.BatchNormalization) -> None:
    assert source.eps == copy.epsilon, f"BatchNorm epsilon: {source.eps} and {copy.epsilon}"
    tensors = (source.weight, source.bias, source.running_mean, source.running_var)
    copy.set_weights([tensor.detach().numpy() for tensor in tensors])


def _copy_dense(
    source: nn.Linear, copy: keras.layers.Dense, flattened: tuple[int, int, int] | None = None
) -> None:
    """Copy a dense layer. flattened: the (channels, height, width) of a flattened input, or None.

    PyTorch flattens channels first, Keras channels last: the rows are reordered, not the features.
    """
    weight = source.weight.detach().numpy()
    if flattened is not None:
        outputs = weight.shape[0]
        weight = weight.reshape(outputs, *flattened).transpose(0, 2, 3, 1).reshape(outputs, -1)
    copy.set_weights([weight.T, source.bias.detach().numpy()])


def example_images(n: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return n standard normal images in float32, as (n, 3, 24, 20) and as (n, 24, 20, 3)."""
    images = np.random.default_rng(seed).standard_normal((n, 3, HEIGHT, WIDTH)).astype(np.float32)
    return images, to_nhwc(images)


def to_nhwc(images: np.ndarray) -> np.ndarray:
    """Turn (N, C, H, W) into (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def to_nchw(images: np.ndarray) -> np.ndarray:
    """Turn (N, H, W, C) into (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
