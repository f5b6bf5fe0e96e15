"""FullGrad of several inputs: a map each, on its own axes, and together with what has no place they make the output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn

from analyzer import check, full_grad, simple_full_grad, smooth_full_grad
from converters import convert, load


class ImageAndRow(nn.Module):
    """An image, pooled, beside the features of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm1d(4)
        self.hidden, self.head = nn.Linear(3 + 4, 6), nn.Linear(6, 3)

    def forward(self, image: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        pooled = torch.relu(self.conv(image)).mean((2, 3))
        return self.head(torch.tanh(self.hidden(torch.cat([pooled, torch.sigmoid(self.norm(row))], 1))))


class Pair(nn.Module):
    """Two images through one network, compared place by place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Linear(3 * 12, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        difference = torch.tanh(self.conv(a)) - torch.tanh(self.conv(b))
        return self.head(nn.functional.gelu(difference).flatten(1))


class Signals(nn.Module):
    """Two signals of different lengths, whose steps are lined up one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(1, 4, 4, stride=4)
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4 * 15, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.a(a).mT, self.b(b).mT], 1)
        return self.head(nn.functional.silu(self.mix(tokens)).flatten(1))


CASES = {
    "an image and a row": (ImageAndRow, {"image": (2, 6, 8), "row": (4,)}, {"image": (6, 8), "row": (4,)}),
    "two images": (Pair, {"a": (1, 6, 8), "b": (1, 6, 8)}, {"a": (6, 8), "b": (6, 8)}),
    "two signals": (Signals, {"a": (2, 9), "b": (1, 24)}, {"a": (9,), "b": (24,)}),
}


def network(case: str):
    build, shapes, sizes = CASES[case]
    torch.manual_seed(3)
    inputs = {name: torch.randn(2, *shape) for name, shape in shapes.items()}
    model = convert(build().eval(), tuple(inputs.values()))
    return model, {name: array.numpy() for name, array in inputs.items()}, sizes


@pytest.mark.parametrize("case", CASES)
def test_the_maps_of_all_inputs_and_what_has_no_place_make_the_output(case):
    model, inputs, sizes = network(case)
    fg = full_grad(model, inputs, target=1)
    assert {name: array.shape for name, array in fg.map.items()} == {
        name: (2, *size) for name, size in sizes.items()
    }
    in_maps = np.sum([m.reshape(2, -1).sum(1, dtype=np.float64) for m in fg.complete_map.values()], axis=0)
    np.testing.assert_allclose(in_maps + fg.unplaced_total, fg.completeness.output, rtol=1e-4, atol=1e-6)
    placed = {one.tensor for one in fg.contributions if one.placed}
    assert placed and placed.isdisjoint(fg.unplaced)
    assert {one.tensor for one in fg.contributions} == placed | set(fg.unplaced)
    for name in sizes:
        assert fg.map[name].shape == fg.complete_map[name].shape
        assert np.abs(fg.complete_map[name]).max() > 0


def test_what_stands_in_two_inputs_counts_half_for_each():
    # f = Σ w (a − b + c): by hand, a's map is w (a + c / 2) and b's is w (c / 2 − b).
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,3,5,6] a, float[n,3,5,6] b) => (float[n,1] y)'
        " <int64[3] axes = {1,2,3}, int64[2] flat = {-1,1}, float[3,5,6] c, float[3,5,6] w>"
        " { d = Sub(a, b) e = Add(d, c) p = Mul(e, w) s = ReduceSum<keepdims = 0>(p, axes) y = Reshape(s, flat) }"
    )
    rng = np.random.default_rng(0)
    c, w = (rng.normal(size=(3, 5, 6)).astype(np.float32) for _ in range(2))
    del proto.graph.initializer[:]
    constants = {"c": c, "w": w, "axes": np.array([1, 2, 3]), "flat": np.array([-1, 1])}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    a, b = (rng.normal(size=(2, 3, 5, 6)).astype(np.float32) for _ in range(2))
    fg = full_grad(load(proto), {"a": a, "b": b}, target=0)
    np.testing.assert_allclose(fg.complete_map["a"], (w * (a + c / 2)).sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fg.complete_map["b"], (w * (c / 2 - b)).sum(1), rtol=1e-5, atol=1e-6)
    assert fg.unplaced == ()


def test_what_is_joined_stands_where_each_part_came_from():
    model, inputs, _ = network("two signals")
    fg = full_grad(model, inputs, target=1)
    (head,) = fg.unplaced
    totals = {name: total.copy() for name, total in fg.input_totals.items()}
    for tensor, term in fg.bias_terms.items():
        if tensor == head:
            continue
        # The convolutions have the channels first; what follows has 9 steps of a, then 6 of b.
        steps = term.sum(2 if term.shape[1:] == (15, 4) else 1, dtype=np.float64)
        parts = {9: {"a": steps}, 6: {"b": steps}, 15: {"a": steps[:, :9], "b": steps[:, 9:]}}[steps.shape[1]]
        for name, part in parts.items():
            totals[name] += part.sum(1)
    for name, total in totals.items():
        np.testing.assert_allclose(fg.complete_map[name].sum(1), total, rtol=1e-4, atol=1e-6)


def test_variants_have_a_map_for_each_input():
    model, inputs, sizes = network("an image and a row")
    simple = simple_full_grad(model, inputs, target=1)
    smooth = smooth_full_grad(model, inputs, target=1, samples=2)
    for found in (simple, smooth):
        assert {name: array.shape[1:] for name, array in found.map.items()} == sizes
        assert all((array >= 0).all() for array in found.map.values())


def test_one_input_by_name_and_one_inner_tensor_have_one_map():
    torch.manual_seed(0)
    model = convert(
        nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2)).eval(),
        torch.randn(2, 2, 7),
    )
    x = np.random.default_rng(0).normal(size=(2, 2, 7)).astype(np.float32)
    (name,) = (entry.name for entry in model.proto.graph.input)
    expected = full_grad(model, x, target=1).map
    np.testing.assert_array_equal(full_grad(model, {name: x}, target=1).map, expected)
    inner = next(one.tensor for one in full_grad(model, x).contributions)
    assert full_grad(model, x, target=1, wrt=[inner]).map.shape == (2, 5)


def test_a_check_compares_every_input_s_map():
    model, inputs, sizes = network("two images")
    report = check(model, inputs, backends=("onnxruntime", "torch"), target=1)
    compared = {row["tensor"] for row in report.rows if row["quantity"] == "full grad"}
    assert compared == {f"map of {name}" for name in sizes}
    assert report.passed


def test_a_figure_is_drawn_of_the_input_that_is_named():
    model, inputs, _ = network("an image and a row")
    fg = full_grad(model, inputs, target=1)
    bars = fg.plot(inputs, complete=True, of="row", features=["a", "b", "c", "d"]).axes
    for axes, row in zip(bars, fg.complete_map["row"], strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], row)
    assert fg.plot(inputs).get_suptitle() == "FullGrad: image"
    assert simple_full_grad(model, inputs, target=1).plot(inputs, of="row").axes
    with pytest.raises(ValueError, match=r"no map of 'table'\. Fix: choose from image, row"):
        fg.plot(inputs, of="table")
