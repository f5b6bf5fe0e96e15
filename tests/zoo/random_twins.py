"""Random networks in PyTorch and in Keras with the same weights, each made by a seed.

`random_twins(seed)` draws a chain of layers from an image to logits, as one description for both frameworks: what a
port of a network, weights and all, must reproduce. Made of the layers of twins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.zoo.twins import CLASSES, Description, Twins, twins

SIZE = (12, 8)
ACTIVATIONS = (
    "relu", "relu6", "gelu", "gelu tanh", "silu", "mish", "softplus", "softsign", "elu", "tanh", "hard swish",
    "hard sigmoid", "sigmoid", "leaky",
)  # fmt: skip

Pick = Callable[[Sequence[Any]], Any]
Block = Callable[[Any, str, Any, Pick], Any]


def random_twins(seed: int) -> Twins:
    """The networks of a seed."""
    return twins(_description(seed), seed, SIZE)


def _description(seed: int) -> Description:
    def describe(f: Any, x: Any) -> Any:
        rng = np.random.default_rng(seed)

        def pick(options: Sequence[Any]) -> Any:
            return options[int(rng.integers(len(options)))]

        x = _halved(f, "stem", x, pick)
        for index in range(pick([1, 2, 3])):
            x = pick(BLOCKS)(f, f"first.{index}", x, pick)
        x = _halved(f, "down", x, pick)
        for index in range(pick([0, 1])):
            x = pick(BLOCKS)(f, f"second.{index}", x, pick)
        return f.dense("logits", pick(HEADS)(f, "head", x, pick), CLASSES)

    return describe


def _activated(f: Any, name: str, x: Any, pick: Pick) -> Any:
    """x, or x normalized, through an activation."""
    norm = pick(["batch_norm", "batch_norm", "layer_norm", ""])
    return f.activation(pick(ACTIVATIONS), getattr(f, norm)(f"{name}.n", x) if norm else x)


def _halved(f: Any, name: str, x: Any, pick: Pick) -> Any:
    """Half the size: a strided convolution, or a pool."""
    if pick([True, False]):
        return _activated(f, name, f.conv(f"{name}.c", x, pick([6, 8]), 3, stride=2, pad=1), pick)
    pool = pick([f.max_pool, f.mean_pool])
    return pool(_activated(f, name, f.conv(f"{name}.c", x, pick([6, 8]), 3, pad=1), pick))


def _convolved(f: Any, name: str, x: Any, pick: Pick) -> Any:
    size = pick([1, 3])
    return _activated(f, name, f.conv(f"{name}.c", x, pick([6, 8]), size, pad=size // 2), pick)


def _depthwise(f: Any, name: str, x: Any, pick: Pick) -> Any:
    width = f.channels(x)
    return _activated(f, name, f.conv(f"{name}.c", x, width, 3, pad=1, groups=width), pick)


def _residual(f: Any, name: str, x: Any, pick: Pick) -> Any:
    y = _activated(f, name, f.conv(f"{name}.a", x, 6, 1), pick)
    return x + f.conv(f"{name}.b", y, f.channels(x), 3, pad=1)


def _excited(f: Any, name: str, x: Any, pick: Pick) -> Any:
    """Squeeze and excite."""
    context = f.activation("relu", f.conv(f"{name}.squeeze", f.global_mean(x, keep=True), 4, 1))
    gate = f.conv(f"{name}.excite", context, f.channels(x), 1)
    return x * f.activation(pick(["sigmoid", "hard sigmoid"]), gate)


def _joined(f: Any, name: str, x: Any, pick: Pick) -> Any:
    y = _activated(f, name, f.conv(f"{name}.c", x, 4, 3, pad=1), pick)
    return f.conv(f"{name}.d", f.concat(x, y), pick([6, 8]), 1)


def _pooled(f: Any, name: str, x: Any, pick: Pick) -> Any:
    return _dense(f, name, f.global_mean(x), pick)


def _dense(f: Any, name: str, x: Any, pick: Pick) -> Any:
    return f.activation(pick(ACTIVATIONS), f.dense(f"{name}.d", x, pick([8, f.channels(x)])))


def _transformer(f: Any, name: str, x: Any, pick: Pick) -> Any:
    x = f.with_class_token(name, x)
    attention = pick([f.attention, f.packed_attention])
    x = x + attention(f"{name}.attention", f.layer_norm(f"{name}.n1", x), 2)
    y = f.activation(pick(["gelu", "silu"]), f.dense(f"{name}.up", f.layer_norm(f"{name}.n2", x), 12))
    return f.token(f.layer_norm(f"{name}.n3", x + f.dense(f"{name}.down", y, f.channels(x))), 0)


def _recurrent(f: Any, name: str, x: Any, pick: Pick) -> Any:
    """The last step of an LSTM or a GRU over the pixels."""
    layer = pick([f.lstm, f.lstm, f.gru])
    return _dense(f, name, f.token(layer(f"{name}.cell", f.with_class_token(name, x), 6), -1), pick)


BLOCKS: tuple[Block, ...] = (_convolved, _depthwise, _residual, _excited, _joined)
HEADS: tuple[Block, ...] = (_pooled, _transformer, _recurrent)
