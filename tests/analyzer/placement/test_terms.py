"""Places against gradients: an element depends on pixels around its cell's centre, and on none beyond its frame."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from analyzer import Target, differentiate, full_grad
from analyzer.graph.graph import Graph
from analyzer.placement import Grid, find_cells
from analyzer.placement.cells import NOWHERE
from converters import load
from converters.passes.sizes import at_sizes

# Each network: the image's shape, its spatial axes, the nodes, and how many tensors have a place at the least. Weights
# are named w and the sizes of their axes, indices i and the numbers, with m for minus.
NETWORKS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, int]] = {
    "a crop at the stem": (
        (1, 2, 16, 14), (2, 3),
        "a = Slice(x, i3_2, i15_12, i2_3) b = Conv(a, w3_2_3_3) c = Tanh(b)"
        " y = Conv<strides=[2,2], pads=[1,1,1,1]>(c, w2_3_3_3)",
        4,
    ),
    "crops one after the other": (
        (1, 2, 20, 14), (2, 3),
        "a = Slice(x, i3, i19, i2) b = Conv(a, w3_2_3_3) c = Slice(b, i2, i12, i2) d = Tanh(c) y = Conv(d, w2_3_3_3)",
        5,
    ),
    "a U-Net without padding": (
        (1, 1, 24, 24), (2, 3),
        "a = Conv(x, w3_1_3_3) b = Conv(a, w3_3_3_3) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(b)"
        " c = Conv(p, w3_3_3_3) d = Tanh(c) u = ConvTranspose<strides=[2,2]>(d, w3_3_2_2)"
        " s = Slice(b, i2_2, i18_18, i2_3) j = Concat<axis=1>(s, u) y = Conv(j, w2_6_3_3)",
        9,
    ),
    "strided slices side by side": (
        (1, 2, 12, 16), (2, 3),
        "a = Slice(x, i0_0, i12_16, i2_3, i2_2) b = Slice(x, i1_0, i12_16, i2_3, i2_2)"
        " c = Slice(x, i0_1, i12_16, i2_3, i2_2) d = Slice(x, i1_1, i12_16, i2_3, i2_2)"
        " j = Concat<axis=1>(a, b, c, d) y = Conv<pads=[1,1,1,1]>(j, w3_8_3_3)",
        6,
    ),
    "a strided slice": (
        (1, 1, 13, 12), (2, 3), "a = Slice(x, i1, i13, i2, i3) b = Tanh(a) y = Conv(b, w2_1_2_3)", 3,
    ),
    "a mirrored image": (
        (1, 1, 12, 12), (2, 3),
        "a = Slice(x, im1, im99, i3, im1) b = Conv<strides=[2,2]>(a, w2_1_4_2) c = Tanh(b) y = Conv(c, w2_2_3_3)",
        4,
    ),
    "upsampling": (
        (1, 1, 8, 6), (2, 3),
        "a = Conv<pads=[1,1,1,1]>(x, w3_1_3_3) b = Resize<mode=\"nearest\">(a, , , i1_3_16_18) c = Conv(b, w2_3_3_3)"
        " y = Resize<mode=\"linear\">(c, , , i1_2_28_8)",
        4,
    ),
    "upsampling by repetition": (
        (1, 1, 8, 6), (2, 3),
        "a = Tanh(x) b = Unsqueeze(a, i3_5) c = Expand(b, i1_1_8_2_6_2) d = Reshape(c, i1_1_16_12)"
        " y = Conv(d, w2_1_3_3)",
        5,
    ),
    "positions to channels and back": (
        (1, 2, 8, 12), (2, 3),
        "a = SpaceToDepth<blocksize=2>(x) b = Tanh(a) c = Conv<pads=[1,1,1,1]>(b, w8_8_3_3)"
        " d = DepthToSpace<blocksize=2>(c) e = DepthToSpace<blocksize=2, mode=\"CRD\">(b) y = Conv(d, w2_2_3_3)",
        6,
    ),
    "transposed convolutions": (
        (1, 2, 6, 7), (2, 3),
        "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w2_2_3_3) b = Tanh(a)"
        " c = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(b, w2_2_4_4) y = ConvTranspose<strides=[3,1]>(c, w2_1_3_3)",
        4,
    ),
    "dilation": (
        (1, 1, 18, 16), (2, 3),
        "a = Conv<dilations=[3,2]>(x, w2_1_3_3) b = Tanh(a) y = Conv<dilations=[2,1], strides=[2,1]>(b, w2_2_3_3)", 3,
    ),
    "padding on one side": (
        (1, 1, 16, 18), (2, 3),
        "a = Conv<pads=[3,0,0,2]>(x, w2_1_5_4) b = Tanh(a) y = Conv<pads=[0,2,1,0], strides=[1,2]>(b, w2_2_2_3)", 3,
    ),
    "padding of both signs": (
        (1, 1, 12, 12), (2, 3),
        "a = Pad(x, i0_0_m3_2_0_0_m2_1) b = Conv(a, w2_1_3_3) c = Pad<mode=\"reflect\">(b, i0_0_1_1_0_0_1_1)"
        " y = Conv<strides=[2,2]>(c, w2_2_3_3)",
        4,
    ),
    "channels last": (
        (1, 14, 12, 2), (1, 2),
        "a = Slice(x, i2, i11, i1) b = Transpose<perm=[0,3,1,2]>(a) c = Conv(b, w3_2_3_3)"
        " d = Transpose<perm=[0,2,3,1]>(c) y = Softmax<axis=-1>(d)",
        5,
    ),
    "frames of a film": (
        (1, 3, 1, 10, 8), (1, 3, 4),
        "a = Reshape(x, i3_1_10_8) b = Conv<strides=[2,1]>(a, w2_1_2_3) c = Tanh(b) y = Reshape(c, i1_3_2_5_6)", 4,
    ),
    "channels as a third axis": (
        (1, 3, 8, 6), (2, 3),
        "a = Unsqueeze(x, i1) b = AveragePool<kernel_shape=[3,1,1], pads=[1,0,0,1,0,0]>(a)"
        " c = Squeeze(b, i1) y = Tanh(c)",
        4,
    ),
    "a gate of lower resolution": (
        (1, 2, 8, 12), (2, 3),
        "a = Tanh(x) r = ReduceMean(a, i3) s = Conv<pads=[1,0,1,0]>(r, w2_2_3_1) g = Sigmoid(s) y = Mul(x, g)", 5,
    ),
}  # fmt: skip


def network(shape: tuple[int, ...], text: str, seed: int = 0) -> onnx.ModelProto:
    """The nodes as a model with one input x and every tensor as an output."""
    rng = np.random.default_rng(seed)
    constants = {}
    for name in sorted(set(re.findall(r"\b[iw]m?\d[\dm_]*", text))):
        numbers = [int(number.replace("m", "-")) for number in name[1:].split("_")]
        if name[0] == "w":
            # Far from zero, and not so large that a Tanh saturates.
            drawn = rng.uniform(0.5, 1, numbers) * rng.choice([-1, 1], numbers) / np.prod(numbers[1:]) ** 0.5
            constants[name] = drawn.astype(np.float32)
        else:
            constants[name] = np.array(numbers)
    tensors = re.findall(r"(\w+) = ", text)
    head = f"float{list(shape)} x) => ({', '.join(f'float {name}' for name in tensors)})".replace(
        "float ", "float[] "
    )
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["": 23]> g ({head} {{ {text} }}')
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return proto


@pytest.mark.parametrize("name", NETWORKS)
def test_an_element_depends_on_pixels_around_its_cell(name):
    shape, spatial, text, least = NETWORKS[name]
    model = load(network(shape, text))
    fixed = Graph.from_proto(at_sizes(model.proto, {"x": shape}))
    cells, fn = find_cells(fixed, "x", spatial), differentiate(model)
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(np.float32) / 4
    assert "y" in cells and len(cells) >= least
    for tensor, found in cells.items():
        sizes = fixed.tensors[tensor].shape
        index = found.over(sizes)
        # Corners and an element in the middle: where an alignment is wrong, one of them shows it.
        for element in (
            (0,) * len(sizes),
            tuple(size - 1 for size in sizes),
            tuple(size // 2 for size in sizes),
        ):
            cell = int(index[element])
            seen = dependence(fn, x, tensor, sizes, element, spatial)
            if cell == NOWHERE:
                assert seen is None, (tensor, element)
                continue
            assert seen is not None, (tensor, element)
            _assert_around(found.grids[0], found.edges(), cell, *seen, (tensor, element))


def dependence(fn, x, tensor, sizes, element, spatial):
    """The least and the greatest pixel that an element has a gradient at, by axis; None where it has none."""
    weights = np.zeros(sizes, np.float32)
    weights[element] = 1
    if tensor == "x":
        return np.array(element)[[*spatial]], np.array(element)[[*spatial]]
    gradient = fn.gradients(x, Target(output=tensor, weights=weights)).gradients["x"]
    support = np.argwhere(np.abs(gradient) > 0)[:, [*spatial]]
    return (support.min(0), support.max(0)) if len(support) else None


def _assert_around(grid: Grid, edges, cell: int, low: np.ndarray, high: np.ndarray, what) -> None:
    frame = np.array(grid.frame, np.float64)
    assert (low >= np.floor(frame[:, 0])).all() and (high + 1 <= np.ceil(frame[:, 1])).all(), what
    first, end = (edge[cell] for edge in edges)
    centre, width = (first + end) / 2, end - first
    # A stride that keeps the extent moves centres by up to half a cell; a window beyond the frame is cut off.
    within = (centre >= low - width / 2) & (centre <= high + 1 + width / 2)
    assert within.all(), (what, centre, low, high)
    inside = (low > frame[:, 0]) & (high + 1 < frame[:, 1])
    off = np.abs(centre - (low + high + 1) / 2)
    assert (off <= np.where(inside, width / 2 + 0.5, np.inf)).all(), (what, centre, low, high)


@pytest.mark.parametrize(
    "text",
    [
        "g = Reshape(w1_4_4_2, i1_4_4_2) y = GridSample(x, g)",
        "y = RoiAlign<output_height=2, output_width=2>(x, w1_4, i0)",
        "a = Transpose<perm=[0,1,3,2]>(x) y = Add(x, a)",
    ],
    ids=["grid sample", "regions", "an image and its transpose"],
)
def test_what_could_stand_anywhere_has_no_place(text):
    model = load(network((1, 1, 8, 8), text))
    assert "y" not in find_cells(Graph.from_proto(at_sizes(model.proto, {"x": (1, 1, 8, 8)})), "x", (2, 3))


def test_a_pyramid_s_tokens_stand_at_their_own_resolutions():
    text = (
        "a = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) b = AveragePool<kernel_shape=[4,4], strides=[4,4]>(x)"
        " c = Reshape(a, i1_2_12) d = Reshape(b, i1_2_3) j = Concat<axis=2>(c, d) t = Transpose<perm=[0,2,1]>(j)"
        " n = Tanh(t) e = MatMul(n, w2_3) y = Gelu(e)"
    )
    shape = (1, 2, 4, 12)
    model = load(network(shape, text))
    fixed = Graph.from_proto(at_sizes(model.proto, {"x": shape}))
    found = find_cells(fixed, "x", (2, 3))["y"]
    assert [grid.sizes for grid in found.grids] == [(2, 6), (1, 3)]
    np.testing.assert_array_equal(found.index[0, :, 0], np.arange(15))
    fn, x = differentiate(model), np.random.default_rng(0).normal(size=shape).astype(np.float32)
    low, high = found.edges()
    for token in range(15):
        first, last = dependence(fn, x, "y", (1, 15, 3), (0, token, 0), (2, 3))
        np.testing.assert_array_equal(first, low[token])
        np.testing.assert_array_equal(last + 1, high[token])


def test_one_model_has_places_at_every_size_of_image():
    text = (
        "a = Slice(x, i1_2, i99_99, i2_3) b = Conv<strides=[2,2], pads=[1,1,1,1]>(a, w3_2_3_3) c = Tanh(b)"
        " d = Conv(c, w3_3_3_3) e = Gelu(d) y = GlobalAveragePool(e)"
    )
    proto = network((1, 2, 8, 8), text)
    for axis, symbol in zip(
        proto.graph.input[0].type.tensor_type.shape.dim, ("n", "", "h", "w"), strict=True
    ):
        if symbol:
            axis.dim_param = symbol
    del proto.graph.output[:-1]
    fn, rng = differentiate(load(proto)), np.random.default_rng(0)
    for height, width in ((12, 9), (9, 16), (12, 9)):
        x = rng.normal(size=(2, 2, height, width)).astype(np.float32)
        fg = full_grad(fn, x, Target(output="y", weights=np.ones((2, 3, 1, 1), np.float32)))
        fixed = full_grad(
            load(network(x.shape, text)), x, Target(output="y", weights=np.ones((2, 3, 1, 1), np.float32))
        )
        assert fg.map.shape == (2, height, width)
        np.testing.assert_allclose(fg.map, fixed.map, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(fg.complete_map, fixed.complete_map, rtol=1e-4, atol=1e-6)
        # Nothing falls on what the crop leaves out.
        assert (fg.complete_map[:, 0] == 0).all() and (fg.complete_map[:, :, :2] == 0).all()
        assert (fg.map[:, 0] == 0).all() and (fg.map[:, :, :2] == 0).all()
        assert np.abs(fg.complete_map[:, 1:, 2:]).min() > 0
