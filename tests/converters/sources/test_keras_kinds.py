"""Kinds of Keras models that users have, in a user's environment: converted, and explained alike by every backend.

The truth is TensorFlow's own gradient of the original model, computed in a tf.function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.ops import gen_nn_ops

from analyzer import check, compare, differentiate, full_grad, integrated_gradients
from converters import UnsupportedModel, convert

TOKENS = np.array([[1, 2, 3, 4, 0, 0], [3, 1, 4, 1, 5, 8]], np.int32)


def _net(shape: Sequence[int | None], *stack: Any, batch: int | None = None, dtype: str = "float32") -> Any:
    """Layers one after the other, and a dense one; biases are drawn, so that they count."""
    keras.utils.set_random_seed(0)
    inputs = hidden = keras.Input(shape, batch_size=batch, dtype=dtype)
    for layer in stack:
        hidden = layer(hidden)
    net = keras.Model(inputs, layers.Dense(3)(hidden))
    rng = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(rng.normal(0, 0.4, weight.shape))
    return net


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _truth(net: Any, x: np.ndarray, target: int = 1) -> np.ndarray:
    """The gradient at the input; in a tf.function, TensorFlow leaves out the gradients that nobody asks for."""

    @tf.function
    def gradient(given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            explained = tf.reduce_sum(net(given, training=False)[:, target])
        return tape.gradient(explained, given)

    return np.asarray(gradient(tf.constant(x)))


def _relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def _assert_right(net: Any, x: np.ndarray, tolerance: float = 1e-5) -> None:
    """Gradients on three backends against the original's; then all that a check compares."""
    # First, as a stateful layer moves its state when it is run.
    model = convert(net)
    truth = _truth(net, x)
    for backend in ("onnxruntime", "tensorflow", "source"):
        (found,) = differentiate(model, backend).gradients(x, 1).gradients.values()
        assert _relative(found, truth) <= tolerance, backend
    check(model, x, 1, steps=2).raise_for_disagreement()
    assert full_grad(model, x, 1).completeness.error.max() <= 1e-4


def _separable() -> Any:
    """A small network of separable convolutions and shortcuts on grayscale images, of the mini-Xception kind."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64, 64, 1))
    hidden = layers.ReLU()(layers.Conv2D(8, 3)(inputs))
    for channels in (16, 24):
        short = layers.Conv2D(channels, 1, strides=2, padding="same", use_bias=False)(hidden)
        hidden = layers.SeparableConv2D(channels, 3, padding="same", activation="relu")(hidden)
        hidden = layers.MaxPooling2D(3, 2, padding="same")(hidden)
        hidden = layers.BatchNormalization()(layers.Add()([hidden, short]))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(7, 3, padding="same")(hidden)))


def test_separable_convolutions_on_grayscale_images() -> None:
    """TensorFlow's kernel for the gradient of their weights is able to end the process."""
    _assert_right(_separable(), _x(1, 64, 64, 1))


def test_the_tensorflow_backend_asks_for_no_gradient_of_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("the gradient of a weight")

    stack = [
        layers.Conv2D(4, 3, groups=2),
        layers.SeparableConv2D(4, 3),
        layers.Conv2D(4, 3, dilation_rate=2),
    ]
    stack += [layers.Conv2DTranspose(4, 2, strides=2), layers.Reshape((8, 8, 2, 2)), layers.Conv3D(2, 2)]
    net = _net((12, 12, 2), *stack, layers.GlobalAveragePooling3D())
    model, x = convert(net), _x(2, 12, 12, 2)
    truth = _truth(net, x)
    kernels = [name for name in dir(gen_nn_ops) if "conv" in name and "backprop_filter" in name]
    assert len(kernels) >= 3
    for name in kernels:
        monkeypatch.setattr(gen_nn_ops, name, refuse)
    (found,) = differentiate(model, "tensorflow").gradients(x, 1).gradients.values()
    assert _relative(found, truth) <= 1e-5
    with pytest.raises(AssertionError, match="the gradient of a weight"), tf.GradientTape() as tape:
        # The same kernels serve a tape on the original.
        given = tf.constant(x)
        tape.watch(given)
        tape.gradient(net(given), given)


@pytest.mark.parametrize("activation", ["silu", "mish"])
def test_the_source_runs_activations_that_tensorflow_fuses(activation: str) -> None:
    net = _net((6, 6, 2), layers.Conv2D(4, 3, activation=activation), layers.GlobalAveragePooling2D())
    _assert_right(net, _x(2, 6, 6, 2))


RECURRENT: dict[str, Callable[[], Any]] = {
    "LSTM with dropout": lambda: layers.LSTM(4, dropout=0.2),
    "GRU with both": lambda: layers.GRU(4, dropout=0.2, recurrent_dropout=0.1),
    "SimpleRNN with recurrent dropout": lambda: layers.SimpleRNN(4, recurrent_dropout=0.1),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_with_dropout(name: str) -> None:
    _assert_right(_net((2, 3), RECURRENT[name]()), _x(2, 2, 3))


def test_a_stateful_layer_is_converted_with_its_state_which_stays() -> None:
    net = _net((4, 3), layers.LSTM(4, stateful=True), batch=2)
    net(_x(2, 4, 3) + 1)
    before = [variable.numpy() for variable in net.variables]
    assert np.abs(before[-1]).max() > 0
    with pytest.warns(UserWarning, match="the state of this moment"):
        model = convert(net)
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, net.variables, strict=True))
    x = _x(2, 4, 3)
    found = differentiate(model).gradients(x, 1).gradients[model.proto.graph.input[0].name]
    assert _relative(found, _truth(net, x)) <= 1e-5


FREE: dict[str, Callable[[], list[Any]]] = {
    "GRU": lambda: [layers.GRU(4)],
    "SimpleRNN backwards": lambda: [layers.SimpleRNN(4, go_backwards=True)],
    "masked LSTM": lambda: [layers.Masking(), layers.LSTM(4)],
}


@pytest.mark.parametrize("name", FREE)
def test_sequences_of_free_length_are_explained_at_the_length_at_hand(name: str) -> None:
    net = _net((None, 3), *FREE[name]())
    model = convert(net)
    fn = differentiate(model)
    for length in (4, 2):
        x = _x(2, length, 3)
        with pytest.warns(UserWarning, match=rf"written out for the inputs at hand: .*\(N, {length}, 3\)"):
            (found,) = fn.gradients(x, 1).gradients.values()
        assert _relative(found, _truth(net, x)) <= 1e-5
    x = _x(2, 2, 3)
    # A masked layer steps at a baseline of zeros.
    ig = integrated_gradients(differentiate(model, "tensorflow"), x, 1, baseline=0.1)
    assert np.abs(ig.delta).max() <= 1e-5
    check(model, x, 1, steps=2).raise_for_disagreement()


def test_two_models_of_free_length_are_compared() -> None:
    model, x = convert(_net((None, 3), layers.GRU(4))), _x(2, 3, 3)
    compare(model, model, x, 1, steps=2).raise_for_disagreement()


def test_a_layer_that_tf2onnx_converts_at_fixed_sizes_alone_is_converted_at_those_of_the_example() -> None:
    stack = [layers.TimeDistributed(layers.Dense(4, activation="tanh")), layers.GlobalAveragePooling1D()]
    net, x = _net((None, 3), *stack), _x(2, 4, 3)
    with pytest.warns(UserWarning, match="at the sizes of the `example`"):
        model = convert(net, x)
    for backend in ("onnxruntime", "source"):
        (found,) = differentiate(model, backend).gradients(x, 1).gradients.values()
        assert _relative(found, _truth(net, x)) <= 1e-5


def test_full_grad_of_the_source_in_a_masked_layer() -> None:
    """Keras computes the first step of the layer twice; the copy has the values and no gradient."""
    stack = [layers.Embedding(9, 4, mask_zero=True), layers.Bidirectional(layers.LSTM(4, dropout=0.1))]
    model = convert(_net((None,), *stack, dtype="int32"))
    check(model, TOKENS[:, :3], 1, wrt=["embedding"]).raise_for_disagreement()


def _two_inputs() -> Any:
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b", dtype="int32")
    parts = [layers.Flatten()(layers.Embedding(9, size)(given)) for given, size in ((a, 4), (b, 3))]
    return keras.Model([a, b], layers.Dense(3)(layers.Concatenate()(parts)))


class _TokensAndPositions(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = layers.Embedding(9, 4), layers.Embedding(6, 4)

    def call(self, x: Any) -> Any:
        return self.tokens(x) + self.positions(keras.ops.arange(6))


EMBEDDED: dict[str, tuple[Callable[[], Any], int]] = {
    "whole numbers": (lambda: _net((6,), layers.Embedding(9, 4), layers.Flatten(), dtype="int32"), 1),
    "float tokens": (lambda: _net((6,), layers.Embedding(9, 4), layers.Flatten()), 1),
    "two inputs": (_two_inputs, 2),
    "with positions": (lambda: _net((6,), _TokensAndPositions(), layers.Flatten(), dtype="int32"), 1),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedding_of_the_inputs_is_found(name: str) -> None:
    build, count = EMBEDDED[name]
    net = build()
    x = {given.name: TOKENS.astype(given.dtype) for given in net.inputs}
    fn = differentiate(convert(net))
    points = fn.roots(["embedding"])
    assert len(points) == count
    found = integrated_gradients(fn, x, 1, wrt="embedding")
    # From zero vectors on, what is explained is the output less that of zero vectors.
    assert np.abs(found.delta).max() <= 1e-5
    gradients = fn.gradients(x, 1, wrt=points).gradients
    for tokens, embedding in zip(
        net.inputs, [one for one in net.layers if "embedding" in one.name], strict=False
    ):
        (table,) = embedding.weights
        rows = table.numpy()[x[tokens.name].astype(int)]
        assert any(np.array_equal(fn.forward(x, [point])[point], rows) for point in points)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_explained_in_float32(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        stack = [layers.SeparableConv2D(6, 3, activation="silu"), layers.BatchNormalization()]
        half = _net((8, 8, 2), *stack, layers.LayerNormalization(), layers.GlobalAveragePooling2D())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    stack = [layers.SeparableConv2D(6, 3, activation="silu"), layers.BatchNormalization()]
    full = _net((8, 8, 2), *stack, layers.LayerNormalization(), layers.GlobalAveragePooling2D())
    full.set_weights(half.get_weights())
    with pytest.warns(UserWarning, match="converted in float32"):
        model = convert(half)
    # The original rounds at every step; the same network in float32 is what is explained.
    x = _x(2, 8, 8, 2)
    for backend in ("onnxruntime", "torch", "tensorflow", "source"):
        (found,) = differentiate(model, backend).gradients(x, 1).gradients.values()
        assert _relative(found, _truth(full, x)) <= 1e-5, backend
    check(model, x, 1, steps=2).raise_for_disagreement()


def test_a_table_of_integers_is_refused_and_the_fix_works() -> None:
    keys = keras.Input((2,), dtype="int64")
    lookup = layers.IntegerLookup(vocabulary=[3, 5, 7], name="lookup")
    model = keras.Model(keys, layers.Dense(2)(layers.Flatten()(layers.Embedding(5, 3)(lookup(keys)))))
    with pytest.raises(UnsupportedModel, match=r"looks keys up in a table, .* Fix: convert the model"):
        convert(model)
    rest = convert(keras.Model(model.get_layer("lookup").output, model.outputs))
    ids = lookup(np.array([[3, 5], [7, 9]])).numpy()
    found = full_grad(rest, ids, 1, wrt="embedding").completeness
    np.testing.assert_allclose(found.output, model(np.array([[3, 5], [7, 9]]))[:, 1], rtol=1e-5, atol=1e-7)


def test_a_batch_norm_after_a_dense_layer_agrees_with_the_source() -> None:
    # A new BatchNorm multiplies by 1 / sqrt(1.001): small enough to take a folded tensor for that of TensorFlow.
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dense(5)(inputs))
    report = check(convert(keras.Model(inputs, layers.Dense(3)(hidden))), _x(2, 4), 1)
    assert report.passed, report.to_text()
