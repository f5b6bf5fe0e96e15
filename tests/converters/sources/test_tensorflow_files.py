"""Frozen graphs, pruned functions, older files and text inputs: converted, or refused with a fix that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from analyzer import differentiate
from converters import ConversionError, convert
from converters.errors import InvalidModel, UnsupportedModel

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
X = np.array([[0.5, -1.0, 0.25, 1.0]], np.float32)


def _graph_def() -> Any:
    """y = softmax(x·w), as TensorFlow 1 writes it."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")
        tf.nn.softmax(x @ tf.constant(WEIGHT), name="y")
    return graph.as_graph_def()


def _assert_softmax(model: Any) -> None:
    """The gradient of a softmax by hand: w·(y₁(e₁ − y))."""
    logits = np.exp(X @ WEIGHT)
    y = (logits / logits.sum())[0]
    expected = WEIGHT @ (y[1] * (np.eye(3)[1] - y))
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend).gradients(X, 1)
        np.testing.assert_allclose(found.output, [y[1]], rtol=1e-5)
        np.testing.assert_allclose(found.gradients["x"][0], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("outputs", ["y:0", ["y:0"]], ids=["one", "list"])
def test_a_pruned_function_of_a_frozen_graph(outputs: Any) -> None:
    definition = _graph_def()
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
    _assert_softmax(convert(wrapped.prune("x:0", outputs)))


@pytest.mark.parametrize("name", ["frozen.pb", "frozen.pbtxt"])
def test_a_frozen_graph_file(tmp_path: Path, name: str) -> None:
    tf.io.write_graph(_graph_def(), str(tmp_path), name, as_text=name.endswith("txt"))
    _assert_softmax(convert(tmp_path / name))


def test_a_graph_that_was_not_frozen_is_refused(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")
        _ = x @ tf.compat.v1.get_variable("w", (4, 3))
    tf.io.write_graph(graph, str(tmp_path), "open.pb", as_text=False)
    with pytest.raises(UnsupportedModel, match="Fix: freeze the graph"):
        convert(tmp_path / "open.pb")
    (tmp_path / "open.pb").write_bytes(b"damaged")
    with pytest.raises(InvalidModel, match="not a TensorFlow graph"):
        convert(tmp_path / "open.pb")


def test_an_h5_file_and_the_file_of_a_saved_model(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    net = keras.Model(inputs, layers.Dense(3, activation="tanh")(inputs))
    expected = np.asarray(net(X))
    net.save(tmp_path / "net.h5")
    net.export(tmp_path / "folder", verbose=False)
    for path in (tmp_path / "net.h5", tmp_path / "folder" / "saved_model.pb"):
        (found,) = differentiate(convert(path)).forward(X).values()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    net.save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(InvalidModel, match=r"Fix: .*load_weights"):
        convert(tmp_path / "net.weights.h5")


def test_text_is_refused_with_the_part_of_the_model_that_can_be_converted() -> None:
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    words.adapt(["the cat sat", "a dog ran home"])
    inputs, numbers = keras.Input((1,), dtype="string"), keras.Input((2,))
    vectors = layers.Flatten()(layers.Embedding(20, 3)(words(inputs)))
    model = keras.Model([inputs, numbers], layers.Dense(2)(layers.Concatenate()([vectors, numbers])))
    with pytest.raises(UnsupportedModel, match="takes text") as refused:
        convert(model)
    # The code that the message names, word by word.
    code = (
        str(refused.value)
        .partition("Fix: convert the model that follows, ")[2]
        .partition(", and give it ")[0]
    )
    rest = eval(code, {"keras": keras, "model": model})
    texts, two = tf.constant([["the dog sat"]]), np.ones((1, 2), np.float32)
    ids = np.asarray(model.get_layer(words.name)(texts))
    fn = differentiate(convert(rest))
    (found,) = fn.forward(dict(zip(fn.graph.inputs, (ids, two), strict=True))).values()
    np.testing.assert_allclose(found, np.asarray(model([texts, tf.constant(two)])), rtol=1e-5)


def test_text_inside_a_function_is_refused_in_one_line() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def lengths(text: Any) -> Any:
        return tf.cast(tf.strings.length(text), tf.float32)

    with pytest.raises(ConversionError, match="Fix: convert the part of the model that reads token ids"):
        convert(lengths)


@tf.function
def _dense(x: tf.Tensor) -> tf.Tensor:
    return x @ WEIGHT


@pytest.mark.parametrize(
    ("source", "example", "fix"),
    [
        (tf.function(lambda x: None), X, "return the tensor to explain"),
        (_dense, tf.sparse.from_dense(X), r"tf.sparse.to_dense\(x\) in place of x"),
        (tf.constant(X), X, "a Keras model or a tf.function"),
        (lambda x: x, X, r"wrap it as tf.function\(function\)"),
        (layers.Dense, X, r"an object of it, as in Dense\(…\)"),
        (_dense, np.array(["a"]), "an example on which it runs"),
    ],
    ids=["no output", "sparse", "a tensor", "a function", "a class", "text"],
)
def test_functions_are_refused_with_a_fix(source: Any, example: Any, fix: str) -> None:
    with pytest.raises(ConversionError, match=f"Fix: .*{fix}") as refused:
        convert(source, example)
    assert "\n" not in str(refused.value)


def test_a_sparse_example_that_is_made_dense_is_explained() -> None:
    model = convert(_dense, tf.sparse.to_dense(tf.sparse.from_dense(X)))
    (found,) = differentiate(model).gradients(X, 1).gradients.values()
    np.testing.assert_allclose(found, WEIGHT[None, :, 1], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_half_a_keras_file_is_refused_with_a_fix_that_works(tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InvalidModel, match=r"damaged: .* Fix: write it again with model.save\(path\)"):
        convert(path)
    model.save(path)
    assert convert(path).verification is not None
