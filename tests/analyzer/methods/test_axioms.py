"""The axioms of attribution, held by Integrated Gradients on every backend, by a fixed rule and to a tolerance.

The definitions are those of Sundararajan, Taly & Yan 2017, sections 2 to 4; truths are the differences of the network's
own outputs, the closed form of a layer of rectifiers, and other ways to write the same function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from onnx import parser
from torch import Tensor, nn

from analyzer import differentiate, input_x_gradient, integrated_gradients
from converters import convert, load
from tests.analyzer.methods.equivalent import draws, rewritten
from tests.zoo.twins import TWINS, channels_last, twins

BACKENDS = ["onnxruntime", "torch", "tensorflow", "source"]
# 48 midpoints leave a ReLU's jump by less than a 96th of it.
FIXED, REFINED = {"steps": 48, "rule": "midpoint"}, {"tolerance": 0.002}
SETTINGS = [pytest.param(FIXED, id="fixed"), pytest.param(REFINED, id="refined")]


class Function(nn.Module):
    """A function of rows as a network."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def relu(x: Tensor) -> Tensor:
    return nn.functional.relu(x)


def first(x: Tensor) -> Tensor:
    return x[:, :1]


def second(x: Tensor) -> Tensor:
    return x[:, 1:2]


def mixed(x: Tensor) -> Tensor:
    """Depends on features 0 and 1; on 2 by a weight of zero, on 3 by what cancels, on 4 not at all."""
    return torch.tanh(first(x) * second(x)) + relu(second(x) + 0 * x[:, 2:3]) + x[:, 3:4] - x[:, 3:4]


def symmetric(x: Tensor) -> Tensor:
    """Of features that may be interchanged: 0, 1 and 2."""
    own = torch.sigmoid(3 * x[:, :3] - 1).sum(1, keepdim=True)
    return own * relu(x[:, :3].prod(1, keepdim=True) + x[:, 3:4]) + x[:, 3:4] ** 2


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "saturated": (lambda x: 1 - relu(1 - x), 1),
    "saturated, by a minimum": (lambda x: torch.minimum(x, torch.ones_like(x)), 1),
    # Figure 7 of the paper: two networks, one function.
    "f of the paper": (lambda x: relu(relu(first(x)) - 1 - relu(second(x))), 2),
    "g of the paper": (lambda x: relu(relu(first(x) - 1) - relu(second(x))), 2),
    "mixed": (mixed, 5),
    "symmetric": (symmetric, 4),
    "f": (lambda x: torch.tanh(first(x) * second(x)) + x[:, 2:3], 3),
    "g": (lambda x: relu(first(x) - second(x)) * torch.sigmoid(x[:, 2:3]), 3),
}  # fmt: skip
FUNCTIONS["2 f − 3 g"] = (lambda x: 2 * FUNCTIONS["f"][0](x) - 3 * FUNCTIONS["g"][0](x), 3)


@functools.cache
def converted(name: str) -> Any:
    f, features = FUNCTIONS[name]
    return convert(Function(f), torch.randn(2, features))


@functools.cache
def on(name: str, backend: str) -> Any:
    return differentiate(converted(name), backend)


def attributions(name: str, backend: str, x: Any, baseline: Any, settings: dict[str, Any]) -> np.ndarray:
    x = np.asarray(x, np.float32)
    start = np.asarray(baseline, np.float32)
    return integrated_gradients(on(name, backend), x, baseline=start, **settings).attributions


def value(name: str, x: Any) -> np.ndarray:
    return FUNCTIONS[name][0](torch.as_tensor(x, dtype=torch.float32)).numpy()[:, 0]


RNG = np.random.default_rng(2)
POINTS = {features: RNG.normal(size=(3, features)).astype(np.float32) for features in (3, 4, 5)}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["mixed", "symmetric", "2 f − 3 g"])
def test_completeness(name, backend, settings):
    """Attributions sum to f(x) − f(x′): proposition 1."""
    x = POINTS[FUNCTIONS[name][1]]
    found = attributions(name, backend, x, 0.2, settings).sum(axis=1)
    difference = value(name, x) - value(name, np.full_like(x, 0.2))
    within = REFINED["tolerance"] * np.abs(difference) if settings is REFINED else 0.02
    assert (np.abs(found - difference) <= within + 1e-6).all()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sensitivity_a(backend, settings):
    """x and x′ differ in one feature, and so does f: its attribution is not zero. Section 2.1, with its example."""
    found = attributions("saturated", backend, [[2.0]], 0.0, settings)
    np.testing.assert_allclose(found, [[1.0]], rtol=0.01)
    # The paper's example of methods that break it: there, the gradient at the input is zero.
    assert not input_x_gradient(on("saturated", backend), np.float32([[2.0]])).attributions.any()
    x = POINTS[3][:1]
    for feature in range(3):
        start = x.copy()
        start[0, feature] -= 1
        alone = attributions("f", backend, x, start, settings)[0]
        difference = (value("f", x) - value("f", start))[0]
        assert abs(difference) > 0.01
        np.testing.assert_allclose(alone[feature], difference, rtol=0.01)
        assert not np.delete(alone, feature).any()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sensitivity_b(backend, settings):
    """A feature that f does not depend on is attributed exactly zero: section 4 (it is called dummy elsewhere)."""
    found = attributions("mixed", backend, POINTS[5], [-1.0, 0.5, 2.0, 3.0, -4.0], settings)
    assert not found[:, 2:].any()
    assert (found[:, :2] != 0).all()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_linearity(backend, settings):
    """The attributions of a·f + b·g are a times those of f and b times those of g: section 4."""
    f, g, both = (attributions(name, backend, POINTS[3], -0.5, settings) for name in ("f", "g", "2 f − 3 g"))
    # Refined, each is right to its own tolerance of the map, five times that of the sum.
    within = 5 * REFINED["tolerance"] if settings is REFINED else 1e-5
    scale = 2 * np.linalg.norm(f) + 3 * np.linalg.norm(g)
    assert np.linalg.norm(both - (2 * f - 3 * g)) <= within * scale


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_symmetry(backend, settings):
    """Interchangeable features of equal values and baselines have equal attributions: section 4, definition 3."""
    x, start = [[1.3, 1.3, 1.3, 0.4], [1.3, 0.3, 1.3, 0.4]], [0.1, 0.1, 0.1, -1.0]
    found = attributions("symmetric", backend, x, start, settings)
    np.testing.assert_allclose(found[0, :3], found[0, 0], rtol=1e-5)
    np.testing.assert_allclose(found[1, 0], found[1, 2], rtol=1e-5)
    assert abs(found[1, 0] - found[1, 1]) > 0.1


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_implementation_invariance_of_the_papers_networks(backend, settings):
    """Networks of one function have the same attributions: section 2.2; the numbers are those of figure 7."""
    for name in ("f of the paper", "g of the paper"):
        found = attributions(name, backend, [[3.0, 1.0]], 0.0, settings)
        np.testing.assert_allclose(found, [[1.5, -0.5]], rtol=0.02)
    pair = [
        attributions(name, backend, [[2.0], [0.4]], -0.5, settings)
        for name in ("saturated", "saturated, by a minimum")
    ]
    np.testing.assert_allclose(*pair, rtol=1e-5)


@functools.cache
def written(name: str) -> Any:
    """A network with its BatchNorm apart, folded, rewritten in other layers and functions, and its Keras twin."""
    both = twins(TWINS[name])
    images = torch.from_numpy(both.images)
    apart, folded = (convert(both.net, images, fold_batch_norm=fold) for fold in (False, True))
    plain = onnx.ModelProto()
    plain.CopyFrom(apart.proto)
    del plain.metadata_props[:]
    _, names = next(draws(1))
    feeds = {plain.graph.input[0].name: both.images}
    file, changed = rewritten(plain, names, np.random.default_rng(0), feeds)
    assert sum(count > 0 for count in changed.values()) >= 5
    return both.images[:2], apart, (folded, load(file)), convert(both.keras, channels_last(both.images))


@pytest.mark.parametrize("settings", [{"steps": 6}, {"tolerance": 0.02}], ids=["fixed", "refined"])
@pytest.mark.parametrize("name", ["residual", "vit"])
def test_implementation_invariance_of_exports(name, settings):
    """Networks that are written otherwise, in another framework even, have the same attributions."""
    x, model, others, twin = written(name)
    expected = integrated_gradients(model, x, 1, **settings).attributions
    found = [integrated_gradients(other, x, 1, **settings).attributions for other in others]
    pixels = integrated_gradients(twin, channels_last(x), 1, **settings).attributions
    for one in (*found, np.moveaxis(pixels, -1, 1)):
        assert np.linalg.norm(one - expected) <= 1e-4 * np.linalg.norm(expected)


# y = Σ vⱼ relu(⟨wⱼ, x⟩ + bⱼ): the weights are inputs of the graph, which hypothesis draws.
RECTIFIERS = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]>'
    " g (float[n,1,3] x, float[n,3,4] w, float[n,1,4] b, float[n,4,1] v) => (float[n,1,1] y)"
    " { p = MatMul(x, w) z = Add(p, b) h = Relu(z) y = MatMul(h, v) }"
)


def numbers(*shape: int) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape))
    whole = st.lists(st.integers(-8, 8), min_size=size, max_size=size)
    return whole.map(lambda values: np.reshape(values, (1, *shape)) / 4)


@functools.cache
def rectifiers() -> Any:
    return differentiate(RECTIFIERS, "torch", precision="float64")


@drawn(x=numbers(1, 3), start=numbers(1, 3), w=numbers(3, 4), b=numbers(1, 4), v=numbers(4, 1))
def test_a_layer_of_rectifiers_has_its_closed_form(x, start, w, b, v):
    """Of a unit from z′ to z, feature i has wᵢ (xᵢ − x′ᵢ) · (relu z − relu z′) / (z − z′)."""
    given, held = {"x": x, "w": w, "b": b, "v": v}, {"x": start, "w": w, "b": b, "v": v}
    found = integrated_gradients(rectifiers(), given, 0, baseline=held, tolerance=1e-3, map_tolerance=1e-3)
    ends = [(point @ w + b)[0, 0] for point in (x, start)]
    rise = np.maximum(ends[0], 0) - np.maximum(ends[1], 0)
    move = ends[0] - ends[1]
    # Of a unit that does not move, nothing is attributed: its features' shares cancel.
    slope = np.divide(rise, move, out=np.where(ends[0] > 0, 1.0, 0.0), where=move != 0)
    expected = (x - start)[0, 0] * (w[0] @ (slope * v[0, :, 0]))
    assert found.converged.all()
    error = np.linalg.norm(found.attributions["x"][0, 0] - expected)
    assert error <= 3e-3 * max(np.linalg.norm(expected), np.linalg.norm(found.attributions["x"])) + 1e-9
    # What does not move is attributed exactly zero.
    assert not any(found.attributions[name].any() for name in "wbv")
