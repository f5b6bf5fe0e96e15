"""Ports from PyTorch to Keras are one function to `compare`: every layer finds its counterpart by value, both ways.

The truth is PyTorch's own: forward hooks say what every module of the network gives.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import compare, differentiate
from converters import Model, convert
from tests.zoo.ported import PORTS

NORMALIZED = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Pair:
    """A network and its port, converted, and the inputs of either."""

    net: nn.Module
    pytorch: Model
    keras: Model
    example: torch.Tensor
    pixels: np.ndarray


@functools.cache
def pair(name: str) -> Pair:
    port = PORTS[name]()
    (example,), (pixels,) = port.example, port.keras_example
    return Pair(port.pytorch, convert(port.pytorch, example), convert(port.keras, pixels), example, pixels)


@torch.no_grad()
def outputs_of_modules(net: nn.Module, example: torch.Tensor) -> dict[str, np.ndarray]:
    """What every module gives that is no container. A BatchNorm and the layer before it are one: it is folded."""
    found: dict[str, torch.Tensor] = {}
    folded: set[int] = set()

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output, name: str) -> None:
        if isinstance(module, NORMALIZED):
            folded.add(id(inputs[0]))
        found[name] = output if isinstance(output, torch.Tensor) else output[0]

    handles = [
        module.register_forward_hook(functools.partial(hook, name=name))
        for name, module in net.named_modules()
        if name and (isinstance(module, nn.MultiheadAttention) or not any(module.children()))
    ]
    net(example)
    for handle in handles:
        handle.remove()
    return {name: tensor.numpy() for name, tensor in found.items() if id(tensor) not in folded}


def values(model: Model, inputs: np.ndarray, names: list[str]) -> list[np.ndarray]:
    fn = differentiate(model)
    if not names:
        return []
    return [np.sort(array, axis=None) for array in fn.forward(inputs, names).values()]


def is_among(array: np.ndarray, those: list[np.ndarray]) -> bool:
    """Whether one of them holds the same values in any order."""
    flat = np.sort(array, axis=None)
    return any(one.shape == flat.shape and np.allclose(one, flat, rtol=1e-3, atol=1e-5) for one in those)


@pytest.mark.parametrize("back", [False, True], ids=["to keras", "from keras"])
@pytest.mark.parametrize("name", [name for name in PORTS if name != "text"])
def test_a_port_is_one_function(name: str, back: bool) -> None:
    port = pair(name)
    images = port.example.numpy()
    if back:
        report = compare(port.keras, port.pytorch, port.pixels, names=("keras", "pytorch"), steps=4)
    else:
        report = compare(port.pytorch, port.keras, images, names=("pytorch", "keras"), steps=4)
    report.raise_for_disagreement()
    assert not report.near
    assert set(report.unmatched.values()) == {()}
    modules = outputs_of_modules(port.net, port.example)
    matched = list(report.matched.values() if back else report.matched)
    there = values(port.pytorch, images, matched)
    assert all(is_among(array, there) for array in modules.values()), sorted(modules)
    # What counts as inner is no module's output.
    inner = values(port.pytorch, images, list(report.inner["pytorch"]))
    assert not any(is_among(array, inner) for name, array in modules.items())
