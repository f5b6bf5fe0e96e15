"""The twins agree, natively and through onnxplain, in everything that explains them, to 1e-5.

The truth is native: `torch.autograd` and `tf.GradientTape` on the networks themselves, with respect to the
images and to the bias parameters. Every route of onnxplain is held to it.
"""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

twin = importlib.import_module("twin")
script = importlib.import_module("01_twin")

from analyzer import differentiate, full_grad, integrated_gradients  # noqa: E402
from converters import convert  # noqa: E402
from tests.examples.conftest import EXAMPLES  # noqa: E402

TOLERANCE = 1e-5
TARGET = 7
ROUTES = ("torch source", "torch onnxruntime", "keras source", "keras onnxruntime")
LAYERS = ("conv1", "bn1", "conv2", "bn2", "dense1", "dense2")
# With BatchNorm folded, the folded layer's bias gradient is that of the BatchNorm's own shift.
FOLDED = ("bn1", "bn2", "dense1", "dense2")


def relative_l2(array: Any, reference: Any) -> float:
    array, reference = np.asarray(array, np.float64), np.asarray(reference, np.float64)
    assert array.shape == reference.shape
    return float(np.sqrt(((array - reference) ** 2).sum() / (reference**2).sum()))


@dataclasses.dataclass(frozen=True)
class Native:
    """Computed by a framework alone, on the logit TARGET; images in NCHW, per sample."""

    logits: np.ndarray
    input_gradient: np.ndarray
    bias_gradients: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def twins() -> tuple[Any, Any]:
    return twin.build_twins(seed=3)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return twin.example_images(3, seed=5)


def torch_native(net: Any, nchw: np.ndarray) -> Native:
    biases = [getattr(net, layer).bias for layer in LAYERS]
    logits, gradients = [], []
    for image in nchw:
        x = torch.tensor(image[None], requires_grad=True)
        y = net(x)
        logits.append(y.detach().numpy()[0])
        gradients.append([g.numpy() for g in torch.autograd.grad(y[0, TARGET], [x, *biases])])
    return _native(logits, gradients)


def keras_native(net: Any, nhwc: np.ndarray) -> Native:
    biases = [getattr(net, layer).beta if "bn" in layer else getattr(net, layer).bias for layer in LAYERS]
    logits, gradients = [], []
    for image in nhwc:
        x = tf.constant(image[None])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = net(x, training=False)
            explained = y[0, TARGET]
        found = [g.numpy() for g in tape.gradient(explained, [x, *[b.value for b in biases]])]
        logits.append(y.numpy()[0])
        gradients.append([found[0].transpose(0, 3, 1, 2), *found[1:]])
    return _native(logits, gradients)


def _native(logits: list[np.ndarray], gradients: list[list[np.ndarray]]) -> Native:
    inputs, *biases = zip(*gradients, strict=True)
    stacked = {layer: np.stack(rows) for layer, rows in zip(LAYERS, biases, strict=True)}
    return Native(np.stack(logits), np.concatenate(inputs), stacked)


@pytest.fixture(scope="module")
def truth(twins: Any, images: Any) -> Native:
    return torch_native(twins[0], images[0])


def test_twins_agree_natively(twins: Any, images: Any, truth: Native) -> None:
    other = keras_native(twins[1], images[1])
    assert truth.logits.std() > 0.1
    assert relative_l2(other.logits, truth.logits) <= TOLERANCE
    assert relative_l2(other.input_gradient, truth.input_gradient) <= TOLERANCE
    for layer in LAYERS:
        assert relative_l2(other.bias_gradients[layer], truth.bias_gradients[layer]) <= TOLERANCE, layer


def test_twins_do_not_agree_when_the_flatten_order_is_ignored(twins: Any, images: Any, truth: Native) -> None:
    source, copy = twins
    weights = copy.dense1.get_weights()
    copy.dense1.set_weights([source.dense1.weight.detach().numpy().T, weights[1]])
    try:
        assert relative_l2(np.asarray(copy(images[1])), truth.logits) > 0.01
    finally:
        copy.dense1.set_weights(weights)


@dataclasses.dataclass(frozen=True)
class Route:
    """One twin on one backend. `images` are in its own layout, `nchw` brings results back."""

    fn: Any
    images: np.ndarray
    nchw: Callable[[np.ndarray], np.ndarray]
    decomposition: Any


@pytest.fixture(scope="module")
def routes(twins: Any, images: Any) -> dict[str, Route]:
    found = {}
    for name, net, batch, nchw in (
        ("torch", twins[0], images[0], lambda array: array),
        ("keras", twins[1], images[1], lambda array: array.transpose(0, 3, 1, 2)),
    ):
        model = convert(net, batch[:1])
        for backend in ("source", "onnxruntime"):
            fn = differentiate(model, backend=backend)
            found[f"{name} {backend}"] = Route(fn, batch, nchw, full_grad(fn, batch, target=TARGET))
    assert tuple(found) == ROUTES
    return found


def bias_tensors(route: Route) -> list[str]:
    """The tensors with a bias term that is not zero, in the order of the network."""
    return [tensor for tensor, term in route.decomposition.bias_terms.items() if np.any(term)]


def over_space(array: np.ndarray, channels: int) -> np.ndarray:
    """Sum over all axes but the batch and the channels, wherever these stand."""
    axis = next(i for i in range(1, array.ndim) if array.shape[i] == channels)
    return array.sum(axis=tuple(i for i in range(1, array.ndim) if i != axis))


@pytest.mark.parametrize("name", ROUTES)
def test_outputs_and_input_gradients_equal_the_native_ones(routes: Any, truth: Native, name: str) -> None:
    route = routes[name]
    found = route.fn.gradients(route.images, target=TARGET)
    (gradient,) = found.gradients.values()
    (logits,) = route.fn.forward(route.images).values()
    assert relative_l2(logits, truth.logits) <= TOLERANCE
    assert relative_l2(found.output, truth.logits[:, TARGET]) <= TOLERANCE
    assert relative_l2(route.nchw(gradient), truth.input_gradient) <= TOLERANCE


@pytest.mark.parametrize("name", ROUTES)
def test_every_bias_gradient_equals_that_of_the_parameter(routes: Any, truth: Native, name: str) -> None:
    route = routes[name]
    tensors = bias_tensors(route)
    found = route.fn.gradients(route.images, target=TARGET, wrt=tensors).gradients
    assert len(tensors) == len(FOLDED)
    for layer, tensor in zip(FOLDED, tensors, strict=True):
        expected = truth.bias_gradients[layer]
        assert relative_l2(over_space(found[tensor], expected.shape[1]), expected) <= TOLERANCE, layer


@pytest.mark.parametrize("name", ROUTES)
def test_bias_terms_are_gradient_times_bias(twins: Any, routes: Any, truth: Native, name: str) -> None:
    net, terms = twins[0], routes[name].decomposition.bias_terms
    for layer, tensor in zip(FOLDED, bias_tensors(routes[name]), strict=True):
        expected = truth.bias_gradients[layer] * effective_bias(net, layer)
        assert relative_l2(over_space(terms[tensor], expected.shape[1]), expected) <= TOLERANCE, layer


def effective_bias(net: Any, layer: str) -> np.ndarray:
    """The bias of a dense layer, or that of a convolution and its BatchNorm taken as one."""
    module = getattr(net, layer)
    with torch.no_grad():
        if not layer.startswith("bn"):
            return module.bias.numpy()
        convolution = getattr(net, layer.replace("bn", "conv"))
        shifted = (convolution.bias - module.running_mean) / torch.sqrt(module.running_var + module.eps)
        return (shifted * module.weight + module.bias).numpy()


@pytest.mark.parametrize("name", ROUTES[1:])
def test_full_grad_agrees_with_the_pytorch_original(routes: Any, name: str) -> None:
    found, original = routes[name].decomposition, routes[ROUTES[0]].decomposition
    assert original.map.shape == (3, twin.HEIGHT, twin.WIDTH) and original.map.std() > 0
    assert relative_l2(found.map, original.map) <= TOLERANCE
    assert relative_l2(routes[name].nchw(found.input_term), original.input_term) <= TOLERANCE


@pytest.mark.parametrize("name", ROUTES)
def test_full_grad_is_complete(routes: Any, truth: Native, name: str) -> None:
    found = routes[name].decomposition
    assert found.completeness.error.max() <= TOLERANCE
    total = sum(term.reshape(3, -1).sum(1) for term in (found.input_term, *found.bias_terms.values()))
    np.testing.assert_allclose(total, truth.logits[:, TARGET], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ROUTES)
def test_integrated_gradients_equal_the_native_sum(twins: Any, images: Any, routes: Any, name: str) -> None:
    steps = 20
    found = integrated_gradients(routes[name].fn, routes[name].images, target=TARGET, steps=steps)
    expected = native_integrated_gradients(twins[0], images[0], steps)
    assert relative_l2(routes[name].nchw(found.attributions), expected) <= TOLERANCE


def native_integrated_gradients(net: Any, nchw: np.ndarray, steps: int) -> np.ndarray:
    """(x − 0) times the Gauss–Legendre average of autograd's gradient between the black image and x."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    average = np.zeros(nchw.shape)
    for node, weight in zip(nodes, weights, strict=True):
        x = torch.tensor(nchw * np.float32((node + 1) / 2), requires_grad=True)
        (gradient,) = torch.autograd.grad(net(x)[:, TARGET].sum(), x)
        average += weight / 2 * gradient.numpy()
    return nchw * average


@pytest.mark.parametrize("backend", ["source", "onnxruntime"])
def test_unfolded_layers_have_their_own_bias_gradients(
    twins: Any, images: Any, truth: Native, backend: str
) -> None:
    fn = differentiate(convert(twins[0], images[0][:1], fold_batch_norm=False), backend=backend)
    tensors = list(full_grad(fn, images[0], target=TARGET, terms="explicit").bias_terms)
    found = fn.gradients(images[0], target=TARGET, wrt=tensors).gradients
    assert len(tensors) == len(LAYERS)
    for layer, tensor in zip(LAYERS, tensors, strict=True):
        expected = truth.bias_gradients[layer]
        assert relative_l2(over_space(found[tensor], expected.shape[1]), expected) <= TOLERANCE, layer


def test_script_prints_that_the_twins_agree() -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "01_twin.py")], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "The twins agree" in run.stdout
    for what in ("input gradient", "bias gradient, conv1 + bn1", "FullGrad map", "Integrated Gradients"):
        assert what in run.stdout


def _made_up(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> Any:
    arrays = [rng.standard_normal(shape) for shape in shapes]
    image = rng.standard_normal((2, 3, 5, 4))
    return script.Explanation(rng.standard_normal(2), image, arrays, arrays, image[:, 0], image)


def test_script_measures_every_part_and_aligns_layouts() -> None:
    truth = _made_up(np.random.default_rng(0), [(2, 3, 5, 4), (2, 6, 2, 2), (2, 7), (2, 3)])
    # The second layer is square: only its values tell the layouts apart.
    permuted = [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in truth.bias_terms]
    same = dataclasses.replace(truth, bias_terms=permuted, layer_gradients=permuted)
    assert {value for _, value in script.distances(same, truth)} == {0.0}
    for part, expected in (("output", 1), ("layer_gradients", 4), ("bias_terms", 4), ("full_grad", 1)):
        value = getattr(truth, part)
        off = [1.01 * v for v in value] if isinstance(value, list) else 1.01 * value
        found = script.distances(dataclasses.replace(truth, **{part: off}), truth)
        assert sum(value > 1e-3 for _, value in found) == expected, part
