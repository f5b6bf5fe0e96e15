"""Shapes that are known before running become constants; what depends on the run stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.graph.mutable import MutableGraph
from converters.passes.shapes import fix_shapes, join_reshapes
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import (
    Arrays,
    assert_same,
    assert_untouched,
    graph,
    rewritten,
    values,
    whole,
)

NUMBERS: dict[str, Any] = {
    "i0": np.asarray(0),
    "i1": np.asarray(1),
    "last": np.asarray(-1),
    "k0": np.asarray([0]),
    "k1": np.asarray([1]),
    "k2": np.asarray([2]),
    "k3": np.asarray([3]),
    "back": np.asarray([-1]),
    "beyond": np.asarray([99]),
    "three": np.asarray([2, 0, 1]),
    "minus": np.asarray([-7, 7, -1]),
    "open": np.asarray([-1, -1, -1]),
    "ones": np.asarray([1, 1, 1]),
    "grid": np.asarray([3, 1]),
}


def shaped(
    nodes: str, outputs: str = "double y", shape: str = "2,3,4", more: Arrays | None = None
) -> onnx.ModelProto:
    """Return the file; s is the shape of x, and its names are the NUMBERS that are read."""
    text = f"(double[{shape}] x) => ({outputs}) {{ s = Shape(x) {nodes} }}"
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return graph(text, {name: array for name, array in (NUMBERS | (more or {})).items() if name in words})


# name: nodes that compute the integers n
COMPUTED = {
    "the shape": "n = Add(s, k0)",
    "an axis": "n = Gather(s, i1)",
    "an axis from the end": "n = Gather(s, last)",
    "axes in another order": "n = Gather(s, three)",
    "a part of the shape": "n = Shape<start = 1>(x)",
    "another part": "n = Shape<start = -2, end = -1>(x)",
    "an end beyond": "n = Shape<start = 1, end = 99>(x)",
    "the number of elements": "n = Size(x)",
    "a slice": "n = Slice(s, k1, beyond)",
    "a slice of an axis": "n = Slice(s, k0, k2, k0)",
    "a slice backwards": "n = Slice(s, back, k0, k0, back)",
    "a slice in steps": "n = Slice(s, k0, k3, k0, k2)",
    "a join": "a = Gather(s, k1) n = Concat<axis = 0>(a, k3, s)",
    "a squeeze": "a = Gather(s, k1) n = Squeeze(a, k0)",
    "a squeeze of all axes": "a = Gather(s, k1) n = Squeeze(a)",
    "an unsqueeze": "a = Gather(s, i1) n = Unsqueeze(a, k0)",
    "an unsqueeze from the end": "a = Gather(s, i1) n = Unsqueeze(a, back)",
    "a reshape": "n = Reshape(s, grid)",
    "a row of a matrix": "a = Reshape(s, grid) n = Gather<axis = 0>(a, i1)",
    "a cast": "n = Cast<to = 6>(s)",
    "a product of all": "n = ReduceProd(s)",
    "a product without the axis": "n = ReduceProd<keepdims = 0>(s)",
    "a sum": "n = Add(s, minus)",
    "a difference": "n = Sub(minus, s)",
    "a product": "n = Mul(s, minus)",
    "a quotient of a negative number": "n = Div(minus, s)",
    "a quotient by a negative number": "n = Div(s, minus)",
    "a maximum": "n = Max(s, k3)",
    "a minimum": "n = Min(s, k3)",
    "a choice": "c = Equal(s, k3) n = Where(c, k0, s)",
    "a usual target": "c = Equal(s, open) n = Where(c, ones, s)",
}


def fixed(file: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the constants of the file after the pass, those that nothing reads included."""
    made, _ = rewritten(file, fix_shapes, unused=True)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}


@pytest.mark.parametrize("name", COMPUTED)
def test_integers_that_a_known_shape_decides_are_a_constant(name: str) -> None:
    file = shaped(f"{COMPUTED[name]} y = Cast<to = 11>(n)")
    made, found = rewritten(file, fix_shapes)
    assert found and ops(made) == {"Cast": 1}
    assert [tensor.name for tensor in made.graph.initializer] == ["n"]
    x = whole(2, 3, 4)
    assert_same(file, made, {"x": x})
    np.testing.assert_array_equal(run(made, {"x": x})[0], run(file, {"x": x})[0])


# name: (nodes, the constant n) where the first axis is the batch, N
BESIDE_THE_BATCH = {
    "axes without it": ("n = Slice(s, k1, k3)", [3, 4]),
    "an axis without it": ("n = Gather(s, last)", 4),
    "what the batch is not": ("c = Equal(s, open) d = Where(c, ones, s) n = Slice(d, k1, k3)", [3, 4]),
    "it, taken out again": ("a = Gather(s, k0) b = Concat<axis = 0>(a, k3) n = Slice(b, k1, k2)", [3]),
    "it, compared with itself": (
        "a = Gather(s, k0) b = Gather(s, k0) c = Equal(a, b) n = Where(c, k3, k1)",
        [3],
    ),
    "either way the same": ("a = Gather(s, k0) c = Equal(a, k3) n = Where(c, k1, k1)", [1]),
}


@pytest.mark.parametrize("name", BESIDE_THE_BATCH)
def test_integers_that_do_not_depend_on_the_batch_are_a_constant(name: str) -> None:
    nodes, expected = BESIDE_THE_BATCH[name]
    file = shaped(f"{nodes} y = Cast<to = 11>(n)", shape="N,3,4")
    np.testing.assert_array_equal(fixed(file)["n"], expected)
    for samples in (1, 3):
        assert_same(file, rewritten(file, fix_shapes)[0], {"x": whole(samples, 3, 4)})


DEPENDS = {
    "the shape": "n = Add(s, k0)",
    "the batch": "n = Gather(s, k0)",
    "a product with it": "n = ReduceProd(s)",
    "the number of elements": "n = Size(x)",
    "a sum with it": "a = Gather(s, k0) n = Add(a, k1)",
    "a difference of it": "a = Gather(s, k0) n = Sub(a, a)",
    "its half": "a = Gather(s, k0) n = Div(a, k2)",
    "whether it is 3": "a = Gather(s, k0) c = Equal(a, k3) n = Where(c, k1, k2)",
    "whether it is more than 3": "a = Gather(s, k0) n = Max(a, k3)",
    "a computed axis": "t = Cast<to = 7>(x) u = Gather(t, i0) v = Gather(u, i0) w = Gather(v, k0) n = Gather(s, w)",
    "in floats": "t = Cast<to = 11>(s) n = Cast<to = 7>(t)",
    "its sign": "n = Sign(s)",
    "an axis that there is not": "n = Squeeze(s, k0)",
}


@pytest.mark.parametrize("name", DEPENDS)
def test_what_depends_on_the_run_is_not_a_constant(name: str) -> None:
    file = shaped(f"{DEPENDS[name]} y = Cast<to = 11>(n)", shape="N,3,4")
    if name == "an axis that there is not":
        # A graph that fails must fail when it runs, not here.
        mutable = MutableGraph(file)
        fix_shapes(mutable)
        assert "n" not in mutable.constants
        return
    assert "n" not in fixed(file)


def test_whether_two_symbols_are_equal_depends_on_the_run() -> None:
    nodes = "a = Gather(s, k0) b = Gather(s, k1) c = Equal(a, b) n = Where(c, k1, k2) y = Cast<to = 11>(n)"
    assert "n" not in fixed(shaped(nodes, shape="N,M,4"))


def test_a_quotient_of_floats_is_not_truncated() -> None:
    file = shaped("t = Cast<to = 11>(s) a = Gather(t, k0) b = Gather(t, k1) n = Div(a, b) y = Neg(n)")
    made, _ = rewritten(file, fix_shapes)
    x = whole(2, 3, 4)
    np.testing.assert_array_equal(values(made, {"x": x})["y"], [-2 / 3])
    assert_same(file, made, {"x": x})


def test_a_shape_that_is_an_output_is_computed() -> None:
    file = shaped("n = Gather(s, i1)", "int64[3] s, int64 n")
    assert_untouched(file, fix_shapes)


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Cast<to = 6>(s) n = Mul(t, large)",
        "a = Mul(s, huge) n = Mul(a, huge)",
        "n = Add(s, most)",
    ],
)
def test_numbers_that_would_wrap_are_left_to_the_run(nodes: str) -> None:
    more = {
        "large": np.asarray([1, 1 << 30, 1], np.int32),
        "huge": np.asarray([1, 1 << 40, 1]),
        "most": np.asarray([0, (1 << 63) - 1, 0]),
    }
    assert "n" not in fixed(shaped(f"{nodes} y = Cast<to = 11>(n)", more=more))


def test_a_long_vector_is_data() -> None:
    more = {"long": np.arange(65)}
    assert "n" not in fixed(shaped("a = Gather(s, k1) n = Add(a, long) y = Cast<to = 11>(n)", more=more))
    parts = {"long": np.arange(40)}
    joined = "a = Gather(s, k1) b = Add(a, long) n = Concat<axis = 0>(b, b) y = Cast<to = 11>(n)"
    assert fixed(shaped(joined, more=parts)).keys() >= {"b"}
    assert "n" not in fixed(shaped(joined, more=parts))
    more = {"long": np.arange(64)}
    assert "n" in fixed(shaped("a = Gather(s, k1) n = Add(a, long) y = Cast<to = 11>(n)", more=more))


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


# join_reshapes: (the shape of x, nodes, the sizes that are read)
JOINED = {
    "two targets": ("6,4", "a = Reshape(x, one) y = Reshape(a, two)", {"one": [2, 12], "two": [4, 6]}),
    "an open axis": ("N,12", "a = Reshape(x, one) y = Reshape(a, two)", {"one": [0, 3, 4], "two": [-1, 6]}),
    "the batch, twice": (
        "N,12",
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [0, 3, 4], "two": [0, 2, 6]},
    ),
    "an unsqueeze": ("N,12", "a = Unsqueeze(x, one) y = Reshape(a, two)", {"one": [1], "two": [0, 3, 4]}),
    "three": (
        "N,12",
        "a = Reshape(x, one) b = Reshape(a, two) y = Reshape(b, last)",
        {"one": [0, 3, 4], "two": [0, 2, 6], "last": [0, 4, 3]},
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_reshape_of_a_reshape_is_one_of_the_data(name: str) -> None:
    shape, nodes, sizes = JOINED[name]
    more = {name: np.asarray(array) for name, array in sizes.items()}
    file = graph(f"(double[{shape}] x) => (double y) {{ {nodes} }}", more)
    made, found = rewritten(file, join_reshapes)
    assert found and ops(made) == {"Reshape": 1}
    assert made.graph.node[0].input[0] == "x"
    for samples in (2, 6):
        assert_same(
            file, made, {"x": whole(6 if "N" not in shape else samples, 4 if "N" not in shape else 12)}
        )


APART = {
    "a size of what lies between": (
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [0, 3, 4], "two": [2, 0, -1]},
    ),
    "the batch that the first one moves": (
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [-1, 4], "two": [0, 2, 2]},
    ),
    "an unsqueeze before the batch": (
        "a = Unsqueeze(x, one) y = Reshape(a, two)",
        {"one": [0], "two": [0, -1]},
    ),
    "an unsqueeze from the end": ("a = Unsqueeze(x, one) y = Reshape(a, two)", {"one": [-3], "two": [0, -1]}),
    "a value that is read twice": (
        "a = Reshape(x, one) b = Reshape(a, two) c = Reshape(a, one) d = Reshape(b, one) y = Add(c, d)",
        {"one": [0, 3, 4], "two": [0, 4, 3]},
    ),
    "zeros that copy nothing": (
        "a = Reshape(x, one) y = Reshape<allowzero = 1>(a, two)",
        {"one": [0, 3, 4], "two": [-1, 12]},
    ),
    "zeros of the first that copy nothing": (
        "a = Reshape<allowzero = 1>(x, one) y = Reshape(a, two)",
        {"one": [-1, 3, 4], "two": [-1, 12]},
    ),
    "another op": ("a = Transpose<perm = [1, 0]>(x) y = Reshape(a, two)", {"two": [4, -1]}),
}


@pytest.mark.parametrize("name", APART)
def test_reshapes_stay_apart_where_a_size_between_them_counts(name: str) -> None:
    nodes, sizes = APART[name]
    file = graph(
        f"(double[N,12] x) => (double y) {{ {nodes} }}",
        {name: np.asarray(array) for name, array in sizes.items()},
    )
    if name == "a value that is read twice":
        made, _ = rewritten(file, join_reshapes)
        assert ops(made)["Reshape"] == 3
        assert_same(file, made, {"x": whole(2, 12)})
        return
    assert_untouched(file, join_reshapes)


def test_reshapes_of_an_output_stay_apart() -> None:
    file = graph(
        "(double[N,12] x) => (double a, double y) { a = Reshape(x, one) y = Reshape(a, two) }",
        {"one": np.asarray([0, 3, 4]), "two": np.asarray([0, 12])},
    )
    assert_untouched(file, join_reshapes)
