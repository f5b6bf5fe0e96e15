"""A row that is masked altogether never reaches the softmax whose result for it is replaced."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from analyzer import Target, differentiate
from converters import load
from converters.passes.masking import guard_masked_rows
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import assert_untouched, graph, rewritten, values

MASKED = np.array([[[False, True, False], [True, False, False]], [[True, True, True], [False, False, False]]])


def attention(nodes: str, kind: str = "double", mask: str = "N,2,3,1", more: str = "") -> onnx.ModelProto:
    """Return scores x (N, 2, 3, 4) and the rows m that are masked; y is what the nodes compute."""
    zero, seven = f"{kind} zero = {{0}}", f"{kind}[1] seven = {{7}}"
    return graph(f"({kind}[N,2,3,4] x, bool[{mask}] m{more}) => ({kind} y) <{zero}, {seven}> {{ {nodes} }}")


def feeds(dtype: type = np.float64) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 4)).astype(dtype)
    x[1, 1, 2, :3] = -np.inf  # all but one: such a row stays
    x[MASKED] = -np.inf
    return {"x": x, "m": MASKED[..., None]}


GUARDED = {
    "zeros": "p = Softmax<axis = -1>(x) y = Where(m, zero, p)",
    "other values": "p = Softmax<axis = 3>(x) y = Where(m, seven, p)",
    "the usual axis": "p = Softmax(x) y = Where(m, zero, p)",
    "a condition that comes last": "p = Softmax(x) k = Not(m) c = Not(k) y = Where(c, zero, p)",
    "more behind it": "s = Neg(x) t = Neg(s) p = Softmax(t) z = Where(m, zero, p) y = Mul(z, seven)",
}


@pytest.mark.parametrize("name", GUARDED)
def test_the_result_is_the_same_and_the_softmax_has_no_row_of_nothing(name: str) -> None:
    file = attention(GUARDED[name])
    made, _ = rewritten(file, guard_masked_rows)
    assert ops(made)["Where"] == ops(file)["Where"] + 1
    assert [node.output[0] for node in made.graph.node if node.op_type == "Softmax"] == ["p"]

    given = feeds()
    with np.errstate(invalid="ignore"):
        expected, found = values(file, given), values(made, given)
    assert np.isnan(expected["p"][MASKED]).all()
    assert np.isfinite(found["p"]).all()
    np.testing.assert_array_equal(found["p"][~MASKED], expected["p"][~MASKED])
    for tensor in expected.keys() & found.keys() - {"p"}:
        np.testing.assert_array_equal(found[tensor], expected[tensor], err_msg=tensor)
    np.testing.assert_array_equal(run(made, given)[0], run(file, given)[0])


def test_a_softmax_in_half_precision_is_guarded_in_its_own_type() -> None:
    file = graph(
        "(float16[N,2,3,4] x, bool[N,2,3,1] m) => (float y) <float zero = {0}>"
        " { p = Softmax(x) w = Cast<to = 1>(p) y = Where(m, zero, w) }"
    )
    made, _ = rewritten(file, guard_masked_rows)
    assert ops(made) == {"Where": 2, "Softmax": 1, "Cast": 1}
    given = feeds(np.float16)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(values(made, given)["y"], values(file, given)["y"])
    assert np.isfinite(values(made, given)["w"]).all()


def test_the_gradient_of_a_masked_row_is_zero() -> None:
    """Of the other rows it is that of the softmax: p · (g − Σ p·g)."""
    file = graph(
        "(double[N,2,3,4] x, bool[N,2,3,4] k, bool[N,2,3,1] m) => (double y) <double zero = {0}>"
        " { s = Where(k, low, x) p = Softmax(s) y = Where(m, zero, p) }",
        {"low": np.asarray(-np.inf)},
    )
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((2, 2, 3, 4)), rng.standard_normal((2, 2, 3, 4))
    hidden = MASKED[..., None] | (rng.random((2, 2, 3, 4)) < 0.2)
    given = {"x": x, "k": hidden, "m": hidden.all(-1, keepdims=True)}
    found = differentiate(load(file)).gradients(given, Target(weights=g), ["x"])

    p = np.where(hidden, 0.0, np.exp(x))
    p /= np.maximum(p.sum(-1, keepdims=True), 1e-300)
    expected = p * (g - (p * g).sum(-1, keepdims=True))
    np.testing.assert_allclose(found.gradients["x"], expected, rtol=1e-12, atol=1e-15)


def test_the_guard_comes_from_where_the_softmax_does() -> None:
    file = attention(GUARDED["zeros"])
    file.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['attention']")
    made, _ = rewritten(file, guard_masked_rows)
    assert made.graph.node[0].op_type == "Where"
    assert made.graph.node[0].metadata_props[0].value == "['attention']"


STAYS = {
    "the softmax where the condition holds": ("p = Softmax(x) y = Where(m, p, zero)", "N,2,3,1"),
    "a computed replacement": ("p = Softmax(x) n = Neg(x) y = Where(m, n, p)", "N,2,3,1"),
    "single elements": ("p = Softmax(x) y = Where(m, zero, p)", "N,2,3,4"),
    "one element of all rows": ("p = Softmax(x) y = Where(m, zero, p)", "1,1,1,4"),
    "a softmax along another axis": ("p = Softmax<axis = 2>(x) y = Where(m, zero, p)", "N,2,3,1"),
    "a softmax that is read twice": ("p = Softmax(x) z = Where(m, zero, p) y = Add(z, p)", "N,2,3,1"),
    "a condition that the softmax decides": (
        "p = Softmax(x) n = IsNaN(p) s = Cast<to = 11>(n) t = ReduceMax<keepdims = 1>(s, last) c = Cast<to = 9>(t)"
        " y = Where(c, zero, p)",
        "N,2,3,1",
    ),
    "a cast that is read twice": (
        "p = Softmax(x) q = Cast<to = 11>(p) z = Where(m, zero, q) y = Add(z, q)",
        "N,2,3,1",
    ),
    "a condition of more axes": ("p = Softmax(x) y = Where(m, zero, p)", "5,N,2,3,1"),
    "a condition that repeats the rows": ("p = Softmax(t) y = Where(m, zero, p)", "N,2,3,1"),
    "a single condition": ("p = Softmax(x) y = Where(m, zero, p)", ""),
    "no softmax": ("p = Sigmoid(x) y = Where(m, zero, p)", "N,2,3,1"),
    "a logarithm": ("p = LogSoftmax(x) y = Where(m, zero, p)", "N,2,3,1"),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_softmax_stays_where_rows_are_not_replaced_whole(name: str) -> None:
    nodes, mask = STAYS[name]
    more = (
        ", double[N,1,3,4] t, int64[1] last"
        if name == "a condition that repeats the rows"
        else ", int64[1] last"
    )
    file = attention(nodes, mask=mask, more=more)
    assert_untouched(file, guard_masked_rows)


def test_a_softmax_that_is_an_output_stays() -> None:
    file = graph(
        "(double[N,3,4] x, bool[N,3,1] m) => (double[N,3,4] p, double[N,3,4] y) <double zero = {0}>"
        " { p = Softmax(x) y = Where(m, zero, p) }"
    )
    assert_untouched(file, guard_masked_rows)
