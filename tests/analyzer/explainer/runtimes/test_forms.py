"""The plain forms give the values of the op that they replace: ties, NaN, infinities, empty tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from analyzer.explainer.runtimes.forms import FORMS, folded
from analyzer.explainer.runtimes.mutable import MutableModel, Writer
from analyzer.explainer.runtimes.opset import at_opset, checked
from analyzer.explainer.runtimes.traps import TRAP_FORMS
from converters.graph.runtime import ReferenceSession, Session, run

RNG = np.random.default_rng(7)
SPECIAL = np.asarray([0.0, -0.0, 1.5, 1.5, -2.0, np.inf, -np.inf, np.nan, 3e38, 1e-40], np.float32)
PAIRS = [np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))]
BOOLS = [np.asarray([0, 0, 1, 1], bool), np.asarray([0, 1, 0, 1], bool)]


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _model(op_type: str, feeds: list[np.ndarray], opset: int, **attributes: Any) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, x in enumerate(feeds)
    ]
    node = helper.make_node(op_type, [info.name for info in infos], ["y"], "node", **attributes)
    graph = helper.make_graph([node], "one", infos, [onnx.ValueInfoProto(name="y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    proto.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(proto).graph.output[0])
    return proto


def _rewritten(proto: onnx.ModelProto, rule: Any) -> onnx.ModelProto:
    model = MutableModel(proto)
    model.infer()
    assert model.rewrite(rule)
    found = model.finished()
    checked(found)
    return found


def _in_plain_form(proto: onnx.ModelProto) -> onnx.ModelProto:
    def rule(op: Writer, node: onnx.NodeProto) -> Any:
        return {**FORMS, **TRAP_FORMS}[node.op_type](op) if node.name == "node" else None

    return _rewritten(proto, rule)


def _scatter(
    shape: tuple[int, ...], taken: tuple[int, ...], axis: int, *, unique: bool = True
) -> list[np.ndarray]:
    size = shape[axis]
    drawn = np.argsort(RNG.random((*taken, size)), axis=-1)[..., 0] if taken else np.zeros((), np.int64)
    if unique and 0 not in taken:
        rows = np.moveaxis(np.argsort(RNG.random(shape), axis=axis), axis, 0)[: taken[axis]]
        drawn = np.moveaxis(rows, 0, axis)[tuple(slice(count) for count in taken)]
    negative = np.where(RNG.random(taken) < 0.5, drawn - size, drawn)
    return [_normal(*shape), negative.astype(np.int64), _normal(*taken)]


CASES: dict[str, tuple[str, list[np.ndarray], dict[str, Any]]] = {
    "sum of one": ("Sum", [_normal(2, 3)], {}),
    "sum that broadcasts": ("Sum", [_normal(2, 1, 3), _normal(4, 1), _normal(1)], {}),
    "sum of nothing": ("Sum", [_normal(0, 3), _normal(3)], {}),
    "mean": ("Mean", [_normal(2, 3), _normal(3), _normal(2, 1)], {}),
    "largest of special numbers": ("Max", PAIRS, {}),
    "least of special numbers": ("Min", PAIRS, {}),
    "largest of three": ("Max", [_normal(2, 3), _normal(3), _normal(2, 1)], {}),
    "largest of int32": ("Max", [np.asarray([1, 2, -3], np.int32), np.asarray([1, 1, 1], np.int32)], {}),
    "least of one": ("Min", [_normal(3)], {}),
    "least of nothing": ("Min", [_normal(0), _normal(1)], {}),
    "signs": ("Sign", [SPECIAL[:7]], {}),
    "signs of int32": ("Sign", [np.asarray([-5, 0, 7], np.int32)], {}),
    "and": ("And", BOOLS, {}),
    "or": ("Or", BOOLS, {}),
    "xor": ("Xor", BOOLS, {}),
    "and that broadcasts": ("And", [BOOLS[0].reshape(2, 2), BOOLS[1][1:2]], {}),
    "not": ("Not", BOOLS[:1], {}),
    "celu": ("Celu", [_normal(3, 4)], {"alpha": 0.7}),
    "selu": ("Selu", [_normal(3, 4)], {}),
    "softplus": ("Softplus", [_normal(3, 4)], {}),
    "softsign": ("Softsign", [_normal(3, 4)], {}),
    "mish": ("Mish", [_normal(3, 4)], {}),
    "swish": ("Swish", [_normal(3, 4)], {"alpha": 1.5}),
    "a transposed convolution": ("ConvTranspose", [_normal(2, 4, 5), _normal(4, 3, 3), _normal(3)], {}),
    "one of volumes": (
        "ConvTranspose",
        [_normal(2, 2, 3, 4, 5), _normal(2, 3, 3, 2, 1)],
        {"strides": [2, 1, 3], "pads": [1, 0, 0, 0, 1, 0], "output_padding": [1, 0, 2]},
    ),
    "one of groups": (
        "ConvTranspose",
        [_normal(1, 6, 4, 5), _normal(6, 2, 3, 2), _normal(4)],
        {"group": 2, "strides": [3, 2], "dilations": [1, 2], "pads": [0, 1, 2, 0]},
    ),
    "one that crops": (
        "ConvTranspose",
        [_normal(1, 2, 6), _normal(2, 3, 2)],
        {"pads": [2, 3], "strides": [2]},
    ),
    "a pool": ("MaxPool", [np.round(_normal(1, 2, 6, 6))], {"kernel_shape": [3, 2], "strides": [2, 1]}),
    "vector by vector": ("MatMul", [_normal(4), _normal(4)], {}),
    "vector by matrices": ("MatMul", [_normal(4), _normal(2, 3, 4, 5)], {}),
    "matrices by vector": ("MatMul", [_normal(2, 3, 4), _normal(4)], {}),
    "scatter along the last axis": ("ScatterElements", _scatter((3, 5), (2, 4), 1), {"axis": 1}),
    "scatter along a negative axis": ("ScatterElements", _scatter((2, 4, 3), (2, 3, 2), 1), {"axis": -2}),
    "scatter a vector": ("ScatterElements", _scatter((6,), (4,), 0), {}),
    "scatter nothing": ("ScatterElements", _scatter((3, 5), (0, 4), 0), {}),
    "scatter sums": (
        "ScatterElements",
        _scatter((3, 5), (3, 5), 0, unique=False),
        {"axis": 0, "reduction": "add"},
    ),
    "scatter largest": (
        "ScatterElements",
        _scatter((3, 4), (3, 4), 1, unique=False),
        {"axis": 1, "reduction": "max"},
    ),
}
# Where an op, its standard body, or a reduction of it is newer than 17.
OPSETS = {"ScatterElements": 18, "Mish": 21, "Selu": 21, "Softplus": 21, "Softsign": 21, "Swish": 24}


@pytest.mark.parametrize("case", CASES)
def test_plain_form_equals_the_op(case: str) -> None:
    op_type, feeds, attributes = CASES[case]
    opset = OPSETS.get(op_type, 17)
    proto = _model(op_type, feeds, opset, **attributes)
    plain = _in_plain_form(proto)
    assert op_type not in {node.op_type for node in plain.graph.node} or op_type in ("MatMul", "MaxPool")
    given = {f"x{i}": x for i, x in enumerate(feeds)}
    # Older runtimes do not take the opset of Swish; its plain form is older.
    session = ReferenceSession(proto) if op_type == "Swish" else Session(proto, optimise=False)
    (expected,), (found,) = session.run(given), run(at_opset(plain, min(opset, 21)), given, optimise=False)
    assert expected.dtype == found.dtype and expected.shape == found.shape
    if op_type in (
        "Mean",
        "ConvTranspose",
        "MatMul",
        "Celu",
        "Mish",
        "Selu",
        "Softplus",
        "Softsign",
        "Swish",
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


def test_every_form_has_a_case() -> None:
    assert {op_type for op_type, _, _ in CASES.values()} == FORMS.keys() | TRAP_FORMS.keys()


def test_scatter_takes_int32_indices() -> None:
    feeds = [_normal(4, 3), np.asarray([[0, -1, 2]], np.int32), _normal(1, 3)]
    proto, given = _model("ScatterElements", feeds, 17), {f"x{i}": x for i, x in enumerate(feeds)}
    np.testing.assert_array_equal(run(_in_plain_form(proto), given)[0], run(proto, given)[0])


def test_known_sizes_become_constants_and_fed_ones_do_not() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3, 4] x, float[batch, 5] free, int64[1] fed) => (int64[2] y, int64[1] z, int64[1] w)
        <int64[1] two = {2}, int64[1] last = {-1}, int64[1] fed = {4}> {
            shape = Shape (x)
            ends = Gather (shape, last)
            product = Mul (ends, two)
            y = Concat <axis = 0> (product, two)
            rows = Shape <start = 0, end = 1> (free)
            z = Mul (rows, two)
            w = Add (fed, two)
        }"""
    proto = onnx.parser.parse_model(text)
    model = MutableModel(proto)
    for _ in range(4):
        model.infer()
        model.rewrite(lambda op, node: folded(op))
    found = model.finished()
    assert sorted(node.op_type for node in found.graph.node) == ["Add", "Constant", "Mul", "Shape"]
    feeds = {"x": _normal(2, 3, 4), "free": _normal(7, 5)}
    y, z, w = run(found, feeds)
    assert y.tolist() == [8, 2] and z.tolist() == [14] and w.tolist() == [6]
    # An optional input may be fed another value.
    assert [list(node.input) for node in found.graph.node if node.op_type == "Add"] == [["fed", "two"]]
