"""The map that pytorch-grad-cam draws: the installed package's own, and its convention restated on the paper's terms.

On networks where that package pairs its biases with the right gradients; test_full_grad_failings.py has the others.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from analyzer import full_grad
from converters import convert
from tests.analyzer.methods.published import decompose, grad_cam_saliency
from tests.peers import grad_cam
from tests.zoo.pytorch_networks import NETWORKS

TARGET = 2
# The height and width of an image, in multiples of each network's own stride; not all are square.
SIZES = {
    "resnet18": (64, 48),
    "resnet50": (64, 64),
    "vgg": (32, 48),
    "vgg_bn": (32, 32),
    "squeezenet": (40, 48),
    "mobilenet_v3": (32, 32),
}


@functools.cache
def network(name: str):
    net, (channels, *_) = NETWORKS[name]()
    images = torch.randn(3, channels, *SIZES[name], generator=torch.Generator().manual_seed(5))
    return net.eval(), images


@functools.cache
def our_map(name: str) -> np.ndarray:
    net, images = network(name)
    model = convert(net, images, fold_batch_norm=False)
    return full_grad(model, images.numpy(), TARGET, terms="explicit", post_processing="pytorch-grad-cam").map


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@grad_cam.needs_grad_cam
@pytest.mark.parametrize("name", SIZES)
def test_the_map_equals_that_of_the_installed_package(name):
    assert relative_l2(our_map(name), grad_cam.full_grad(network(name)[0])(network(name)[1], TARGET)) <= 1e-4


@pytest.mark.parametrize("name", SIZES)
def test_the_map_equals_the_packages_convention_restated(name):
    net, images = network(name)
    _, terms, _ = decompose(net, images.numpy(), TARGET)
    assert relative_l2(our_map(name), grad_cam_saliency(terms)) <= 1e-4
