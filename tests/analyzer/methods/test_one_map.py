"""One map for one function: equivalent exports of a network have the same FullGrad maps."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from analyzer import full_grad
from converters import convert, load
from tests.analyzer.methods.equivalent import draws, rewritten
from tests.converters.helpers import ops, run
from tests.zoo.twins import TWINS, channels_last, twins

pytestmark = pytest.mark.filterwarnings("ignore")


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@functools.cache
def network(name: str):
    """A network in PyTorch: its model, the model with every layer by itself; its Keras twin; images."""
    both = twins(TWINS[name])
    apart = convert(both.net, torch.from_numpy(both.images), fold_batch_norm=False)
    return load(plain(apart.proto)), apart, both.keras, both.images


def plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A canonical file as any other, which is brought to the default form when it is loaded."""
    file = onnx.ModelProto()
    file.CopyFrom(proto)
    del file.metadata_props[:]
    return file


@pytest.mark.parametrize("name", TWINS)
def test_a_network_and_its_keras_twin_have_one_map(name: str) -> None:
    model, _, twin, images = network(name)
    expected = full_grad(model, images, target=1)
    pixels = channels_last(images)
    found = full_grad(convert(twin, pixels), pixels, target=1)
    assert relative_l2(found.map, expected.map) <= 1e-4
    assert relative_l2(found.complete_map, expected.complete_map) <= 1e-4
    np.testing.assert_allclose(found.unplaced_total, expected.unplaced_total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "mobile", "vit"])
def test_equivalent_files_have_one_map(name: str) -> None:
    model, apart, _, images = network(name)
    expected, proto = full_grad(model, images, target=1), plain(apart.proto)
    changed: Counter[str] = Counter()
    for seed, names in draws(2):
        feeds = {proto.graph.input[0].name: images}
        file, counts = rewritten(proto, names, np.random.default_rng(seed), feeds)
        changed.update(counts)
        found = full_grad(load(file), images, target=1)
        assert relative_l2(found.map, expected.map) <= 1e-4
        assert relative_l2(found.complete_map, expected.complete_map) <= 1e-4
    assert sum(count > 0 for count in changed.values()) >= 8


def test_layers_stay_as_the_file_has_them_on_request() -> None:
    both = twins(TWINS["packed vit"])
    net, images = both.net, both.images
    apart = convert(net, torch.from_numpy(images))
    packed = convert(net, torch.from_numpy(images), fold_batch_norm=False)
    counts = [
        len(full_grad(one, images, target=1, terms="explicit").contributions) for one in (apart, packed)
    ]
    # Two blocks, each with queries, keys and values in one layer or in three.
    assert counts[0] == counts[1] + 4


def test_a_packed_projection_is_taken_apart_however_its_features_lie() -> None:
    # The features of the three ways alternate.
    body = (
        "p = MatMul(x, w) z = Add(p, b) r = Reshape(z, split) q = Gather<axis = 3>(r, zero)"
        " k = Gather<axis = 3>(r, one) v = Gather<axis = 3>(r, two) s = Mul(q, k) y = Add(s, v)"
    )
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((3, 12)), "b": rng.standard_normal(12)}
    text = (
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,2,3] x) => (float[n,2,4] y)'
        f" <int64[4] split = {{0,2,4,3}}, int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}> {{ {body} }}"
    )
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()
    )
    x = rng.standard_normal((2, 2, 3)).astype(np.float32)
    made = load(proto).proto
    counts = ops(made)
    assert counts["MatMul"] == 3
    np.testing.assert_allclose(run(made, {"x": x})[0], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-6)
