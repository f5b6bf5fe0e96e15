"""The maps of FullGrad: other libraries' conventions, the authors' variants, and the complete map's conserved mass."""

from __future__ import annotations

import functools
import io
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from analyzer import differentiate, full_grad, simple_full_grad, smooth_full_grad
from analyzer.errors import AnalysisError
from analyzer.methods.full_gradient.decomposition import PLANS
from analyzer.methods.full_gradient.maps import spreading
from converters import convert, load
from tests.analyzer.methods.published import decompose, saliency
from tests.zoo.pytorch_networks import NETWORKS
from tests.zoo.pytorch_transformers import NETWORKS as TRANSFORMERS

PLACED = ["resnet18", "mobilenet_v3", "densenet", "vit", "swin"]


def relative_l2(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@functools.cache
def network(name: str, fold: bool = True):
    if name in TRANSFORMERS:
        net, (x, *_) = TRANSFORMERS[name]()
    else:
        net, shape = NETWORKS[name]()
        x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(5))
    return net.eval(), x.numpy(), convert(net, x, fold_batch_norm=fold)


@pytest.mark.parametrize("name", ["resnet18", "vgg_bn"])
@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_simple_full_grad_takes_gradients_in_place_of_terms(name, backend):
    net, x, model = network(name, fold=False)
    logits, terms, gradients = decompose(net, x, target=2)
    found = simple_full_grad(differentiate(model, backend), x, target=2)
    assert relative_l2(found.map, saliency([terms[0], *gradients])) <= 1e-4
    np.testing.assert_allclose(found.output, logits, rtol=1e-4, atol=1e-5)


def test_smooth_full_grad_averages_signed_terms_over_noise():
    net, x, model = network("resnet18", fold=False)
    spread = 0.1 * (x.max(axis=(1, 2, 3), keepdims=True) - x.min(axis=(1, 2, 3), keepdims=True))
    totals = None
    for copy in range(4):
        seeds = [np.random.SeedSequence(3, spawn_key=(sample, copy)) for sample in range(len(x))]
        noise = np.stack([np.random.default_rng(seed).standard_normal(x.shape[1:]) for seed in seeds])
        noisy = (x + spread * noise).astype(np.float32)
        _, terms, _ = decompose(net, noisy, target=2)
        terms[0] = terms[0].sum(1, keepdim=True)  # the authors add up the image's channels first
        totals = terms if totals is None else [a + b for a, b in zip(totals, terms, strict=True)]
    found = smooth_full_grad(model, x, target=2, samples=4, noise=0.1, rng=3, terms="explicit")
    assert relative_l2(found.map, saliency([total / 4 for total in totals])) <= 1e-4


def test_smooth_full_grad_does_not_depend_on_the_rest_of_the_batch():
    _, x, model = network("resnet18")
    whole = smooth_full_grad(model, x, samples=2, rng=1).map
    assert relative_l2(smooth_full_grad(model, x[:1], samples=2, rng=1).map, whole[:1]) <= 1e-4


def test_smooth_full_grad_explains_the_clean_class_and_repeats_by_its_seed():
    _, x, model = network("resnet18")
    done = []
    one = smooth_full_grad(model, x, samples=2, rng=1, progress=lambda *counts: done.append(counts))
    np.testing.assert_array_equal(one.map, smooth_full_grad(model, x, samples=2, rng=1).map)
    assert np.abs(one.map - smooth_full_grad(model, x, samples=2, rng=2).map).max() > 0
    np.testing.assert_array_equal(one.target, full_grad(model, x).target)
    assert done == [(1, 2), (2, 2)]
    with pytest.raises(AnalysisError, match="samples as a whole number of at least 1"):
        smooth_full_grad(model, x, samples=0)


@pytest.mark.parametrize("name", PLACED)
def test_the_complete_map_and_what_has_no_place_make_the_output(name):
    _, x, model = network(name)
    fg = full_grad(model, x, target=1)
    assert fg.complete_map.shape == fg.map.shape == (len(x), *x.shape[2:])
    in_map = fg.complete_map.sum(axis=(1, 2), dtype=np.float64)
    scale = np.maximum(np.abs(fg.completeness.output), 1e-3 * np.abs(fg.complete_map).sum(axis=(1, 2)))
    assert (np.abs(in_map + fg.unplaced_total - fg.completeness.output) <= 1e-4 * scale).all()
    assert (fg.complete_map < 0).any()
    assert (fg.map >= 0).all()


@pytest.mark.parametrize(("name", "most"), [("vit", 2), ("swin", 1), ("resnet18", 1)])
def test_only_what_sees_the_whole_image_has_no_place(name, most):
    _, x, model = network(name)
    fg = full_grad(model, x, target=1)
    assert 1 <= len(fg.unplaced) <= most
    assert len(fg.contributions) > 8
    assert {one.tensor for one in fg.contributions if not one.placed} == set(fg.unplaced)


def test_channels_last_gives_the_same_maps():
    net, x, model = network("resnet18")

    class Last(nn.Module):
        def forward(self, pixels):
            return net(pixels.permute(0, 3, 1, 2))

    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    a, b = full_grad(model, x, target=1), full_grad(convert(Last(), torch.tensor(last)), last, target=1)
    assert relative_l2(b.map, a.map) <= 1e-4
    assert relative_l2(b.complete_map, a.complete_map) <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["vgg_bn", "vit"])
def test_every_exporter_gives_the_same_maps(name):
    net, x, model = network(name)
    expected = full_grad(model, x, target=1)
    example = (torch.tensor(x),)
    batch = ({0: torch.export.Dim("batch")},)
    files = [
        torch.onnx.export(
            net, example, dynamo=True, optimize=optimize, dynamic_shapes=batch, verbose=False
        ).model_proto
        for optimize in (True, False)
    ]
    buffer = io.BytesIO()
    axes = {"x": {0: "n"}}
    torch.onnx.export(
        net, example, buffer, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes
    )
    files.append(onnx.load_from_string(buffer.getvalue()))
    for file in files:
        found = full_grad(load(file), x, target=1)
        assert relative_l2(found.map, expected.map) <= 1e-4
        assert relative_l2(found.complete_map, expected.complete_map) <= 1e-4


@pytest.mark.parametrize(("cells", "size"), [(4, 32), (7, 30), (5, 5), (1, 6), (9, 4)])
def test_spreading_neither_makes_nor_loses_mass(cells, size):
    weights = spreading(cells, size)
    assert weights.shape == (size, cells)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    np.testing.assert_allclose(weights, weights[::-1, ::-1])
    # A constant stays one, away from the border cells, which keep within the image what would leave it.
    if size % cells == 0:
        inside = slice(2 * size // cells, -2 * size // cells)
        np.testing.assert_allclose(weights.sum(axis=1)[inside], cells / size)


def test_a_signal_has_a_map_over_time():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.GELU(), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(4 * 12, 3)).eval()
    x = torch.randn(2, 2, 31)
    fg = full_grad(convert(net, x), x.numpy(), target=1)
    assert fg.complete_map.shape == (2, 31)
    total = fg.complete_map.sum(1) + fg.unplaced_total
    np.testing.assert_allclose(total, fg.completeness.output, rtol=1e-4, atol=1e-5)
    assert len(fg.unplaced) == 1


def test_a_volume_has_a_map_over_three_axes():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 24, 2)
    )
    x = torch.randn(2, 1, 4, 6, 8)
    fg = full_grad(convert(net.eval(), x), x.numpy(), target=1)
    assert fg.map.shape == fg.complete_map.shape == (2, 4, 6, 8)
    total = fg.complete_map.sum((1, 2, 3)) + fg.unplaced_total
    np.testing.assert_allclose(total, fg.completeness.output, rtol=1e-4, atol=1e-5)


def test_a_series_of_features_is_read_along_time():
    # (N, time, features) into a recurrent layer: nothing convolves, the layer itself says which axis is time.
    class Series(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.layer(x)[0])).mean(1)

    torch.manual_seed(0)
    x = torch.randn(2, 9, 5)
    fg = full_grad(convert(Series().eval(), x), x.numpy(), target=1)
    assert fg.complete_map.shape == (2, 9)
    total = fg.complete_map.sum(1) + fg.unplaced_total
    np.testing.assert_allclose(total, fg.completeness.output, rtol=1e-4, atol=1e-5)


def test_a_table_row_has_a_bar_per_feature():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    x = torch.randn(3, 7)
    fg = full_grad(convert(net, x), x.numpy(), target=0)
    assert fg.map.shape == (3, 7)
    np.testing.assert_allclose(fg.complete_map, fg.input_term, rtol=1e-5)
    np.testing.assert_allclose(fg.complete_map.sum(1) + fg.unplaced_total, fg.completeness.output, rtol=1e-4)


def test_views_tell_one_story():
    _, x, model = network("mobilenet_v3")
    fg = full_grad(model, x, target=1)
    output = fg.completeness.output
    layers = np.sum([layer.total for layer in fg.layers], axis=0)
    inputs = np.sum([*fg.input_totals.values()], axis=0)
    np.testing.assert_allclose(inputs + layers, fg.completeness.total, rtol=1e-6)
    assert len({layer.name for layer in fg.layers}) == len(fg.layers) <= len(fg.contributions)
    sizes = [abs(float(one.total[1])) for one in fg.largest(1)]
    assert sizes == sorted(sizes, reverse=True)
    told = json.loads(fg.to_json())
    sums = np.sum([one["sum"] for one in told["contributions"]], axis=0)
    np.testing.assert_allclose(sums + np.sum([*told["input_terms"].values()], axis=0), fg.completeness.total)
    assert fg.table(0, most=5).row_count == 1 + 5 + 1
    shares = [fg.share(layer.total) for layer in fg.layers]
    np.testing.assert_allclose(np.sum(shares, axis=0), layers / output, rtol=1e-6)
    assert len(fg.bar_chart(0).axes) == 1


def test_bias_terms_are_computed_when_asked_for():
    _, x, model = network("resnet18")
    fn = differentiate(model)

    def planned() -> int:
        """Return the number of plans of the method."""
        return len(PLANS.of(fn))

    fg = full_grad(fn, x)
    assert planned() == 1
    for one in fg.contributions:
        total = fg.bias_terms[one.tensor].reshape(len(x), -1).sum(1, dtype=np.float64)
        np.testing.assert_allclose(total, one.total, rtol=1e-3, atol=1e-5)
    assert planned() == 2
    with pytest.raises(KeyError):
        fg.bias_terms["no such tensor"]
