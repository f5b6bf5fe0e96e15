"""Copied weights make a Keras layer the PyTorch module: both frameworks' own outputs are the truth."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from tests.zoo.draw import draw, normal

porting = importlib.import_module("porting")

# Module, the Keras layer that stands for it, the shape of the module's input; channels are last in Keras.
PAIRS = {
    "Conv1d": (nn.Conv1d(3, 4, 3), lambda: layers.Conv1D(4, 3), (2, 3, 7)),
    "Conv2d in groups": (nn.Conv2d(4, 6, (3, 2), groups=2, bias=False),
                         lambda: layers.Conv2D(6, (3, 2), groups=2, use_bias=False), (2, 4, 7, 5)),
    "Conv3d": (nn.Conv3d(2, 3, 2), lambda: layers.Conv3D(3, 2), (2, 2, 5, 4, 3)),
    "depthwise": (nn.Conv2d(3, 6, 3, groups=3), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (2, 3, 7, 5)),
    "depthwise 1d": (nn.Conv1d(3, 3, 3, groups=3), lambda: layers.DepthwiseConv1D(3), (2, 3, 7)),
    "ConvTranspose1d": (nn.ConvTranspose1d(3, 4, 3, stride=2), lambda: layers.Conv1DTranspose(4, 3, 2), (2, 3, 5)),
    "ConvTranspose2d": (nn.ConvTranspose2d(3, 4, 3), lambda: layers.Conv2DTranspose(4, 3), (2, 3, 5, 4)),
    "BatchNorm2d": (nn.BatchNorm2d(3), lambda: layers.BatchNormalization(epsilon=1e-5), (2, 3, 5, 4)),
    "BatchNorm1d without weights": (nn.BatchNorm1d(3, affine=False),
                                    lambda: layers.BatchNormalization(epsilon=1e-5, center=False, scale=False), (2, 3)),
    "GroupNorm": (nn.GroupNorm(2, 4), lambda: layers.GroupNormalization(2, epsilon=1e-5), (2, 4, 5, 3)),
    "PReLU": (nn.PReLU(3), lambda: layers.PReLU(shared_axes=[1, 2]), (2, 3, 5, 4)),
    "Linear": (nn.Linear(3, 4), lambda: layers.Dense(4), (2, 3)),
    "Linear without bias": (nn.Linear(3, 4, bias=False), lambda: layers.Dense(4, use_bias=False), (2, 3)),
}  # fmt: skip
SEQUENCES = {
    "LayerNorm": (nn.LayerNorm(4), lambda: layers.LayerNormalization(epsilon=1e-5)),
    "LSTM": (nn.LSTM(4, 3, batch_first=True), lambda: layers.LSTM(3, return_sequences=True)),
    "LSTM without bias": (nn.LSTM(4, 3, batch_first=True, bias=False),
                          lambda: layers.LSTM(3, return_sequences=True, use_bias=False)),
    "bidirectional GRU": (nn.GRU(4, 3, batch_first=True, bidirectional=True),
                          lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True))),
}  # fmt: skip


def to_keras(x: torch.Tensor) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_with_copied_weights_is_the_module(name):
    module, make, shape = PAIRS[name]
    layer, x = make(), normal(*shape)
    layer.build(to_keras(x).shape)
    porting.copy_weights([(draw(module), layer)])
    np.testing.assert_allclose(np.asarray(layer(to_keras(x))), to_keras(module(x)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_layer_with_copied_weights_is_the_module(name):
    module, make = SEQUENCES[name]
    layer, x = make(), normal(2, 5, 4)
    layer.build(x.shape)
    porting.copy_weights([(draw(module), layer)])
    expected = module(x)
    expected = expected if isinstance(expected, torch.Tensor) else expected[0]
    np.testing.assert_allclose(np.asarray(layer(x.numpy())), expected.numpy(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 7}], ids=str)
def test_attention_with_copied_weights_is_the_module(options):
    module = draw(nn.MultiheadAttention(8, 2, batch_first=True, **options))
    layer = layers.MultiHeadAttention(2, 4, use_bias=options.get("bias", True))
    query, key = normal(2, 3, 8), normal(2, 6, options.get("kdim", 8), seed=2)
    value = normal(2, 6, options.get("vdim", 8), seed=3)
    layer(query.numpy(), value.numpy(), key.numpy())
    porting.copy_weights([(module, layer)])
    found = np.asarray(layer(query.numpy(), value.numpy(), key.numpy()))
    np.testing.assert_allclose(found, module(query, key, value)[0].numpy(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_flattened_map_is_read_channels_last():
    module, layer, x = draw(nn.Linear(3 * 4 * 2, 5)), layers.Dense(5), normal(2, 3, 4, 2)
    layer.build((None, 24))
    porting.copy_flattened(module, layer, (3, 4, 2))
    found = np.asarray(layer(to_keras(x).reshape(2, -1)))
    np.testing.assert_allclose(found, module(x.flatten(1)).numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(porting.WeightMismatch, match="reads 24 features"):
        porting.copy_flattened(module, layer, (3, 4, 3))


@pytest.mark.parametrize(
    ("module", "layer", "shape", "why"),
    [
        (nn.Conv2d(3, 4, 3), layers.Conv2D(4, 5), (None, 8, 8, 3), "takes"),
        (nn.Conv2d(3, 4, 3, bias=False), layers.Conv2D(4, 3), (None, 8, 8, 3), "takes"),
        (nn.Conv2d(4, 4, 3), layers.DepthwiseConv2D(3), (None, 8, 8, 4), "not a depthwise convolution"),
        (nn.ConvTranspose2d(4, 4, 3, groups=2), layers.Conv2DTranspose(4, 3), (None, 8, 8, 4), "in groups"),
        (nn.GRU(4, 3), layers.GRU(3, reset_after=False), (None, 5, 4), "takes"),
        (nn.LSTM(4, 3, num_layers=2), layers.LSTM(3), (None, 5, 4), "2 layers"),
        (nn.LSTM(4, 3, proj_size=2), layers.LSTM(3), (None, 5, 4), "no projection"),
        (nn.Bilinear(3, 3, 4), layers.Dense(4), (None, 3), "no rule"),
        (nn.Linear(3, 4), layers.Dense(4), None, "not built"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_copied(module, layer, shape, why):
    if shape is not None:
        layer.build(shape)
    first = layers.Dense(2)
    first.build((None, 2))
    before = first.get_weights()
    with pytest.raises(porting.WeightMismatch, match=why):
        porting.copy_weights([(nn.Linear(2, 2), first), (module, layer)])
    assert all(np.array_equal(old, new) for old, new in zip(before, first.get_weights(), strict=True))


def test_the_layers_of_a_recurrent_module_are_copied_in_their_order():
    module = draw(nn.LSTM(4, 3, num_layers=2, batch_first=True))
    first, second = (layers.LSTM(3, return_sequences=True) for _ in range(2))
    sequence = keras.Input((5, 4))
    copy, x = keras.Model(sequence, second(first(sequence))), normal(2, 5, 4)
    porting.copy_weights([(module, [first, second])])
    expected = module(x)[0].detach().numpy()
    np.testing.assert_allclose(np.asarray(copy(x.numpy())), expected, rtol=1e-4, atol=1e-5)
