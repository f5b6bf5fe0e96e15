"""The Keras networks that the tests convert and attribute: keras.applications, and small ones that are quick.

`NETWORKS[name]()` gives an initialised network and the shape of one input sample, (height, width, 3); the
output is (N, 10), logits of order one ("sequential" ends in a softmax). `HEAVY` names those that take
seconds to build and convert. `example_input` gives a batch in the range that a network expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

Shape = tuple[int, int, int]
Network = Callable[[], tuple[keras.Model, Shape]]

CLASSES = 10

# EfficientNet rescales and normalises inside the network: it expects pixels.
_PIXELS = frozenset({"efficientnet_b0"})


def example_input(name: str, shape: Shape, batch: int = 2, seed: int = 1) -> np.ndarray:
    """A seeded float32 batch for the network `name`: standard normal, or pixels from 0 to 255."""
    rng = np.random.default_rng(seed)
    size = (batch, *shape)
    return (rng.uniform(0, 255, size) if name in _PIXELS else rng.standard_normal(size)).astype(np.float32)


def initialize(net: keras.Model, inputs: np.ndarray, seed: int = 0) -> keras.Model:
    """Draw all parameters and BatchNorm statistics so that every layer's output is O(1); returns `net`.

    Weights are drawn first; one eager pass then sets scales and statistics, each layer from its own input.
    """
    rng = np.random.default_rng(seed)
    calibrated: list[layers.Layer] = []
    for layer in net._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            # Centred on zero, a hundred layers of BatchNorm and ReLU make gradients explode.
            layer.beta.assign(rng.normal(0.6, 0.3, layer.beta.shape))
            layer.call = _with_own_statistics(layer, rng)
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            _draw_weights(layer, rng)
            layer.call = _with_unit_output(layer)
        else:
            continue
        calibrated.append(layer)
    net(inputs, training=False)
    for layer in calibrated:
        del layer.call
    return net


def _draw_weights(layer: Any, rng: np.random.Generator) -> None:
    kernel = layer.kernel
    # A depthwise kernel is (height, width, channels, multiplier): the channels are no fan-in.
    fan_in = np.prod(kernel.shape[: 2 if isinstance(layer, layers.DepthwiseConv2D) else -1])
    kernel.assign(rng.normal(0, np.sqrt(2 / fan_in), kernel.shape))
    if layer.use_bias:
        layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))


def _with_own_statistics(norm: Any, rng: np.random.Generator) -> Callable[..., Any]:
    """The layer's call, which first takes its statistics from its input, a little off, as training does."""
    original = norm.call

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        values = np.asarray(x)
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        # A channel that hardly varies in a few samples would be blown up without a floor.
        variance = np.maximum(variance, 0.1 * np.maximum(variance.mean(), mean**2))
        norm.moving_mean.assign(mean + 0.2 * np.sqrt(variance) * rng.normal(size=mean.shape))
        norm.moving_variance.assign(variance * rng.uniform(0.5, 1.5, mean.shape))
        return original(x, *arguments, **options)

    return call


def _with_unit_output(layer: Any) -> Callable[..., Any]:
    """The layer's call, which first scales kernel and bias so that what they compute has unit deviation."""
    original = layer.call

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        activation, layer.activation = layer.activation, None
        scale = 1 / np.asarray(original(x, *arguments, **options)).std()
        layer.activation = activation
        layer.kernel.assign(layer.kernel * scale)
        if layer.use_bias:
            layer.bias.assign(layer.bias * scale)
        return original(x, *arguments, **options)

    return call


def _norm_relu(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))


def _sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def _squeezenet() -> keras.Model:
    def fire(x: Any, squeeze: int, expand: int) -> Any:
        x = layers.Conv2D(squeeze, 1, activation="relu")(x)
        left = layers.Conv2D(expand, 1, activation="relu")(x)
        right = layers.Conv2D(expand, 3, padding="same", activation="relu")(x)
        return layers.Concatenate()([left, right])

    inputs = keras.Input((40, 40, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(inputs)
    x = layers.MaxPooling2D(3, 2)(x)
    x = fire(fire(x, 4, 12), 4, 12)
    x = layers.MaxPooling2D(3, 2)(x)
    x = fire(fire(x, 8, 16), 8, 16)
    x = layers.Dropout(0.5)(x)
    x = layers.Conv2D(CLASSES, 1)(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def _resnet18() -> keras.Model:
    def block(x: Any, width: int, stride: int) -> Any:
        shortcut = x
        if stride > 1 or x.shape[-1] != width:
            shortcut = layers.Conv2D(width, 1, strides=stride, use_bias=False)(x)
            shortcut = layers.BatchNormalization()(shortcut)
        # TensorFlow's SAME would pad a strided convolution on one side only.
        x = layers.ZeroPadding2D(1)(x)
        x = _norm_relu(layers.Conv2D(width, 3, strides=stride, use_bias=False)(x))
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(layers.Add()([x, shortcut]))

    inputs = keras.Input((32, 32, 3))
    x = _norm_relu(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs))
    for width, stride in ((8, 1), (8, 1), (16, 2), (16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        x = block(x, width, stride)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _resnet50() -> keras.Model:
    """Bottlenecks with biases, as keras.applications has them, one of each kind."""

    def bottleneck(x: Any, width: int, stride: int) -> Any:
        shortcut = x
        if stride > 1 or x.shape[-1] != 4 * width:
            shortcut = layers.BatchNormalization()(layers.Conv2D(4 * width, 1, strides=stride)(x))
        x = _norm_relu(layers.Conv2D(width, 1, strides=stride)(x))
        x = _norm_relu(layers.Conv2D(width, 3, padding="same")(x))
        x = layers.BatchNormalization()(layers.Conv2D(4 * width, 1)(x))
        return layers.ReLU()(layers.Add()([shortcut, x]))

    inputs = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = _norm_relu(layers.Conv2D(16, 7, strides=2)(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for width, stride in ((8, 1), (8, 1), (16, 2), (16, 1)):
        x = bottleneck(x, width, stride)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _densenet() -> keras.Model:
    """Dense blocks, with the transitions of keras.applications between them."""

    def dense(x: Any, growth: int) -> Any:
        y = layers.Conv2D(4 * growth, 1, use_bias=False)(_norm_relu(x))
        y = layers.Conv2D(growth, 3, padding="same", use_bias=False)(_norm_relu(y))
        return layers.Concatenate()([x, y])

    inputs = keras.Input((32, 32, 3))
    x = _norm_relu(layers.Conv2D(16, 7, strides=2, use_bias=False)(layers.ZeroPadding2D(3)(inputs)))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for count in (3, 4):
        for _ in range(count):
            x = dense(x, 8)
        x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False)(_norm_relu(x))
        x = layers.AveragePooling2D(2, strides=2)(x)
    x = dense(dense(x, 8), 8)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(_norm_relu(x))))


def _vgg() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = inputs
    for width, count in ((8, 2), (16, 2), (24, 3), (32, 3)):
        for _ in range(count):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2, strides=2)(x)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    x = layers.Dense(64, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def _shuffle(x: Any, groups: int) -> Any:
    """Interleave the channels of the groups, which stand last."""
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, groups, channels // groups))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    return layers.Reshape((height, width, channels))(x)


def _shufflenet_v1() -> keras.Model:
    """Grouped 1×1 convolutions."""

    def unit(x: Any, out: int, stride: int, groups: int = 2) -> Any:
        added = out - x.shape[-1] if stride == 2 else out
        y = _norm_relu(layers.Conv2D(out // 4, 1, groups=groups, use_bias=False)(x))
        y = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(_shuffle(y, groups))
        y = layers.Conv2D(added, 1, groups=groups, use_bias=False)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(y)
        if stride == 1:
            return layers.ReLU()(layers.Add()([x, y]))
        # SAME in an average pool does not count the padding.
        return layers.ReLU()(layers.Concatenate()([layers.AveragePooling2D(3, 2, "same")(x), y]))

    inputs = keras.Input((32, 32, 3))
    x = _norm_relu(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs))
    x = unit(unit(unit(x, 32, 2), 32, 1), 64, 2)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _shufflenet_v2() -> keras.Model:
    """Channel splits by slicing, depthwise convolutions."""

    def branch(x: Any, out: int, stride: int) -> Any:
        x = _norm_relu(layers.Conv2D(out, 1, use_bias=False)(x))
        x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        return _norm_relu(layers.Conv2D(out, 1, use_bias=False)(layers.BatchNormalization()(x)))

    def unit(x: Any, out: int, stride: int) -> Any:
        half = out // 2
        if stride == 1:
            left, right = x[..., :half], branch(x[..., half:], half, 1)
        else:
            left = layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)(x)
            left = _norm_relu(layers.Conv2D(half, 1, use_bias=False)(layers.BatchNormalization()(left)))
            right = branch(x, half, 2)
        return _shuffle(layers.Concatenate()([left, right]), 2)

    inputs = keras.Input((32, 32, 3))
    x = _norm_relu(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs))
    x = unit(unit(unit(x, 16, 2), 16, 1), 32, 2)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _small(name: str, build: Callable[[], keras.Model]) -> Network:
    def network() -> tuple[keras.Model, Shape]:
        keras.utils.clear_session(free_memory=False)
        net = build()
        shape = tuple(net.input_shape[1:])
        return initialize(net, example_input(name, shape, batch=16)), shape

    return network


def _application(name: str, build: Callable[..., keras.Model], size: int, **options: Any) -> Network:
    def network() -> keras.Model:
        options.setdefault("classifier_activation", None)
        return build(weights=None, classes=CLASSES, input_shape=(size, size, 3), **options)

    return _small(name, network)


_APPLICATIONS: dict[str, Network] = {
    "mobilenet_v2": _application("mobilenet_v2", keras.applications.MobileNetV2, 64, alpha=0.35),
    "efficientnet_b0": _application("efficientnet_b0", keras.applications.EfficientNetB0, 64),
    "inception_v3": _application("inception_v3", keras.applications.InceptionV3, 75),
}

NETWORKS: dict[str, Network] = {
    "sequential": _small("sequential", _sequential),
    "squeezenet": _small("squeezenet", _squeezenet),
    "resnet18": _small("resnet18", _resnet18),
    "shufflenet_v1": _small("shufflenet_v1", _shufflenet_v1),
    "shufflenet_v2": _small("shufflenet_v2", _shufflenet_v2),
    "resnet50": _small("resnet50", _resnet50),
    "densenet": _small("densenet", _densenet),
    "vgg": _small("vgg", _vgg),
    **_APPLICATIONS,
}

HEAVY: frozenset[str] = frozenset(_APPLICATIONS)
