"""Models of other precisions: half is computed in float32 on every backend, float64 stays float64."""

from __future__ import annotations

import copy
import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from analyzer import differentiate, full_grad
from converters import convert

BACKENDS = ("source", "torch", "tensorflow", "onnxruntime")
NUMPY = {
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float32: np.float32,
    torch.float64: np.float64,
}


class Mixed(nn.Module):
    """Convolution, pooling, normalization, an explicit cast and a dense layer."""

    def __init__(self, inner: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.LayerNorm(6)
        self.dense = nn.Linear(6, 4)
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = nn.functional.max_pool2d(torch.relu(self.conv(x)), 2).mean((2, 3))
        # Attention and normalization code casts up and back like this.
        return self.dense(self.norm(nn.functional.gelu(features.to(self.inner)).to(x.dtype)))


def _model(dtype: torch.dtype):
    torch.manual_seed(0)
    net = Mixed(torch.promote_types(dtype, torch.float32)).eval().to(dtype)
    x = torch.randn(2, 3, 8, 8).to(dtype)
    return net, x, convert(net, x), x.to(torch.float64).numpy().astype(NUMPY[dtype])


def _truth(net: nn.Module, x: torch.Tensor) -> np.ndarray:
    """The gradient by torch.autograd with weights and inputs cast up to float64."""
    leaf = x.detach().double().clone().requires_grad_()
    copy.deepcopy(net).double()(leaf)[:, 1].sum().backward()
    return leaf.grad.numpy()


def _distance(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_are_differentiated_in_float32(dtype):
    net, x, model, array = _model(dtype)
    truth = _truth(net, x)
    for backend in BACKENDS:
        fg = full_grad(differentiate(model, backend), array, target=1)
        assert fg.completeness.error.max() <= 1e-4
        found = differentiate(model, backend).gradients(array, target=1).gradients["x"]
        assert found.dtype == np.float32
        assert _distance(found, truth) <= 1e-5, backend


@pytest.mark.filterwarnings("ignore:computed in float32")
def test_double_models_stay_double():
    net, x, model, array = _model(torch.float64)
    truth = _truth(net, x)
    for backend, tolerance in zip(BACKENDS, (1e-12, 1e-9, 1e-9, 1e-5), strict=True):
        found = differentiate(model, backend).gradients(array, target=1).gradients["x"]
        assert found.dtype == np.float64
        assert _distance(found, truth) <= tolerance, backend


def _dense(dtype: type) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Sigmoid", ["h"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", kind, ["N", 3])],
        [helper.make_tensor_value_info("y", kind, ["N", 2])],
        [numpy_helper.from_array(np.arange(6).reshape(3, 2).astype(dtype) / 7, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_onnxruntime_computes_in_float64_where_it_has_the_kernels():
    x = np.random.default_rng(0).normal(size=(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = differentiate(_dense(np.float64)).gradients(x, target=0).gradients["x"]
    expected = differentiate(_dense(np.float64), "torch").gradients(x, target=0).gradients["x"]
    assert found.dtype == np.float64
    assert _distance(found, expected) <= 1e-14


def test_onnxruntime_says_when_it_falls_back_to_float32():
    _, _, model, array = _model(torch.float64)
    fn = differentiate(model)
    with pytest.warns(UserWarning, match="computed in float32: ONNX Runtime has no kernel for Conv"):
        output = fn.forward(array)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fn.gradients(array, target=0).output.dtype == np.float64
    assert next(iter(output.values())).dtype == np.float64


def test_a_model_that_rounds_to_half_inside_keeps_the_rounding():
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
            helper.make_node("Mul", ["h", "h"], ["s"]),
            helper.make_node("Cast", ["s"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        "rounding",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.array([[1.0003]], np.float32)
    # ONNX Runtime drops a pair of casts around float16 on a CPU.
    for backend in ("torch", "tensorflow"):
        fn = differentiate(proto, backend)
        assert fn.forward(x)["y"] == np.float32(np.float16(1.0003) ** 2)
        assert fn.gradients(x, target=0).gradients["x"].dtype == np.float32


def test_a_kernel_that_only_running_finds_missing_is_replaced_too():
    # ONNX Runtime loads an LSTM of doubles and refuses to run it.
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x)[0][:, -1])

    net, x = Last().eval().double(), torch.randn(2, 5, 3).double()
    model = convert(net, x)
    with pytest.warns(UserWarning, match="no kernel for LSTM"):
        found = differentiate(model).gradients(x.numpy(), target=1).gradients["x"]
    assert found.dtype == np.float64
    assert _distance(found, _truth(net, x)) <= 1e-5
    exact = differentiate(model, "torch").gradients(x.numpy(), target=1).gradients["x"]
    assert _distance(exact, _truth(net, x)) <= 1e-12


def test_full_grad_of_a_float16_model_between_float32_ends():
    """The form that converters to half precision write: its gradients are of two precisions, its map of one."""
    _, _, model, array = _model(torch.float32)
    halved = convert_float_to_float16(copy.deepcopy(model.proto), keep_io_types=True)
    truth = full_grad(differentiate(model, "torch", precision="float64"), array, 1)
    for backend in ("onnxruntime", "torch", "tensorflow"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Of the MaxPool's gradient; any other reason to fall back is a fault of ours.
            warnings.filterwarnings("ignore", ".*no kernel for ScatterElements")
            found = full_grad(differentiate(halved, backend), array, 1)
        assert found.map.dtype == np.float32
        # The rounding of ten bits, piled up over a few layers.
        assert _distance(found.map, truth.map) < 5e-3
        assert np.abs(found.completeness.total - truth.completeness.total).max() < 5e-3
