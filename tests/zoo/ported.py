"""Networks in PyTorch and their ports to Keras, with copied weights: what `compare` must find to be one function.

`PORTS[name]()` gives both networks and their example arguments, batch of 3. Each framework keeps its own names, its own
layout, its own way to merge biases and projections and to flatten features. Images are higher than wide and sequences
longer than wide, so that a swapped axis cannot go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import Tensor, nn
from torch.nn import functional

from examples.porting import copy_flattened, copy_weights
from tests.zoo.draw import draw, normal, tokens

CLASSES, WORDS = 5, 20
EPSILON = 1e-5


@dataclass(frozen=True)
class Ported:
    """example: the PyTorch network's arguments; keras_example: the same in Keras' layout."""

    pytorch: nn.Module
    keras: keras.Model
    example: tuple[Tensor, ...]
    keras_example: tuple[np.ndarray, ...]


def _channels_last(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.movedim(1, -1).numpy())


def _images(net: nn.Module, port: keras.Model, *shape: int) -> Ported:
    images = normal(3, *shape)
    return Ported(net, port, (images,), (_channels_last(images),))


class Convolutions(nn.Module):
    """BatchNorm before and after a convolution, leaky ReLU, average pooling, a strided convolution; a flattened map is
    squashed, then dense layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1, self.act1 = (
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 6, 3, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.pool = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2)
        self.norm2, self.act2 = nn.BatchNorm2d(8), nn.ReLU()
        self.squash = nn.Tanh()
        self.dense1, self.act3, self.dense2 = nn.Linear(8 * 3 * 2, 7), nn.ELU(), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act1(self.conv1(self.norm1(x))))
        x = self.act2(self.norm2(self.conv2(x)))
        return self.dense2(self.act3(self.dense1(self.squash(x.flatten(1)))))


def convolutions() -> Ported:
    net = draw(Convolutions())
    norm1, norm2 = (layers.BatchNormalization(epsilon=EPSILON) for _ in range(2))
    conv1, conv2 = layers.Conv2D(6, 3, padding="same"), layers.Conv2D(8, 3, strides=2, groups=2)
    dense1, dense2 = layers.Dense(7, activation="elu"), layers.Dense(CLASSES)
    x = image = keras.Input((12, 8, 3))
    x = layers.AveragePooling2D(2)(layers.LeakyReLU(0.1)(conv1(norm1(x))))
    x = ops.relu(norm2(conv2(layers.ZeroPadding2D(1)(x))))
    port = keras.Model(image, dense2(dense1(ops.tanh(layers.Flatten()(x)))))
    copy_weights(
        [(net.norm1, norm1), (net.conv1, conv1), (net.conv2, conv2), (net.norm2, norm2), (net.dense2, dense2)]
    )
    copy_flattened(net.dense1, dense1, (8, 3, 2))
    return _images(net, port, 3, 12, 8)


class Recurrent(nn.Module):
    """A bidirectional LSTM of two layers, then a GRU, over a sequence that lies before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, bidirectional=True)
        self.gru, self.norm, self.head = nn.GRU(10, 6), nn.LayerNorm(6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(x.transpose(0, 1))
        x, _ = self.gru(torch.tanh(x))
        return self.head(self.norm(x[-1]))


def recurrent() -> Ported:
    net = draw(Recurrent())
    first, second = (layers.Bidirectional(layers.LSTM(5, return_sequences=True)) for _ in range(2))
    gru, norm, head = (
        layers.GRU(6, return_sequences=True),
        layers.LayerNormalization(epsilon=EPSILON),
        layers.Dense(CLASSES),
    )
    sequence = keras.Input((7, 4))
    port = keras.Model(sequence, head(norm(gru(ops.tanh(second(first(sequence))))[:, -1])))
    copy_weights([(net.lstm, [first, second]), (net.gru, gru), (net.norm, norm), (net.head, head)])
    x = normal(3, 7, 4)
    return Ported(net, port, (x,), (x.numpy(),))


class Attention(nn.Module):
    """One pre-norm transformer block over a sequence of vectors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.widen, self.act, self.narrow = (
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.narrow(self.act(self.widen(self.norm2(x))))


class Text(nn.Module):
    """Tokens with positions, a transformer block, the mean over the tokens, a head."""

    def __init__(self, width: int = 8, length: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(WORDS, width), nn.Parameter(torch.zeros(length, width))
        self.block, self.norm = Attention(width, heads), nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        x = self.block(self.embedding(words) + self.places)
        return self.head(self.norm(x).mean(1))


def text() -> Ported:
    net = draw(Text())
    block = net.block
    embedding, places = layers.Embedding(WORDS, 8), layers.Embedding(6, 8)
    norms = [layers.LayerNormalization(epsilon=EPSILON) for _ in range(3)]
    attention = layers.MultiHeadAttention(2, 4)
    widen, narrow, head = layers.Dense(16), layers.Dense(8), layers.Dense(CLASSES)
    words = keras.Input((6,), dtype="int32")
    # Positions counted from the words: of a constant Keras would compute the embedding once and for all.
    x = embedding(words) + places(ops.cumsum(ops.ones_like(words), axis=1) - 1)
    y = norms[0](x)
    x = x + attention(y, y)
    x = x + narrow(ops.gelu(widen(norms[1](x)), approximate=False))
    port = keras.Model(words, head(ops.mean(norms[2](x), axis=1)))
    norms_of = (block.norm1, block.norm2, net.norm)
    copy_weights(
        [(net.embedding, embedding), (block.attention, attention), (block.widen, widen), (block.narrow, narrow),
         (net.head, head), *zip(norms_of, norms, strict=True)]
    )  # fmt: skip
    places.set_weights([net.places.detach().numpy()])
    given = tokens(3, 6, count=WORDS)
    return Ported(net, port, (given,), (given.numpy().astype(np.int32),))


class UNet(nn.Module):
    """Two scales down and up: max pooling, a transposed convolution, bilinear upsampling, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.deep = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.Conv2d(6, 8, 3, padding=1),
        )
        self.norm, self.pool = nn.GroupNorm(2, 6), nn.MaxPool2d(2)
        self.up1, self.join1 = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(12, 6, 3, padding=1)
        self.up2, self.join2 = nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(10, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = functional.relu(self.down1(x))
        coarse = functional.silu(self.norm(self.down2(self.pool(fine))))
        x = functional.relu(self.deep(self.pool(coarse)))
        x = functional.relu(self.join1(torch.cat([self.up1(x), coarse], 1)))
        x = functional.softplus(self.join2(torch.cat([self.up2(x), fine], 1)))
        return self.head(x)


def u_net() -> Ported:
    net = draw(UNet())
    same = {name: layers.Conv2D(width, 3, padding="same")
            for name, width in (("down1", 4), ("down2", 6), ("deep", 8), ("join1", 6), ("join2", 4))}  # fmt: skip
    up1, norm, head = (
        layers.Conv2DTranspose(6, 2, strides=2),
        layers.GroupNormalization(2, epsilon=EPSILON),
        layers.Conv2D(3, 1),
    )
    image = keras.Input((12, 8, 2))
    fine = ops.relu(same["down1"](image))
    coarse = ops.silu(norm(same["down2"](layers.MaxPooling2D(2)(fine))))
    x = ops.relu(same["deep"](layers.MaxPooling2D(2)(coarse)))
    x = ops.relu(same["join1"](layers.Concatenate()([up1(x), coarse])))
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    port = keras.Model(image, head(ops.softplus(same["join2"](ops.concatenate([x, fine], -1)))))
    copy_weights(
        [
            *((getattr(net, name), layer) for name, layer in same.items()),
            (net.up1, up1),
            (net.norm, norm),
            (net.head, head),
        ]
    )
    return _images(net, port, 2, 12, 8)


class Residual(nn.Module):
    """A residual block that halves, one that keeps, and the mean over the image; the convolutions have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.first, self.first_norm = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.second_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.shortcut, self.shortcut_norm = nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6)
        self.third, self.third_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.relu, self.pool, self.head = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_norm(self.stem(x)))
        y = self.second_norm(self.second(self.relu(self.first_norm(self.first(x)))))
        x = self.relu(y + self.shortcut_norm(self.shortcut(x)))
        x = self.relu(self.third_norm(self.third(x)) + x)
        return self.head(self.pool(x).flatten(1))


def residual() -> Ported:
    net = draw(Residual())
    pairs: list[tuple[nn.Module, Any]] = []

    def step(name: str, x: Any, width: int, kernel: int = 3, strides: int = 1) -> Any:
        # "same" would pad a strided convolution at the end alone.
        x = layers.ZeroPadding2D(kernel // 2)(x) if kernel > 1 else x
        conv, norm = (
            layers.Conv2D(width, kernel, strides, use_bias=False),
            layers.BatchNormalization(epsilon=EPSILON),
        )
        pairs.extend([(getattr(net, name), conv), (getattr(net, f"{name}_norm"), norm)])
        return norm(conv(x))

    image, head = keras.Input((12, 8, 3)), layers.Dense(CLASSES)
    x = ops.relu(step("stem", image, 4))
    y = step("second", ops.relu(step("first", x, 6, strides=2)), 6)
    x = ops.relu(layers.Add()([y, step("shortcut", x, 6, kernel=1, strides=2)]))
    x = ops.relu(step("third", x, 6) + x)
    port = keras.Model(image, head(layers.GlobalAveragePooling2D()(x)))
    copy_weights([*pairs, (net.head, head)])
    return _images(net, port, 3, 12, 8)


class Mobile(nn.Module):
    """An inverted bottleneck: expansion, depthwise convolution, squeeze and excitation, projection."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1, self.act1 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6()
        self.depthwise, self.norm2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8), nn.BatchNorm2d(16)
        self.act2 = nn.Hardswish()
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.gate = nn.Sigmoid()
        self.project, self.norm3 = nn.Conv2d(16, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.expand(x)))
        x = self.act2(self.norm2(self.depthwise(x)))
        weight = self.gate(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(self.norm3(self.project(x * weight)).mean((2, 3)))


def mobile() -> Ported:
    net = draw(Mobile())
    expand, project = layers.Conv2D(8, 1), layers.Conv2D(6, 1, use_bias=False)
    depthwise = layers.DepthwiseConv2D(3, 2, depth_multiplier=2)
    norms = [layers.BatchNormalization(epsilon=EPSILON) for _ in range(3)]
    squeeze, excite, head = layers.Conv2D(4, 1), layers.Conv2D(16, 1), layers.Dense(CLASSES)
    image = keras.Input((12, 8, 3))
    x = layers.ReLU(6.0)(norms[0](expand(image)))
    x = ops.hard_swish(norms[1](depthwise(layers.ZeroPadding2D(1)(x))))
    weight = ops.sigmoid(excite(ops.relu(squeeze(layers.GlobalAveragePooling2D(keepdims=True)(x)))))
    port = keras.Model(image, head(layers.GlobalAveragePooling2D()(norms[2](project(x * weight)))))
    copy_weights(
        [(net.expand, expand), (net.depthwise, depthwise), (net.project, project), (net.squeeze, squeeze),
         (net.excite, excite), (net.head, head), *zip((net.norm1, net.norm2, net.norm3), norms, strict=True)]
    )  # fmt: skip
    return _images(net, port, 3, 12, 8)


PORTS: dict[str, Callable[[], Ported]] = {
    "convolutions": convolutions,
    "recurrent": recurrent,
    "text": text,
    "u_net": u_net,
    "residual": residual,
    "mobile": mobile,
}
