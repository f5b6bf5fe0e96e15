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

from analyzer import Target, compare, differentiate
from analyzer.errors import InputError
from converters import Model, convert
from tests.zoo.draw import draw, normal, tokens
from tests.zoo.ported import PORTS, WORDS

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


@pytest.mark.parametrize("back", [False, True], ids=["to keras", "from keras"])
def test_a_text_model_is_compared_from_its_embedded_tokens(back: bool) -> None:
    port = pair("text")
    a, b = (port.keras, port.pytorch) if back else (port.pytorch, port.keras)
    words = port.pixels if back else port.example.numpy()
    assert words.dtype == (np.int32 if back else np.int64)
    embedded = next(node.output[0] for node in a.proto.graph.node if node.op_type == "Gather")
    report = compare(a, b, words, wrt=[embedded])
    report.raise_for_disagreement()
    assert report.unmatched["b" if back else "a"] == ()
    # Keras looks positions up and scales after the product, PyTorch adds a parameter and scales before.
    alone = {name.rpartition("/")[2] for name in report.unmatched["a" if back else "b"]}
    assert alone == {"GatherV2:0", "Einsum:0"}
    (row,) = (row for row in report.rows if row["quantity"] == "input gradient")
    assert row["tensor"] == embedded and row["tensor_b"]
    modules = outputs_of_modules(port.net, port.example)
    matched = list(report.matched.values() if back else report.matched)
    there = values(port.pytorch, port.example.numpy(), matched)
    assert all(is_among(array, there) for array in modules.values())
    # Without a floating input the vectors of the tokens are attributed.
    assert differentiate(a).roots(differentiate(a).default_wrt) == (embedded,)


def test_outputs_in_another_order_of_axes_have_one_target() -> None:
    port = pair("u_net")
    weights = np.random.default_rng(0).standard_normal((3, 3, 12, 8))
    report = compare(port.pytorch, port.keras, port.example.numpy(), target=Target(weights=weights), steps=2)
    report.raise_for_disagreement()
    pixel = Target(index=(2, 3, 4))
    compare(port.pytorch, port.keras, port.example.numpy(), target=pixel, steps=2).raise_for_disagreement()
    # So have inner tensors, which may be explained as well.
    inner = Target("silu", weights=weights[:, :1, :6, :4].repeat(6, 1))
    compare(port.pytorch, port.keras, port.example.numpy(), target=inner, steps=2).raise_for_disagreement()
    # The truth: that weighted sum's gradient by PyTorch, and by TensorFlow in its own order of axes.
    images = port.example.clone().requires_grad_()
    (port.net(images) * torch.from_numpy(weights).float()).sum().backward()
    found = (
        differentiate(port.keras)
        .gradients(port.pixels, Target(weights=np.moveaxis(weights, 1, -1)))
        .gradients
    )
    theirs = np.moveaxis(next(iter(found.values())), -1, 1)
    np.testing.assert_allclose(theirs, images.grad.numpy(), rtol=1e-3, atol=1e-5)


class Masked(nn.Module):
    """The mean of the embedded words that a mask keeps, beside a number a word; `swapped` reads the two the other way
    round, and words of another integer type.
    """

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.swapped = swapped
        self.embedding, self.head = nn.Embedding(WORDS, 4), nn.Linear(4, 3)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        words, kept = (second, first) if self.swapped else (first, second)
        mean = (self.embedding(words) * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return self.head(torch.tanh(mean)), kept.sum(1, keepdim=True) * mean


def test_words_of_another_integer_type_beside_a_second_input() -> None:
    net, other = draw(Masked(False)), Masked(True).eval()
    other.load_state_dict(net.state_dict())
    words, kept = tokens(3, 6, count=WORDS), normal(3, 6).abs()
    a, b = convert(net, (words, kept)), convert(other, (kept, words.int()))
    feeds = {"first": words.numpy(), "second": kept.numpy()}
    swapped = {"first": "second", "second": "first"}
    report = compare(a, b, feeds, target=1, inputs_of_b=swapped)
    report.raise_for_disagreement()
    assert set(report.unmatched.values()) == {()}
    roots = ["second", "embedding"]
    report = compare(a, b, feeds, target=1, inputs_of_b=swapped, wrt=roots)
    report.raise_for_disagreement()
    assert [row["tensor"] for row in report.rows if row["quantity"] == "input gradient"] == roots
    with pytest.raises(InputError, match="takes int32"):
        compare(a, b, feeds, target=1, inputs_of_b={"first": "first", "second": "second"})
