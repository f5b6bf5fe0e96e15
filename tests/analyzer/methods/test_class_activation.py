"""Grad-CAM, Grad-CAM++ and LayerCAM: by hand, against pytorch-grad-cam and Captum, at any layer and in any layout."""

from __future__ import annotations

import functools

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import differentiate, grad_cam, grad_cam_plus_plus, layer_cam
from analyzer.errors import AnalysisError, UnknownTensor
from converters import convert
from tests.peers import grad_cam as peer
from tests.zoo import pytorch_networks, pytorch_sequences, pytorch_transformers, pytorch_vision

METHODS = {"GradCAM": grad_cam, "GradCAMPlusPlus": grad_cam_plus_plus, "LayerCAM": layer_cam}
HEADER = '<ir_version: 10, opset_import: ["": 23]> g '
# Four steps of two features, doubled, and weighed one by one.
STEPS = parser.parse_model(
    HEADER + "(float[n,4,2] x) => (float[n,1] y)"
    " <float[1,4,2] w = {1,-1, 1,0, 0,3, 2,-2}, float two = {2}, int64[2] all = {1,2}>"
    " { a = Mul(x, two) p = Mul(a, w) s = ReduceSum<keepdims = 0>(p, all) one = Constant<value_ints = [1]>()"
    " y = Unsqueeze(s, one) }"
)
W = np.array([[1, 1, 0, 2], [-1, 0, 3, -2]], np.float64)
A = 2 * np.array([[1, -2, 0.5, 3], [2, 1, -1, 0.5]])
X = (A.T[None] / 2).astype(np.float32)
# Features of a table: nothing lies over them.
TABLE = parser.parse_model(
    HEADER + "(float[n,3] x) => (float[n,1] y) <float[3,1] w = {1,2,3}> { h = Relu(x) y = MatMul(h, w) }"
)
# The layer of each network of which the peers take the map: a module path, which both sides know.
LAYERS = {"vgg": "features.14", "resnet18": "stages.3.1"}
TARGET = 1


def example(module, name: str):
    net, found = module.NETWORKS[name]()
    one = found[0] if isinstance(found[0], torch.Tensor) else pytorch_networks.example_input(found)
    return net.eval(), one


@functools.cache
def network(name: str):
    """A network whose scores are steep: pytorch-grad-cam adds 1e-6 to squares of gradients."""
    net, images = example(pytorch_networks, name)
    with torch.no_grad():
        list(net.modules())[-1].weight *= 1e4
    return net, images, convert(net, images)


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def rescaled(maps: np.ndarray) -> np.ndarray:
    raised = maps - maps.min(axis=(1, 2), keepdims=True)
    return raised / raised.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_sequence_is_solved_by_hand(backend):
    fn = differentiate(STEPS, backend)
    cams = {name: method(fn, X, layer="a", relu=False).layer_map[0] for name, method in METHODS.items()}
    # The gradient at a is w.
    np.testing.assert_allclose(cams["GradCAM"], W.mean(axis=1) @ A, rtol=1e-6)
    alpha = W**2 / (2 * W**2 + A.sum(axis=1, keepdims=True) * W**3 + (W == 0))
    np.testing.assert_allclose(cams["GradCAMPlusPlus"], (alpha * np.maximum(W, 0)).sum(axis=1) @ A, rtol=1e-6)
    np.testing.assert_allclose(cams["LayerCAM"], (np.maximum(W, 0) * A).sum(axis=0), rtol=1e-6)
    kept = layer_cam(fn, X, layer="a")
    np.testing.assert_allclose(kept.map[0], np.maximum(cams["LayerCAM"], 0), rtol=1e-6)
    assert not kept.signed and kept.map.shape == (1, 4)


@pytest.mark.parametrize("name", LAYERS)
def test_equals_captum(name):
    net, images, model = network(name)
    layer = net.get_submodule(LAYERS[name])
    theirs = captum.attr.LayerGradCam(net, layer).attribute(images, TARGET, relu_attributions=True)
    ours = grad_cam(model, images.numpy(), TARGET, layer=LAYERS[name])
    assert relative_l2(ours.layer_map, theirs.detach().numpy()[:, 0]) <= 1e-4


@peer.needs_grad_cam
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_pytorch_grad_cam(name, method):
    net, images, model = network(name)
    layer = net.get_submodule(LAYERS[name])
    theirs = peer.class_activation(method, net, layer, images, TARGET)
    ours = METHODS[method](model, images.numpy(), TARGET, layer=LAYERS[name])
    assert theirs.any() and relative_l2(rescaled(ours.map), theirs) <= 1e-4


@peer.needs_grad_cam
@pytest.mark.parametrize("method", METHODS)
def test_tokens_with_a_class_token_equal_pytorch_grad_cam(method):
    net, images = example(pytorch_transformers, "vit")
    with torch.no_grad():
        net.head.weight *= 1e4
    theirs = peer.class_activation(
        method,
        net,
        net.blocks[0],
        images,
        TARGET,
        # The class token stands first and has no place.
        tokens=lambda t: t[:, 1:].transpose(1, 2).reshape(len(t), -1, 4, 4),
    )
    ours = METHODS[method](convert(net, images), images.numpy(), TARGET, layer="blocks.0")
    assert theirs.any() and relative_l2(rescaled(ours.map), theirs) <= 1e-4


@pytest.mark.parametrize(
    ("module", "name", "layer", "sizes"),
    [
        (pytorch_networks, "vgg", "features.15", (2, 2)),
        (pytorch_networks, "resnet18", "stages.3.1", (2, 2)),
        (pytorch_networks, "densenet", None, (4, 4)),
        (pytorch_vision, "volume", None, (4, 2, 4)),
        (pytorch_sequences, "wavenet", None, (16,)),
        (pytorch_sequences, "lstm", None, (6,)),
        (pytorch_transformers, "swin", None, (4, 4)),
        # Behind the last attention the class token alone is read: the patches are told from block to block.
        (pytorch_transformers, "vit", "blocks.0", (4, 4)),
    ],
)
def test_the_last_layer_over_the_input_is_found(module, name, layer, sizes):
    if name in LAYERS:
        _, x, model = network(name)
    else:
        net, x = example(module, name)
        model = convert(net, x)
    fn = differentiate(model)
    found = grad_cam(fn, x.numpy())
    assert found.layer_map.shape[1:] == sizes and found.layer_map.any()
    assert (found.map.shape[0] == len(x) and found.map.shape[1:] != sizes) or name in ("wavenet", "lstm")
    if layer is not None:
        assert found.layer == grad_cam(fn, x.numpy(), layer=layer).layer
    named = grad_cam(fn, x.numpy(), layer=found.layer)
    np.testing.assert_array_equal(named.map, found.map)


def test_channels_last_is_the_same_map_as_channels_first():
    import keras

    rng = np.random.default_rng(0)
    layers = [keras.layers.Conv2D(5, 3, strides=2, activation="relu", name="features")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    image = keras.Input((12, 12, 3))
    y = image
    for layer in layers:
        y = layer(y)
    net = keras.Model(image, y)
    x = rng.standard_normal((2, 12, 12, 3)).astype(np.float32)
    kernel, bias = layers[0].get_weights()
    twin = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).append(torch.nn.Linear(5, 3))
    with torch.no_grad():
        twin[0].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
        twin[0].bias.copy_(torch.from_numpy(bias))
        twin[4].weight.copy_(torch.from_numpy(layers[2].get_weights()[0].T.copy()))
        twin[4].bias.copy_(torch.from_numpy(layers[2].get_weights()[1]))
    moved = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    ours = grad_cam(convert(net, x), x, 1, layer="features", relu=False)
    theirs = captum.attr.LayerGradCam(twin, twin[1]).attribute(moved, 1).detach().numpy()[:, 0]
    assert ours.map.shape == (2, 12, 12)
    assert relative_l2(ours.layer_map, theirs) <= 1e-4


@pytest.mark.parametrize("method", METHODS.values())
def test_backends_agree_and_double_precision_stays_double(method):
    _, images, model = network("vgg")
    found = [
        method(differentiate(model, backend), images.numpy(), TARGET).map
        for backend in ("onnxruntime", "torch", "tensorflow", "source")
    ]
    assert max(relative_l2(one, found[0]) for one in found[1:]) <= 1e-4
    double = method(differentiate(model, "torch", precision="float64"), images.numpy(), TARGET)
    assert double.map.dtype == double.layer_map.dtype == np.float64
    assert relative_l2(found[0], double.map) <= 1e-4


class Pair(torch.nn.Module):
    """Two images, one layer over both: their difference; and one over the first alone, earlier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(1, 3, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.first(a)) - torch.tanh(self.second(b))).relu().mean((2, 3))


def test_a_layer_over_two_inputs_has_a_map_of_each():
    net = Pair().eval()
    a, b = torch.randn(2, 2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = convert(net, (a, b))
    feeds = {"a": a.numpy(), "b": b.numpy()}
    found = grad_cam(model, feeds, TARGET)
    assert found.layer["a"] == found.layer["b"]
    with torch.no_grad():
        expected = (torch.tanh(net.first(a)) - torch.tanh(net.second(b))).relu()[:, TARGET].numpy()
    # f is the mean of one channel of the layer: its gradient is 1/36 there, and 0 at the others.
    expected = expected / 36
    for name in feeds:
        np.testing.assert_allclose(found.layer_map[name], expected, rtol=1e-4, atol=1e-7)
    alone = grad_cam(model, feeds, TARGET, layer="first", relu=False)
    assert set(alone.map) == {"a"} and alone.signed


def test_what_has_no_place_is_refused():
    with pytest.raises(AnalysisError, match="Grad-CAM has no layer to weigh"):
        grad_cam(TABLE, np.ones((1, 3), np.float32))
    _, images, model = network("vgg")
    with pytest.raises(AnalysisError, match="belong to no positions"):
        grad_cam(model, images.numpy(), layer="classifier.3")
    with pytest.raises(UnknownTensor, match=r"features\.1"):
        grad_cam(model, images.numpy(), layer="features.113")


def test_the_picture_is_drawn_over_the_image():
    _, images, model = network("vgg")
    figure = grad_cam(model, images.numpy(), relu=False).plot(images.numpy())
    assert len(figure.axes) >= 4
