"""The forms that gradients take for speed: what is emitted for them, and that they are the same gradients."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import parser
from torch import nn

from analyzer import Target, differentiate, full_grad
from analyzer.autodiff.request import full_program, observe
from converters import convert, load


def emitted(model) -> Counter[str]:
    """The ops of a model's gradient program, the forward pass among them."""
    graph = differentiate(model).graph
    program = full_program(graph, observe((), graph.inputs), graph.outputs[0], weights=False)
    return Counter(node.op_type for node in program.nodes)


class Padded(nn.Module):
    """Zeros around the input, as exporters from TensorFlow write them, then a convolution without pads of its own."""

    def __init__(self, pads: tuple[int, ...], conv: nn.Conv2d, twice: bool = False) -> None:
        super().__init__()
        self.pads, self.conv, self.twice = pads, conv, twice

    def forward(self, x):
        padded = nn.functional.pad(x, self.pads)
        y = self.conv(padded)
        if self.twice:
            y = y + padded.mean((2, 3), keepdim=True)[:, : y.shape[1]]
        return torch.tanh(y).flatten(1)


def close_to_autograd(net: nn.Module, model, x: np.ndarray) -> None:
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = net.double()(leaf)
    (expected,) = torch.autograd.grad(y[:, 1].sum(), leaf)
    (found,) = differentiate(model).gradients(x, 1).gradients.values()
    assert np.linalg.norm(found - expected.numpy()) <= 1e-6 * np.linalg.norm(expected.numpy())


@pytest.mark.parametrize(
    "pads, conv",
    [
        ((1, 1, 1, 1), nn.Conv2d(3, 4, 3)),
        ((0, 1, 0, 1), nn.Conv2d(3, 4, 3, 2)),
        ((2, 1, 0, 3), nn.Conv2d(3, 6, 5, 2, groups=3)),
        ((1, 2, 1, 2), nn.Conv2d(3, 3, 5, 2, groups=3)),
        ((1, 1, 1, 1), nn.Conv2d(3, 4, 3, padding=1)),
        # Wider than the kernel: the cotangent is cut, for what sees no input at all.
        ((4, 4, 4, 4), nn.Conv2d(3, 4, 3)),
    ],
    ids=str,
)
def test_gradient_of_padded_input_is_convolved_without_the_pads(pads, conv):
    torch.manual_seed(0)
    net = Padded(pads, conv).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 13)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    assert emitted(model)["Pad"] == 1
    close_to_autograd(net, model, x)


def test_gradient_of_padded_input_with_two_readers_is_cut():
    torch.manual_seed(0)
    net = Padded((1, 1, 1, 1), nn.Conv2d(3, 3, 3), twice=True).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    assert emitted(model)["Pad"] == 2
    close_to_autograd(net, model, x)


def test_padded_channels_are_cut():
    torch.manual_seed(0)
    net = Padded((1, 1, 1, 1, 0, 1), nn.Conv2d(4, 4, 3)).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    assert emitted(model)["Pad"] == 2
    close_to_autograd(net, model, x)


@pytest.mark.parametrize("kernel, transposed", [(3, 1), (5, 0)])
def test_large_depthwise_kernels_are_taken_apart_by_phases(kernel, transposed):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, kernel, 2, kernel // 2, groups=4), nn.Tanh(), nn.Flatten()).eval()
    x = np.random.default_rng(0).standard_normal((2, 4, 11, 10)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    assert emitted(model)["ConvTranspose"] == transposed
    close_to_autograd(net, model, x)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, 2, 1, groups=16),
        nn.Conv2d(16, 16, 5, 2, 2, groups=16, bias=False),
        nn.Conv2d(16, 16, (3, 2), (2, 1), groups=16),
        nn.Conv2d(16, 16, 3, 2, 2, dilation=2, groups=16),
        nn.Conv2d(32, 16, 1, 2),
    ],
    ids=str,
)
def test_strided_kernels_of_one_channel_or_element_are_convolutions_of_zeros_and_cotangents(conv):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, conv.in_channels, 1), nn.ReLU6(), conv, nn.Tanh(), nn.Flatten()).eval()
    x = 3 * np.random.default_rng(0).standard_normal((3, 3, 12, 10)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    assert emitted(model)["ConvTranspose"] == 0
    close_to_autograd(net, model, x)


def clip(low: float | None, high: float | None) -> onnx.ModelProto:
    bounds = {"low": low, "high": high}
    given = ", ".join(f"float {name} = {{{value!r}}}" for name, value in bounds.items() if value is not None)
    names = ", ".join(name if value is not None else '""' for name, value in bounds.items()).rstrip(', "')
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,m] x) => (float[n,m] y)'
        f" <{given}> {{ y = Clip(x, {names}) }}"
    )


TENTH = np.float32(0.1)
TWO_ABOVE = np.nextafter(np.nextafter(TENTH, np.float32(1)), np.float32(1))
BOUNDS = [
    (0.0, 6.0),
    (-1.0, 1.0),
    (0.25, None),
    (None, -7.5),
    (-3e37, 3e37),
    (float(TENTH), float(TWO_ABOVE)),
    (1e-30, 1e30),
    (1e-36, 1.0),
    (6.0, 1e-3),
    (2.0, 2.0),
]


@pytest.mark.parametrize("low, high", BOUNDS)
def test_clip_passes_gradients_strictly_between_its_bounds(low, high):
    """Its mask is read off the output; every normal number next to a bound counts."""
    bounds = np.float32([b for b in (low, high) if b is not None])
    near = [np.nextafter(bounds, np.float32(np.inf)), bounds, np.nextafter(bounds, np.float32(-np.inf))]
    tiny = np.finfo(np.float32).tiny
    x = np.concatenate([*near, np.float32([-1e38, -1, -1e-3, -tiny, 0, tiny, 1e-3, 0.5, 1, 1e38])])
    x = np.unique(x[(x == 0) | (np.abs(x) >= tiny)])[None]
    found = differentiate(load(clip(low, high)))
    g = np.stack([found.gradients(x, k).gradients["x"][0] for k in range(x.shape[1])])
    inside = np.ones(x.shape, bool) if low is None else x > np.float32(low)
    if high is not None:
        inside &= x < np.float32(high)
    assert np.array_equal(g, np.diag(inside[0].astype(np.float32)))
    # FullGrad's term is the output less its product with the slope: a bound where the output lies on it.
    fg = full_grad(found, x, target=Target(weights=np.ones(x.shape[1])))
    term = fg.bias_terms.get("y", np.zeros(x.shape))
    for one in fg.contributions:
        assert abs(one.total.sum() - term.sum()) <= 1e-6 * np.abs(term).sum()
    y = np.clip(x, *(None if b is None else np.float32(b) for b in (low, high)))
    assert np.array_equal(term, np.where(inside, 0, y))


def test_values_of_inputs_are_those_given_and_not_to_be_written():
    model = load(clip(0.0, 6.0))
    x = np.float32([[1, 2, 7]])
    found = differentiate(model).gradients(x, 0)
    assert np.array_equal(found.values["x"], x)
    with pytest.raises(ValueError, match="read-only"):
        found.values["x"][0] = 0


@pytest.mark.parametrize("width, sums", [(3, "of products"), (9, "of weights")])
def test_sums_of_attention_are_taken_of_the_shorter_rows(width, sums):
    """Of weights (…, 8) and values of that width, against autograd."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(5, n) for n in (4, 4, width))

        def forward(self, x):
            weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1)
            return (weights @ self.value(x)).sum(1)

    torch.manual_seed(0)
    net = Attention().eval()
    x = np.random.default_rng(0).standard_normal((2, 8, 5)).astype(np.float32)
    model = convert(net, torch.from_numpy(x))
    graph = differentiate(model).graph
    program = full_program(graph, observe((), graph.inputs), graph.outputs[0], weights=False)
    (softmax,) = [node for node in program.nodes if node.op_type == "Softmax"]
    factors = [set(node.input) for node in program.nodes if node.op_type == "Mul"]
    onto = [names for names in factors if softmax.output[0] in names]
    assert len(onto) == (1 if sums == "of products" else 2)
    close_to_autograd(net, model, x)


def test_a_slice_that_takes_a_whole_axis_moves_nothing():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,4,3] x) => (float[n,3] y)'
        " <int64[2] starts = {0, 0}, int64[2] ends = {9223372036854775807, 2147483647}, int64[2] axes = {0, 2},"
        " int64 one = {1}> { s = Slice(x, starts, ends, axes) t = Gather<axis = 1>(s, one) y = Tanh(t) }"
    )
    ops = emitted(load(model))
    assert not {"ScatterElements", "ScatterND"} & ops.keys()
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    expected = np.zeros_like(x)
    expected[:, 1, 2] = 1 - np.tanh(x[:, 1, 2]) ** 2
    found = differentiate(load(model)).gradients(x, 2).gradients["x"]
    assert np.allclose(found, expected, atol=1e-6)
