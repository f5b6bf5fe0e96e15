"""The order of axes of a pair is the true one, also where channels, height and width have one length.

The truth is the transpose that the test itself knows: the second model is the first one in another layout, with a
fault, and both modules are run by PyTorch.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from onnx import ModelProto, parser
from torch import nn

from analyzer import Report, Target, compare
from converters import convert

C = 6


class ChannelsFirst(nn.Module):
    """Two convolutions, channels first; every tensor between has as many channels as positions along an axis."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        # A signal has as many steps as channels.
        self.first, self.second = (convolution(n, C, 3, padding=1) for n in (C if dims == 1 else 3, C))
        self.last = nn.Linear(C, 3)
        self.dims = dims

    def layers(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.first(x)
        t = torch.tanh(y)
        z = t * torch.linspace(0.5, 2, C).reshape(C, *[1] * self.dims)
        u = self.second(z)
        s = torch.sigmoid(u)
        output = self.last(s.flatten(2).mean(2))
        return {"first": y, "tanh": t, "mul": z, "second": u, "sigmoid": s, "linear": output}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)["linear"]


class ChannelsLast(ChannelsFirst):
    """The same function, the channels last between the convolutions."""

    def layers(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        there, back = (0, self.dims + 1, *range(1, self.dims + 1)), (0, *range(2, self.dims + 2), 1)
        y = self.first(x.permute(there)).permute(back)
        t = torch.tanh(y)
        z = t * torch.linspace(0.5, 2, C)
        u = self.second(z.permute(there)).permute(back)
        s = torch.sigmoid(u)
        output = self.last(s.flatten(1, self.dims).mean(1))
        return {"first": y, "tanh": t, "mul": z, "second": u, "sigmoid": s, "linear": output}


def models(dims: int, fault: float) -> tuple[ChannelsFirst, ChannelsLast, np.ndarray]:
    torch.manual_seed(dims)
    first, last = ChannelsFirst(dims), ChannelsLast(dims)
    last.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        weight = last.first.weight
        weight += fault * weight.std() * torch.randn_like(weight)
    return first, last, torch.randn(2, last.first.in_channels, *[C] * dims).numpy()


def to_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def distances(report: Report, quantity: str) -> dict[str, float]:
    return {row["tensor"]: row["relative_l2"] for row in report.rows if row["quantity"] == quantity}


def apart(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    a, b = (one.detach().numpy().astype(np.float64) for one in (mine, theirs))
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b)))


def gradients(layers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = [name for name in layers if name != "linear"]
    found = torch.autograd.grad(layers["linear"][:, 1].sum(), [layers[name] for name in names])
    return dict(zip(names, found, strict=True))


def compared(first: nn.Module, last: nn.Module, x: np.ndarray, *, swapped: bool = False) -> Report:
    a, b = convert(first, torch.from_numpy(x[:1])), convert(last, torch.from_numpy(to_last(x)[:1]))
    pair, feeds = ((b, a), to_last(x)) if swapped else ((a, b), x)
    return compare(*pair, feeds, target=1, steps=1, referee=False)


@pytest.mark.parametrize(
    ("dims", "fault", "swapped"),
    [(1, 0.5, False), (2, 0.05, False), (2, 5.0, True), (3, 0.5, False)],
)
def test_the_distances_of_square_layers_are_the_true_ones(dims: int, fault: float, swapped: bool) -> None:
    first, last, x = models(dims, fault)
    report = compared(first, last, x, swapped=swapped)
    mine, theirs = first.layers(torch.from_numpy(x)), last.layers(torch.from_numpy(to_last(x)))
    slopes, others = gradients(mine), gradients(theirs)

    def truth(ours: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tensor: str) -> float:
        name = tensor.split("_")[0]
        if "conv" in name:
            name = "second" if tensor.endswith("_1") else "first"
        moved = other[name].movedim(-1, 1) if ours[name].ndim > 2 else other[name]
        return apart(ours[name], moved)

    values = {name: one for name, one in distances(report, "layer").items() if name != "mean"}
    assert len(values) == 6
    for name, found in values.items():
        assert found == pytest.approx(truth(mine, theirs, name), rel=1e-3, abs=1e-6), name
    biases = {name: one for name, one in distances(report, "bias gradient").items() if name in values}
    assert len(biases) >= 3
    for name, found in biases.items():
        if name != "linear":
            assert found == pytest.approx(truth(slopes, others, name), rel=1e-3, abs=1e-6), name


class Flattened(nn.Module):
    """An activation of what was flattened, the channels first or last."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, C, 3, padding=1), nn.Linear(C**3, 3)
        self.last = last

    def active(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.last else self.conv(x)
        return torch.tanh(y.flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.active(x))


def test_a_flattened_layer_is_compared_element_by_element() -> None:
    torch.manual_seed(0)
    first, last = Flattened(last=False), Flattened(last=True)
    last.load_state_dict(first.state_dict())
    with torch.no_grad():
        weight = first.dense.weight.reshape(3, C, C, C)
        last.dense.weight.copy_(weight.permute(0, 2, 3, 1).flatten(1))
        last.conv.weight += 0.3 * last.conv.weight.std() * torch.randn_like(last.conv.weight)
    x = torch.randn(2, 3, C, C)
    report = compared(first, last, x.numpy())
    theirs = last.active(x.movedim(1, -1)).reshape(2, C, C, C).movedim(-1, 1).flatten(1)
    assert report.near["tanh"] == "tanh"
    assert distances(report, "layer")["tanh"] == pytest.approx(apart(first.active(x), theirs), rel=1e-3)


def test_values_of_several_orders_have_the_order_of_their_gradients() -> None:
    torch.manual_seed(0)
    first, last, x = models(2, 0.0)
    with torch.no_grad():
        for net in (first, last):
            # Equal values over all positions and channels: any order fits them.
            net.first.weight.zero_()
            net.first.bias.fill_(0.25)
    report = compared(first, last, x)
    report.raise_for_disagreement()
    assert distances(report, "bias gradient")["conv2d"] <= 1e-5


def test_an_order_that_a_fault_brings_nearer_is_not_chosen() -> None:
    rng = np.random.default_rng(0)
    x, factor = rng.standard_normal((2, 1, 5, 5)).astype(np.float32), rng.standard_normal((5, 5))
    x += x.transpose(0, 1, 3, 2) + 0.01 * x
    wrong = 0.2 * factor + 0.8 * factor.T
    a, b = square(factor), square(wrong)
    report = compare(a, b, x, target=Target(index=(0, 0, 0)), steps=1, referee=False)
    z = np.tanh(x.astype(np.float64))
    ours, theirs = z * factor, z * wrong
    true, near = (np.linalg.norm(ours - one) for one in (theirs, theirs.transpose(0, 1, 3, 2)))
    assert near < 0.5 * true
    size = max(np.linalg.norm(ours), np.linalg.norm(theirs))
    for quantity in ("layer", "output"):
        assert distances(report, quantity)["y"] == pytest.approx(true / size, rel=1e-3)


def square(factor: np.ndarray) -> ModelProto:
    head = '<ir_version: 10, opset_import: ["": 23]> g (float[n,1,5,5] x) => (float[n,1,5,5] y)'
    numbers = ", ".join(str(number) for number in factor.reshape(-1))
    return parser.parse_model(f"{head} <float[5,5] c = {{{numbers}}}> {{ z = Tanh(x) y = Mul(z, c) }}")


class Decomposed(nn.Module):
    """A BatchNorm as a product and a sum, each in the module of the layer."""

    def __init__(self, norm: nn.BatchNorm2d, epsilon: float) -> None:
        super().__init__()
        scale = norm.weight / torch.sqrt(norm.running_var + epsilon)
        shift = norm.bias - norm.running_mean * scale
        self.scale, self.shift = (nn.Parameter(one.detach().reshape(-1, 1, 1)) for one in (scale, shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


@pytest.mark.parametrize(("epsilon", "swapped"), [(1e-3, False), (3.0, False), (3.0, True)])
def test_a_layer_is_paired_with_the_last_node_of_its_counterpart(epsilon: float, swapped: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.running_var.uniform_(0.05, 0.5)
        norm.running_mean.fill_(1.5)
    head, tail = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))
    nets = [nn.Sequential(head, one, tail).eval() for one in (norm, Decomposed(norm, epsilon))]
    x = torch.randn(2, 3, 5, 5)
    given = [convert(net, x[:1], fold_batch_norm=False) for net in (nets[::-1] if swapped else nets)]
    report = compare(*given, x.numpy(), target=1, steps=1, referee=False, fold_batch_norm=False)
    ours, theirs = (net[1](net[0](x)) for net in nets)
    (pair,) = report.pairs
    first = pair.first_divergence
    assert first["relative_l2"] == pytest.approx(apart(ours, theirs), rel=1e-3)
    assert "of layer '1'" in pair.origin and "of layer '1'" in report.first_apart
