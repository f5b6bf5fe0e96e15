"""Kinds of models that strangers bring: a right gradient, or one line that says what failed and how to fix it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from analyzer import check, differentiate, full_grad, integrated_gradients
from analyzer.errors import AnalysisError
from converters import ConversionError, convert
from tests.converters.helpers import normal

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Applied(nn.Module):
    """A linear layer in a forward that is given."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.linear = function, nn.Linear(4, 3)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


@pytest.mark.parametrize(
    "function",
    [lambda m, x: [m.linear(x), [x * 2, (x,)]], lambda m, x: (m.linear(x), m.linear.weight)],
    ids=["an input", "a weight"],
)
def test_outputs_that_nothing_computes_do_not_stop_a_check(function: Any) -> None:
    model = convert(Applied(function).eval(), X)
    assert check(model, X.numpy(), target=1, backends=["onnxruntime", "torch", "source"]).passed


@pytest.mark.parametrize(
    ("module", "example", "words"),
    [
        (nn.Linear(4, 3).half(), X, "the original fails in PyTorch .* Fix: give an example on which"),
        (
            nn.Sequential(nn.LazyLinear(3)),
            X,
            r"lazy module has no weights .* Fix: call module\(example\) once",
        ),
        (nn.Linear(4, 3, device="meta"), X, r"meta device, .* Fix: load them first"),
        (
            Applied(lambda m, x: m.linear(x) if x.sum() > 0 else m.linear(-x)),
            X,
            "Fix: write branches with torch.where",
        ),
    ],
    ids=["precision", "lazy", "meta", "branch"],
)
def test_modules_that_cannot_be_converted_are_refused_with_a_fix(
    module: nn.Module, example: Any, words: str
) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert(module.eval(), example)
    assert "\n" not in str(caught.value)


def test_the_fix_of_a_scalar_input_works() -> None:
    net = Applied(lambda m, x, t: m.linear(x) * t).eval()
    model = convert(net, (X, torch.tensor(2.0)))
    first, scale = (info.name for info in model.proto.graph.input)
    feeds = {first: X.numpy(), scale: np.float32(2)}
    truth = 2 * np.tile(net.linear.weight[1].detach().numpy(), (2, 1))
    for method in (full_grad, integrated_gradients):
        with pytest.raises(AnalysisError, match=f"{scale!r} has no axis of samples .*wrt=..{first}.. leaves"):
            method(model, feeds, 1)
    assert full_grad(model, feeds, 1, wrt=[first]).completeness.error.max() < 1e-6
    found = integrated_gradients(model, feeds, 1, wrt=[first], steps=4).attributions
    np.testing.assert_allclose(found, truth * X.numpy(), rtol=1e-5)


def test_a_branch_on_data_is_explained() -> None:
    net = Applied(lambda m, x: torch.cond(x.sum() > 0, lambda x: m.linear(x), lambda x: m.linear(-x), (x,)))
    model = convert(net.eval(), X)
    x = X.clone().requires_grad_()
    (truth,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    for backend in ("source", "onnxruntime"):
        (found,) = differentiate(model, backend=backend).gradients(X.numpy(), 1).gradients.values()
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)


W = np.float32([[1, 2], [3, 4], [5, 6]])
FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])


def file_of(
    nodes: list[onnx.NodeProto], inputs: dict[str, onnx.TypeProto], opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_value_info(name, known) for name, known in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w")],
    )
    domains = (("", opset), ("ai.onnx.ml", 3), ("my.ops", 1))
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])
TREE = helper.make_node(
    "TreeEnsembleRegressor",
    ["x"],
    ["y"],
    domain="ai.onnx.ml",
    n_targets=2,
    nodes_falsenodeids=[2, 0, 0],
    nodes_featureids=[0, 0, 0],
    nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_nodeids=[0, 1, 2],
    nodes_treeids=[0, 0, 0],
    nodes_truenodeids=[1, 0, 0],
    nodes_values=[0.0, 0.0, 0.0],
    target_ids=[0, 1],
    target_nodeids=[1, 2],
    target_treeids=[0, 0],
    target_weights=[1.0, 2.0],
)
TEXT = helper.make_tensor_type_proto(TensorProto.STRING, ["n", 1])
REFUSED = {
    "no shape": (
        file_of([PRODUCT], {"x": helper.make_tensor_type_proto(1, None)}),
        "state its axes in the file",
    ),
    "a list": (
        file_of([PRODUCT], {"x": helper.make_sequence_type_proto(FLOAT)}),
        "give each tensor in it an input",
    ),
    "an optional": (
        file_of([PRODUCT], {"x": helper.make_optional_type_proto(FLOAT)}),
        "of type optional. Fix",
    ),
    "a tree": (file_of([TREE], {"x": FLOAT}), "piecewise constant.* Fix: use a method for trees"),
    "a custom op": (
        file_of([helper.make_node("Foo", ["x"], ["y"], domain="my.ops")], {"x": FLOAT}),
        "of which ONNX Runtime has no kernel .*my.ops.* Fix: replace custom ops",
    ),
    "a newer opset": (file_of([PRODUCT], {"x": FLOAT}, 99), "Fix: install a newer onnx, or export"),
    "text beside numbers": (
        file_of(
            [
                helper.make_node(
                    "LabelEncoder", ["q"], ["v"], domain="ai.onnx.ml", keys_strings=["a"], values_floats=[1.0]
                ),
                helper.make_node("Mul", ["x", "v"], ["y"]),
            ],
            {"x": FLOAT, "q": TEXT},
        ),
        "the input 'q' is text, which has no gradient. Fix: cut the model after",
    ),
}


@pytest.mark.parametrize(("model", "words"), REFUSED.values(), ids=REFUSED)
def test_files_that_cannot_be_explained_are_refused_with_a_fix(model: onnx.ModelProto, words: str) -> None:
    with pytest.raises((ConversionError, AnalysisError), match=words) as caught:
        differentiate(model).gradients(normal(2, 3), 1)
    assert "\n" not in str(caught.value)
