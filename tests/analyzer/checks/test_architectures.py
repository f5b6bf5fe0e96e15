"""Whole networks of every family: converted and verified, backends in agreement, FullGrad complete and placed.

Random weights, small inputs. A row beyond the tolerance must name the kink decisions that explain it.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import pytest
import torch
from keras import layers

from analyzer import Target, check, differentiate, full_grad
from analyzer.checks.read.own_backward import AUTOGRAD
from analyzer.checks.report import Report
from converters import Model, convert
from tests.analyzer.methods.completeness import assert_complete
from tests.analyzer.placement.placements import assert_placed
from tests.zoo import (
    keras_families,
    pytorch_sequences,
    pytorch_structures,
    pytorch_transformers,
    pytorch_vision,
)

FAMILIES = (pytorch_transformers, pytorch_vision, pytorch_sequences, pytorch_structures)
PYTORCH = {name: build for family in FAMILIES for name, build in family.NETWORKS.items()}
TEXTS = pytorch_sequences.TEXTS


def by_name(model: Model, example) -> dict[str, np.ndarray]:
    """The example's arrays by the names of the graph's inputs."""
    return dict(zip(differentiate(model).graph.inputs, map(np.asarray, example), strict=True))


def assert_sides(report: Report) -> None:
    """All backends take part. Where Keras stops gradients inside a layer, its own backward pass is a side as well."""
    assert tuple(side for side in report.backends if side != AUTOGRAD) == (
        "onnxruntime",
        "torch",
        "tensorflow",
        "source",
    )


def assert_agreement(model: Model, feeds: Mapping[str, np.ndarray], target=None, **options) -> None:
    report = check(model, feeds, target, steps=2, **options)
    assert_sides(report)
    report.raise_for_disagreement()
    for row in report.rows:
        assert row["relative_l2"] <= 1e-4 or "within rounding of a kink" in row["explanation"], row


def assert_sound(model: Model, feeds: Mapping[str, np.ndarray], **options) -> None:
    assert_agreement(model, feeds, **options)
    assert_complete(model, feeds, **options)


@pytest.mark.parametrize("name", PYTORCH)
def test_pytorch_network(name):
    net, example = PYTORCH[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    assert_sound(model, feeds)
    assert_placed(model, feeds)


@pytest.mark.parametrize("name", keras_families.NETWORKS)
def test_keras_network(name):
    net, example = keras_families.NETWORKS[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    assert_sound(model, feeds)
    assert_placed(model, feeds, recurrent=name == "conv_lstm")


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_explained_from_its_embedded_tokens(name):
    net, example = TEXTS[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    # Without a floating input the vectors of the tokens are attributed.
    assert full_grad(model, feeds).input_term.keys() == {"embedding"}
    assert_sound(model, feeds, wrt=["embedding"])
    assert full_grad(model, feeds, wrt=["embedding"]).input_term["embedding"].shape[:2] == example[0].shape


def test_keras_text_is_explained_from_its_embedded_tokens():
    net, example = keras_families.TEXTS["text"]()
    model = convert(net, example)
    feeds = by_name(model, example)
    (embedded,) = (node.outputs[0] for node in differentiate(model).graph.nodes if node.op_type == "Gather")
    assert_sound(model, feeds, wrt=[embedded])


SEQUENCE, IMAGE = {"x": {1: "time"}}, {"x": {2: "height", 3: "width"}}


@pytest.mark.parametrize(
    ("name", "free_axes", "size"),
    [
        ("torch_encoder", SEQUENCE, 4),
        ("torch_decoder", {**SEQUENCE, "memory": {1: "length"}}, 3),
        ("llama", SEQUENCE, 9),
        ("convnext", IMAGE, 20),
        ("unet", IMAGE, 24),
        ("wavenet", {"x": {2: "time"}}, 7),
    ],
)
def test_sizes_may_be_free(name, free_axes, size):
    net, example = PYTORCH[name]()
    model = convert(net, example, free_axes=free_axes)
    graph = differentiate(model).graph
    shapes = {name: graph.tensors[name].shape for name in graph.inputs}
    assert all(
        shapes[name][axis] == symbol for name, axes in free_axes.items() for axis, symbol in axes.items()
    )
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.normal(size=(2, *(n if isinstance(n, int) else size for n in shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    several = len(graph.tensors[graph.outputs[0]].shape) > 2
    assert_sound(model, feeds, target=Target(index=0, axis=1) if several else 0)


@pytest.mark.parametrize(
    ("shape", "sizes", "stack"),
    [
        ((None, 8), (2, 5, 8), (layers.Dense(6, activation="gelu"), layers.GlobalAveragePooling1D())),
        (
            (None, None, 3),
            (2, 9, 11, 3),
            (
                layers.Conv2D(4, 3, 2, padding="same", activation="relu"),
                layers.UpSampling2D(2),
                layers.MaxPooling2D(3, 2, padding="same"),
                layers.GlobalAveragePooling2D(),
            ),
        ),
    ],
    ids=["sequence", "image"],
)
def test_keras_sizes_may_be_free(shape, sizes, stack):
    net = keras_families.draw(keras_families.chain(shape, *stack))
    model = convert(
        net, np.random.default_rng(0).normal(size=(2, *(n or 12 for n in shape))).astype(np.float32)
    )
    x = np.random.default_rng(1).normal(size=sizes).astype(np.float32)
    assert_sound(model, {differentiate(model).graph.inputs[0]: x}, target=0)


@pytest.mark.parametrize("name", ["llama", "encoder_fused_attention", "torch_encoder"])
def test_the_attention_op_of_a_file(name):
    net, example = PYTORCH[name]()
    exported = torch.onnx.export(net, example, dynamo=True, opset_version=23, verbose=False).model_proto
    assert any(node.op_type == "Attention" for node in exported.graph.node)
    model = convert(exported, tuple(array.numpy() for array in example))
    report = check(model, example[0].numpy(), steps=2)
    assert report.backends == ("onnxruntime", "torch", "tensorflow", "file")
    report.raise_for_disagreement()
    assert_complete(model, example[0].numpy())
    np.testing.assert_allclose(
        differentiate(model).gradients(example[0].numpy(), 0).gradients["x"],
        differentiate(convert(net, example)).gradients(example[0].numpy(), 0).gradients["x"],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    # Half precision rounds constants that the exporter computes, such as the root of attention's scale.
    [("convnext", torch.float64, 1e-4), ("vit", torch.float16, 1e-3), ("convnext", torch.bfloat16, 1e-4)],
    ids=str,
)
def test_precision_of_the_model(name, dtype, tolerance):
    net, example = PYTORCH[name]()
    example = tuple(array.to(dtype) for array in example)
    model = convert(net.to(dtype), example)
    x = example[0].double().numpy()
    report = check(model, x, target=1, steps=2, tolerance=tolerance)
    assert_sides(report)
    report.raise_for_disagreement()
    assert_complete(model, x, target=1)
    wide = np.float64 if dtype is torch.float64 else np.float32
    assert full_grad(model, x, target=1).completeness.output.dtype == wide


def test_half_precision_of_a_keras_model():
    inputs = keras.Input((5, 5, 4), dtype="float16")
    x = layers.Conv2D(4, 2, groups=2, activation="silu", dtype="float16")(inputs)
    x = layers.Flatten(dtype="float16")(layers.LayerNormalization(dtype="float16")(x))
    net = keras_families.draw(keras.Model(inputs, layers.Dense(10, dtype="float16")(x)))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float16)
    report = check(convert(net, x), x, target=1, steps=2, tolerance=1e-3)
    assert_sides(report)
    report.raise_for_disagreement()
