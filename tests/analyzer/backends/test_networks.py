"""Everything that takes a model takes a network and traces it from the inputs; other objects are refused in words."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain as ox
from analyzer.errors import AnalysisError, Note
from converters import ConversionError
from tests.refusals.setting import CONV, DENSE, IMAGES, X, of_class

TORCH = ["onnxruntime", "torch"]


class Square(nn.Module):
    """y = sum of (w x)² over positions, whose gradient autograd knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return (self.conv(x) ** 2).sum(dim=(2, 3))


NET = Square()
INPUTS = torch.randn(11, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def truth(inputs: torch.Tensor) -> np.ndarray:
    x = inputs.clone().requires_grad_()
    return torch.autograd.grad(NET(x)[:, 1].sum(), x)[0].numpy()


def test_a_method_traces_a_network_from_its_inputs():
    found = ox.gradient(NET, INPUTS, 1).attributions
    np.testing.assert_allclose(found, truth(INPUTS), rtol=1e-4, atol=1e-4)


def test_differentiate_takes_an_example_and_checks_take_networks_and_what_is_bound():
    fn = ox.differentiate(NET, example={"x": INPUTS[:2].tolist()})
    np.testing.assert_allclose(fn.gradients(INPUTS, 1).gradients["x"], truth(INPUTS), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConversionError, match="Fix: give an `example`"):
        ox.differentiate(NET)
    assert ox.check(fn, INPUTS[:2], 1, backends=TORCH).passed
    report = ox.compare(fn, NET, INPUTS[:2], 1)
    assert report.passed and report.rows
    other = Square()
    with torch.no_grad():
        other.conv.weight += 0.5
    assert not ox.compare(fn, other, INPUTS[:2], 1).passed


def test_a_network_whose_weights_change_is_converted_anew_with_a_note():
    net = Square()
    first = ox.gradient(net, INPUTS[:1], 1).output
    with torch.no_grad():
        net.conv.weight *= 2
        net.conv.bias *= 2
    with pytest.warns(Note, match="converted anew at each call"):
        second = ox.gradient(net, INPUTS[:1], 1).output
    np.testing.assert_allclose(second, 4 * first, rtol=1e-5)


def test_a_network_and_inputs_in_another_layout():
    with pytest.raises(AnalysisError, match=r"inputs\.transpose\(0, 3, 1, 2\)"):
        ox.full_grad(NET, INPUTS[:2].permute(0, 2, 3, 1))


class Mixing(nn.Module):
    """Joins the nodes of a graph, whose number no symbol stands for: 10 of them."""

    def forward(self, nodes, weights):
        return weights @ nodes


def test_inputs_that_cannot_be_cut_are_traced_whole():
    nodes, weights = torch.randn(10, 3), torch.randn(10, 10)
    found = ox.differentiate(Mixing(), example={"nodes": nodes, "weights": weights})
    given = {"nodes": nodes.numpy(), "weights": weights.numpy()}
    (found,) = found.forward(given).values()
    np.testing.assert_allclose(found, (weights @ nodes).numpy(), rtol=1e-4, atol=1e-5)


def test_keras_and_tensorflow_networks_are_traced_from_the_inputs():
    import keras
    import tensorflow as tf

    weight = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9], [2, 4, 8]])

    class Own(keras.Model):
        def call(self, x):
            return tf.nn.relu(tf.matmul(x, weight))

    np.testing.assert_allclose(ox.gradient(Own(), X, 1).attributions, of_class(1))
    function = tf.function(lambda x: tf.nn.relu(tf.matmul(x, weight)))
    assert ox.compare(DENSE, function, X, 1).passed


# Objects that are not models, by words of the fix.
STRANGE = {
    "None": (None, "a PyTorch, Keras, TensorFlow or ONNX model"),
    "a number": (3, "a PyTorch, Keras, TensorFlow or ONNX model"),
    "a missing file": ("nowhere.onnx", "the path of an existing"),
    "a missing name": ("nowhere", "the path of an existing"),
    "a missing module": ("no_module:make", "package.module:factory"),
    "an empty text": ("", "the path of an existing"),
    "a shape": ((1, 3, 8, 8), "a PyTorch, Keras, TensorFlow or ONNX model"),
    "bytes": (b"model", "onnx.load_from_string"),
    "a class": (Square, "an object of it"),
    "weights": (NET.state_dict(), "load_state_dict"),
    "TorchScript": (torch.jit.trace(NET, INPUTS[:1]), "the nn.Module that it was made from"),
    "a tensor": (INPUTS, "an nn.Module with an example"),
}
CALLS = {
    "convert": lambda model: ox.convert(model),
    "load": lambda model: ox.load(model),
    "differentiate": lambda model: ox.differentiate(model),
    "a method": lambda model: ox.full_grad(model, IMAGES),
    "check": lambda model: ox.check(model, IMAGES),
    "compare, first": lambda model: ox.compare(model, CONV, IMAGES),
    "compare, second": lambda model: ox.compare(CONV, model, IMAGES),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("model", "words"), STRANGE.values(), ids=STRANGE)
def test_what_is_no_model_is_refused_by_every_function(call, model, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        with pytest.raises((ConversionError, AnalysisError)) as caught:
            call(model)
    what, _, fix = str(caught.value).partition("Fix: ")
    assert what and words in fix and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_file_of_weights_says_to_load_it(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(NET.state_dict(), path)
    for call in CALLS.values():
        with pytest.raises(ConversionError, match=r"give the nn\.Module with an example"):
            call(path)


@pytest.mark.parametrize("example", [(1, 3, 6, 6), [1, 3, 6, 6], torch.Size([1, 3, 6, 6]), 224, "x", None])
def test_an_example_that_is_no_array_is_refused(example):
    with pytest.raises(ConversionError) as caught:
        ox.convert(NET, example)
    assert "torch.randn(" in str(caught.value) or "an `example` input" in str(caught.value)
