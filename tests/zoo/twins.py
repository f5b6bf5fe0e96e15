"""One description of a network, built in PyTorch (channels first) and in Keras (channels last) with the same weights.

`twins(TWINS[name], seed)` gives the module, the Keras model and a batch of images (N, C, H, W); `channels_last` turns
these into the Keras model's. A description is a function of a framework's layers and of the images: each layer has a
name, its weights are drawn from a generator that the name seeds, and copied as a port copies them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from examples.porting import copy_weights

Description = Callable[[Any, Any], Any]
CLASSES, EPSILON = 5, 1e-5


class Weights:
    """The weights of a layer by its name, in PyTorch's layout."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, name: str, *shape: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def positive(self, name: str, *shape: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)


class TorchLayers(nn.Module):
    """A description as a module: its layers are made at the first call."""

    def __init__(self, describe: Description, seed: int) -> None:
        super().__init__()
        self.describe, self.weights, self.layers = describe, Weights(seed), nn.ModuleDict()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.describe(self, x)

    def module(self, name: str) -> nn.Module:
        """The layer of a name. A ModuleDict allows no dots."""
        return self.layers[name.replace(".", "_")]

    def _layer(self, name: str, make: Callable[[], nn.Module], **weights: Any) -> nn.Module:
        key = name.replace(".", "_")
        if key not in self.layers:
            layer = make()
            layer.load_state_dict(
                {key: torch.from_numpy(array) for key, array in weights.items()}, strict=False
            )
            self.layers[key] = layer.eval()
        return self.layers[key]

    def channels(self, x: Any) -> int:
        return int(x.shape[1] if x.ndim == 4 else x.shape[-1])

    def conv(
        self, name: str, x: Any, width: int, size: int, stride: int = 1, pad: int = 0, groups: int = 1
    ) -> Any:
        before = self.channels(x)
        w = self.weights.draw(f"{name}.w", width, before // groups, size, size)
        b = self.weights.draw(f"{name}.b", width)
        return self._layer(
            name, lambda: nn.Conv2d(before, width, size, stride, pad, groups=groups), weight=w, bias=b
        )(x)

    def batch_norm(self, name: str, x: Any) -> Any:
        width, w = self.channels(x), self.weights
        stored = {"weight": w.positive(f"{name}.g", width), "bias": w.draw(f"{name}.b", width)}
        stored |= {
            "running_mean": w.draw(f"{name}.m", width),
            "running_var": w.positive(f"{name}.v", width),
        }
        return self._layer(name, lambda: nn.BatchNorm2d(width, EPSILON), **stored)(x)

    def layer_norm(self, name: str, x: Any) -> Any:
        width, image = self.channels(x), x.ndim == 4
        g, b = self.weights.positive(f"{name}.g", width), self.weights.draw(f"{name}.b", width)
        layer = self._layer(name, lambda: nn.LayerNorm(width, EPSILON), weight=g, bias=b)
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if image else layer(x)

    def dense(self, name: str, x: Any, width: int) -> Any:
        before = int(x.shape[-1])
        w, b = self.weights.draw(f"{name}.w", width, before), self.weights.draw(f"{name}.b", width)
        return self._layer(name, lambda: nn.Linear(before, width), weight=w, bias=b)(x)

    def lstm(self, name: str, x: Any, width: int) -> Any:
        return self._recurrent(name, x, width, nn.LSTM, 4)

    def gru(self, name: str, x: Any, width: int) -> Any:
        return self._recurrent(name, x, width, nn.GRU, 3)

    def _recurrent(self, name: str, x: Any, width: int, kind: type[nn.Module], gates: int) -> Any:
        before = self.channels(x)
        shapes = {"weight_ih": (before,), "weight_hh": (width,), "bias_ih": (), "bias_hh": ()}
        drawn = {
            f"{key}_l0": self.weights.draw(f"{name}.{key}", gates * width, *shape)
            for key, shape in shapes.items()
        }
        return self._layer(name, lambda: kind(before, width, batch_first=True), **drawn)(x)[0]

    def attention(self, name: str, x: Any, heads: int) -> Any:
        """Projections by layers of their own, then the formula."""
        batch, tokens, width = x.shape
        q, k, v = (
            self.dense(f"{name}.{part}", x, width).reshape(batch, tokens, heads, -1).transpose(1, 2)
            for part in "qkv"
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.dense(f"{name}.o", y.transpose(1, 2).reshape(batch, tokens, width), width)

    def packed_attention(self, name: str, x: Any, heads: int) -> Any:
        """One projection to queries, keys and values."""
        width = int(x.shape[-1])
        w = np.concatenate([self.weights.draw(f"{name}.{part}.w", width, width) for part in "qkv"])
        b = np.concatenate([self.weights.draw(f"{name}.{part}.b", width) for part in "qkv"])
        out = {
            "out_proj.weight": self.weights.draw(f"{name}.o.w", width, width),
            "out_proj.bias": self.weights.draw(f"{name}.o.b", width),
        }
        layer = self._layer(
            name,
            lambda: nn.MultiheadAttention(width, heads, batch_first=True),
            in_proj_weight=w,
            in_proj_bias=b,
            **out,
        )
        return layer(x, x, x, need_weights=False)[0]

    def with_class_token(self, name: str, x: Any) -> Any:
        """(N, C, H, W) as (N, 1 + H·W, C) with positions."""
        tokens = x.flatten(2).transpose(1, 2)
        token = torch.from_numpy(self.weights.draw(f"{name}.token", 1, 1, tokens.shape[2]))
        joined = torch.cat([token.expand(tokens.shape[0], -1, -1), tokens], 1)
        return joined + torch.from_numpy(self.weights.draw(f"{name}.position", *joined.shape[1:]))

    def token(self, x: Any, index: int) -> Any:
        return x[:, index]

    def activation(self, kind: str, x: Any) -> Any:
        return {
            "relu": nn.functional.relu,
            "relu6": nn.functional.relu6,
            "gelu": nn.functional.gelu,
            "gelu tanh": lambda t: nn.functional.gelu(t, approximate="tanh"),
            "silu": nn.functional.silu,
            "mish": nn.functional.mish,
            "softplus": nn.functional.softplus,
            "softsign": nn.functional.softsign,
            "elu": nn.functional.elu,
            "tanh": torch.tanh,
            "hard swish": nn.functional.hardswish,
            "hard sigmoid": nn.functional.hardsigmoid,
            "sigmoid": torch.sigmoid,
            "leaky": lambda t: nn.functional.leaky_relu(t, 0.1),
        }[kind](x)

    def softmax(self, x: Any) -> Any:
        return torch.softmax(x, -1)

    def global_mean(self, x: Any, keep: bool = False) -> Any:
        y = nn.functional.adaptive_avg_pool2d(x, 1)
        return y if keep else torch.flatten(y, 1)

    def max_pool(self, x: Any) -> Any:
        return nn.functional.max_pool2d(x, 2)

    def mean_pool(self, x: Any) -> Any:
        return nn.functional.avg_pool2d(x, 2)

    def concat(self, *xs: Any) -> Any:
        return torch.cat(xs, 1)


class KerasLayers:
    """A description as a functional Keras model. net: the PyTorch twin, whose weights are copied; layers: by name,
    what pads before a layer under that name and ".pad".
    """

    def __init__(self, net: TorchLayers) -> None:
        self.net = net
        self.layers: dict[str, keras.Layer] = {}

    def _layer(self, name: str, layer: Any, *inputs: Any) -> Any:
        y = layer(*inputs)
        copy_weights([(self.net.module(name), layer)])
        self.layers[name] = layer
        return y

    def channels(self, x: Any) -> int:
        return int(x.shape[-1])

    def conv(
        self, name: str, x: Any, width: int, size: int, stride: int = 1, pad: int = 0, groups: int = 1
    ) -> Any:
        if pad and stride > 1:
            # "same" pads a strided convolution at the bottom right first, PyTorch on both sides.
            padding = self.layers[f"{name}.pad"] = keras.layers.ZeroPadding2D(pad)
            x, pad = padding(x), 0
        given: dict[str, Any] = {"strides": stride, "padding": "same" if pad else "valid"}
        if groups == self.channels(x) == width:
            return self._layer(name, keras.layers.DepthwiseConv2D(size, **given), x)
        return self._layer(name, keras.layers.Conv2D(width, size, groups=groups, **given), x)

    def batch_norm(self, name: str, x: Any) -> Any:
        return self._layer(name, keras.layers.BatchNormalization(epsilon=EPSILON), x)

    def layer_norm(self, name: str, x: Any) -> Any:
        return self._layer(name, keras.layers.LayerNormalization(epsilon=EPSILON), x)

    def dense(self, name: str, x: Any, width: int) -> Any:
        return self._layer(name, keras.layers.Dense(width), x)

    def lstm(self, name: str, x: Any, width: int) -> Any:
        return self._layer(name, keras.layers.LSTM(width, return_sequences=True), x)

    def gru(self, name: str, x: Any, width: int) -> Any:
        return self._layer(name, keras.layers.GRU(width, return_sequences=True), x)

    def attention(self, name: str, x: Any, heads: int) -> Any:
        layer = keras.layers.MultiHeadAttention(heads, self.channels(x) // heads)
        y = layer(x, x)
        copy_weights([(_joined([self.net.module(f"{name}.{part}") for part in "qkvo"], heads), layer)])
        return y

    def packed_attention(self, name: str, x: Any, heads: int) -> Any:
        return self._layer(name, keras.layers.MultiHeadAttention(heads, self.channels(x) // heads), x, x)

    def with_class_token(self, name: str, x: Any) -> Any:
        tokens = keras.layers.Reshape((-1, self.channels(x)))(x)
        count, width = tokens.shape[1:]
        token = self.net.weights.draw(f"{name}.token", 1, 1, width)
        first = keras.ops.zeros_like(tokens[:, :1]) + token
        joined = keras.layers.Concatenate(axis=1)([first, tokens])
        return joined + self.net.weights.draw(f"{name}.position", count + 1, width)

    def token(self, x: Any, index: int) -> Any:
        return x[:, index]

    def activation(self, kind: str, x: Any) -> Any:
        functions = keras.activations
        chosen = {
            "relu": functions.relu,
            "relu6": functions.relu6,
            "gelu": lambda t: functions.gelu(t, approximate=False),
            "gelu tanh": lambda t: functions.gelu(t, approximate=True),
            "silu": functions.silu,
            "mish": functions.mish,
            "softplus": functions.softplus,
            "softsign": functions.softsign,
            "elu": functions.elu,
            "tanh": functions.tanh,
            "hard swish": functions.hard_silu,
            "hard sigmoid": functions.hard_sigmoid,
            "sigmoid": functions.sigmoid,
            "leaky": lambda t: functions.leaky_relu(t, negative_slope=0.1),
        }[kind]
        return keras.layers.Activation(chosen)(x)

    def softmax(self, x: Any) -> Any:
        return keras.activations.softmax(x)

    def global_mean(self, x: Any, keep: bool = False) -> Any:
        return keras.layers.GlobalAveragePooling2D(keepdims=keep)(x)

    def max_pool(self, x: Any) -> Any:
        return keras.layers.MaxPooling2D(2)(x)

    def mean_pool(self, x: Any) -> Any:
        return keras.layers.AveragePooling2D(2)(x)

    def concat(self, *xs: Any) -> Any:
        return keras.layers.Concatenate()(list(xs))


def _joined(projections: Sequence[nn.Linear], heads: int) -> nn.MultiheadAttention:
    """Attention whose query, key, value and output are projected by these."""
    joined = nn.MultiheadAttention(projections[0].in_features, heads, batch_first=True)
    *inner, outer = projections
    with torch.no_grad():
        joined.in_proj_weight.copy_(torch.cat([one.weight for one in inner]))
        joined.in_proj_bias.copy_(torch.cat([one.bias for one in inner]))
    joined.out_proj.load_state_dict(outer.state_dict())
    return joined


def _cnn(f: Any, x: Any) -> Any:
    x = f.max_pool(f.activation("relu", f.batch_norm("n1", f.conv("c1", x, 8, 3, pad=1))))
    x = f.mean_pool(f.activation("leaky", f.batch_norm("n2", f.conv("c2", x, 12, 3, stride=2, pad=1))))
    x = f.activation("elu", f.dense("d1", f.global_mean(x), 16))
    return f.dense("d2", x, CLASSES)


def _residual(f: Any, x: Any) -> Any:
    """BatchNorm behind a convolution and, as in ResNet-v2 and DenseNet, behind a sum and a concatenation."""
    x = f.conv("stem", x, 8, 3, stride=2, pad=1)
    for i in range(2):
        y = f.activation("relu", f.batch_norm(f"{i}.a", x))
        y = f.activation("relu", f.batch_norm(f"{i}.b", f.conv(f"{i}.c", y, 8, 3, pad=1)))
        x = x + f.conv(f"{i}.d", y, 8, 1)
    x = f.concat(x, f.conv("grow", f.activation("relu", f.batch_norm("gn", x)), 4, 3, pad=1))
    return f.dense("head", f.global_mean(f.activation("relu", f.batch_norm("last", x))), CLASSES)


def _mobile(f: Any, x: Any) -> Any:
    x = f.activation("hard swish", f.batch_norm("n0", f.conv("stem", x, 8, 3, stride=2, pad=1)))
    for i, kind in enumerate(("relu6", "hard swish", "silu")):
        y = f.activation(kind, f.batch_norm(f"{i}.n1", f.conv(f"{i}.expand", x, 24, 1)))
        y = f.activation(kind, f.batch_norm(f"{i}.n2", f.conv(f"{i}.depth", y, 24, 3, pad=1, groups=24)))
        squeezed = f.activation("relu", f.conv(f"{i}.squeeze", f.global_mean(y, keep=True), 6, 1))
        gate = f.activation(
            "sigmoid" if kind == "silu" else "hard sigmoid", f.conv(f"{i}.excite", squeezed, 24, 1)
        )
        x = x + f.batch_norm(f"{i}.n3", f.conv(f"{i}.project", y * gate, 8, 1))
    return f.dense("head", f.global_mean(x), CLASSES)


def _convnext(f: Any, x: Any) -> Any:
    def block(name: str, x: Any, width: int) -> Any:
        y = f.layer_norm(f"{name}.n", f.conv(f"{name}.d", x, width, 5, pad=2, groups=width))
        y = f.conv(f"{name}.2", f.activation("gelu", f.conv(f"{name}.1", y, 4 * width, 1)), width, 1)
        return x + y

    x = block("a", f.layer_norm("stem.n", f.conv("stem", x, 8, 4, stride=4)), 8)
    x = block("b", f.conv("down", f.layer_norm("down.n", x), 12, 2, stride=2), 12)
    return f.dense("head", f.layer_norm("head.n", f.global_mean(x)), CLASSES)


def _vit(attention: str, kind: str) -> Description:
    def describe(f: Any, x: Any) -> Any:
        x = f.with_class_token("tokens", f.conv("patches", x, 12, 4, stride=4))
        for i in range(2):
            x = x + getattr(f, attention)(f"{i}.attention", f.layer_norm(f"{i}.n1", x), 3)
            y = f.activation(kind, f.dense(f"{i}.up", f.layer_norm(f"{i}.n2", x), 24))
            x = x + f.dense(f"{i}.down", y, 12)
        return f.dense("head", f.token(f.layer_norm("last", x), 0), CLASSES)

    return describe


def _activations(f: Any, x: Any) -> Any:
    kinds = ("softplus", "mish", "softsign", "tanh", "sigmoid", "gelu tanh", "silu", "hard sigmoid", "elu")
    for kind in kinds:
        x = x + f.activation(kind, f.conv(kind, x, 3, 3, pad=1))
    # One ends with the constant factor that the next could begin with.
    x = f.activation("hard sigmoid", f.activation("hard sigmoid", f.conv("twice", x, 3, 1)))
    return f.softmax(f.dense("head", f.global_mean(x), CLASSES))


@dataclass(frozen=True)
class Twins:
    """Both networks, images (2, 3, *size) for the first; layers: of Keras, by name."""

    net: TorchLayers
    keras: keras.Model
    images: np.ndarray
    layers: dict[str, keras.Layer]


def twins(describe: Description, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Twins:
    """A description in both frameworks, its weights and two images drawn."""
    images = np.random.default_rng(seed + 1).standard_normal((2, 3, *size)).astype(np.float32)
    net = TorchLayers(describe, seed).eval()
    with torch.no_grad():
        net(torch.from_numpy(images))
    inputs, copy = keras.Input((*size, 3)), KerasLayers(net)
    return Twins(net, keras.Model(inputs, describe(copy, inputs)), images, copy.layers)


def channels_last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


TWINS: dict[str, Description] = {
    "cnn": _cnn,
    "residual": _residual,
    "mobile": _mobile,
    "convnext": _convnext,
    "vit": _vit("attention", "gelu"),
    "packed vit": _vit("packed_attention", "gelu tanh"),
    "activations": _activations,
}
