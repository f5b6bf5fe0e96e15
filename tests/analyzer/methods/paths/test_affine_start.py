"""Integrated Gradients followed behind a network's affine start: where that begins, and that nothing else changes."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from onnx import parser
from torch import nn

from analyzer import Target, differentiate, integrated_gradients
from analyzer.methods.paths.affine_start import LinesBehind, behind_affine_start, frontier
from analyzer.methods.paths.fixed_target import hold
from analyzer.methods.paths.lines import Lines
from converters import convert, load
from tests.zoo.pytorch_transformers import VisionTransformer

MODULE = importlib.import_module("analyzer.methods.integrated_gradients")
HEAD = '<ir_version: 10, opset_import: ["": 23]> '


def graph_of(text: str):
    return differentiate(load(parser.parse_model(HEAD + text))).graph


@pytest.mark.parametrize(
    "body, expected",
    [
        ("{ h = MatMul(x, w) y = Tanh(h) }", ("h",)),
        ("{ h = MatMul(x, w) a = Add(h, x) y = Mul(a, h) }", ("a", "h")),
        ("{ h = MatMul(x, w) a = Neg(h) t = Tanh(a) y = Mul(t, h) }", ("h",)),
        ("{ s = Mul(x, x) h = MatMul(s, w) y = Tanh(h) }", ()),
        ("{ h = MatMul(x, w) t = Tanh(h) y = Add(t, x) }", ()),
        ("{ h = MatMul(x, w) y = Neg(h) }", ()),
        ("{ h = Neg(x) y = Tanh(h) }", ()),
        ("{ h = MatMul(x, w) c = Abs(h) z = Sub(c, c) b = Cast<to = 9>(z) y = Where(b, h, z) }", ("h",)),
        ("{ m = MatMul(x, w) t = Transpose<perm = [1, 0]>(x) h = MatMul(m, t) y = Tanh(h) }", ("m", "t")),
    ],
)  # fmt: skip
def test_frontier_is_where_the_network_bends(body, expected):
    graph = graph_of(
        f"g (float[n,3] x) => (float[n,k] y) <float[3,3] w = {{{', '.join('123456789')}}}> {body}"
    )
    assert frontier(graph, ("x",), ("y",)) == expected


def test_a_condition_on_the_input_bends_the_path():
    graph = graph_of(
        "g (float[n,3] x) => (float[n,3] y) <float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float zero = {0}>"
        " { h = MatMul(x, w) c = Greater(h, zero) p = Where(c, h, zero) y = Tanh(p) }"
    )
    assert frontier(graph, ("x",), ("y",)) == ("h",)


class Images(nn.Module):
    """Scaled and normalized, then convolved, as deployed classifiers do; the output also reads a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4 * 25, 5)

    def forward(self, x):
        z = self.conv((x / 255 - 0.45) / 0.22)
        return self.head(torch.relu(z).flatten(1)) * torch.sigmoid(z.mean((1, 2, 3)))[:, None]


class TwoInputs(nn.Module):
    """Of the second input a part is read through a matrix, the first through another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(5, 4)

    def forward(self, a, b):
        return torch.tanh(self.a(a) + self.b(b)) * torch.relu(self.b(b))


def networks():
    torch.manual_seed(3)
    random = torch.Generator().manual_seed(4)
    return {
        "mlp": (nn.Sequential(nn.Linear(30, 20), nn.GELU(), nn.Linear(20, 4)), (torch.randn(3, 30, generator=random),)),
        "images": (Images(), (255 * torch.rand(3, 3, 11, 11, generator=random),)),
        "vit": (VisionTransformer(size=16, patch=4, width=24), (torch.randn(3, 3, 16, 16, generator=random),)),
        "two inputs": (TwoInputs(), (torch.randn(3, 6, generator=random), torch.randn(3, 5, generator=random))),
    }  # fmt: skip


@pytest.fixture(params=networks(), scope="module")
def case(request):
    net, inputs = networks()[request.param]
    model = convert(net.eval(), inputs if len(inputs) > 1 else inputs[0])
    fn = differentiate(model)
    arrays = dict(zip(fn.graph.inputs, (x.numpy() for x in inputs), strict=True))
    return fn, arrays if len(arrays) > 1 else next(iter(arrays.values()))


def directly(monkeypatch, *arguments, **options):
    """The same with every point evaluated from the inputs on."""
    with monkeypatch.context() as patched:
        patched.setattr(MODULE, "behind_affine_start", lambda lines: lines)
        return integrated_gradients(*arguments, **options)


def arrays_in(found) -> np.ndarray:
    parts = found if isinstance(found, dict) else {"": found}
    return np.concatenate([part.reshape(-1) for part in parts.values()])


OPTIONS = [
    {"target": 1},
    {"target": np.array([0, 3, 1]), "steps": 7, "rule": "trapezoid"},
    {"target": Target(top=2), "steps": 5},
    {"target": Target(weights=np.arange(12.0).reshape(3, 4)), "steps": 5},
    {"target": 2, "steps": 6, "baseline": [0.0, 0.5], "batch_size": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_attributions_are_those_of_the_whole_path(case, options, monkeypatch):
    fn, x = case
    outputs = fn.graph.tensors[fn.graph.outputs[0]].shape[1]
    if isinstance(options["target"], Target) and options["target"].weights is not None and outputs != 4:
        options = {**options, "target": Target(weights=np.arange(3.0 * outputs).reshape(3, outputs))}
    found = integrated_gradients(fn, x, **options)
    expected = directly(monkeypatch, fn, x, **options)
    a, b = arrays_in(found.attributions), arrays_in(expected.attributions)
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
    assert np.allclose(found.delta, expected.delta, atol=1e-4)
    assert found.evaluations == expected.evaluations
    if found.standard_error is not None:
        error, reference = arrays_in(found.standard_error), arrays_in(expected.standard_error)
        assert np.linalg.norm(error - reference) <= 1e-4 * np.linalg.norm(reference)


def test_every_network_here_has_an_affine_start(case):
    fn, x = case
    held = hold(fn.bind(x, 0))
    zeros = {name: np.zeros_like(array) for name, array in held.feeds.items()}
    lines = behind_affine_start(Lines(held, [zeros], 4))
    assert isinstance(lines, LinesBehind)
    assert set(lines.behind.held.names).isdisjoint(held.feeds)


def test_frameworks_and_wide_starts_are_followed_from_the_inputs():
    torch.manual_seed(0)
    x = torch.randn(2, 8)
    for width, backend, behind in ((8, "onnxruntime", True), (8, "torch", False), (64, "onnxruntime", False)):
        net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 2)).eval()
        fn = differentiate(convert(net, x), backend)
        held = hold(fn.bind(x.numpy(), 0))
        zeros = {name: np.zeros_like(array) for name, array in held.feeds.items()}
        lines = behind_affine_start(Lines(held, [zeros], 4))
        assert isinstance(lines, LinesBehind) is behind
