"""TensorFlow and Keras models: every way to hand one over, the names that are kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from analyzer import differentiate
from converters import (
    ConversionError,
    InvalidModel,
    Model,
    TensorFlowSource,
    UnsupportedModel,
    convert,
    load,
)
from tests.converters.helpers import normal, ops, run, shape_of

IMAGES = normal(3, 8, 8, 3, seed=1)


def randomise(model: keras.Model) -> keras.Model:
    """Every weight random, so that no BatchNorm is the identity; variances stay positive."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def stack() -> list[layers.Layer]:
    return [
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3, padding="same"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(6),
        layers.BatchNormalization(),
        layers.Dense(3),
    ]


def sequential() -> keras.Model:
    keras.utils.set_random_seed(0)
    return randomise(keras.Sequential([keras.Input((8, 8, 3), name="image"), *stack()]))


class Subclassed(keras.Model):
    """Layers called by hand, one of them with a training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = stack()

    def call(self, image: Any, training: bool | None = None) -> Any:
        for part in self.parts:
            norm = isinstance(part, (layers.BatchNormalization, layers.Dropout))
            image = part(image, training=training) if norm else part(image)
        return image


def subclassed() -> keras.Model:
    model = Subclassed()
    model(IMAGES)
    return randomise(model)


def assert_same(model: Model, expected: Any, *arrays: np.ndarray) -> None:
    """The canonical graph gives the original's outputs, in order."""
    names = [info.name for info in model.proto.graph.input]
    found = run(model.proto, dict(zip(names, arrays, strict=True)))
    for value, truth in zip(found, tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(value, np.asarray(truth), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [sequential, subclassed])
@pytest.mark.parametrize("fold", [True, False])
def test_keras_models_are_converted_with_and_without_folding(make: Any, fold: bool) -> None:
    source = make()
    model = convert(source, IMAGES[:1], fold_batch_norm=fold)
    assert model.verification is not None and model.verification.reference.startswith("TensorFlow")
    assert model.proto.graph.input[0].name == "image"
    assert shape_of(model.proto.graph.input[0]) == ["batch", 8, 8, 3]
    assert_same(model, source(IMAGES, training=False), IMAGES)
    # Three BatchNorms are a Mul and an Add each where they stay; none is left where they are folded.
    assert ops(model.proto)["Mul"] == (0 if fold else 3)
    assert ops(model.proto)["Conv"] == 2


@pytest.mark.parametrize("fold", [True, False])
def test_layers_have_the_names_of_the_frozen_function(fold: bool) -> None:
    """The source finds values by name. Changes of layout may be nameless, and so are products whose value is folded."""
    model = convert(sequential(), fold_batch_norm=fold)
    assert isinstance(model.source, TensorFlowSource)
    graph = model.source.function.graph
    known = {tensor.name for operation in graph.get_operations() for tensor in operation.outputs}
    known |= model.source.outputs.keys()
    for node in model.proto.graph.node:
        name = node.output[0]
        assert name in known or node.op_type == "Transpose" or (fold and name.endswith("/MatMul.folded")), (
            node
        )
    assert model.source.inputs["image"] == graph.get_tensor_by_name(model.source.inputs["image"]).name


def test_the_source_computes_what_the_graph_computes() -> None:
    model = convert(sequential())
    assert isinstance(model.source, TensorFlowSource)
    (value,) = tf.nest.flatten(model.source.function(tf.constant(IMAGES)))
    assert_same(model, value, IMAGES)


def test_a_functional_model_keeps_the_names_of_its_inputs_and_outputs() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    one = layers.Dense(2, name="one")(left)
    source = keras.Model({"left": left, "right": right}, [one, layers.Add(name="two")([left, right])])
    model = convert(source)
    assert [info.name for info in model.proto.graph.input] == ["left", "right"]
    assert [info.name for info in model.proto.graph.output] == ["one", "two"]
    a, b = normal(2, 4), normal(2, 4, seed=1)
    assert_same(model, source({"left": a, "right": b}), a, b)


def test_a_keras_file_is_converted(tmp_path: Path) -> None:
    source = sequential()
    source.save(tmp_path / "m.keras")
    assert_same(convert(tmp_path / "m.keras"), source(IMAGES, training=False), IMAGES)


def test_free_height_and_width_stay_free() -> None:
    source = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    model = convert(source)
    for size in (8, 11):
        images = normal(2, size, size + 1, 3)
        assert_same(model, source(images), images)


def test_layers_that_the_exporter_stumbles_over() -> None:
    """Normalization, grouped convolution, exact GELU and LayerNormalization."""
    normalization = layers.Normalization()
    normalization.adapt(normal(10, 8, 8, 4))
    source = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            normalization,
            layers.Rescaling(0.5, offset=0.1),
            layers.Conv2D(8, 3, groups=2),
            layers.LayerNormalization(),
            layers.Activation(lambda x: keras.activations.gelu(x, approximate=False)),
        ]
    )
    images = normal(3, 8, 8, 4)
    assert_same(convert(source), source(images, training=False), images)


def test_a_layer_that_is_used_twice_is_folded_for_each_use_alone() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    shared = layers.Conv2D(3, 3, padding="same", use_bias=False)
    x = layers.BatchNormalization()(shared(image))
    source = randomise(keras.Model(image, layers.BatchNormalization()(shared(x))))
    images = normal(2, 6, 6, 3)
    model = convert(source)
    assert ops(model.proto)["Conv"] == 2 and "Mul" not in ops(model.proto)
    assert_same(model, source(images, training=False), images)


class Linear(tf.Module):
    """A module with a signature."""

    def __init__(self) -> None:
        self.w = tf.Variable(normal(4, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="features")])
    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(features @ self.w)


FEATURES = normal(3, 4)


def test_a_module_and_its_saved_folder_are_converted(tmp_path: Path) -> None:
    source = Linear()
    tf.saved_model.save(source, str(tmp_path / "saved"))
    for given in (source, tmp_path / "saved"):
        model = convert(given)
        assert [info.name for info in model.proto.graph.input] == ["features"]
        assert_same(model, source(FEATURES), FEATURES)


def test_an_exported_keras_model_is_converted(tmp_path: Path) -> None:
    source = sequential()
    source.export(tmp_path / "saved", verbose=False)
    assert_same(convert(tmp_path / "saved"), source(IMAGES, training=False), IMAGES)


@tf.function
def pair(x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"sum": tf.nn.relu(x) + y, "product": x * y}


def test_functions_are_converted_from_an_example_or_a_trace() -> None:
    spec = tf.TensorSpec((None, 4))
    for source, example in (
        (pair, (FEATURES, FEATURES)),
        (pair, {"x": FEATURES, "y": FEATURES}),
        (pair.get_concrete_function(spec, spec), None),
    ):
        model = convert(source, example)
        assert [info.name for info in model.proto.graph.input] == ["x", "y"]
        assert [info.name for info in model.proto.graph.output] == ["product", "sum"]
        other = normal(3, 4, seed=2)
        assert_same(model, pair(tf.constant(FEATURES), tf.constant(other)), FEATURES, other)


def test_a_function_with_a_batch_of_its_own_is_converted() -> None:
    model = convert(tf.function(lambda x: tf.nn.softmax(tf.reshape(x, (2, 12)), axis=0)), normal(2, 3, 4))
    assert shape_of(model.proto.graph.input[0]) == [2, 3, 4]


@pytest.mark.parametrize("name", ["log1p", "expm1", "erfc"])
def test_functions_near_a_constant_are_written_out(name: str) -> None:
    function = getattr(tf.math, name)
    x = np.abs(normal(3, 5))
    model = convert(tf.function(lambda t: function(t)), x)
    np.testing.assert_allclose(run(model.proto, {"t": x})[0], function(x).numpy(), rtol=1e-5, atol=1e-6)


def test_an_einsum_stays_one_op() -> None:
    function = tf.function(lambda x: tf.einsum("nia,nja->nij", x, tf.sin(x)))
    assert ops(convert(function, normal(2, 3, 4)).proto) == {"Sin": 1, "Einsum": 1}


def test_dense_layers_in_a_row_on_a_sequence_keep_the_input_and_its_name() -> None:
    inputs = keras.Input((8, 6), name="x")
    model = convert(keras.Model(inputs, layers.Dense(5)(layers.Dense(4, activation="elu")(inputs))))
    assert [info.name for info in model.proto.graph.input] == ["x"]


def test_an_op_without_an_onnx_form_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="MatrixInverse"):
        convert(tf.function(lambda x: tf.linalg.inv(x)), normal(2, 3, 3))


@pytest.mark.parametrize("source", [Subclassed, lambda: pair], ids=["subclassed model", "function"])
def test_what_does_not_state_its_inputs_needs_an_example(source: Any) -> None:
    with pytest.raises(ConversionError, match="example"):
        convert(source())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"no archive")
    with pytest.raises(InvalidModel, match=r"m\.keras"):
        convert(tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="no SavedModel"):
        convert(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(InvalidModel, match="damaged SavedModel"):
        convert(tmp_path)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    source = sequential()
    capfd.readouterr()
    convert(source)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_a_converted_model_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = convert(Linear())
    assert load(model.save(tmp_path / "m.onnx")).proto == model.proto


def test_a_function_traced_from_an_example_takes_free_axes() -> None:
    def function(x: Any) -> Any:
        return tf.reduce_mean(tf.sin(x), axis=1)

    model = convert(tf.function(function), normal(2, 5, 3), free_axes={"x": {1: "time"}})
    x = normal(1, 7, 3)
    np.testing.assert_allclose(run(model.proto, {"x": x})[0], np.sin(x).mean(1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConversionError, match="free_axes names 'y'; the inputs are x"):
        convert(tf.function(function), normal(2, 5, 3), free_axes={"y": {1: "time"}})
    with pytest.raises(ConversionError, match="states its own"):
        convert(sequential(), free_axes={"x": {1: "time"}})


@pytest.mark.parametrize("stated", [True, False])
def test_an_input_that_a_function_branches_on_is_fixed(stated: bool):
    weights = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f")

    @tf.function
    def net(x, sr):
        return tf.cond(sr == 16000, lambda: tf.tanh(x @ weights[0]), lambda: tf.exp(x @ weights[1]))

    x = np.random.default_rng(1).normal(size=(2, 4)).astype("f")
    example = {"x": x, "sr": np.asarray(8000)} if stated else x
    model = convert(net, example, constants={"sr": 16000})
    assert [info.name for info in model.proto.graph.input] == ["x"]
    assert "If" not in {node.op_type for node in model.proto.graph.node}
    expected = np.tanh(x.astype(np.float64) @ weights[0])
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend=backend).gradients(x, target=1)
        np.testing.assert_allclose(found.output, expected[:, 1], rtol=1e-5)
        np.testing.assert_allclose(
            found.gradients["x"], (1 - expected[:, 1:2] ** 2) * weights[0][:, 1], rtol=1e-4
        )
