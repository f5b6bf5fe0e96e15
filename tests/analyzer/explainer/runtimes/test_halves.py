"""Weights in float16: half the file, the arithmetic of float32, and no weight that float16 cannot hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer.explainer.runtimes import at_opset, to_float16
from analyzer.explainer.runtimes.halves import ROUNDING
from analyzer.explainer.runtimes.opset import checked
from converters.graph.runtime import run

RNG = np.random.default_rng(11)


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _proto(weights: dict[str, np.ndarray], text: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def _stored(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


TEXT = """(float[N, 40] x, bool c) => (float[N, 40] y) {
    a = MatMul (x, w)
    b = If (c) <then_branch = t () => (float[N, 40] s) { s = MatMul (a, w) },
                else_branch = e () => (float[N, 40] d) { d = MatMul (a, v) }>
    y = Mul (b, small)
}"""


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return {"w": _normal(40, 40) / 6, "v": _normal(40, 40) / 6, "small": _normal(40)}


def test_outputs_are_those_of_the_rounded_weights(weights: dict[str, np.ndarray]) -> None:
    proto = _proto(weights, TEXT)
    before = proto.SerializeToString()
    halved = to_float16(proto)
    assert proto.SerializeToString() == before
    checked(halved)
    assert halved.ByteSize() < 0.6 * proto.ByteSize()
    kinds = _stored(halved)
    assert (
        kinds["w/float16"] == kinds["v/float16"] == TensorProto.FLOAT16
        and kinds["small"] == TensorProto.FLOAT
    )
    rounded = {
        name: array.astype(np.float16).astype(np.float32) if array.size > 256 else array
        for name, array in weights.items()
    }
    for choice in (True, False):
        feeds = {"x": _normal(3, 40), "c": np.asarray(choice)}
        (found,), (full,) = run(halved, feeds, optimise=False), run(proto, feeds, optimise=False)
        np.testing.assert_array_equal(found, run(_proto(rounded, TEXT), feeds, optimise=False)[0])
        # Two layers, each with weights that are off by 2⁻¹¹ at most.
        assert 0 < np.linalg.norm(found - full) <= 2 * ROUNDING * np.linalg.norm(full)
        np.testing.assert_array_equal(run(at_opset(halved, 17), feeds, optimise=False)[0], found)


def test_rounding_of_ordinary_weights_is_below_the_stated_one() -> None:
    weights = _normal(100_000)
    halves = weights.astype(np.float16).astype(np.float32)
    ordinary = np.abs(weights) > np.finfo(np.float16).tiny
    assert (np.abs(halves - weights) <= ROUNDING * np.abs(weights))[ordinary].all()


@pytest.mark.parametrize(
    ("name", "array"),
    {
        "beyond 65504": np.full(300, 65_520, np.float32),
        "infinite": np.full(300, -np.inf, np.float32),
        "too small": np.full(300, 3e-8, np.float32) * np.linspace(0.1, 1, 300, dtype=np.float32),
        "of another type": np.arange(300, dtype=np.float64),
        "few": _normal(255),
        "kept": _normal(300),
    }.items(),
)
def test_what_float16_cannot_hold_stays(name: str, array: np.ndarray) -> None:
    kind = "double" if array.dtype == np.float64 else "float"
    proto = _proto({"w": array}, f"({kind}[{array.size}] x) => ({kind}[{array.size}] y) {{ y = Add (x, w) }}")
    halved = to_float16(proto, keep=("w",) if name == "kept" else ())
    assert _stored(halved) == _stored(proto)
    assert [node.op_type for node in halved.graph.node] == ["Add"]


def test_inputs_and_outputs_keep_their_type() -> None:
    """The default of an optional input is read by consumers as float32."""
    proto = _proto(
        {"baseline": _normal(300), "shown": _normal(300), "sum/float16": _normal(300)},
        """(float[300] x, float[300] baseline) => (float[300] y, float[300] shown) {
            z = Sub (x, baseline)
            y = Add (z, sum/float16)
        }""".replace("sum/float16", "taken"),
    )
    proto.graph.initializer[2].name = "taken"
    halved = to_float16(proto)
    kinds = _stored(halved)
    assert kinds["baseline"] == kinds["shown"] == TensorProto.FLOAT
    assert kinds["taken/float16"] == TensorProto.FLOAT16
    for before, after in zip(
        (*proto.graph.input, *proto.graph.output), (*halved.graph.input, *halved.graph.output), strict=True
    ):
        assert before == after


def test_the_name_of_a_half_is_new() -> None:
    proto = _proto(
        {"w": _normal(300), "w/float16": _normal(300)}, "(float[300] x) => (float[300] y) { y = Add (x, w) }"
    )
    extra = helper.make_node("Mul", ["y", "w/float16"], ["z"])
    proto.graph.node.append(extra)
    proto.graph.output[0].name = "z"
    halved, feeds = to_float16(proto), {"x": _normal(300)}
    assert set(_stored(halved)) == {"w/float16_2", "w/float16/float16"}
    np.testing.assert_allclose(run(halved, feeds)[0], run(proto, feeds)[0], rtol=1e-2, atol=1e-2)
