"""Settings of methods that the command line passes on: what is written is what the API computes with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import (
    blur_integrated_gradients,
    conductance,
    differentiate,
    full_grad,
    xrai,
)
from analyzer.methods import grad_cam, gradient, layer_cam

TABLE = np.array([[0.5, 0.0], [1.0, 2.0], [-1.0, -3.0], [0.25, 0.5]], np.float32)
IDS = np.array([[1, 2, 3, 0], [3, 3, 1, 2]])


@pytest.fixture
def written(json_of, tmp_path):
    """Run `analyze`; returns its document and its arrays."""

    def run(*arguments):
        status, document = json_of("analyze", *arguments, "-o", tmp_path / "out")
        assert status == 0
        with np.load(tmp_path / "out" / "arrays.npz") as arrays:
            return document, dict(arrays)

    return run


@pytest.fixture(scope="module")
def reader(files):
    """Tokens, their vectors squared and a bias, two classes of the sum."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["vectors"], name="lookup"),
        helper.make_node("Mul", ["vectors", "vectors"], ["squares"], name="square"),
        helper.make_node("Add", ["squares", "bias"], ["features"], name="shift"),
        helper.make_node("ReduceSum", ["features", "one"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "weights"], ["logits"], name="head"),
    ]
    weights = {
        "table": TABLE,
        "bias": np.array([0.5, -1], np.float32),
        "one": np.array([1]),
        "weights": np.array([[1, 0], [2, -1]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "reader",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, files / "reader.onnx")
    np.save(files / "read.npy", IDS)
    np.save(files / "padding.npy", np.zeros((1, 4), np.int64))
    (files / "reader.txt").write_text("pad\ngood\nbad\nnot\n")
    return files


def test_full_grad_and_gradients_of_embedded_tokens(reader, written):
    methods = [part for name in ("full-grad", "gradient", "input-x-gradient") for part in ("--method", name)]
    options = ("--wrt", "embedding", "--tokens", "reader.txt", "--target", "0")
    document, arrays = written("reader.onnx", "read.npy", *methods, *options)
    fn = differentiate(str(reader / "reader.onnx"))
    vectors = TABLE[IDS]
    # f = Σ w (v² + b), so ∂f/∂v = 2 w v, and of a token Σ w (v² + b) falls to it: 2 w v², −w v² and w b.
    slopes = 2 * vectors * [1, 2]
    np.testing.assert_allclose(arrays["gradient/attributions/vectors"], slopes, rtol=1e-5)
    np.testing.assert_allclose(arrays["input_x_gradient/attributions/vectors"], slopes * vectors, rtol=1e-5)
    by_token = ((vectors**2 + [0.5, -1]) * [1, 2]).sum(axis=2)
    expected = full_grad(fn, IDS, 0, wrt=["vectors"])
    np.testing.assert_allclose(expected.complete_map, by_token, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays["full_grad/complete_map"], by_token, rtol=1e-5, atol=1e-6)
    for sample, sums in zip(document["samples"], by_token, strict=True):
        (text,) = [one for one in sample["tokens"] if one["caption"] == "FullGrad"]
        np.testing.assert_allclose(text["scores"], sums, rtol=1e-5)
    captions = [text["caption"] for text in document["samples"][0]["tokens"]]
    assert captions == ["FullGrad", "Gradient, by size", "Input × gradient"]
    assert document["samples"][0]["tokens"][0]["tokens"] == ["good", "bad", "not", "pad"]


def test_both_checks_attribute_embedded_tokens(reader, json_of):
    for command in (
        ("check", "reader.onnx", "--backends", "onnxruntime,torch"),
        ("compare", "reader.onnx", "reader.onnx"),
    ):
        status, found = json_of(*command, "read.npy", "--wrt", "embedding")
        attributed = {row["tensor"] for row in found["rows"] if row["quantity"] == "input gradient"}
        assert status == 0 and attributed == {"vectors"}


def test_conductance_runs_along_tokens_from_padding(reader, written):
    options = ("--method", "conductance", "--wrt", "features", "--along", "embedding", "--steps", "9")
    _, arrays = written("reader.onnx", "read.npy", *options, "--baseline-inputs", "padding.npy")
    fn = differentiate(str(reader / "reader.onnx"))
    padding = np.zeros_like(IDS)
    expected = conductance(fn, IDS, wrt="features", along="embedding", steps=9, baseline_inputs=padding)
    np.testing.assert_allclose(
        arrays["conductance/attributions/features"], expected.attributions, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("relu", [True, False])
def test_maps_with_and_without_what_speaks_against_the_class(files, written, tmp_path, relu):
    methods = ("--method", "grad-cam", "--method", "layer-cam", "--target", "1")
    flag = "--relu" if relu else "--no-relu"
    document, arrays = written("plain.onnx", "batch.npy", *methods, flag)
    x = np.load(files / "batch.npy")
    for name, method in (("grad_cam", grad_cam), ("layer_cam", layer_cam)):
        expected = method(str(files / "plain.onnx"), x, 1, relu=relu)
        np.testing.assert_allclose(arrays[f"{name}/map"], expected.map, rtol=1e-4, atol=1e-6)
    assert (arrays["grad_cam/map"].min() < 0) != relu
    assert document["samples"][0]["methods"]["grad-cam"]["settings"]["relu"] is relu
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("brighter is more" in page) is relu


def test_the_layer_of_a_map_over_an_inner_tensor(files, written):
    options = ("--method", "gradient", "--method", "layer-cam", "--layer", "r", "--wrt", "h")
    _, arrays = written("plain.onnx", "batch.npy", *options)
    x = np.load(files / "batch.npy")
    model = str(files / "plain.onnx")
    found = gradient(model, x, wrt=["h"])
    np.testing.assert_allclose(arrays["gradient/attributions/h"], found.attributions["h"], atol=1e-6)
    expected = layer_cam(model, x, layer="r", wrt=["h"])
    np.testing.assert_allclose(arrays["layer_cam/map"], expected.map, rtol=1e-4, atol=1e-6)


def test_the_border_of_a_blur_and_the_regions_of_an_image(files, written):
    methods = ("--method", "blur-ig", "--method", "xrai", "--steps", "7", "--max-sigma", "3")
    options = ("--border", "zero", "--min-pixels", "9", "--baseline", "uniform,0.25", "--rng", "4")
    document, arrays = written("plain.onnx", "batch.npy", *methods, *options)
    model, x = str(files / "plain.onnx"), np.load(files / "batch.npy")
    blurred = blur_integrated_gradients(model, x, steps=7, max_sigma=3.0, border="zero")
    np.testing.assert_allclose(
        arrays["blur_ig/attributions/image"], blurred.attributions, rtol=1e-4, atol=1e-5
    )
    edge = blur_integrated_gradients(model, x, steps=7, max_sigma=3.0)
    assert np.abs(edge.attributions - blurred.attributions).max() > 1e-2
    ranked = xrai(model, x, baseline=["uniform", 0.25], steps=7, min_pixels=9, rng=4)
    np.testing.assert_allclose(arrays["xrai/map"], ranked.map, rtol=1e-4, atol=1e-5)
    settings = document["samples"][0]["methods"]["xrai"]["settings"]
    assert settings["baseline"] == ["uniform", 0.25] and settings["min_pixels"] == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--along", "r"), "--along is a setting of conductance"),
        (("--no-relu",), "--relu is a setting of grad-cam, grad-cam-plus-plus, layer-cam"),
        (("--border", "edge"), "--border is a setting of blur-ig"),
        (("--min-pixels", "3"), "--min-pixels is a setting of xrai"),
        (("--wrt", "nowhere"), "'nowhere'"),
        (("--wrt", "embedding"), "embedding"),
        (
            ("--method", "smooth-grad", "--wrt", "h"),
            "--wrt is a setting of full-grad, integrated-gradients, conductance",
        ),
        (("--method", "conductance", "--wrt", "r", "--along", "nowhere"), "'nowhere'"),
        (
            ("--method", "conductance", "--wrt", "r", "--baseline-inputs", "batch.npy"),
            "baseline_inputs go with tensors within the network",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(command, options, message):
    status, out, errors = command("analyze", "plain.onnx", "batch.npy", *options)
    assert status == 2 and message in errors and errors.count("\n") == 1 and not out
