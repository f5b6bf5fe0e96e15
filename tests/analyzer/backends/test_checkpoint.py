"""Activations that are computed again, segment by segment, give the same results to the last bit, in less memory."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxplain as ox
from analyzer.backends import Differentiable

LAYERS, WIDTH, ROWS = 24, 16, 64
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, ROWS, WIDTH)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 4, 12, 12)).astype(np.float32)


def made(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int, ...], rank: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *([None] * (rank - 1))])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def residual(rows: int = ROWS) -> onnx.ModelProto:
    """x + tanh(norm(x) W), again and again, and the mean over the rows."""
    nodes, weights, x = list[onnx.NodeProto](), dict[str, np.ndarray](), "x"
    weights["scale"], weights["axes"] = np.ones(WIDTH, np.float32), np.array([1])
    for i in range(LAYERS):
        weights[f"w{i}"] = (0.5 * RNG.standard_normal((WIDTH, WIDTH))).astype(np.float32)
        nodes += [
            helper.make_node("LayerNormalization", [x, "scale"], [f"n{i}"]),
            helper.make_node("MatMul", [f"n{i}", f"w{i}"], [f"m{i}"]),
            helper.make_node("Tanh", [f"m{i}"], [f"t{i}"]),
            helper.make_node("Add", [x, f"t{i}"], [f"a{i}"]),
        ]
        x = f"a{i}"
    nodes.append(helper.make_node("ReduceMean", [x, "axes"], ["y"], keepdims=0))
    return made(nodes, weights, (rows, WIDTH), 2)


def convolutional(last: str = "Relu") -> onnx.ModelProto:
    """Convolutions with skips over several layers, a pool whose indices are read, and a softmax.

    last: the op after each skip.
    """
    nodes, weights, x, skip = list[onnx.NodeProto](), dict[str, np.ndarray](), "x", "x"
    for i in range(12):
        weights[f"w{i}"] = (0.2 * RNG.standard_normal((4, 4, 3, 3))).astype(np.float32)
        weights[f"b{i}"] = (0.1 * RNG.standard_normal(4)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [x, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        x = f"r{i}"
        if i % 5 == 4:
            nodes.append(helper.make_node("Add", [skip, x], [f"d{i}"]))
            nodes.append(helper.make_node(last, [f"d{i}"], [f"s{i}"]))
            x = skip = f"s{i}"
        if i == 6:
            nodes.append(helper.make_node("MaxPool", [x], ["pool"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
            x = "pool"
    nodes += [helper.make_node("Flatten", [x], ["f"]), helper.make_node("Softmax", ["f"], ["y"])]
    return made(nodes, weights, (4, 12, 12), 2)


NETWORKS = {"residual": (residual, X), "convolutional": (convolutional, IMAGE)}


def stages(fn: Differentiable) -> list[int]:
    engine = fn.engine.recomputing
    return [] if engine is None else [len(found) for _, found in engine._stages.values()]


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_bitwise_the_same(name: str) -> None:
    build, x = NETWORKS[name]
    model = ox.load(build())
    plain, slim = (ox.differentiate(model, checkpoint=one) for one in ("never", "always"))
    for target in (3, ox.Target(weights=RNG.standard_normal(plain.forward(x)["y"].shape[1:]))):
        one, other = (fn.gradients(x, target, [*fn.graph.inputs, fn.tensors[9]]) for fn in (plain, slim))
        np.testing.assert_array_equal(one.output, other.output)
        for tensor in one.gradients:
            np.testing.assert_array_equal(one.gradients[tensor], other.gradients[tensor])
            np.testing.assert_array_equal(one.values[tensor], other.values[tensor])
    first, second = (ox.full_grad(fn, x, 3) for fn in (plain, slim))
    np.testing.assert_array_equal(first.map, second.map)
    assert first.bias_terms.keys() == second.bias_terms.keys()
    for tensor, term in first.bias_terms.items():
        np.testing.assert_array_equal(term, second.bias_terms[tensor])
    assert not stages(plain) and max(stages(slim)) > 4


def test_sums_that_the_runtime_fuses_into_convolutions_are_equal_to_rounding() -> None:
    """The cotangents of a skip without an activation after it are added inside a convolution, or after it."""
    model = ox.load(convolutional("Identity"))
    one, other = (
        ox.differentiate(model, checkpoint=choice).gradients(IMAGE, 3).gradients["x"]
        for choice in ("never", "always")
    )
    assert np.linalg.norm(one - other) <= 1e-6 * np.linalg.norm(one)


def needed(refused: pytest.ExceptionInfo[ox.AnalysisError]) -> float:
    """Return the MiB that an error states."""
    return float(str(refused.value).split("about ")[1].split(" MiB")[0])


def test_a_sample_that_does_not_fit_is_computed_in_segments() -> None:
    model, x = ox.load(residual(512 * ROWS)), np.repeat(X[:1], 512, axis=1)
    enough = ox.differentiate(model, max_memory="1 GiB")
    enough.gradients(x, 3)
    assert not stages(enough)
    with pytest.raises(ox.AnalysisError, match="one sample needs about") as refused:
        ox.differentiate(model, max_memory="1 MiB", checkpoint="never").gradients(x, 3)
    need = needed(refused)
    less = ox.differentiate(model, max_memory=f"{int(0.9 * need)} MiB")
    found = less.gradients(x, 3)
    assert len(stages(less)) == 1
    expected = ox.differentiate(model).gradients(x, 3)
    np.testing.assert_array_equal(found.gradients["x"], expected.gradients["x"])
    with pytest.raises(ox.AnalysisError, match="one sample needs about") as refused:
        ox.differentiate(model, max_memory="1 MiB").gradients(x, 3)
    assert needed(refused) < 0.9 * need


def test_activations_of_a_deep_network_grow_with_the_root_of_its_depth() -> None:
    """Of 24 layers, at most four segments' worth of layers are alive, in place of all."""
    fn = ox.differentiate(ox.load(residual()), checkpoint="always")
    fn.gradients(X, 3)
    ((_, found),) = fn.engine.recomputing._stages.values()
    layers = [sum(node.op_type == "Tanh" for node in one.program.nodes) for one in found]
    assert max(layers) <= 8 and sum(layers) <= 2 * LAYERS
    alive, most = set[str](), 0
    for one in found:
        alive |= set(one.keeps)
        most = max(most, len(alive))
        alive -= set(one.frees)
    assert not alive and most <= 12


def test_a_network_that_draws_is_not_divided() -> None:
    proto = residual()
    proto.graph.node.insert(0, helper.make_node("RandomNormalLike", ["x"], ["noise"], name="noise", seed=1.0))
    proto.graph.node[1].input[0] = "noise"
    fn = ox.differentiate(proto, checkpoint="always", verify=False)
    fn.gradients(X, 3)
    assert stages(fn) == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "sometimes"}, "Fix: give 'auto', 'always', 'never'"),
        ({"checkpoint": "always", "backend": "torch"}, "backend='torch' cannot recompute"),
    ],
)
def test_an_unknown_choice_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ox.AnalysisError, match=message):
        ox.differentiate(residual(), **options)
