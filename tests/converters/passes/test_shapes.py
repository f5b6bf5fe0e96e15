"""Integers that shapes decide before running become constants; what depends on the run stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.graph.mutable import MutableGraph
from converters.passes.shapes import fix_shapes
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import (
    assert_same,
    assert_untouched,
    rewritten,
    values,
    whole,
)
from tests.converters.passes.shaped import shaped

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
