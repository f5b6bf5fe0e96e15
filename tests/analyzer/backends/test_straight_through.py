"""Gradients straight through the rounding: equal on all backends, and to PyTorch's fake quantization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from analyzer import AnalysisError, Target, check, differentiate, full_grad, integrated_gradients
from analyzer.errors import UnsupportedOp
from converters import Model, load
from converters.straight_through import STRAIGHT_THROUGH, straight_through
from tests.converters.helpers import make_model, normal
from tests.converters.quantized_models import FORMS, images, network, quantized

BACKENDS = ("onnxruntime", "torch", "tensorflow")


@pytest.mark.parametrize("form", FORMS)
def test_backends_agree_and_full_grad_is_complete(form: str) -> None:
    report = check(quantized(form), images(2), 1, straight_through=True, steps=2)
    assert report.passed, report.headline
    assert set(report.backends) == {*BACKENDS, "file"}
    double = differentiate(quantized(form), "torch", precision="float64", straight_through=True)
    assert full_grad(double, images(2), 1).completeness.error.max() <= 1e-10


@pytest.mark.parametrize("form", FORMS)
def test_the_map_is_that_of_the_float_network(form: str) -> None:
    """Rounding errors count towards the output; in the map, rescaled, their noise would drown the layers."""
    fn = differentiate(quantized(form), straight_through=True)
    found, expected = full_grad(fn, images(4), 1), full_grad(network(), images(4), 1)
    for map_found, map_expected in zip(found.map, expected.map, strict=True):
        assert np.corrcoef(map_found.ravel(), map_expected.ravel())[0, 1] > 0.97
    rounded = {node.outputs[0] for node in fn.graph.nodes if node.op_type == "Round"}
    assert rounded <= found.bias_terms.keys() and rounded <= set(found.unplaced)


def test_a_padded_image_may_be_quantized() -> None:
    """Rounding has no place in the map, and the padding beside it none in the image."""
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("QuantizeLinear", ["padded", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["z"]),
        helper.make_node("Conv", ["z", "w"], ["y"], strides=[2, 2]),
    ]
    weights = {
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
        "w": normal(2, 3, 3, 3, seed=4),
    }
    model = make_model(nodes, {"x": ("n", 3, 8, 8)}, ["y"], weights, opset=17)
    fn = differentiate(model, "torch", precision="float64", straight_through=True)
    assert full_grad(fn, images(2), Target("y", index=(1, 0, 3))).completeness.error.max() <= 1e-10


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_derivative_of_the_surrogate(form: str) -> None:
    """Rounding errors held fixed and ranges kept, the model is a smooth function with this derivative."""
    fn = differentiate(quantized(form), "torch", precision="float64", straight_through=True)
    # In this image no window of the MaxPool holds its largest code twice: a tie has no derivative.
    x, rng = images(1).astype(np.float64), np.random.default_rng(3)
    g = fn.gradients(x, 1).gradients["x"]
    surrogate = differentiate(_surrogate(fn.model.proto, x), "torch", precision="float64")
    np.testing.assert_allclose(surrogate.forward(x)["y"], fn.forward(x)["y"], rtol=1e-9)
    for _ in range(3):
        v, step = rng.standard_normal(x.shape), 1e-7
        ahead, behind = (surrogate.forward(x + sign * step * v)["y"][:, 1] for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * step), (g * v).sum(axis=(1, 2, 3)), rtol=1e-5)


def _surrogate(proto: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    """The model with x's own rounding errors as constants in place of its roundings.

    Codes on the bounds of a range stand for values inside: bounds are a quarter of a quantum wider, and what
    that adds at x is taken off again.
    """
    fn = differentiate(proto, "torch", precision="float64")
    values = fn.forward(x, fn.tensors)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    for node in proto.graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            measured = zip(node.output[1:], (np.float32, np.uint8), strict=True)
            constants = [numpy_helper.from_array(values[name].astype(kind), name) for name, kind in measured]
            result.graph.initializer.extend(constants)
            continue
        if not any(entry.key == STRAIGHT_THROUGH for entry in node.metadata_props):
            result.graph.node.append(node)
            continue
        y, inside = node.output[0], f"{node.output[0]}.wider"
        if node.op_type == "Round":
            result.graph.node.append(helper.make_node("Add", [node.input[0], f"{y}.error"], [y], node.name))
            error = values[y] - values[node.input[0]]
        else:
            low, high = (_value(proto, values, name) for name in node.input[1:])
            for name, bound in ((f"{y}.low", low - 0.25), (f"{y}.high", high + 0.25)):
                result.graph.initializer.append(numpy_helper.from_array(bound.astype(np.float64), name))
            result.graph.node.append(
                helper.make_node("Clip", [node.input[0], f"{y}.low", f"{y}.high"], [inside], inside)
            )
            result.graph.node.append(helper.make_node("Add", [inside, f"{y}.error"], [y], node.name))
            error = values[y] - np.clip(values[node.input[0]], low - 0.25, high + 0.25)
        result.graph.initializer.append(numpy_helper.from_array(error, f"{y}.error"))
    return _in_doubles(result)


def _value(proto: onnx.ModelProto, values: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor that is computed or stored."""
    stored = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == name]
    return stored[0] if stored else values[name]


def _in_doubles(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with float64 where it has float32, so that rounding errors need not be rounded."""
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    return proto


def test_the_gradient_equals_that_of_fake_quantization_in_pytorch() -> None:
    """The same network written with torch.fake_quantize_per_*_affine, differentiated by torch.autograd."""
    w, head, x = 0.5 * normal(4, 3, 3, 3, seed=1), normal(5, 4, seed=2), normal(6, 3, 6, 6, seed=3)
    scales = (0.5 * np.abs(w).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    nodes = [
        *_fake("x", "xs", "xz", "xq"),
        *_fake("w", "ws", "wz", "wq", axis=0),
        helper.make_node("Conv", ["xq", "wq"], ["c"]),
        *_fake("c", "cs", "cz", "cq"),
        helper.make_node("ReduceMean", ["cq"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("MatMul", ["s", "head"], ["y"]),
    ]
    # Ranges so narrow that many values are clipped, and the one after the Conv begins at zero, as after a ReLU.
    constants = {
        "w": w,
        "ws": scales,
        "wz": np.zeros(4, np.int8),
        "xs": np.asarray(0.01, np.float32),
        "xz": np.asarray(120, np.uint8),
        "cs": np.asarray(0.02, np.float32),
        "cz": np.asarray(0, np.uint8),
        "head": head.T.copy(),
    }
    model = make_model(nodes, {"x": ("n", 3, 6, 6)}, ["y"], constants, opset=17)

    def fake(t: torch.Tensor, scale: float, zero: int, low: int, high: int) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(t, scale, zero, low, high)

    given = torch.tensor(x, requires_grad=True)
    weight = torch.fake_quantize_per_channel_affine(
        torch.tensor(w), torch.tensor(scales), torch.zeros(4, dtype=torch.int32), 0, -128, 127
    )
    c = torch.nn.functional.conv2d(fake(given, 0.01, 120, 0, 255), weight)
    y = torch.sigmoid(fake(c, 0.02, 0, 0, 255).mean((2, 3))) @ torch.tensor(head).T
    y[:, 2].sum().backward()
    expected = given.grad.numpy()
    assert 0.1 < (expected == 0).mean() < 0.9
    for backend in BACKENDS:
        found = differentiate(model, backend, straight_through=True).gradients(x, 2)
        np.testing.assert_allclose(found.output, y[:, 2].detach().numpy(), rtol=1e-5)
        np.testing.assert_allclose(found.gradients["x"], expected, rtol=1e-4, atol=1e-7)


def _fake(x: str, scale: str, zero: str, y: str, **attributes: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{y}.code"], f"{y}.quantize", **attributes),
        helper.make_node("DequantizeLinear", [f"{y}.code", scale, zero], [y], **attributes),
    ]


def quantizer() -> onnx.ModelProto:
    """y = the codes 0…255 with quantum ½ around zero point 128, as floats, thrice."""
    nodes = [*_fake("x", "s", "z", "q"), helper.make_node("Mul", ["q", "three"], ["y"])]
    constants = {
        "s": np.asarray(0.5, np.float32),
        "z": np.asarray(128, np.uint8),
        "three": np.full(1, 3, np.float32),
    }
    return make_model(nodes, {"x": ("n", 6)}, ["y"], constants, opset=17)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_derivative_is_one_within_the_range_and_zero_outside(backend: str) -> None:
    # The range is −64 … 63.5; codes on its bounds (64 · ½ each side) are inside, as is what rounds to them.
    x = np.asarray([[0.3, -64.0, 63.5, 63.7, 64.0, -70.0]], np.float32)
    fn = differentiate(quantizer(), backend, straight_through=True)
    found = fn.gradients(x, Target(weights=np.ones((1, 6))))
    np.testing.assert_array_equal(found.gradients["x"], [[3, 3, 3, 3, 0, 0]])
    np.testing.assert_array_equal(fn.forward(x)["y"], [[1.5, -192, 190.5, 190.5, 190.5, -192]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", [full_grad, integrated_gradients, lambda fn, x: fn.gradients(x)])
def test_a_quantizer_on_the_way_is_refused_with_the_way_out(backend: str, method: Callable) -> None:
    fn = differentiate(quantizer(), backend)
    with pytest.raises(
        UnsupportedOp, match=r"node 'q\.quantize' \(QuantizeLinear\).*straight_through=True"
    ) as caught:
        method(fn, np.zeros((1, 6), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_behind_the_last_quantizer_nothing_is_refused(backend: str) -> None:
    fn = differentiate(quantizer(), backend)
    assert fn.forward(np.ones((2, 6), np.float32))["y"].shape == (2, 6)
    found = fn.gradients(np.ones((2, 6), np.float32), 0, wrt=["q"])
    np.testing.assert_array_equal(found.gradients["q"][:, 0], [3, 3])


def test_the_source_has_no_part_in_it() -> None:
    with pytest.raises(AnalysisError, match='use backend="onnxruntime", "torch" or "tensorflow"'):
        differentiate(quantizer(), "source", straight_through=True)


def test_a_model_without_rounding_stays_as_it_is() -> None:
    plain = load(make_model([helper.make_node("Floor", ["x"], ["y"])], {"x": ("n", 2)}, ["y"]))
    assert straight_through(plain) is plain
    marked = straight_through(load(quantizer()))
    assert straight_through(marked) is marked and marked is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_models_own_round_is_passed_through_and_its_floor_is_not(backend: str) -> None:
    nodes = [helper.make_node(op, ["x"], [op]) for op in ("Round", "Floor")]
    nodes.append(helper.make_node("Add", ["Round", "Floor"], ["y"]))
    model = make_model(nodes, {"x": ("n", 2)}, ["y"])
    x = np.asarray([[0.4, 1.6]], np.float32)
    fn = differentiate(model, backend, straight_through=True)
    np.testing.assert_array_equal(fn.forward(x)["y"], [[0, 3]])
    assert fn.gradients(x, 1).gradients["x"].tolist() == [[0, 1]]
    exact = differentiate(model, backend)
    np.testing.assert_array_equal(exact.forward(x)["y"], [[0, 3]])
    with pytest.raises(UnsupportedOp, match=r"\(Round\).*derivative is zero.*straight_through=True"):
        exact.gradients(x, 1)


def test_weights_alone_in_codes_need_no_flag() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=0),
        helper.make_node("MatMul", ["x", "wf"], ["y"]),
    ]
    w = np.arange(6, dtype=np.int8).reshape(2, 3)
    constants = {"w": w, "s": np.asarray([0.5, 2], np.float32), "z": np.asarray([1, 0], np.int8)}
    model = load(make_model(nodes, {"x": ("n", 2)}, ["y"], constants, opset=17))
    assert isinstance(model, Model) and [node.op_type for node in model.proto.graph.node] == ["MatMul"]
    found = differentiate(model).gradients(np.ones((1, 2), np.float32), 2)
    np.testing.assert_allclose(found.gradients["x"], [[(2 - 1) * 0.5, 5 * 2]])
