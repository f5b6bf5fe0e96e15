"""Targets of Reshape and Expand become constants that leave the batch open; sizes that they decide are stated."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.graph.mutable import MutableGraph
from converters.passes.shapes import fix_shapes
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import (
    assert_same,
    graph,
    rewritten,
    whole,
)
from tests.converters.passes.shaped import NUMBERS, shaped

# name: (nodes behind s = Shape(x), x (N, 3, 4), the target that y = Reshape is left with)
TARGETS = {
    "flattened": ("b = Gather(s, k0) t = Concat<axis = 0>(b, back) y = Reshape(x, t)", [0, -1]),
    "flattened by a product": (
        "b = Gather(s, k0) r = Slice(s, k1, k3) p = ReduceProd(r) t = Concat<axis = 0>(b, p) y = Reshape(x, t)",
        [0, 12],
    ),
    "moved behind": (
        "b = Gather(s, k0) t = Concat<axis = 0>(k3, b, k2, k2) y = Reshape(x, t)",
        [3, -1, 2, 2],
    ),
    "merged with the batch": (
        "b = Gather(s, k0) a = Mul(b, k3) r = Gather(s, back) t = Concat<axis = 0>(a, r) y = Reshape(x, t)",
        [-1, 4],
    ),
    "times one": (
        "b = Gather(s, k0) a = Mul(b, k1) t = Concat<axis = 0>(a, k3, back) y = Reshape(x, t)",
        [0, 3, -1],
    ),
    "times two": (
        "b = Gather(s, k0) a = Mul(b, k2) t = Concat<axis = 0>(a, k3, k2) y = Reshape(x, t)",
        [-1, 3, 2],
    ),
    "a written batch": ("y = Reshape(x, flat)", [0, 12]),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_target_of_a_reshape_is_a_constant_that_leaves_the_batch_open(name: str) -> None:
    nodes, expected = TARGETS[name]
    file = shaped(nodes, shape="N,3,4", more={"flat": np.asarray([-1, 12])})
    made, found = rewritten(file, fix_shapes)
    assert found and ops(made) == {"Reshape": 1}
    np.testing.assert_array_equal(numpy_helper.to_array(made.graph.initializer[0]), expected)
    for samples in (1, 2, 5):
        x = whole(samples, 3, 4)
        assert_same(file, made, {"x": x})
        np.testing.assert_array_equal(run(made, {"x": x})[0], run(file, {"x": x})[0])


def test_a_target_without_zeros_needs_no_allowzero() -> None:
    file = shaped("t = Add(s, k0) y = Reshape<allowzero = 1>(x, t)", shape="N,3,4")
    made, found = rewritten(file, fix_shapes)
    assert found and not made.graph.node[-1].attribute
    assert_same(file, made, {"x": whole(2, 3, 4)})


RESHAPES_THAT_STAY = {
    "two open axes": (
        "double[N,M,4]",
        "a = Gather(s, k1) b = Gather(s, k0) u = Concat<axis = 0>(a, b, k2, k2) y = Reshape(x, u)",
    ),
    "a written target that does not copy the batch": ("double[N,3,4]", "y = Reshape(x, other)"),
    "a written target of unknown sizes": ("double[N,M,4]", "y = Reshape(x, flat)"),
    "an unknown number of samples": ("double[?,3,4]", "y = Reshape(x, flat)"),
}


@pytest.mark.parametrize("name", RESHAPES_THAT_STAY)
def test_a_reshape_stays_where_its_target_depends_on_the_run(name: str) -> None:
    kind, nodes = RESHAPES_THAT_STAY[name]
    text = f"({kind} x) => (double y) {{ s = Shape(x) {nodes} }}"
    more = {"other": np.asarray([-1, 6]), "flat": np.asarray([-1, 12])}
    known = {name: array for name, array in (NUMBERS | more).items() if name in nodes}
    made, _ = rewritten(graph(text, known), fix_shapes)
    (reshape,) = (node for node in made.graph.node if node.op_type == "Reshape")
    assert reshape.input[1] in ("u", "other", "flat")


def test_an_empty_result_stays() -> None:
    file = shaped(
        "t = Mul(s, zero) y = Reshape<allowzero = 1>(x, t)",
        shape="0,3,4",
        more={"zero": np.asarray([1, 1, 1])},
    )
    made, _ = rewritten(file, fix_shapes)
    assert made.graph.node[-1].attribute[0].name == "allowzero"
    assert_same(file, made, {"x": np.zeros((0, 3, 4))})


def test_an_empty_axis_that_moves_stays() -> None:
    file = shaped(
        "b = Gather(s, k0) t = Concat<axis = 0>(b, four, k0) y = Reshape<allowzero = 1>(x, t)",
        shape="N,0,4",
        more={"four": np.asarray([4])},
    )
    assert_same(file, rewritten(file, fix_shapes)[0], {"x": np.zeros((2, 0, 4))})


# name: (the shape of x, nodes, the target that Expand is left with)
EXPANDED = {
    "to what it is": ("N,3,4", "t = Add(s, k0) y = Expand(x, t)", [1, 1, 1]),
    "to more rows": (
        "N,1,4",
        "b = Gather(s, k0) t = Concat<axis = 0>(b, k3, k1) y = Expand(x, t)",
        [1, 3, 1],
    ),
    "to an axis before": ("N,3", "t = Concat<axis = 0>(k2, s) y = Expand(x, t)", [2, 1, 1]),
}


@pytest.mark.parametrize("name", EXPANDED)
def test_an_expand_does_not_name_the_batch(name: str) -> None:
    shape, nodes, expected = EXPANDED[name]
    file = shaped(nodes, shape=shape)
    made, found = rewritten(file, fix_shapes)
    assert found and ops(made) == {"Expand": 1}
    np.testing.assert_array_equal(numpy_helper.to_array(made.graph.initializer[0]), expected)
    for samples in (1, 3):
        sizes = [samples if size == "N" else int(size) for size in shape.split(",")]
        assert_same(file, made, {"x": whole(*sizes)})


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ("N,1", "a = Gather(s, k0) t = Concat<axis = 0>(k3, a) y = Expand(x, t)"),
        ("N,1", "a = Gather(s, k0) t = Concat<axis = 0>(a, a) y = Expand(x, t)"),
        ("N,1", "y = Expand(x, k3)"),
        ("?,1", "a = Gather(s, k0) b = Add(a, k1) t = Concat<axis = 0>(b, k3) y = Expand(x, t)"),
    ],
    ids=["moved", "repeated", "constant", "unknown"],
)
def test_an_expand_to_another_size_stays(shape: str, nodes: str) -> None:
    made, _ = rewritten(shaped(nodes, shape=shape), fix_shapes)
    (expand,) = (node for node in made.graph.node if node.op_type == "Expand")
    assert expand.input[1] in ("t", "k3")


def shape_stated(file: onnx.ModelProto, name: str) -> Any:
    mutable = MutableGraph(file)
    mutable.infer_types()
    fix_shapes(mutable)
    return mutable.shape(name)


def test_the_sizes_behind_an_expand_are_stated() -> None:
    # The batch of one tensor is that of another: inference does not see through Shape and Concat.
    file = graph(
        "(double[N,1,4] x, double[N,3,1] z) => (double y)"
        " { s = Shape(z) t = Shape(x) b = Slice(s, k0, k2) c = Slice(t, k2, k3) u = Concat<axis = 0>(b, c)"
        " e = Expand(x, u) y = Neg(e) }",
        NUMBERS,
    )
    assert shape_stated(file, "e") == ("N", 3, 4)


def test_sizes_that_a_target_of_ones_leaves_as_they_are_are_stated() -> None:
    file = graph(
        "(double[1,M,4] x, double[N,1] z) => (double y)"
        " { s = Shape(z) a = Gather(s, k0) b = Mul(a, k1) u = Concat<axis = 0>(b, k1, k1)"
        " e = Expand(x, u) y = Neg(e) }",
        NUMBERS,
    )
    assert shape_stated(file, "e") == ("N", "M", 4)


def test_the_sizes_behind_an_unpooling_are_stated() -> None:
    file = graph(
        "(double[N,1,4,4] x) => (double y) { s = Shape(x)"
        " p, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)"
        " e = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(p, i, s) y = Neg(e) }"
    )
    assert shape_stated(file, "e") == ("N", 1, 4, 4)
