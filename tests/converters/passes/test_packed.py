"""A packed dense layer becomes one layer for each way that its features go, with the same values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.passes.packed import split_packed
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import Arrays, assert_same, assert_untouched, graph, rewritten, whole

SIX = {"w": whole(4, 6), "b": whole(6, seed=1)}
DENSE = "p = MatMul(x, w) z = Add(p, b)"
PARTS = "int64[3] parts = {2, 2, 2}"
THREE = "int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}"
WAYS = (
    "int64[1] c0 = {0}, int64[1] c2 = {2}, int64[1] c4 = {4}, int64[1] c6 = {6}, int64[1] last = {-1},"
    "int64[1] less = {-4}, int64[1] end = {9223372036854775807}"
)
SLICES = "q = Slice(z, c0, c2, last) r = Slice(z, less, c4, last) v = Slice(z, c4, end, last)"

# name: (nodes, numbers that they read, the layer's constants, sizes of the parts)
PACKED: dict[str, tuple[str, str, Arrays, list[int]]] = {
    "Split": (f"{DENSE} q, r, v = Split<axis = -1>(z, parts)", PARTS, SIX, [2, 2, 2]),
    "bias first": (
        "p = MatMul(x, w) z = Add(b, p) q, r, v = Split<axis = 2>(z, parts)",
        PARTS,
        SIX,
        [2, 2, 2],
    ),
    "bias with axes": (
        f"{DENSE} q, r, v = Split<axis = -1>(z, parts)",
        PARTS,
        {**SIX, "b": whole(1, 1, 6, seed=1)},
        [2, 2, 2],
    ),
    "unequal parts": (
        f"{DENSE} q, r, v = Split<axis = -1, num_outputs = 3>(z)",
        PARTS,
        {"w": whole(4, 7), "b": whole(7, seed=1)},
        [3, 3, 1],
    ),
    "Slice": (f"{DENSE} {SLICES}", WAYS, SIX, [2, 2, 2]),
    "Slices of two axes": (
        f"{DENSE} q = Slice(z, q0, q1, axes) r = Slice(z, r0, r1, axes) v = Slice(z, nine, nine, one)",
        "int64[2] q0 = {0, 0}, int64[2] q1 = {9, 2}, int64[2] r0 = {-3, 2}, int64[2] r1 = {9, 6},"
        " int64[2] axes = {1, 2}, int64[1] nine = {9}, int64[1] one = {1}",
        SIX,
        [2, 4],
    ),
    "heads first": (
        f"{DENSE} s = Reshape(z, heads) t = Transpose<perm = [2, 0, 3, 1]>(s) q = Gather(t, i0) r = Gather(t, i1)"
        " v = Gather(t, i2)",
        f"int64[4] heads = {{0, 0, 3, 2}}, {THREE}",
        SIX,
        [2, 2, 2],
    ),
    "interleaved": (
        f"{DENSE} s = Reshape(z, heads) q = Gather<axis = 3>(s, i0) r = Gather<axis = 3>(s, i1)"
        " v = Gather<axis = -1>(s, i2)",
        f"int64[4] heads = {{0, 0, 2, 3}}, {THREE}",
        SIX,
        [2, 2, 2],
    ),
    "chosen in any order": (
        f"{DENSE} q = Gather<axis = 2>(z, some) r = Gather<axis = 2>(z, more) v = Gather<axis = 2>(z, one)",
        "int64[2] some = {5, 0}, int64[3] more = {2, -2, 3}, int64[1] one = {1}",
        SIX,
        [2, 1, 3],
    ),
    "axes of size 1": (
        f"{DENSE} u = Unsqueeze(z, one) s = Squeeze(u, one) t = Unsqueeze(s, one)"
        " q, r, v = Split<axis = 3>(t, parts)",
        f"int64[1] one = {{1}}, {PARTS}",
        SIX,
        [2, 2, 2],
    ),
}
GEMM = {
    "Gemm": ("z = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", SIX),
    "transposed Gemm": ("z = Gemm<transB = 1>(x, w, b)", {**SIX, "w": whole(6, 4)}),
    "Gemm with a row of biases": ("z = Gemm(x, w, b)", {**SIX, "b": whole(1, 6, seed=1)}),
}


def packed(nodes: str, numbers: str, constants: Arrays, more: str = "", rank: int = 3) -> onnx.ModelProto:
    """Return the file; each way is an output by itself. more: further inputs."""
    shape = "N,4" if rank == 2 else "N,3,4"
    stored = f"<{numbers}>" if numbers else ""
    return graph(
        f"(double[{shape}] x{more}) => (double q, double r, double v) {stored} {{ {nodes} }}", constants
    )


def assert_taken_apart(file: onnx.ModelProto, rows: tuple[int, ...], sizes: list[int]) -> None:
    """Each part has the file's own numbers as its bias."""
    made, count = rewritten(file, split_packed)
    assert count == 1
    biases = [one for one in made.graph.initializer if one.name.endswith(".bias")]
    assert [numpy_helper.to_array(one).size for one in biases] == sizes
    whole_bias = next(one for one in file.graph.initializer if one.name == "b")
    together = np.concatenate([numpy_helper.to_array(one) for one in biases])
    np.testing.assert_array_equal(np.sort(together), np.sort(numpy_helper.to_array(whole_bias).ravel()))
    for samples in (1, 3):
        x = whole(samples, *rows, 4, seed=2)
        assert_same(file, made, {"x": x})
        for got, expected in zip(run(made, {"x": x}), run(file, {"x": x}), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", PACKED)
def test_each_way_is_a_layer(name: str) -> None:
    nodes, numbers, constants, sizes = PACKED[name]
    assert_taken_apart(packed(nodes, numbers, constants), (3,), sizes)


@pytest.mark.parametrize("name", GEMM)
def test_each_way_of_a_gemm_is_a_gemm_with_its_attributes(name: str) -> None:
    layer, constants = GEMM[name]
    file = packed(f"{layer} q, r, v = Split<axis = 1>(z, parts)", PARTS, constants, rank=2)
    assert_taken_apart(file, (), [2, 2, 2])
    made, _ = rewritten(file, split_packed)
    assert ops(made)["Gemm"] == 3
    (before,) = (node for node in file.graph.node if node.op_type == "Gemm")
    assert all(
        list(node.attribute) == list(before.attribute) for node in made.graph.node if node.op_type == "Gemm"
    )


def test_the_layer_keeps_its_name_and_its_origin() -> None:
    nodes, numbers, constants, _ = PACKED["Split"]
    file = packed(nodes, numbers, constants)
    file.graph.node[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['block.qkv']")
    made, _ = rewritten(file, split_packed)
    (join,) = (node for node in made.graph.node if "z" in node.output)
    assert join.op_type == "Concat"
    parts = [node for node in made.graph.node if node.op_type in ("MatMul", "Add")]
    assert len(parts) == 6
    assert all(node.metadata_props[0].value == "['block.qkv']" for node in (*parts, join))


STAYS: dict[str, tuple[str, str, Arrays]] = {
    "one way": (f"{DENSE} q = Slice(z, c0, c6, last) r = Neg(q) v = Neg(q)", WAYS, SIX),
    "a feature of two ways": (
        f"{DENSE} q = Slice(z, c0, c4, last) r = Slice(z, c2, c6, last) v = Neg(q)",
        WAYS,
        SIX,
    ),
    "a feature of no way": (
        f"{DENSE} q = Slice(z, c0, c2, last) r = Slice(z, c4, c6, last) v = Neg(q)",
        WAYS,
        SIX,
    ),
    "rows": (f"{DENSE} q, r, v = Split<axis = 1>(z, ones)", "int64[3] ones = {1, 1, 1}", SIX),
    "another reader": (
        f"{DENSE} q, v = Split<axis = -1>(z, halves) r = Relu(z)",
        "int64[2] halves = {2, 4}",
        SIX,
    ),
    "another reader of the moved features": (
        f"{DENSE} s = Reshape(z, heads) q, v = Split<axis = -1>(s, halves) r = Relu(s)",
        "int64[3] heads = {0, 0, 6}, int64[2] halves = {2, 4}",
        SIX,
    ),
    "another reader before a move": (
        f"{DENSE} s = Reshape(z, heads) q, v = Split<axis = -1>(s, halves) r = Relu(z)",
        "int64[3] heads = {0, 0, 6}, int64[2] halves = {2, 4}",
        SIX,
    ),
    "an output": (
        "p = MatMul(x, w) v = Add(p, b) q, r = Split<axis = -1>(v, halves)",
        "int64[2] halves = {2, 4}",
        SIX,
    ),
    "a product that is read twice": (
        f"{DENSE} q, r = Split<axis = -1>(z, halves) v = Neg(p)",
        "int64[2] halves = {2, 4}",
        SIX,
    ),
    "no bias": ("z = MatMul(x, w) q, r, v = Split<axis = -1>(z, parts)", PARTS, SIX),
    "a bias for each position": (
        f"{DENSE} q, r, v = Split<axis = -1>(z, parts)",
        PARTS,
        {**SIX, "b": whole(3, 1)},
    ),
    "a bias for each position and feature": (
        f"{DENSE} q, r, v = Split<axis = -1>(z, parts)",
        PARTS,
        {**SIX, "b": whole(3, 6)},
    ),
    "a single number as bias": (
        f"{DENSE} q, r, v = Split<axis = -1>(z, parts)",
        PARTS,
        {**SIX, "b": whole()},
    ),
    "as many positions as features": (
        f"{DENSE} q, r, v = Split<axis = -1>(z, ones)",
        "int64[3] ones = {1, 1, 1}",
        {"w": whole(4, 3), "b": whole(3, 1)},
    ),
    "a weight for each sample": (
        f"{DENSE} q, r = Split<axis = -1>(z, halves) v = Neg(q)",
        "int64[2] halves = {2, 2}",
        {"w": whole(3, 4, 4), "b": whole(4)},
    ),
    "steps": (
        f"{DENSE} q = Slice(z, c0, c3, last, c2) r = Slice(z, c3, c6, last, c2) v = Neg(q)",
        f"{WAYS}, int64[1] c3 = {{3}}",
        SIX,
    ),
    "sizes that copy nothing": (
        f"{DENSE} s = Reshape<allowzero = 1>(z, heads) q = Gather<axis = 1>(s, i0) r = Gather<axis = 1>(s, i1)"
        " v = Gather<axis = 1>(s, i2)",
        f"int64[3] heads = {{-1, 3, 2}}, {THREE}",
        SIX,
    ),
    "an op of another domain": (f"{DENSE} q, r, v = other.Split<axis = -1>(z, parts)", PARTS, SIX),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_layer_stays_where_its_biases_would_not_be_those_of_parts(name: str) -> None:
    file = packed(*STAYS[name])
    if "other." in STAYS[name][0]:
        file.opset_import.add(domain="other", version=1)
    assert_untouched(file, split_packed)


@pytest.mark.parametrize(
    ("nodes", "numbers", "more"),
    [
        (f"{DENSE} q, r, v = Split<axis = -1>(z, sizes)", "", ", int64[3] sizes"),
        (f"{DENSE} q = Gather<axis = 2>(z, at) r = Gather<axis = 2>(z, at) v = Neg(q)", "", ", int64[2] at"),
        ("p = MatMul(x, m) z = Add(p, b) q, r, v = Split<axis = -1>(z, parts)", PARTS, ", double[4,6] m"),
        ("p = MatMul(x, w) z = Add(p, m) q, r, v = Split<axis = -1>(z, parts)", PARTS, ", double[6] m"),
    ],
    ids=["sizes", "indices", "weight", "bias"],
)
def test_a_layer_stays_where_its_ways_or_numbers_are_computed(nodes: str, numbers: str, more: str) -> None:
    assert_untouched(packed(nodes, numbers, SIX, more), split_packed)


def test_a_bias_that_raises_the_rank_stays() -> None:
    file = packed(
        f"{DENSE} q, r, v = Split<axis = -1>(z, parts)", PARTS, {**SIX, "b": whole(1, 1, 6)}, rank=2
    )
    assert_untouched(file, split_packed)
