"""Files that ONNX Runtime's optimizers write are analyzed on every backend as their originals are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from analyzer import differentiate, full_grad
from converters import convert, load
from tests.converters.helpers import normal, run
from tests.converters.passes.fused.networks import WIDTH, bert, cnn, optimized, optimized_as_transformer
from tests.converters.quantized_models import images, quantized

IMAGES = {"x": normal(2, 3, 8, 8, seed=9)}
TEXTS = {"x": normal(2, 4, WIDTH, seed=9), "mask": np.asarray([[1, 1, 1, 1], [1, 1, 0, 0]])}
BACKENDS = ("onnxruntime", "torch", "tensorflow")
Writer = Callable[[onnx.ModelProto, Path], Path]

FILES: dict[str, tuple[onnx.ModelProto, Writer, dict[str, np.ndarray], set[str]]] = {
    **{
        f"cnn of opset {opset}": (cnn(opset), optimized, IMAGES, {"FusedConv", "Gelu", "QuickGelu"})
        for opset in (11, 17)
    },
    "bert of opset 12": (bert(12), optimized, TEXTS, {"BiasGelu"}),
    "bert of opset 17": (bert(17), optimized, TEXTS, {"BiasGelu"}),
    "bert as a transformer": (
        bert(14),
        optimized_as_transformer,
        TEXTS,
        {"Attention", "SkipLayerNormalization", "BiasGelu"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_an_optimized_file_is_analyzed_as_its_original(name: str, tmp_path: Path) -> None:
    original, write, feeds, fused = FILES[name]
    path = write(original, tmp_path)
    written = onnx.load(path)
    assert fused <= {node.op_type for node in written.graph.node if node.domain == "com.microsoft"}
    model = load(path)
    assert {node.domain for node in model.proto.graph.node} == {""}
    np.testing.assert_allclose(run(model.proto, feeds)[0], run(written, feeds)[0], rtol=1e-4, atol=1e-5)
    expected = differentiate(original, "torch", precision="float64").gradients(feeds, 1).gradients["x"]
    for backend in BACKENDS:
        fn = differentiate(model, backend)
        found = fn.gradients(feeds, 1).gradients["x"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
        assert full_grad(fn, feeds, 1).completeness.error.max() <= 1e-4


def test_a_canonical_file_may_be_optimized(tmp_path: Path) -> None:
    """The optimizer keeps the mark that the file is canonical, and writes what is not."""
    converted = convert(cnn(17)).proto
    written = optimized(converted, tmp_path)
    assert any(node.op_type == "FusedConv" for node in onnx.load(written).graph.node)
    model = load(written).proto
    assert {node.domain for node in model.graph.node} == {""}
    np.testing.assert_allclose(run(model, IMAGES)[0], run(converted, IMAGES)[0], rtol=1e-4, atol=1e-5)


def test_an_optimized_file_is_converted_and_verified(tmp_path: Path) -> None:
    verification = convert(str(optimized(cnn(17), tmp_path))).verification
    assert verification is not None and verification.relative_l2 < 1e-5


def test_a_half_precision_file_is_expanded_in_its_precision(tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    written = onnx.load(optimized_as_transformer(bert(14), tmp_path))
    # The optimizer leaves the import out, which `load` minds as little as the runtime does.
    written.opset_import.add(domain="com.microsoft", version=1)
    half = convert_float_to_float16(written, keep_io_types=False)
    expanded = load(half).proto
    weights = [tensor for tensor in expanded.graph.initializer if len(tensor.dims) == 2]
    assert weights and {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    feeds = {"x": TEXTS["x"].astype(np.float16), "mask": TEXTS["mask"]}
    np.testing.assert_allclose(run(expanded, feeds)[0], run(bert(14), TEXTS)[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("opset", [11, 17])
def test_names_of_what_is_left_are_kept(opset: int, tmp_path: Path) -> None:
    written = onnx.load(optimized(cnn(opset), tmp_path))
    kept = {name for node in load(written).proto.graph.node for name in node.output}
    assert {node.output[0] for node in written.graph.node} <= kept


@pytest.mark.parametrize("form", ["qdq", "dynamic"])
def test_an_optimized_quantized_file_has_the_gradient_of_the_quantized_one(form: str, tmp_path: Path) -> None:
    x, path = images(), optimized(quantized(form), tmp_path)
    assert any(node.domain == "com.microsoft" for node in onnx.load(path).graph.node)
    expected = differentiate(quantized(form), straight_through=True).gradients(x, 1)
    for backend in BACKENDS:
        fn = differentiate(path, backend, straight_through=True)
        found = fn.gradients(x, 1)
        np.testing.assert_allclose(found.output, expected.output, rtol=1e-5)
        np.testing.assert_allclose(found.gradients["x"], expected.gradients["x"], rtol=1e-3, atol=1e-6)
        assert full_grad(fn, x, 1).completeness.error.max() <= 1e-4
