"""compare: twins are matched layer by layer whatever their names and layout; a port that went wrong is pinned."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from analyzer import compare, full_grad
from analyzer.errors import AnalysisError, InputError, ShapeError
from converters import convert
from examples.twin import build_twins, example_images


@pytest.fixture(scope="module")
def twins():
    nets = build_twins(0)
    nchw, nhwc = example_images(4)
    return nets, nchw, nhwc, convert(nets[0], nchw[:1]), convert(nets[1], nhwc[:1])


def test_twins_of_two_frameworks_are_one_function(twins):
    _, nchw, nhwc, a, b = twins
    report = compare(a, b, nchw, target=3, names=("pytorch", "keras"))
    report.raise_for_disagreement()
    assert report.unmatched["pytorch"] == () and not report.near
    assert {row["quantity"] for row in report.rows} == {
        "output", "layer", "input gradient", "bias gradient", "full grad", "integrated gradients",
    }  # fmt: skip
    assert all(row["relative_l2"] <= 1e-5 for row in report.rows)
    assert all(row["tensor_b"] for row in report.rows if row["quantity"] == "layer")
    # The other way round the images are given channels last.
    compare(b, a, nhwc, target=3).raise_for_disagreement()


def test_a_wrong_epsilon_is_pinned_to_its_layer(twins):
    (_, keras_twin), nchw, nhwc, a, _ = twins
    keras_twin.bn2.epsilon = 1e-2
    try:
        wrong = convert(keras_twin, nhwc[:1])
    finally:
        keras_twin.bn2.epsilon = 1e-5
    report = compare(a, wrong, nchw, target=3, names=("pytorch", "keras"))
    assert not report.passed
    (pair,) = report.pairs
    assert pair.first_divergence["quantity"] == "layer"
    assert pair.first_divergence["layer"] == "conv2"
    assert "Conv 'node_conv2d_1'" in pair.origin
    # What follows is compared with its counterpart, not with a product whose bias is still to be added.
    assert report.near["linear"].endswith("BiasAdd:0") and "Relu" in report.near["relu_2"]
    assert all(row["relative_l2"] < 2e-2 for row in report.rows if row["quantity"] == "layer")
    assert report.drift[0]["output"] > 1e-4
    # What lies behind is paired with its counterpart, a Gemm with the sum and not with the product.
    assert report.near["linear"].endswith("/BiasAdd:0")
    assert report.near["relu_2"].endswith("/Relu_2:0")


class Detour(nn.Module):
    """A dense layer behind one whose values go by way of much larger ones and back, which costs digits."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.net[0](x)
        far = 4e3 * hidden.sum(1, keepdim=True)
        return self.net[1](torch.tanh((hidden + far) - far))


def test_float64_tells_an_excess_that_is_rounding():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), torch.randn(3, 6)
    direct = nn.Sequential(net[0], nn.Tanh(), net[1])
    a, b = convert(direct, x), convert(Detour(net), x)
    report = compare(a, b, x.numpy(), target=0, tolerance=1e-6, steps=1, names=("direct", "detour"))
    assert not report.passed
    judged = [row for row in report.rows if "float64" in row]
    assert judged and all(row["float64"] < 1e-11 and row["nearer"] == "direct" for row in judged)
    assert report.referee == "torch, float64: the models agree there, what is in excess is rounding"
    assert "in float64" in report.reason
    assert compare(a, b, x.numpy(), tolerance=1e-6, steps=1, referee=False).referee == "not asked"


def test_float64_tells_models_that_differ(twins):
    (net, _), nchw, _, a, _ = twins
    wrong = copy.deepcopy(net)
    wrong.bn2.eps = 1e-2
    report = compare(a, convert(wrong, nchw[:1]), nchw, target=3, steps=1)
    assert "the models differ there as well" in report.referee
    with torch.no_grad():
        right, other = (one.double()(torch.from_numpy(nchw).double()) for one in (copy.deepcopy(net), wrong))
    (row,) = (row for row in report.rows if row["quantity"] == "output")
    assert row["float64"] == pytest.approx(float((right - other).norm() / right.norm()), rel=1e-3)


def test_the_drift_of_a_rounded_copy_is_ranked_by_sample(twins):
    _, nchw, _, a, _ = twins
    rounded = onnx.ModelProto()
    rounded.CopyFrom(a.proto)
    for initializer in rounded.graph.initializer:
        weights = onnx.numpy_helper.to_array(initializer)
        if weights.ndim > 1 and weights.dtype == np.float32:
            step = np.abs(weights).max() / 8
            initializer.CopyFrom(
                onnx.numpy_helper.from_array(np.round(weights / step) * step, initializer.name)
            )
    report = compare(a, rounded, nchw)
    assert not report.passed
    assert len(report.near) + len(report.matched) == 9
    moved = [row["full grad relative_l2"] for row in report.drift]
    assert sorted(row["sample"] for row in report.drift) == [0, 1, 2, 3]
    assert all(0.001 < value < 1 for value in moved)
    # SSIM of the two models' maps, by another implementation.
    highest = full_grad(a, nchw).target
    maps = [full_grad(one, nchw, highest).map for one in (a, rounded)]
    for row in report.drift:
        pair = [found[row["sample"]] for found in maps]
        extent = np.max(pair) - np.min(pair)
        options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": extent}
        assert row["full grad ssim"] == pytest.approx(structural_similarity(*pair, **options), abs=1e-4)
        assert 0 < row["full grad top_overlap"] <= 1 and 0 < row["integrated gradients ssim"] < 1
    told = json.loads(report.to_json())
    assert told["drift"][0]["sample"] == report.drift[0]["sample"]


def test_two_inputs_are_paired_by_shape_or_as_the_caller_says():
    class Sum(nn.Module):
        def __init__(self, swapped: bool) -> None:
            super().__init__()
            self.swapped = swapped

        def forward(self, first, second):
            image, table = (second, first) if self.swapped else (first, second)
            return torch.tanh(image).mean((2, 3)) + 3 * table

    image, table = torch.randn(2, 3, 5, 4), torch.randn(2, 3)
    a, b = convert(Sum(False), (image, table)), convert(Sum(True), (table, image))
    feeds = {"first": image.numpy(), "second": table.numpy()}
    with pytest.raises(ShapeError, match="no order of the axes"):
        compare(a, b, feeds)
    compare(
        a, b, feeds, inputs_of_b={"first": "second", "second": "first"}, target=0
    ).raise_for_disagreement()
    with pytest.raises(InputError, match="no input 'third'"):
        compare(a, b, feeds, inputs_of_b={"first": "third"})


def test_models_of_another_shape_are_refused(twins):
    _, nchw, _, a, _ = twins
    other = convert(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), torch.randn(1, 12))
    with pytest.raises(ShapeError):
        compare(a, other, nchw)
    with pytest.raises(AnalysisError, match="both called"):
        compare(a, a, nchw, names=("x", "x"))


def test_maps_are_drawn_over_the_same_axes_where_no_layer_tells_the_channels():
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh()) for _ in "ab")
    with torch.no_grad():
        # (N, 3, 6, 4) is read as channels first, (N, 4, 3, 6) would be, too: of its 4 channels.
        kernel = first[1].weight.reshape(5, 3, 6, 4).permute(0, 3, 1, 2).reshape(5, 72)
        second[1].weight.copy_(kernel)
        second[1].bias.copy_(first[1].bias)
    x = torch.randn(3, 3, 6, 4)
    a, b = convert(first, x[:1]), convert(second, x[:1].permute(0, 3, 1, 2))
    report = compare(a, b, x.numpy(), target=1)
    report.raise_for_disagreement()
    assert "full grad" in {row["quantity"] for row in report.rows}
