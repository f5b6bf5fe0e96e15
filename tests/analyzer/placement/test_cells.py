"""Cells against what tensors depend on: an element has no gradient outside the part of the image it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser
from torch import nn

from analyzer import Target, differentiate
from analyzer.graph.graph import Graph
from analyzer.placement import find_cells, whole
from analyzer.placement.cells import NOWHERE, regular
from converters import convert
from converters.passes.sizes import at_sizes


class Tokens(nn.Module):
    """Patches by convolution, a class token, positions, and layers that keep tokens apart."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, 13, 6))
        self.norm, self.dense = nn.LayerNorm(6), nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return nn.functional.gelu(self.dense(self.norm(tokens)))


class Windows(nn.Module):
    """Patches by reshaping, shifted windows, and merged patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.merge = nn.Linear(12, 6), nn.Linear(6, 6), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        patches = x.reshape(n, 3, 8, 2, 8, 2).permute(0, 2, 4, 3, 5, 1).reshape(n, 8, 8, 12)
        rolled = torch.roll(self.embed(patches), (-2, -2), (1, 2))
        windows = rolled.reshape(n, 2, 4, 2, 4, 6).transpose(2, 3).reshape(n * 4, 16, 6)
        windows = torch.tanh(self.inner(windows)).reshape(n, 2, 2, 4, 4, 6).transpose(2, 3)
        y = torch.roll(windows.reshape(n, 8, 8, 6), (2, 2), (1, 2))
        corners = [y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]]
        return self.merge(torch.cat(corners, -1))


class Pooled(nn.Module):
    """A gate from the pooled image, pooling written as Reshape and mean, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = y.reshape(x.shape[0], 4, 4, 4, 4, 4).mean((3, 5))
        return self.head(torch.tanh(y).flatten(1))


def _cells(net: nn.Module, shape: tuple[int, ...]):
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    model = convert(net.eval(), x)
    proto = at_sizes(model.proto, {"x": (1, *shape)})
    fixed = Graph.from_proto(proto)
    return proto, fixed, find_cells(fixed, "x", (2, 3))


@pytest.mark.parametrize(
    ("net", "shape", "least"),
    [(Tokens, (3, 16, 12), 8), (Windows, (3, 16, 16), 12)],
    ids=["tokens", "windows"],
)
def test_an_element_depends_on_the_pixels_of_its_cell_alone(net, shape, least):
    proto, fixed, cells = _cells(net(), shape)
    fn = differentiate(proto)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    rng = np.random.default_rng(1)
    tried = 0
    for name, found in cells.items():
        sizes = fixed.tensors[name].shape
        if name == "x" or not fixed.tensors[name].is_float:
            continue
        element = tuple(int(rng.integers(size)) for size in sizes)
        weights = np.zeros(sizes, np.float32)
        weights[element] = 1
        gradient = fn.gradients(x, Target(output=name, weights=weights)).gradients["x"][0]
        support = np.argwhere(np.abs(gradient).sum(0) > 0)
        cell = found.over(sizes)[element]
        if cell == NOWHERE:
            assert support.size == 0
            continue
        low, high = (edges[cell] for edges in found.edges())
        assert support.size
        assert (support.min(0) >= low).all() and (support.max(0) < high).all(), name
        tried += 1
    assert tried >= least
    assert fixed.outputs[0] in cells


def test_what_mixes_the_whole_image_has_no_place():
    _, fixed, cells = _cells(Pooled(), (3, 16, 16))
    assert fixed.outputs[0] not in cells
    placed = {name: found.grids[0].sizes for name, found in cells.items()}
    assert placed["conv2d"] == (16, 16)
    assert "conv2d_1" not in cells  # the gate's convolution sees the pooled image alone
    by_op = {node.op_type: node.outputs[0] for node in fixed.nodes}
    assert placed[by_op["Mul"]] == (16, 16)
    assert placed[by_op["Tanh"]] == (4, 4)


def test_attention_keeps_the_place_of_its_queries():
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1,6,4] x) => (float[1,6,4] y)'
        " { t = Transpose<perm = [0,2,1]>(x) s = MatMul(x, t) a = Softmax(s) y = MatMul(a, x) }"
    )
    graph = Graph.from_proto(at_sizes(proto, {"x": (1, 6, 4)}))
    cells = find_cells(graph, "x", (1,))
    np.testing.assert_array_equal(cells["t"].index, np.arange(6)[None, None])
    for name in ("s", "a", "y"):
        np.testing.assert_array_equal(cells[name].index, np.arange(6)[None, :, None])


def test_a_mixed_sequence_stands_where_it_is_added():
    # A Mixer's token mixing: the product over tokens has no place of its own, its sum with the tokens has.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1,6,4] x) => (float[1,6,4] y)'
        " <float[6,6] w, float[6] b> { t = Transpose<perm = [0,2,1]>(x) m = MatMul(t, w) a = Add(m, b)"
        " u = Transpose<perm = [0,2,1]>(a) y = Add(x, u) }"
    )
    for name, value in (("w", np.ones((6, 6))), ("b", np.ones(6))):
        tensor = proto.graph.initializer.add(name=name, data_type=1, dims=value.shape)
        tensor.float_data.extend(value.reshape(-1))
    graph = Graph.from_proto(at_sizes(proto, {"x": (1, 6, 4)}))
    cells = find_cells(graph, "x", (1,))
    for name in ("a", "m"):
        np.testing.assert_array_equal(cells[name].index, np.arange(6)[None, None])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding_of_any_mode_leaves_the_image_whole(mode):
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1,2,6,4] x) => (float[1,1,3,2] y)'
        " <int64[8] pads = {0,0,1,1,0,0,1,1}, float[1,2,3,3] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> {"
        f' p = Pad<mode = "{mode}">(x, pads) y = Conv<strides = [2,2]>(p, w) }}'
    )
    cells = find_cells(Graph.from_proto(at_sizes(proto, {"x": (1, 2, 6, 4)})), "x", (2, 3))
    np.testing.assert_array_equal(cells["y"].index[0, 0], [[0, 1], [2, 3], [4, 5]])
    assert cells["y"].grids[0] == whole((3, 2), (6, 4))


def test_a_convolution_over_a_part_of_the_image_stands_in_that_part():
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1,1,8,4] x) => (float[1,1,3,2] y)'
        " <int64[1] start = {2}, int64[1] end = {7}, int64[1] axis = {2}, float[1,1,3,3] w = {1,1,1,1,1,1,1,1,1}>"
        " { p = Slice(x, start, end, axis) y = Conv(p, w) }"
    )
    (grid,) = find_cells(Graph.from_proto(at_sizes(proto, {"x": (1, 1, 8, 4)})), "x", (2, 3))["y"].grids
    # Rows 2 to 6 are seen, by windows of three around rows 3, 4 and 5.
    assert grid.sizes == (3, 2)
    assert grid.window == ((3, 6), (1, 3))
    assert grid.frame == ((2, 7), (0, 4))


def test_regular_axes_in_any_order():
    grid = whole((2, 3))
    np.testing.assert_array_equal(regular(grid, 4, (1, 2)).index.reshape(2, 3), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(regular(grid, 3, (2, 1)).index[0], [[0, 3], [1, 4], [2, 5]])
