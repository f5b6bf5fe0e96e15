"""Loops and branches of any ONNX file that depend on sizes: written out for the inputs at hand, never for others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import Target, check, differentiate, full_grad, integrated_gradients
from analyzer.backends.at_sizes import _MADE
from converters import load
from converters.specialise import specialised
from tests.converters.helpers import ops

W = np.random.default_rng(0).normal(0, 0.7, (3, 3)).astype(np.float32)


def _info(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sized",
        [_info("x", "N", "T", 3)],
        [_info("y", "N", 3)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _begin() -> list[onnx.NodeProto]:
    """A state of zeros for each sample."""
    return [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Gather", ["shape", "outer"], ["state_shape"]),
        helper.make_node("Expand", ["zero", "state_shape"], ["h0"]),
    ]


BEGIN = {
    "one": np.asarray(1, np.int64),
    "outer": np.asarray([0, 2], np.int64),
    "zero": np.zeros((), np.float32),
    "w": W,
}


def _loop(count: str = "length", more: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """h = tanh(h·w + x_t) over the steps t."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["cond_out"]),
            helper.make_node("Gather", ["x", "t"], ["x_t"], axis=1),
            helper.make_node("MatMul", ["h", "w"], ["hw"]),
            helper.make_node("Add", ["hw", "x_t"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["h_out"]),
        ],
        "body",
        [_info("t", kind=TensorProto.INT64), _info("cond", kind=TensorProto.BOOL), _info("h", "N", 3)],
        [_info("cond_out", kind=TensorProto.BOOL), _info("h_out", "N", 3)],
    )
    loop = helper.make_node("Loop", [count, "", "h0"], ["y"], body=body)
    return _model([*_begin(), *(more or []), loop], BEGIN)


def _scan() -> onnx.ModelProto:
    """The same as a Scan."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["hw"]),
            helper.make_node("Add", ["hw", "x_t"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["h_out"]),
        ],
        "body",
        [_info("h", "N", 3), _info("x_t", "N", 3)],
        [_info("h_out", "N", 3)],
    )
    scan = helper.make_node("Scan", ["h0", "x"], ["y"], body=body, num_scan_inputs=1, scan_input_axes=[1])
    return _model([*_begin(), scan], BEGIN)


def _branch() -> onnx.ModelProto:
    """The mean over the steps, of the squares where there are more than three."""
    squares, plain = (
        helper.make_graph(nodes, name, [], [_info(f"{name}_out", "N", "T", 3)])
        for name, nodes in (
            ("squares", [helper.make_node("Mul", ["x", "x"], ["squares_out"])]),
            ("plain", [helper.make_node("Tanh", ["x"], ["plain_out"])]),
        )
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Greater", ["length", "three"], ["long"]),
        helper.make_node("If", ["long"], ["chosen"], then_branch=squares, else_branch=plain),
        helper.make_node("ReduceMean", ["chosen"], ["y"], axes=[1], keepdims=0),
    ]
    return _model(nodes, {"one": BEGIN["one"], "three": np.asarray(3, np.int64)})


def _recurrence(x: np.ndarray) -> np.ndarray:
    h = np.zeros((len(x), 3))
    for t in range(x.shape[1]):
        h = np.tanh(h @ W.astype(np.float64) + x[:, t])
    return h


def _mean(x: np.ndarray) -> np.ndarray:
    return (x * x if x.shape[1] > 3 else np.tanh(x)).mean(1)


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[np.ndarray], np.ndarray]]] = {
    "Loop": (_loop, _recurrence),
    "Scan": (_scan, _recurrence),
    "If": (_branch, _mean),
}


def _slope(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The derivative of each sample's output 1 along a line, in float64."""
    step = 1e-6
    return (function(x + step * line)[:, 1] - function(x - step * line)[:, 1]) / (2 * step)


@pytest.mark.filterwarnings("ignore:loops, branches")
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_at_every_length(name: str, backend: str) -> None:
    build, function = CASES[name]
    fn = differentiate(build(), backend)
    rng = np.random.default_rng(1)
    for samples, length in ((2, 5), (3, 5), (2, 2), (1, 1)):
        x = rng.normal(size=(samples, length, 3)).astype(np.float32)
        np.testing.assert_allclose(fn.forward(x)["y"], function(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
        found = fn.gradients(x, 1)
        line = rng.normal(size=x.shape)
        expected = _slope(function, x.astype(np.float64), line)
        np.testing.assert_allclose((found.gradients["x"] * line).sum((1, 2)), expected, rtol=1e-4, atol=1e-6)
        assert full_grad(fn, x, 1).completeness.error.max() <= 1e-5
        assert np.abs(integrated_gradients(fn, x, 1).delta).max() <= 1e-4


@pytest.mark.filterwarnings("ignore:loops, branches")
def test_check_and_one_model_a_length() -> None:
    proto, x = _loop(), np.random.default_rng(2).normal(size=(2, 4, 3)).astype(np.float32)
    check(proto, x, 1).raise_for_disagreement()
    sized = specialised(load(proto).proto, {"x": x})
    assert sized is not None and not ops(sized.proto).keys() & {"Loop", "Scan", "If"}
    # The batch stays free: many points are computed in one call.
    assert sized.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    fn = differentiate(proto)
    for length in range(1, 9):
        fn.gradients(x[:, :1].repeat(length, 1), 1)
    assert 1 <= len(_MADE.of(fn)) <= 4


def _switched() -> onnx.ModelProto:
    """tanh(x · w) at a rate of 16000, x² at any other, `repeats` times; nested as exporters write it."""
    inner = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["h", "w"], ["hw"]),
            helper.make_node("Tanh", ["hw"], ["h_out"]),
        ],
        "inner",
        [_info("t", kind=TensorProto.INT64), _info("go", kind=TensorProto.BOOL), _info("h", "N", 3)],
        [_info("go_on", kind=TensorProto.BOOL), _info("h_out", "N", 3)],
    )
    then = helper.make_graph(
        [helper.make_node("Loop", ["repeats", "", "x"], ["then_out"], body=inner)],
        "then",
        [],
        [_info("then_out", "N", 3)],
    )
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["other_out"])], "other", [], [_info("other_out", "N", 3)]
    )
    nodes = [
        helper.make_node("Equal", ["rate", "wide"], ["is_wide"]),
        helper.make_node("If", ["is_wide"], ["y"], then_branch=then, else_branch=other),
    ]
    whole = TensorProto.INT64
    inputs = [_info("x", "N", 3), _info("rate", kind=whole), _info("repeats", kind=whole)]
    constants = [
        numpy_helper.from_array(W, "w"),
        numpy_helper.from_array(np.asarray(16000, np.int64), "wide"),
    ]
    graph = helper.make_graph(nodes, "switched", inputs, [_info("y", "N", 3)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.filterwarnings("ignore:loops, branches")
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_switch_chooses_the_branch_and_the_count(backend: str) -> None:
    fn, rng = differentiate(_switched(), backend), np.random.default_rng(4)
    for samples, rate, repeats in ((2, 16000, 2), (2, 16000, 3), (2, 8000, 3), (3, 16000, 2), (1, 8000, 1)):

        def function(x: np.ndarray, rate: int = rate, repeats: int = repeats) -> np.ndarray:
            for _ in range(repeats):
                x = np.tanh(x @ W.astype(np.float64)) if rate == 16000 else x
            return x if rate == 16000 else x * x

        x, line = rng.normal(size=(samples, 3)).astype(np.float32), rng.normal(size=(samples, 3))
        feeds = {"x": x, "rate": np.asarray(rate, np.int64), "repeats": np.asarray(repeats, np.int64)}
        step = 1e-6
        ends = [function(x.astype(np.float64) + sign * step * line)[:, 1] for sign in (1, -1)]
        found = fn.gradients(feeds, 1)
        np.testing.assert_allclose(
            (found.gradients["x"] * line).sum(1), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-6
        )
        assert full_grad(fn, feeds, 1).completeness.error.max() <= 1e-5
        assert np.abs(integrated_gradients(fn, feeds, 1).delta).max() <= 1e-4
    check(_switched(), feeds, 1).raise_for_disagreement()


def test_the_note_states_the_switch() -> None:
    feeds = {"x": np.ones((1, 3), np.float32), "rate": np.asarray(8000), "repeats": np.asarray(1)}
    with pytest.warns(UserWarning, match=r"sizes or switches.*rate = 8000, repeats = 1"):
        differentiate(_switched()).gradients(feeds, 1)


HEAD = (
    '<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({output}) <float[3, 4] w = {{{weights}}},'
    " int64[1] lo = {{0}}, int64[1] mid = {{2}}, int64[1] hi = {{4}}, int64[1] axis = {{0}}> {{ {body} }}"
)


def _head(body: str, output: str, inputs: str = "float[n, 3] x") -> onnx.ModelProto:
    weights = ", ".join(str(value) for value in np.linspace(-1, 1, 12).round(3))
    return onnx.parser.parse_model(HEAD.format(inputs=inputs, output=output, weights=weights, body=body))


SLICED = (
    "m = MatMul(x, w) s = Squeeze(m) t = Tanh(s) a = Slice(t, lo, mid, axis) b = Slice(t, mid, hi, axis) "
)
DROPPED = {
    # For one sample, the first axis of s holds the outputs.
    "sliced": (SLICED + "c = Mul(b, b) y = Concat<axis = 0>(a, c)", "float[k] y"),
    "vector": ("m = MatMul(x, w) s = Squeeze(m) y = Softmax<axis = 0>(s)", "float[k] y"),
    "same values": ("m = MatMul(x, w) r = Relu(m) y = Squeeze(r)", "float[k] y"),
    "a number": ("m = MatMul(x, w) r = ReduceMax<axes = [1]>(m) y = Squeeze(r)", "float y"),
}


@pytest.mark.filterwarnings("ignore:loops, branches", "ignore:the file states")
@pytest.mark.parametrize("name", DROPPED)
def test_a_squeeze_without_axes_drops_the_axis_of_one_sample(name: str) -> None:
    """The outputs and gradients are those of the file, for one sample as for several."""
    proto, rng = _head(*DROPPED[name]), np.random.default_rng(5)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    fn = differentiate(proto)
    for samples in (1, 3, 1):
        x, line = rng.normal(size=(samples, 3)).astype(np.float32), rng.normal(size=(samples, 3))
        expected = session.run(None, {"x": x})[0]
        np.testing.assert_allclose(fn.forward(x)["y"].ravel(), expected.ravel(), rtol=1e-5)
        joint = differentiate(proto, samples="joint")
        flat = Target(weights=np.ones(expected.size, np.float32).reshape(joint.forward(x)["y"].shape))
        found = joint.gradients(x, flat)
        step = 1e-2
        moved = [session.run(None, {"x": (x + s * step * line).astype(np.float32)})[0].sum() for s in (1, -1)]
        np.testing.assert_allclose(
            (found.gradients["x"] * line).sum(), (moved[0] - moved[1]) / (2 * step), rtol=5e-3, atol=2e-4
        )
    check(proto, x, backends=["onnxruntime", "torch"]).raise_for_disagreement()


def test_a_count_that_depends_on_values_is_differentiated_as_it_is() -> None:
    count = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["count"], to=TensorProto.INT64),
    ]
    proto, x = _loop("count", count), np.full((1, 4, 3), 2.5, np.float32)
    fn = differentiate(proto)
    np.testing.assert_allclose(fn.forward(x)["y"], _recurrence(x[:, :2].astype(np.float64)), rtol=1e-5)
    line, step = np.random.default_rng(7).normal(size=x.shape), 1e-6
    ends = [_recurrence(x[:, :2] + sign * step * line[:, :2])[0, 1] for sign in (1, -1)]
    found = fn.gradients(x, 1).gradients["x"]
    assert (found * line).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_a_false_shape_inside_a_loop_is_not_used() -> None:
    """Paddle's exporter states the count of a Loop as (1,); ONNX Runtime takes it."""
    proto = _loop("three")
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(3, np.int64), "three"))
    (body,) = [a.g for node in proto.graph.node for a in node.attribute if a.name == "body"]
    body.input[0].type.tensor_type.shape.dim.add(dim_value=1)
    body.node.add(op_type="Cast", input=["t"], output=["t_float"]).attribute.append(
        helper.make_attribute("to", TensorProto.FLOAT)
    )
    body.value_info.append(_info("t_float"))
    body.node.insert(0, helper.make_node("Squeeze", ["t", "start"], ["number"]))
    (gather,) = [node for node in body.node if node.op_type == "Gather"]
    gather.input[1] = "number"
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "start"))
    x = np.random.default_rng(6).normal(size=(2, 4, 3)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(expected, _recurrence(x[:, :3].astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(differentiate(proto).forward(x)["y"], expected, rtol=1e-5)
    assert full_grad(proto, x, 1).completeness.error.max() <= 1e-5
