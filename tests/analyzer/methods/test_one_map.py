"""One map for one function: equivalent exports of a network have the same FullGrad maps."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from analyzer import full_grad
from converters import convert
from tests.zoo.twins import TWINS, channels_last, twins

pytestmark = pytest.mark.filterwarnings("ignore")


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@functools.cache
def network(name: str):
    """A network in PyTorch and in Keras, images, and the model of the first."""
    net, twin, images = twins(TWINS[name])
    return convert(net, torch.from_numpy(images)), twin, images


@pytest.mark.parametrize("name", TWINS)
def test_a_network_and_its_keras_twin_have_one_map(name: str) -> None:
    model, twin, images = network(name)
    expected = full_grad(model, images, target=1)
    pixels = channels_last(images)
    found = full_grad(convert(twin, pixels), pixels, target=1)
    assert relative_l2(found.map, expected.map) <= 1e-4
    assert relative_l2(found.complete_map, expected.complete_map) <= 1e-4
    np.testing.assert_allclose(found.unplaced_total, expected.unplaced_total, rtol=1e-3, atol=1e-5)
