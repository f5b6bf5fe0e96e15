"""XRAI against the authors' code on the same attributions, and against hand-ranked regions."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import AnalysisError, differentiate, integrated_gradients, xrai
from analyzer.errors import InputError, MissingDependency, ShapeError
from analyzer.methods import segments as segmentation
from analyzer.methods.xrai import rank
from converters import Preprocessing, convert
from tests.peers import saliency
from tests.zoo.pytorch_networks import NETWORKS

SQUARE = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,3,h,w] x) => (float[n,1] y)'
    " <int64[3] all = {1, 2, 3}, int64[2] flat = {-1, 1}>"
    " { s = Mul(x, x) r = ReduceSum<keepdims = 0>(s, all) y = Reshape(r, flat) }"
)


@functools.cache
def photograph(height: int, width: int) -> np.ndarray:
    """A part of scikit-image's cat, (1, 3, H, W) in [0, 1]."""
    from skimage import data

    image = data.chelsea()[40 : 40 + 2 * height : 2, 60 : 60 + 2 * width : 2] / 255
    return np.moveaxis(image, -1, 0)[None].astype(np.float32)


@saliency.needs_saliency
@pytest.mark.parametrize("height, width", [(64, 64), (90, 120)])
def test_equals_the_authors_code_on_the_same_attributions(height, width):
    x = photograph(height, width)
    attributions = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    # Of the smoothness that makes regions differ.
    attributions += 5 * x * (x > 0.5)
    found = xrai(SQUARE, x, attributions=attributions)
    theirs, ranks = saliency.xrai(np.moveaxis(x[0], 0, -1), np.moveaxis(attributions[0], 0, -1))
    assert np.linalg.norm(found.map[0] - theirs) <= 1e-5 * np.linalg.norm(theirs)
    np.testing.assert_array_equal(found.ranks[0], ranks)
    assert found.ranks.max() > 5


def test_regions_are_ranked_by_the_mean_of_what_they_add():
    attributions = np.array([[9.0, 1, 0, 0], [9, 1, 0, 0], [-4, -4, 2, 2]])
    left = np.zeros((3, 4), bool)
    left[:2, :2] = True
    edge = np.zeros((3, 4), bool)
    edge[:2, 0] = True
    below = np.zeros((3, 4), bool)
    below[2, 2:] = True
    # The edge has mean 9; what `left` adds to it is 1, less than `below` with 2; the rest, mean −1, comes last.
    means, ranks = rank(np.stack([left, below, edge]), attributions, min_pixels=1)
    np.testing.assert_array_equal(ranks, [[1, 3, 4, 4], [1, 3, 4, 4], [4, 4, 2, 2]])
    np.testing.assert_allclose(means, [[9, 1, -4 / 3, -4 / 3]] * 2 + [[-4 / 3, -4 / 3, 2, 2]])


def test_segments_that_add_too_few_pixels_are_left_out():
    attributions = np.arange(12.0).reshape(3, 4)
    top, most = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    top[0, :3] = most[:2] = True
    _, ranks = rank(np.stack([top, most]), attributions, min_pixels=6)
    # What `most` would add to `top` is 5: the larger goes first here, and then `top` adds nothing.
    np.testing.assert_array_equal(ranks, np.repeat([[1], [1], [2]], 4, axis=1))


def test_the_map_sums_to_the_attributions_and_masks_part_the_image():
    x = photograph(48, 40)
    attributions = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    found = xrai(SQUARE, x, attributions=attributions)
    np.testing.assert_allclose(found.map.sum(), attributions.max(axis=1).sum(), rtol=1e-4)
    masks = found.masks(0)
    assert (masks.sum(axis=0) == 1).all()
    highest = [found.map[0][mask] for mask in masks]
    means = [float(values[0]) for values in highest]
    assert all((values == values[0]).all() for values in highest)
    assert means[:-1] == sorted(means[:-1], reverse=True)
    top = found.top(0.3)
    assert 0.3 <= top.mean() <= 1
    assert top[0][masks[0]].all()
    assert found.top(1.0).all()
    with pytest.raises(AnalysisError, match="at most 1, got 0"):
        found.top(0)
    assert found.delta is None


def test_default_attributions_are_the_mean_of_two_baselines():
    net, shape = NETWORKS["resnet18"]()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(3))
    preprocessing = Preprocessing(size=shape[1:], mean=(0.5,) * 3, std=(0.25,) * 3)
    model = convert(net.eval(), x, preprocessing=preprocessing)
    fn, halves = differentiate(model), [np.zeros((2, *shape[1:]), bool) for _ in range(2)]
    for half in halves:
        half[0, : shape[1] // 2], half[1, shape[1] // 2 :] = True, True
    seen = []
    found = xrai(fn, x.numpy(), steps=5, segments=halves, progress=lambda *state: seen.append(state))
    with torch.no_grad():
        classes = net(x).argmax(1).numpy()
    np.testing.assert_array_equal(found.target, classes)
    black, white = (
        integrated_gradients(fn, x.numpy(), classes, baseline=name, steps=5) for name in ("black", "white")
    )
    expected = (black.attributions + white.attributions) / 2
    np.testing.assert_allclose(found.attributions, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(found.delta, (black.delta + white.delta) / 2, atol=1e-5)
    np.testing.assert_allclose(
        found.map[0][halves[0][0]], expected[0].max(axis=0)[halves[0][0]].mean(), rtol=1e-4
    )
    assert seen[-1] == (20, 20)


def test_channels_may_stand_last():
    last = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,48,40,3] x) => (float[n,1] y)'
        " <int64[3] all = {1, 2, 3}, int64[2] flat = {-1, 1}>"
        " { s = Mul(x, x) r = ReduceSum<keepdims = 0>(s, all) y = Reshape(r, flat) }"
    )
    x = photograph(48, 40)
    attributions = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    first = xrai(SQUARE, x, attributions=attributions)
    moved = xrai(last, np.moveaxis(x, 1, -1), attributions=np.moveaxis(attributions, 1, -1))
    np.testing.assert_allclose(first.map, moved.map)


def test_a_flat_image_is_one_region():
    x = np.full((1, 3, 20, 20), 0.5, np.float32)
    found = xrai(SQUARE, x, attributions=np.ones_like(x), min_pixels=1)
    np.testing.assert_array_equal(found.map, 1)


def test_a_grey_image_in_half_precision_is_cut():
    grey = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float16[n,1,h,w] x) => (float16[n,1] y)'
        " <int64[3] all = {1, 2, 3}, int64[2] flat = {-1, 1}>"
        " { r = ReduceSum<keepdims = 0>(x, all) y = Reshape(r, flat) }"
    )
    x = photograph(48, 40).mean(axis=1, keepdims=True).astype(np.float16)
    attributions = np.random.default_rng(1).normal(size=x.shape).astype(np.float16)
    found = xrai(grey, x, attributions=attributions)
    # Models of half precision are computed in single.
    assert found.map.dtype == np.float32
    assert found.ranks.max() > 3


def test_a_missing_scikit_image_names_the_extra(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(segmentation, "import_module", missing)
    x = np.ones((1, 3, 8, 8), np.float32)
    with pytest.raises(MissingDependency, match=r"onnxplain\[segments\]"):
        xrai(SQUARE, x, attributions=x)


X = np.ones((2, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attributions": X[:1]}, ShapeError, "for images"),
        ({"attributions": X * np.nan}, InputError, "NaN or infinity"),
        ({"segments": [np.ones((1, 8, 8), bool)]}, ShapeError, "for 2 samples"),
        ({"segments": [np.ones((1, 8, 7), bool)] * 2}, ShapeError, r"\(K, 8, 8\)"),
        ({"min_pixels": 0}, AnalysisError, "at least 1, got 0"),
        ({"baseline": []}, AnalysisError, "at least one"),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        xrai(SQUARE, X, **{"attributions": None if "baseline" in options else X, **options})


def test_what_is_no_single_image_is_refused():
    header = '<ir_version: 10, opset_import: ["": 23]> g '
    two = parser.parse_model(header + "(float[n,4] a, float[n,4] b) => (float[n,4] y) { y = Mul(a, b) }")
    table = parser.parse_model(header + "(float[n,4] a) => (float[n,4] y) { y = Sin(a) }")
    rows = np.ones((1, 4), np.float32)
    with pytest.raises(AnalysisError, match="the inputs a, b"):
        xrai(two, {"a": rows, "b": rows})
    with pytest.raises(ShapeError, match=r"got \(1, 4\)"):
        xrai(table, rows)
