"""The zoo's networks are what they claim: published sizes, biases that count, logits and gradients O(1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.zoo import pytorch_networks
from tests.zoo.pytorch_branching import SqueezeNet
from tests.zoo.pytorch_mobile import EfficientNet, EfficientNetLite, MobileNetV2, ShuffleNetV2
from tests.zoo.pytorch_networks import NETWORKS
from tests.zoo.pytorch_residual import VGG, BasicBlock, Bottleneck, DenseNet, ResNet

# Parameters of the published networks with 1000 classes, as torchvision and the Lite0 release count them.
PUBLISHED: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "resnet18": (lambda: ResNet(BasicBlock, (2, 2, 2, 2)), 11_689_512),
    "resnet50": (lambda: ResNet(Bottleneck, (3, 4, 6, 3)), 25_557_032),
    "vgg16": (lambda: VGG((2, 2, 3, 3, 3)), 138_357_544),
    "vgg16_bn": (lambda: VGG((2, 2, 3, 3, 3), batch_norm=True), 138_365_992),
    "densenet121": (lambda: DenseNet((6, 12, 24, 16)), 7_978_856),
    "squeezenet1_1": (SqueezeNet, 1_235_496),
    "mobilenet_v2": (MobileNetV2, 3_504_872),
    "efficientnet_b0": (EfficientNet, 5_288_548),
    "efficientnet_lite0": (EfficientNetLite, 4_652_008),
    "shufflenet_v2_x1_0": (ShuffleNetV2, 2_278_604),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_default_widths_have_the_published_number_of_parameters(name: str) -> None:
    build, published = PUBLISHED[name]
    with torch.device("meta"):
        net = build()
    assert sum(parameter.numel() for parameter in net.parameters()) == published


def _assert_order_one(logits: np.ndarray, gradient: np.ndarray) -> None:
    assert logits.shape[1:] == (10,)
    assert 0.05 < np.std(logits) < 10 and np.abs(logits).max() < 30
    assert np.isfinite(gradient).all()
    for sample in gradient:
        assert 1e-3 < np.linalg.norm(sample) < 200


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_logits_and_gradients_are_of_order_one(name: str) -> None:
    net, shape = NETWORKS[name]()
    assert not net.training
    x = pytorch_networks.example_input(shape).requires_grad_()
    logits = net(x)
    logits[:, 3].sum().backward()
    _assert_order_one(logits.detach().numpy(), x.grad.numpy())
    # The network looks at its input.
    assert (logits[0] - logits[1]).norm() > 0.02 * logits.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_networks_are_reproducible_and_have_no_zero_bias(name: str) -> None:
    net, _ = NETWORKS[name]()
    again, _ = NETWORKS[name]()
    for key, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        if key.endswith(("bias", "running_mean")):
            assert value.abs().min() > 0, key
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var.min() > 0 and module.running_var.std() > 0


def test_full_size_networks_are_initialised() -> None:
    net, shape = pytorch_networks.resnet50(size=64)
    with torch.no_grad():
        logits = net(pytorch_networks.example_input(shape, batch=1))
    assert logits.shape == (1, 1000) and 0.2 < float(logits.std()) < 5


def _keras_names() -> list[str]:
    # Importing Keras takes seconds: only the names are needed to collect the tests.
    return [
        *("sequential", "squeezenet", "resnet18", "shufflenet_v1", "shufflenet_v2"),
        *("resnet50", "densenet", "vgg", "mobilenet_v2", "efficientnet_b0", "inception_v3"),
    ]


def test_keras_table_names_every_network() -> None:
    from tests.zoo import keras_networks

    assert list(keras_networks.NETWORKS) == _keras_names()
    assert set(keras_networks.NETWORKS) > keras_networks.HEAVY


@pytest.mark.parametrize("name", _keras_names())
def test_keras_logits_and_gradients_are_of_order_one(name: str) -> None:
    import tensorflow as tf

    from tests.zoo import keras_networks

    net, shape = keras_networks.NETWORKS[name]()
    x = tf.constant(keras_networks.example_input(name, shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = net(x, training=False)
        explained = tf.reduce_sum(outputs[:, 3])
    gradient = tape.gradient(explained, x).numpy()
    _assert_order_one(outputs.numpy(), gradient)
    for variable in net.weights:
        if variable.name in ("bias", "beta", "moving_mean"):
            assert np.abs(variable.numpy()).max() > 0, variable.path
