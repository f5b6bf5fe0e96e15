"""Ops that the canonical opset lacks, or that ONNX Runtime does not run, become other ops with the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.passes.lower import LOWERED, lower_ops
from tests.converters.helpers import normal, ops, run
from tests.converters.passes.rewriting import Arrays, assert_untouched, graph, rewritten, values, whole


def lowered(file: onnx.ModelProto) -> onnx.ModelProto:
    """Return the file without its op, and with its output's name."""
    made, found = rewritten(file, lower_ops)
    assert found
    assert made.graph.node[-1].output[0] == file.graph.output[0].name
    return made


def assert_computes(file: onnx.ModelProto, feeds: Arrays, expected: np.ndarray) -> None:
    made = lowered(file)
    assert not ops(made).keys() & {"TensorScatter", "CumProd", "AffineGrid"}
    found = values(made, feeds)[file.graph.output[0].name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# TensorScatter: an update goes into a cache, from a position of each sample onwards.


def scattered(
    cache: np.ndarray, update: np.ndarray, starts: list[int], axis: int, circular: bool
) -> np.ndarray:
    """Return the cache with the update, element by element as the standard says."""
    y = cache.copy()
    for place in np.ndindex(*update.shape):
        to = list(place)
        to[axis] += starts[place[0]]
        to[axis] %= cache.shape[axis] if circular else cache.shape[axis] + 1
        y[tuple(to)] = update[place]
    return y


@pytest.mark.parametrize("axis", [-2, 2, 1, -1])
@pytest.mark.parametrize(("mode", "starts"), [("linear", [0, 2]), ("circular", [3, 2]), ("linear", None)])
def test_an_update_of_a_cache(axis: int, mode: str, starts: list[int] | None) -> None:
    shape = [2, 4, 4, 4]
    shape[axis] = 2
    cache, update = whole(2, 4, 4, 4), whole(*shape, seed=1)
    given = ", starts" if starts else ""
    file = graph(
        "(double[N,4,4,4] cache, double[N,A,B,C] update, int64[N] starts) => (double y)"
        f' {{ y = TensorScatter<axis = {axis}, mode = "{mode}">(cache, update{given}) }}',
        opset=24,
    )
    feeds = {"cache": cache, "update": update, "starts": np.asarray(starts or [0, 0])}
    assert_computes(file, feeds, scattered(cache, update, starts or [0, 0], axis % 4, mode == "circular"))


def test_the_sequence_axis_is_the_second_last_one_where_none_is_stated() -> None:
    file = graph(
        "(double[N,3,5,2] cache, double[N,3,1,2] update, int64[N] starts) => (double y)"
        " { y = TensorScatter(cache, update, starts) }",
        opset=24,
    )
    cache, update = whole(2, 3, 5, 2), whole(2, 3, 1, 2, seed=1)
    feeds = {"cache": cache, "update": update, "starts": np.array([4, 1])}
    assert_computes(file, feeds, scattered(cache, update, [4, 1], 2, False))


# CumProd: products of a running number of factors.


def products(x: np.ndarray, axis: int, exclusive: bool, reverse: bool) -> np.ndarray:
    """Return the running products, with a one before the first where `exclusive`."""
    along = np.moveaxis(x, axis, 0)[:: -1 if reverse else 1]
    found = np.cumprod(along, axis=0)
    if exclusive:
        found = np.concatenate([np.ones_like(found[:1]), found[:-1]])
    return np.moveaxis(found[:: -1 if reverse else 1], 0, axis)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_a_cumulative_product(size: int, exclusive: int, reverse: int) -> None:
    file = graph(
        f"(double[N,{size}] x) => (double y) <int64 axis = {{1}}>"
        f" {{ y = CumProd<exclusive = {exclusive}, reverse = {reverse}>(x, axis) }}",
        opset=26,
    )
    x = whole(3, size, seed=size)  # zeros among them
    assert_computes(file, {"x": x}, products(x, 1, bool(exclusive), bool(reverse)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_cumulative_product_along_an_axis_that_is_computed(axis: int) -> None:
    file = graph("(double[2,7] x, int64 axis) => (double y) { y = CumProd(x, axis) }", opset=26)
    x = whole(2, 7)
    assert_computes(file, {"x": x, "axis": np.asarray(axis)}, products(x, axis, False, False))


@pytest.mark.parametrize(
    "text",
    [
        "(double[N,4] x) => (double y) <int64 axis = {0}> { y = CumProd(x, axis) }",
        "(double[N,4] x, int64 axis) => (double y) { y = CumProd(x, axis) }",
        "(double x) => (double y) <int64 axis = {0}> { y = CumProd(x, axis) }",
    ],
    ids=["open axis", "any axis", "unknown shape"],
)
def test_a_cumulative_product_of_unknown_length_stays(text: str) -> None:
    file = graph(text, opset=26)
    if "double x" in text:
        file.graph.input[0].type.tensor_type.ClearField("shape")
    assert_untouched(file, lower_ops)


# Range in half precision.


@pytest.mark.parametrize(("start", "limit", "delta"), [(0, 5, 1), (0.1, 3, 0.3), (7, -2, -0.7), (1, 1, 1)])
def test_a_range_in_half_precision_is_summed_in_single_precision(
    start: float, limit: float, delta: float
) -> None:
    file = graph(
        "(float16 start, float16 limit, float16 delta) => (float16 y) { y = Range(start, limit, delta) }",
        opset=27,
    )
    for info in file.graph.input:
        info.type.tensor_type.shape.SetInParent()
    given = {
        name: np.float16(number) for name, number in (("start", start), ("limit", limit), ("delta", delta))
    }
    first, last, step = (np.float32(number) for number in given.values())
    count = max(int(np.ceil((last - first) / step)), 0)
    expected = (first + np.arange(count, dtype=np.float32) * step).astype(np.float16)
    made = lowered(file)
    assert ops(made) == {"Cast": 3, "Range": 1, "CastLike": 1}
    found = values(made, {name: np.asarray(number) for name, number in given.items()})["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["float", "double", "int32", "int64"])
def test_a_range_of_another_type_stays(kind: str) -> None:
    assert_untouched(
        graph(f"({kind} a, {kind} b, {kind} c) => ({kind} y) {{ y = Range(a, b, c) }}"), lower_ops
    )


def test_a_range_that_is_summed_in_its_own_type_stays() -> None:
    file = graph(
        "(float16 a, float16 b, float16 c) => (float16 y) { y = Range<stash_type = 10>(a, b, c) }", opset=27
    )
    assert_untouched(file, lower_ops)


# AffineGrid.


def grid(theta: np.ndarray, sizes: list[int], aligned: bool) -> np.ndarray:
    """Return the places of pixels as each sample's matrix moves them; x is the last axis of the image."""
    lines = []
    for size in sizes:
        numbers = np.arange(size)
        lines.append(2 * numbers / max(size - 1, 1) - 1 if aligned else (2 * numbers + 1) / size - 1)
    if aligned:
        lines = [line if size > 1 else np.zeros(1) for line, size in zip(lines, sizes, strict=True)]
    places = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*reversed(places), np.ones(sizes)], -1)
    return np.einsum("...k,nik->n...i", points, theta)


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("sizes", [[3, 5], [1, 4], [2, 3, 4]], ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["known size", "computed size"])
def test_an_affine_grid(sizes: list[int], aligned: int, known: bool) -> None:
    rank = len(sizes)
    size = np.asarray([2, 7, *sizes])
    given = "" if known else f", int64[{rank + 2}] size"
    file = graph(
        f"(double[N,{rank},{rank + 1}] theta{given}) => (double y)"
        f" {{ y = AffineGrid<align_corners = {aligned}>(theta, size) }}",
        {"size": size} if known else None,
    )
    theta = normal(2, rank, rank + 1, dtype=np.float64)
    made = lowered(file)
    assert "AffineGrid" not in ops(made)
    feeds = {"theta": theta} if known else {"theta": theta, "size": size}
    np.testing.assert_allclose(
        values(made, feeds)["y"], grid(theta, sizes, bool(aligned)), rtol=1e-12, atol=1e-14
    )


def test_an_affine_grid_is_made_for_as_many_samples_as_there_are_matrices() -> None:
    file = graph(
        "(double[N,2,3] theta) => (double y) { y = AffineGrid(theta, size) }",
        {"size": np.array([1, 3, 2, 4])},
    )
    for samples in (1, 3):
        theta = normal(samples, 2, 3, dtype=np.float64)
        found = values(lowered(file), {"theta": theta})["y"]
        np.testing.assert_allclose(found, grid(theta, [2, 4], False), rtol=1e-12, atol=1e-14)


# Recurrent ops with the batch first.

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BATCH, STEPS, WIDTH, HIDDEN = 3, 5, 2, 4


def recurrent(op_type: str, layout: int, directions: int, states: bool) -> onnx.ModelProto:
    """Return a recurrent op of all its outputs; x is (batch, steps, width) or (steps, batch, width)."""
    rng = np.random.default_rng(0)
    rows = GATES[op_type] * HIDDEN
    constants = {
        "w": rng.standard_normal((directions, rows, WIDTH)).astype(np.float32),
        "r": rng.standard_normal((directions, rows, HIDDEN)).astype(np.float32),
        "b": rng.standard_normal((directions, 2 * rows)).astype(np.float32),
    }
    cell = op_type == "LSTM"
    ends = ["h", "c"][: 1 + cell]
    reads = ["x", "w", "r", "b", "", *[f"{end}0" for end in ends]] if states else ["x", "w", "r", "b"]
    attributes: dict[str, Any] = {"layout": layout} if layout else {}
    attributes |= {"hidden_size": HIDDEN, "direction": "bidirectional" if directions == 2 else "forward"}
    node = helper.make_node(op_type, reads, ["y", *ends], name="rnn", **attributes)
    shape = ["N", "T", WIDTH] if layout else ["T", "N", WIDTH]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if states:
        inputs += [helper.make_tensor_value_info(f"{end}0", TensorProto.FLOAT, [None] * 3) for end in ends]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", *ends)]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    made = helper.make_graph([node], "g", inputs, outputs, stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("states", [False, True], ids=["no states", "states"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op_type", GATES)
def test_a_batch_that_comes_first_is_that_of_the_op_whose_sequence_comes_first(
    op_type: str, directions: int, states: bool
) -> None:
    """Outputs by the standard: y (batch, steps, directions, hidden), states (batch, directions, hidden)."""
    made, found = rewritten(recurrent(op_type, 1, directions, states), lower_ops)
    assert found and [info.name for info in made.graph.output] == ["y", "h", "c"][: 2 + (op_type == "LSTM")]
    x = normal(BATCH, STEPS, WIDTH)
    ends = {f"{end}0": normal(BATCH, directions, HIDDEN, seed=seed) for seed, end in enumerate("hc")}
    feeds = {"x": x} | (
        {name: ends[name] for name in ("h0", "c0")[: 1 + (op_type == "LSTM")]} if states else {}
    )
    y, *last = run(made, feeds)

    file = recurrent(op_type, 0, directions, states)
    expected, *states_of_file = run(file, {name: array.transpose(1, 0, 2) for name, array in feeds.items()})
    np.testing.assert_array_equal(y, expected.transpose(2, 0, 1, 3))
    for got, wanted in zip(last, states_of_file, strict=True):
        np.testing.assert_array_equal(got, wanted.transpose(1, 0, 2))


@pytest.mark.parametrize("op_type", GATES)
def test_a_recurrent_op_whose_sequence_comes_first_stays(op_type: str) -> None:
    assert_untouched(recurrent(op_type, 0, 1, True), lower_ops)


def test_every_rule_has_a_test() -> None:
    assert {"TensorScatter", "CumProd", "Range", "AffineGrid", *GATES} == LOWERED
