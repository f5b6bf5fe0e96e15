"""Ops of ai.onnx.ml become ops of the standard: outputs of ONNX Runtime, gradients of finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import differentiate, full_grad
from analyzer.errors import UnsupportedOp
from converters import UnsupportedModel, convert
from tests.converters.helpers import normal, ops


def ml(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, domain="ai.onnx.ml", **attributes)


def file_of(
    nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], **tensors: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def model_of(op_type: str, inputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return file_of([ml(op_type, ["x"] * inputs, ["y"], **attributes)], [y])


def classifier(rows: int, transform: str, classes: int = 0) -> onnx.ModelProto:
    node = ml(
        "LinearClassifier",
        ["x"],
        ["label", "y"],
        coefficients=[0.5, -0.25, 1.0, 1.0, 0.0, -0.5, 0.0, 0.0, 0.1][: 3 * rows],
        intercepts=[0.25, 0.0, 0.3][:rows],
        classlabels_ints=[3, 7, 9][: classes or rows],
        post_transform=transform,
    )
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return file_of([node], [helper.make_tensor_value_info("label", TensorProto.INT64, None), y])


def svm(kernel: str, *parameters: float) -> onnx.ModelProto:
    return model_of(
        "SVMRegressor",
        coefficients=[0.5, -1.0],
        rho=[0.3],
        support_vectors=[0.1, 0.2, -0.3, 1.0, -0.5, 0.4],
        n_supports=2,
        kernel_type=kernel,
        kernel_params=list(parameters),
    )


def differences(
    model: onnx.ModelProto, name: str, x: np.ndarray, index: int, step: float = 1e-2
) -> np.ndarray:
    """Return central differences of the file itself on ONNX Runtime."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.add(name=name)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.zeros(x.shape)
    for feature in range(x.shape[1]):
        at = [x.copy(), x.copy()]
        at[0][:, feature] += step
        at[1][:, feature] -= step
        high, low = (session.run(None, {"x": point})[0][:, index].astype(np.float64) for point in at)
        found[:, feature] = (high - low) / (at[0] - at[1])[:, feature]
    return found


@pytest.mark.parametrize(
    ("model", "gradient"),
    [
        (model_of("Scaler", offset=[1.0, 2.0, 3.0], scale=[1.0, 0.5, 2.0]), [0, 0.5, 0]),
        (model_of("Scaler", offset=[1.0], scale=[2.0]), [0, 2, 0]),
        (
            model_of("LinearRegressor", coefficients=[1.0, 2, 3, 4, 5, 6], intercepts=[0.5, 1.0], targets=2),
            [4, 5, 6],
        ),
        (model_of("FeatureVectorizer", 2, inputdimensions=[3, 3]), [0, 1, 0]),
    ],
    ids=["scaler", "one scale", "linear", "joined"],
)
def test_affine_ops_have_the_gradient_of_their_formula(model: onnx.ModelProto, gradient: list[float]) -> None:
    x = normal(2, 3)
    converted = convert(model, x)
    assert not {"Scaler", "LinearRegressor", "FeatureVectorizer"} & ops(converted.proto).keys()
    found = differentiate(converted).gradients(x, 1).gradients["x"]
    np.testing.assert_allclose(found, np.tile(np.float32(gradient), (2, 1)))
    assert full_grad(converted, x, 1).completeness.error.max() < 1e-5


def test_the_default_target_is_the_first_float_output_that_depends_on_the_input() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["c"], ["constant"]),
        helper.make_node("Mul", ["x", "c"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("constant", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    found = differentiate(model).gradients(normal(2, 3), 1).gradients["x"]
    np.testing.assert_allclose(found, [[0, 2, 0], [0, 2, 0]])


SMOOTH = {
    "logistic of one row": (classifier(1, "LOGISTIC", 2), 1),
    "one row": (classifier(1, "NONE", 2), 0),
    "one row written as NONE": (
        model_of("LinearRegressor", coefficients=[1.0, 2, 3], post_transform="NONE"),
        0,
    ),
    "logistic": (classifier(2, "LOGISTIC"), 1),
    "softmax": (classifier(3, "SOFTMAX"), 2),
    "softmax of what is not zero": (classifier(3, "SOFTMAX_ZERO"), 1),
    "norm L1": (model_of("Normalizer", norm="L1"), 1),
    "norm L2": (model_of("Normalizer", norm="L2"), 1),
    "norm MAX": (model_of("Normalizer", norm="MAX"), 0),
    "imputed": (model_of("Imputer", imputed_value_floats=[9.0, 8.0, 7.0], replaced_value_float=0.0), 1),
    "svm RBF": (svm("RBF", 0.7, 0.0, 0.0), 0),
    "svm POLY": (svm("POLY", 0.5, 1.0, 3.0), 0),
    "svm SIGMOID": (svm("SIGMOID", 0.3, 0.1, 0.0), 0),
    "svm LINEAR": (svm("LINEAR", 0.0, 0.0, 0.0), 0),
}


@pytest.mark.parametrize(("model", "index"), SMOOTH.values(), ids=SMOOTH)
def test_gradients_are_those_of_the_file(model: onnx.ModelProto, index: int) -> None:
    x = np.array([[0.9, -0.4, 0.3], [-0.7, 0.6, 1.2]], np.float32)
    converted = convert(model, x)
    assert {node.domain for node in converted.proto.graph.node} == {""}
    found = differentiate(converted).gradients(x, index).gradients["x"]
    np.testing.assert_allclose(found, differences(model, "y", x, index), rtol=2e-3, atol=2e-4)
    assert full_grad(converted, x, index).completeness.error.max() < 1e-5


@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
def test_a_row_of_zeros_has_a_finite_gradient(norm: str) -> None:
    x = np.zeros((1, 3), np.float32)
    found = differentiate(model_of("Normalizer", norm=norm)).gradients(x, 1)
    np.testing.assert_array_equal(found.output, [0])
    assert np.isfinite(found.gradients["x"]).all()


def pipeline(labels: list[Any]) -> onnx.ModelProto:
    """A scaler and a logistic regression with a map of probabilities, as skl2onnx writes them."""
    text = isinstance(labels[0], str)
    kind = {"classlabels_strings" if text else "classlabels_ints": labels}
    keys = {"classlabels_strings" if text else "classlabels_int64s": labels}
    nodes = [
        ml("Scaler", ["x"], ["scaled"], offset=[0.1, 0.2, 0.3], scale=[1.0, 2.0, 3.0]),
        ml(
            "LinearClassifier",
            ["scaled"],
            ["label", "scores"],
            coefficients=[-0.5, 0.25, -1.0, 0.5, -0.25, 1.0],
            intercepts=[-0.2, 0.2],
            multi_class=1,
            post_transform="LOGISTIC",
            **kind,
        ),
        ml("Normalizer", ["scores"], ["probabilities"], norm="L1"),
        ml("ZipMap", ["probabilities"], ["output_probability"], **keys),
    ]
    key = TensorProto.STRING if text else TensorProto.INT64
    entry = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    outputs = [
        helper.make_tensor_value_info("label", key, ["n"]),
        helper.make_value_info("output_probability", helper.make_sequence_type_proto(entry)),
    ]
    return file_of(nodes, outputs)


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1]], ids=["text", "integers"])
def test_a_pipeline_with_a_map_of_probabilities_is_explained(labels: list[Any]) -> None:
    x, model = normal(2, 3), pipeline(labels)
    with pytest.warns(UserWarning, match="'output_probability' is not a tensor and is left out"):
        fn = differentiate(model)
    found = fn.gradients(x, 1)
    np.testing.assert_allclose(
        found.gradients["x"], differences(model, "probabilities", x, 1), rtol=2e-3, atol=1e-4
    )
    p = 1 / (1 + np.exp(-((x - [0.1, 0.2, 0.3]) * [1, 2, 3] @ [0.5, -0.25, 1.0] + 0.2)))
    np.testing.assert_allclose(found.output, p, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "error", "fix"),
    [
        (classifier(1, "SOFTMAX", 2), UnsupportedModel, "post_transform of the node to"),
        (classifier(3, "PROBIT"), UnsupportedModel, "post_transform of the node to"),
        (model_of("Binarizer", threshold=0.3), UnsupportedOp, "whose derivative is zero"),
    ],
    ids=["softmax of one row", "probit", "binarizer"],
)
def test_what_has_no_gradient_is_refused_with_a_fix(model: onnx.ModelProto, error: Any, fix: str) -> None:
    with pytest.raises(error, match=fix):
        differentiate(model).gradients(normal(2, 3), 1)


LOGITS = helper.make_node("MatMul", ["x", "w"], ["logits"])
LISTS = {
    "list": ([helper.make_node("SequenceConstruct", ["logits", "x"], ["out"])], "sequence"),
    "split": ([helper.make_node("SplitToSequence", ["logits"], ["out"], axis=1)], "sequence"),
    "optional": ([helper.make_node("Optional", ["logits"], ["out"])], "optional"),
    "text": (
        [
            helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
            helper.make_node("Gather", ["names", "best"], ["out"]),
        ],
        "text",
    ),
}


def file_with(kind: str, *more: onnx.ValueInfoProto) -> onnx.ModelProto:
    nodes, of = LISTS[kind]
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    types = {
        "sequence": helper.make_sequence_type_proto(tensor),
        "optional": helper.make_optional_type_proto(tensor),
        "text": helper.make_tensor_type_proto(TensorProto.STRING, ["n"]),
    }
    outputs = [helper.make_value_info("out", types[of]), *more]
    names = {"names": np.array(["cat", "dog"], object)} if of == "text" else {}
    return file_of([LOGITS, *nodes], outputs, w=np.float32([[1, 2], [3, 4], [5, 6]]), **names)


@pytest.mark.parametrize("kind", LISTS)
def test_outputs_that_are_not_tensors_of_numbers_are_left_out_with_a_note(kind: str) -> None:
    more = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])] if kind == "text" else []
    with pytest.warns(UserWarning, match="'out' is .* left out"):
        model = convert(file_with(kind, *more))
    found = differentiate(model).gradients(normal(2, 3), 1).gradients["x"]
    np.testing.assert_allclose(found, [[2, 4, 6], [2, 4, 6]])


def test_a_file_without_an_output_of_numbers_is_refused_with_a_fix() -> None:
    with pytest.raises(UnsupportedModel, match="no output is a tensor of numbers: 'out'"):
        convert(file_with("text"))
