"""compare names what differs at the node at fault: each case plants one difference and expects its phrase."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from analyzer import compare, differentiate
from analyzer.checks.explain.weights import number, relation
from analyzer.cli.app import main
from analyzer.errors import AnalysisError
from converters import ConversionError, convert, load

W = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32)
HALVED = W * np.float32([1, 0.5, 1, 1])[:, None, None, None]
STEADY = W * np.float32([0.9, 0.5, 1.2, 1])[:, None, None, None]
ONE = W + np.float32(np.arange(48).reshape(W.shape) == 7)


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        (W, None),
        (W * (1 + 1e-8), None),
        (W.transpose(0, 1, 3, 2), "transposed, axes 2 and 3 exchanged"),
        (W[:, :, ::-1, ::-1], "flipped along axes 2 and 3"),
        (W[:, ::-1], "flipped along axis 1"),
        (W[[2, 1, 0, 3]], "in another order along axis 0: slices 0 and 2 exchanged"),
        (W[[1, 2, 3, 0]], "in another order along axis 0"),
        (2 * W, "scaled by 2"),
        (-W, "negated"),
        (HALVED, "scaled by 0.5 in slice 1 of axis 0"),
        (STEADY, "scaled along axis 0, by 0.5 to 1.2"),
        (W[:, :, :1, :1], "of shape 4x3x2x2 against 4x3x1x1"),
        (W.reshape(4, 12), "of the same values in another shape"),
    ],
)
def test_the_relation_of_two_arrays_is_named(b: np.ndarray, expected: str | None) -> None:
    assert relation(W, b) == expected


def test_the_relation_of_other_arrays_is_their_distance() -> None:
    one = relation(W, ONE)
    assert one is not None and one.startswith("differ in 1 of 48 elements, by relative L2 ")
    size = np.linalg.norm(1.0) / np.linalg.norm(W.astype(np.float64))
    assert one.endswith(f"{size:.1e}")
    assert relation(W, W + np.abs(W)) == f"differ by relative L2 {1:.1e}"
    assert relation(np.float32([1, 2]), np.float32([1, 3])) == "1,2 against 1,3"
    assert [number(x) for x in (np.float32(1e-5), 1e-3, 0.01, 1.5, -0.25)] == [
        "1e-5",
        "1e-3",
        "0.01",
        "1.5",
        "-0.25",
    ]


X = np.random.default_rng(1).standard_normal((2, 2, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.LeakyReLU(0.01),
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(4, 3, 2),
        nn.LayerNorm(3),
        nn.Flatten(),
        nn.Linear(27, 3),
    )
    return _unmarked(convert(net.eval(), X[:1], batches=1).proto)


def _unmarked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The files of other exporters have no mark of ours."""
    del proto.metadata_props[:]
    return proto


def _node(proto: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.op_type == op_type)


def _set(op_type: str, **attributes: object) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        node = _node(proto, op_type)
        kept = [one for one in node.attribute if one.name not in attributes]
        del node.attribute[:]
        given = {name: value for name, value in attributes.items() if value is not None}
        node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in given.items())])

    return edit


def _transpose(proto: onnx.ModelProto) -> None:
    name = _node(proto, "Conv").input[1]
    (kernel,) = (one for one in proto.graph.initializer if one.name == name)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel).transpose(0, 1, 3, 2), name))


def _drop_bias(proto: onnx.ModelProto) -> None:
    del _node(proto, "Gemm").input[2:]


def _pad_apart(proto: onnx.ModelProto) -> None:
    """Pad at the end alone, in a node of its own, as TensorFlow does."""
    conv, place = _node(proto, "Conv"), [node.op_type for node in proto.graph.node].index("Conv")
    pads = numpy_helper.from_array(np.int64([0, 0, 0, 0, 0, 0, 1, 1]), "padding")
    proto.graph.initializer.append(pads)
    proto.graph.node.insert(place, helper.make_node("Pad", [conv.input[0], "padding"], ["padded"], "pad"))
    _node(proto, "Conv").input[0] = "padded"
    _set("Conv", pads=[0, 0, 0, 0])(proto)


def _become(op_type: str, other: str) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        node = _node(proto, op_type)
        node.op_type = other
        del node.attribute[:]

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (_pad_apart, "pads 1,1,1,1 against 0,0,1,1"),
        (_set("Conv", auto_pad="SAME_UPPER", pads=None), "pads 1,1,1,1 against 0,0,1,1"),
        (_transpose, "kernel transposed, axes 2 and 3 exchanged"),
        (_drop_bias, "bias missing in port"),
        (_set("LeakyRelu", alpha=0.3), "alpha 0.01 against 0.3"),
        (_become("LeakyRelu", "Elu"), "LeakyRelu against Elu"),
        (_set("AveragePool", count_include_pad=0), "count_include_pad 1 against 0"),
        (_set("LayerNormalization", epsilon=1e-2), "epsilon 1e-5 against 0.01"),
    ],
    ids=["pads", "automatic", "kernel", "bias", "alpha", "activation", "pool", "epsilon"],
)
def test_compare_names_what_differs_at_the_node_at_fault(net, edit, expected) -> None:
    port = copy.deepcopy(net)
    edit(port)
    report = compare(net, port, X, target=1, steps=1, referee=False, names=("net", "port"))
    (pair,) = report.pairs
    assert pair.differences == (expected,)
    assert f"differs: {expected}" in report.reason and f"differs: {expected}" in report.to_text()
    assert json.loads(report.to_json())["pairs"][0]["differences"] == [expected]


@pytest.fixture(scope="module")
def norms() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Two files that differ in the epsilon of a BatchNormalization."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)
    ).eval()
    net[1].running_var.uniform_(0.05, 0.5)
    right = _unmarked(convert(net, X[:1], batches=1, fold_batch_norm=False).proto)
    wrong = copy.deepcopy(right)
    _set("BatchNormalization", epsilon=1e-3)(wrong)
    return right, wrong


def test_a_batch_norm_is_compared_apart_where_it_is_asked(norms) -> None:
    for a, b in (norms, [load(proto) for proto in norms]):
        apart = compare(a, b, X, target=1, steps=1, referee=False, fold_batch_norm=False)
        (pair,) = apart.pairs
        assert pair.origin.startswith("BatchNormalization") and pair.differences == (
            "epsilon 1e-5 against 1e-3",
        )
    folded = compare(*norms, X, target=1, steps=1, referee=False)
    assert "Conv" in folded.at_fault and "--no-fold" in folded.at_fault
    bound = differentiate(norms[0])
    with pytest.raises(AnalysisError, match="not bound"):
        compare(bound, norms[1], X, fold_batch_norm=False)
    with pytest.raises(ConversionError, match="convert the original"):
        load(load(norms[0]).proto, fold_batch_norm=False)


def test_the_command_names_the_difference_everywhere(norms, tmp_path, capsys) -> None:
    for name, proto in zip("ab", norms, strict=True):
        onnx.save(proto, tmp_path / f"{name}.onnx")
    np.save(tmp_path / "x.npy", X)
    files = [str(tmp_path / name) for name in ("a.onnx", "b.onnx", "x.npy")]
    page, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    status = main(
        ["compare", *files, "--no-fold", "--steps", "1", "--html", str(page), "--junit", str(junit)]
    )
    out, err = capsys.readouterr()
    folded = load(norms[0]).save(tmp_path / "folded.onnx")
    with pytest.raises(ConversionError, match=r"onnxplain convert ORIGINAL -o \S*folded.onnx --no-fold"):
        load(folded, fold_batch_norm=False)
    told = "epsilon 1e-5 against 1e-3"
    assert status == 1
    assert f"differs: {told}" in out and told in err.splitlines()[-1]
    assert told in page.read_text(encoding="utf-8")
    assert any(told in (one.text or "") for one in ElementTree.parse(junit).iter("failure"))
