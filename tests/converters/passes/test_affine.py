"""A chain of sums and products with constants becomes one product and one sum, within the bound that the pass states.

The truth is computed in fractions, without rounding.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.passes.affine import merge_affine
from tests.converters.helpers import ops
from tests.converters.passes.rewriting import assert_untouched, graph, rewritten, values

Chain = list[tuple[str, Any]]
UNITS = {np.float16: 2.0**-11, np.float32: 2.0**-24, np.float64: 2.0**-53}
CHANNELS = [0.5, -2.0, 0.25, 3.0]


def chain_model(chain: Chain, dtype: Any = np.float32) -> onnx.ModelProto:
    """Return x (N, 4) through a chain. "-x" takes x from the constant, "x+" has the constant first."""
    nodes, constants, name = [], [], "x"
    for index, (op, number) in enumerate(chain):
        constants.append(numpy_helper.from_array(np.asarray(number, dtype), f"c{index}"))
        result = "y" if index == len(chain) - 1 else f"t{index}"
        turned = op in ("-x", "x+", "x*")
        op_type = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "-x": "Sub", "x+": "Add", "x*": "Mul"}[op]
        reads = [f"c{index}", name] if turned else [name, f"c{index}"]
        nodes.append(helper.make_node(op_type, reads, [result], name=f"n{index}"))
        name = result
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    infos = [helper.make_tensor_value_info(name, kind, ["N", 4]) for name in "xy"]
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def exact(chain: Chain, dtype: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the chain's value and the sum of its terms' magnitudes, in fractions of the constants as stored."""

    def fractions(array: Any) -> np.ndarray:
        return np.vectorize(Fraction, otypes=[object])(np.asarray(array, dtype).astype(np.float64))

    value = fractions(x)
    size = abs(value)
    for op, number in chain:
        constant = fractions(number)
        if op in ("+", "x+", "-"):
            value, size = value + (constant if op != "-" else -constant), size + abs(constant)
        elif op == "-x":
            value, size = constant - value, size + abs(constant)
        elif op == "/":
            value, size = value / constant, size / abs(constant)
        else:
            value, size = value * constant, size * abs(constant)
    return value, size


MERGED: dict[str, Chain] = {
    "preprocessing": [("-", 0.485), ("/", 0.229), ("*", 1.5), ("+", 0.25)],
    "per channel": [("-", [0.4, 0.5, 0.3, 0.1]), ("*", CHANNELS), ("+", [1.0, -2.0, 0.5, 0.7])],
    "batch normalization": [("-", [0.1, -0.2, 0.3, 0.4]), ("/", CHANNELS), ("*", [2, 3, 4, 5]), ("+", 1)],
    "sums alone": [("+", 0.1), ("+", [0.2, 0.3, -0.5, 0.7]), ("-", 0.05)],
    "taken from a constant": [("-x", 1.0), ("*", 0.3), ("-x", [0.5, 1.0, 1.5, 2.0])],
    "taken from a constant once": [("-x", 1.0), ("+", 0.5)],
    "constants first": [("x+", 0.3), ("x*", [2, 3, -4, 5]), ("x+", -0.7)],
    "products between": [("*", 0.1), ("+", 1), ("/", 3), ("*", 7), ("+", 0.2), ("/", 0.3)],
    "a factor of zero": [("+", 1), ("*", [0, 1, 2, 3]), ("+", 0.5)],
    "a wider constant behind": [("+", 1), ("*", 3), ("-", CHANNELS)],
    "a wider factor behind": [("+", 1), ("+", 3), ("*", CHANNELS)],
    "a large offset that a factor makes small": [("+", 50), ("*", 0.01), ("-", 0.46)],
    "factors that cancel": [("*", 2), ("+", 1), ("*", 0.5), ("+", 1)],
}


@pytest.mark.parametrize("dtype", UNITS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", MERGED)
def test_a_merged_chain_is_as_exact_as_four_roundings(name: str, dtype: Any) -> None:
    chain = MERGED[name]
    made, count = rewritten(chain_model(chain, dtype), merge_affine)
    assert count == 1
    assert ops(made) in ({"Mul": 1, "Add": 1}, {"Add": 1})
    assert made.graph.node[-1].output == ["y"]
    assert made.graph.node[-1].name == f"n{len(chain) - 1}"

    x = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    value, size = exact(chain, dtype, x)
    found = values(made, {"x": x})["y"]
    assert found.dtype == dtype and found.shape == (5, 4)
    error = abs(np.vectorize(Fraction, otypes=[object])(found.astype(np.float64)) - value)
    assert (error <= 4 * Fraction(UNITS[dtype]) * size).all()


@pytest.mark.parametrize(
    ("chain", "shift"),
    [
        ([("*", [2, 4, 8, 16]), ("+", 1), ("/", [2, 4, 8, 16]), ("+", 1)], [1.5, 1.25, 1.125, 1.0625]),
        ([("*", [1, 1, 1, 1]), ("+", 1), ("+", 1)], [2, 2, 2, 2]),
    ],
)
def test_a_factor_of_ones_is_left_out_and_its_shape_is_kept(chain: Chain, shift: list[float]) -> None:
    file = chain_model(chain)
    file.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    made, _ = rewritten(file, merge_affine)
    assert ops(made) == {"Add": 1}
    np.testing.assert_array_equal(numpy_helper.to_array(made.graph.initializer[0]), shift)
    assert values(made, {"x": np.zeros((2, 1), np.float32)})["y"].shape == (2, 4)


LOW, HIGH = 1e-30, 1e30
STAYS: dict[str, Chain] = {
    "one sum": [("*", 2), ("+", 1), ("*", 3)],
    "products alone": [("*", 2), ("/", 3)],
    "a mask": [("+", -1e4), ("+", 1)],
    "a mask of the least number": [("+", 1), ("+", float(np.finfo(np.float32).min))],
    "constants that cancel": [("+", 100), ("-", 100)],
    "almost": [("+", 1000), ("*", 3), ("-", 3000.5)],
    "an offset whose digits a large product needs": [("-", 500), ("/", 0.01), ("+", 1)],
    "an epsilon behind a one": [("+", 1), ("+", 1e-7)],
    "a shift lost to underflow": [("+", 1e-20), ("*", LOW), ("+", 0.0)],
    "a factor that underflows": [("*", 1e-25), ("+", 1), ("*", 1e-25), ("+", 1)],
    "a factor that overflows": [("*", HIGH), ("+", 1), ("*", HIGH), ("+", 1)],
    "infinity": [("+", float("inf")), ("+", 1)],
    "NaN": [("+", float("nan")), ("+", 1)],
    "a division by zero": [("+", 1), ("/", [1, 0, 1, 1]), ("+", 1)],
    "a detour over a large factor": [("+", 1), ("*", 1e10), ("/", 1e10), ("+", 1)],
    "a detour over a small factor": [("+", 1), ("*", 1e-10), ("/", 1e-10), ("+", 1)],
    "small constants behind a large sum": [("+", 2), ("*", 1e3), ("+", [0.5, 0.5, 0.5, 0.5])],
    "small constants behind a large sum, then a factor": [
        ("+", 1000),
        ("+", [0.5, 0.5, 0.5, 0.5]),
        ("*", 2e3),
    ],
    "a last constant that is all that is left": [("+", 1000), ("-x", 0.001), ("+", 999.5)],
}


@pytest.mark.parametrize("name", STAYS)
def test_a_chain_stays_where_digits_would_be_lost(name: str) -> None:
    assert_untouched(chain_model(STAYS[name]), merge_affine)


def test_what_half_precision_would_lose_single_precision_keeps() -> None:
    chain: Chain = [("+", 0.003), ("*", 1e-3), ("+", 0.0)]
    assert rewritten(chain_model(chain, np.float32), merge_affine)[1] == 1
    assert_untouched(chain_model(chain, np.float16), merge_affine)


GRAPHS: dict[str, tuple[str, int]] = {
    # name: (a graph, how many chains are merged)
    "a value that is read twice": ("a = Add(x, c) n = Neg(a) b = Add(a, c) y = Mul(b, n)", 0),
    "two chains from a value that is read twice": (
        "t = Neg(x) a = Add(t, c) b = Add(a, c) d = Sub(t, e) f = Mul(d, c) h = Add(f, e) y = Mul(b, h)",
        2,
    ),
    "a variable denominator": ("a = Add(x, c) b = Div(e, a) y = Add(b, c)", 0),
    "a bias of a product": ("p = MatMul(x, m) a = Add(p, e) y = Add(a, c)", 0),
    "a chain behind the bias of a product": ("p = MatMul(x, m) a = Add(p, e) b = Add(a, c) y = Add(b, e)", 1),
    "a sum of two variables": ("a = Add(x, c) b = Add(a, x) y = Add(b, c)", 0),
    "a sum with itself": ("a = Add(x, c) b = Add(a, a) y = Add(b, c)", 0),
    "a function between": ("a = Add(x, c) b = Relu(a) y = Add(b, c)", 0),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_only_what_nobody_else_reads_is_merged(name: str) -> None:
    nodes, merged = GRAPHS[name]
    file = graph(
        "(double[N,4] x) => (double[N,4] y) <double c = {0.5}, double[4] e = {1, 2, -1, 0.25}> "
        f"{{ {nodes} }}",
        {"m": np.random.default_rng(1).standard_normal((4, 4))},
    )
    if not merged:
        assert_untouched(file, merge_affine)
        return
    made, count = rewritten(file, merge_affine)
    assert count == merged
    x = np.random.default_rng(2).standard_normal((3, 4))
    got, expected = values(made, {"x": x}), values(file, {"x": x})
    for tensor in got.keys() & expected.keys():
        np.testing.assert_allclose(got[tensor], expected[tensor], rtol=1e-14, atol=1e-14)
    # The bias of the layer keeps its node.
    assert all(tensor in got for tensor in ("a", "p") if "MatMul" in nodes)


def test_an_output_inside_a_chain_keeps_its_name_and_value() -> None:
    file = graph(
        "(double[N,4] x) => (double[N,4] a, double[N,4] y) <double c = {0.5}>"
        " { a = Add(x, c) b = Add(a, c) y = Add(b, c) }"
    )
    made, count = rewritten(file, merge_affine)
    assert count == 1
    x = np.arange(8.0).reshape(2, 4)
    found = values(made, {"x": x})
    np.testing.assert_array_equal(found["a"], x + 0.5)
    np.testing.assert_array_equal(found["y"], x + 1.5)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_a_chain_of_integers_stays(kind: int) -> None:
    infos = [helper.make_tensor_value_info(name, kind, ["N"]) for name in "xy"]
    nodes = [helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Add", ["a", "c"], ["y"])]
    one = helper.make_tensor("c", kind, [], [1])
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], [one])
    assert_untouched(helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)]), merge_affine)
