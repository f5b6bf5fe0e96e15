"""Keras networks of every family beyond keras.applications, a few units wide.

`NETWORKS[name]()` gives a network with drawn weights and a batch of 2 for each of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Network = Callable[[], tuple[keras.Model, tuple[np.ndarray, ...]]]

CLASSES, WORDS = 10, 20


def draw(net: keras.Model, seed: int = 0) -> keras.Model:
    """Draw all weights at the scale of their fan-in, gains and variances around 1, everything else around 0."""
    rng = np.random.default_rng(seed)
    for variable in net.weights:
        if not variable.dtype.startswith("float"):
            continue
        if variable.name in ("gamma", "moving_variance", "variance", "alpha"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) > 1:
            variable.assign(rng.normal(0, 1 / np.sqrt(np.prod(variable.shape[:-1])), variable.shape))
        else:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return net


def _head(x: Any) -> Any:
    return layers.Dense(CLASSES)(layers.Flatten()(x))


def chain(shape: tuple[int | None, ...], *stack: layers.Layer) -> keras.Model:
    """The layers in a row, and a linear classifier."""
    inputs = keras.Input(shape)
    x = inputs
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, _head(x))


def _convnext() -> keras.Model:
    def block(x: Any, width: int) -> Any:
        y = layers.DepthwiseConv2D(5, padding="same")(x)
        y = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(y))
        y = layers.Dense(width)(y)
        y = layers.EinsumDense("nhwc,c->nhwc", (None, None, width))(y)
        return layers.Add()([x, y])

    inputs = keras.Input((16, 16, 3))
    x = layers.LayerNormalization()(layers.Conv2D(8, 4, 4)(inputs))
    x = layers.Conv2D(12, 2, 2)(layers.LayerNormalization()(block(x, 8)))
    return keras.Model(inputs, _head(layers.GlobalAveragePooling2D()(block(x, 12))))


def _encoder() -> keras.Model:
    inputs = keras.Input((6, 12))
    y = layers.LayerNormalization()(inputs)
    x = layers.Add()([inputs, layers.MultiHeadAttention(3, 4)(y, y)])
    y = layers.Dense(24, activation=lambda t: keras.activations.gelu(t, approximate=False))(
        layers.LayerNormalization()(x)
    )
    x = layers.Add()([x, layers.Dropout(0.1)(layers.Dense(12)(y))])
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


def _cross_attention() -> keras.Model:
    """A causal self-attention and a cross-attention with grouped heads: two inputs."""
    query, memory = keras.Input((5, 8), name="query"), keras.Input((7, 8), name="memory")
    x = layers.Add()([query, layers.MultiHeadAttention(2, 4)(query, query, use_causal_mask=True)])
    x = layers.Add()([x, layers.GroupQueryAttention(4, 4, 2)(x, memory)])
    return keras.Model([query, memory], _head(layers.RMSNormalization()(x)))


def _gated() -> keras.Model:
    inputs = keras.Input((16, 4))
    x = inputs
    for rate in (1, 2, 4):
        filtered = layers.Conv1D(8, 2, padding="causal", dilation_rate=rate, activation="tanh")(x)
        gate = layers.Conv1D(8, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        x = layers.Conv1D(8, 1)(layers.Multiply()([filtered, gate]))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalMaxPooling1D()(x)))


def _unet() -> keras.Model:
    inputs = keras.Input((12, 12, 3))
    first = layers.Conv2D(6, 3, padding="same", activation="leaky_relu")(inputs)
    second = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
    x = layers.SeparableConv2D(8, 3, padding="same", activation="swish")(layers.AveragePooling2D(2)(second))
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 3, 2, padding="same")(x), second])
    x = layers.Conv2D(6, 1)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.Add()([x, first, layers.Cropping2D(1)(layers.ZeroPadding2D(1)(x))])
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def _functions() -> keras.Model:
    """keras.ops in the functional style."""
    inputs = keras.Input((6, 4))
    scaled = ops.sigmoid(inputs) * ops.log1p(ops.abs(inputs))
    norm = inputs / ops.sqrt(ops.sum(ops.square(inputs), axis=-1, keepdims=True) + 1e-3)
    mixed = ops.einsum("nia,nja->nij", scaled, norm)
    peaks = ops.max(ops.cumsum(mixed, axis=1), axis=2)
    taken = ops.take(inputs, [2, 0, 2], axis=1)[:, :, ::-1]
    chosen = ops.where(inputs > 0.2, ops.erf(inputs), ops.clip(inputs, -1.0, 0.1))
    joined = [ops.reshape(t, (-1, size)) for t, size in ((peaks, 6), (taken, 12), (chosen, 24))]
    return keras.Model(inputs, layers.Dense(CLASSES)(ops.concatenate(joined, axis=1)))


def _several() -> keras.Model:
    """An image, a row of numbers and a category in; classes and a box out."""
    image, row = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="row")
    category = keras.Input((1,), dtype="int32", name="category")
    shared = layers.Dense(6, activation="elu")
    a = shared(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image)))
    x = layers.Concatenate()([a, shared(row), layers.Flatten()(layers.Embedding(5, 3)(category))])
    outputs = [layers.Dense(CLASSES, name="classes")(x), layers.Dense(4, activation="sigmoid", name="box")(x)]
    return keras.Model([image, row, category], outputs)


def _normalised() -> keras.Model:
    """Pixels are rescaled and standardised inside, then normalised by groups and to unit length."""
    standard = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.06, 0.07])
    return chain(
        (8, 8, 3), layers.Rescaling(1 / 255, offset=-0.1), standard, layers.Conv2D(8, 3),
        layers.GroupNormalization(4), layers.ReLU(6.0, negative_slope=0.1),
        layers.SpatialDropout2D(0.2), layers.UnitNormalization(),
    )  # fmt: skip


class Subclassed(keras.Model):
    """A model by its own call, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(4, 3, padding="same")
        self.norm, self.head = layers.BatchNormalization(), layers.Dense(CLASSES)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.norm(self.stem(x), training=training)
        for _ in range(2):
            x = x + keras.activations.softplus(self.again(x))
        return self.head(ops.mean(x, axis=(1, 2)))


def _subclassed() -> keras.Model:
    net = Subclassed()
    net(np.zeros((1, 8, 8, 3), np.float32))
    return net


def _text() -> keras.Model:
    words = keras.Input((7,), dtype="int32")
    x = layers.Embedding(WORDS, 8, name="embedding")(words)
    x = layers.Conv1D(6, 3, activation="relu")(layers.SpatialDropout1D(0.1)(x))
    return keras.Model(words, layers.Dense(CLASSES)(layers.GlobalMaxPooling1D()(x)))


def _entry(build: Callable[[], keras.Model], *shapes: tuple[int, ...], scale: float = 1.0) -> Network:
    def network() -> tuple[keras.Model, tuple[np.ndarray, ...]]:
        keras.utils.clear_session(free_memory=False)
        rng = np.random.default_rng(1)
        return draw(build()), tuple(scale * rng.normal(size=(2, *s)).astype(np.float32) for s in shapes)

    return network


def _with_category(build: Callable[[], keras.Model], *shapes: tuple[int, ...]) -> Network:
    def network() -> tuple[keras.Model, tuple[np.ndarray, ...]]:
        net, floats = _entry(build, *shapes)()
        return net, (*floats, np.array([[3], [1]], np.int32))

    return network


def _texts() -> tuple[keras.Model, tuple[np.ndarray, ...]]:
    net, _ = _entry(_text)()
    return net, (np.random.default_rng(1).integers(0, WORDS, (2, 7)).astype(np.int32),)


NETWORKS: dict[str, Network] = {
    "convnext": _entry(_convnext, (16, 16, 3)),
    "encoder": _entry(_encoder, (6, 12)),
    "cross_attention": _entry(_cross_attention, (5, 8), (7, 8)),
    "gated": _entry(_gated, (16, 4)),
    "unet": _entry(_unet, (12, 12, 3)),
    "functions": _entry(_functions, (6, 4)),
    "several": _with_category(_several, (8, 8, 3), (4,)),
    "normalised": _entry(_normalised, (8, 8, 3), scale=100),
    "subclassed": _entry(_subclassed, (8, 8, 3)),
    "grouped": _entry(
        lambda: chain(
            (9, 9, 4), layers.Conv2D(8, 3, groups=2), layers.PReLU(shared_axes=[1, 2]),
            layers.Conv2D(8, 3, dilation_rate=2, groups=4), layers.PReLU(),
        ),
        (9, 9, 4),
    ),
    "volume": _entry(
        lambda: chain(
            (6, 6, 6, 2), layers.Conv3D(4, 3, padding="same", activation="relu"), layers.MaxPooling3D(),
            layers.BatchNormalization(), layers.Conv3DTranspose(3, 2, 2), layers.AveragePooling3D(2),
            layers.UpSampling3D(2), layers.GlobalAveragePooling3D(),
        ),
        (6, 6, 6, 2),
    ),
    "signal": _entry(
        lambda: chain(
            (20, 3), layers.SeparableConv1D(6, 3, activation="selu"), layers.MaxPooling1D(2, padding="same"),
            layers.Conv1DTranspose(4, 3, 2), layers.UpSampling1D(2), layers.AveragePooling1D(3),
            layers.DepthwiseConv1D(3, depth_multiplier=2), layers.Activation("mish"), layers.Permute((2, 1)),
        ),
        (20, 3),
    ),
    "lstm": _entry(lambda: chain((5, 4), layers.LSTM(6, return_sequences=True), layers.LSTM(5)), (5, 4)),
    "lstm_bidirectional": _entry(
        lambda: chain((5, 4), layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.LSTM(5)), (5, 4)
    ),
    "gru": _entry(
        lambda: chain((4, 3), layers.GRU(5, return_sequences=True), layers.GRU(4, reset_after=False)), (4, 3)
    ),
    "gru_bidirectional": _entry(lambda: chain((4, 3), layers.Bidirectional(layers.GRU(4))), (4, 3)),
    "simple_rnn": _entry(lambda: chain((4, 3), layers.SimpleRNN(5)), (4, 3)),
    "conv_lstm": _entry(lambda: chain((3, 6, 6, 2), layers.ConvLSTM2D(3, 3)), (3, 6, 6, 2)),
    "time_distributed": _entry(
        lambda: chain((3, 8, 8, 2), layers.TimeDistributed(layers.Conv2D(3, 3)), layers.ReLU()), (3, 8, 8, 2)
    ),
    "activations": _entry(
        lambda: chain(
            (8, 6), *(layers.Dense(6, activation=name) for name in
                      ("gelu", "silu", "softplus", "softsign", "elu", "selu", "hard_sigmoid", "hard_silu",
                       "relu6", "exponential", "log_softmax", "celu", "tanh_shrink", "sparse_plus",
                       "squareplus", "hard_tanh", "soft_shrink", "log_sigmoid")),
        ),
        (8, 6),
    ),
}  # fmt: skip

TEXTS: dict[str, Network] = {"text": _texts}
