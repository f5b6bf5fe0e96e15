"""The gradient family from the command line: what it writes is what the API computes; settings reach their methods."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import analyzer
from analyzer.methods import METHODS

SMOOTH = ("smooth-grad", "smooth-grad-squared", "var-grad")
ACTIVATION = ("grad-cam", "grad-cam-plus-plus", "layer-cam")
FAMILY = ("gradient", "input-x-gradient", *SMOOTH, *ACTIVATION)


def options_of(methods):
    return [word for method in methods for word in ("--method", method)]


def written(json_of, folder, *options, inputs=("batch.npy",)):
    """The document and the arrays of a run of `analyze` on the small classifier."""
    status, document = json_of("analyze", "plain.onnx", *inputs, "-o", folder, *options)
    assert status == 0
    with np.load(folder / "arrays.npz") as arrays:
        return document, dict(arrays)


def test_the_maps_are_those_of_the_api(files, json_of, tmp_path):
    options = ("--samples", "3", "--noise", "0.2", "--rng", "5", "--layer", "h")
    document, arrays = written(json_of, tmp_path / "out", *options_of(FAMILY), *options)
    model, x = str(files / "plain.onnx"), np.load(files / "batch.npy")
    settings = {method: {"samples": 3, "noise": 0.2, "rng": 5} for method in SMOOTH}
    settings |= {method: {"layer": "h"} for method in ACTIVATION}
    for method in FAMILY:
        name = method.replace("-", "_")
        found = getattr(analyzer, name)(model, x, **settings.get(method, {}))
        np.testing.assert_allclose(arrays[f"{name}/map"], found.map, rtol=1e-4, atol=1e-6)
        if method not in ACTIVATION:
            np.testing.assert_allclose(
                arrays[f"{name}/attributions/image"], found.attributions, rtol=1e-4, atol=1e-6
            )
    assert len({arrays[f"{method.replace('-', '_')}/map"].tobytes() for method in FAMILY}) == len(FAMILY)
    assert document["samples"][0]["methods"]["grad-cam"]["settings"]["layer"] == "h"


def test_the_layer_that_was_found_is_told(json_of):
    _, document = json_of("analyze", "plain.onnx", "single.npy", *options_of(["layer-cam"]))
    assert document["samples"][0]["methods"]["layer-cam"]["settings"]["layer"] == "r"


def test_what_input_x_gradient_misses_is_the_biases(json_of, tmp_path):
    document, arrays = written(json_of, tmp_path / "out", *options_of(["input-x-gradient", "full-grad"]))
    for index, sample in enumerate(document["samples"]):
        stated = sample["methods"]["input-x-gradient"]["completeness"]
        missed = sum(layer["sum"] for layer in sample["methods"]["full-grad"]["layers"])
        np.testing.assert_allclose(stated["explained"] - stated["total"], missed, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            stated["total"], arrays["input_x_gradient/attributions/image"][index].sum(), rtol=1e-4, atol=1e-5
        )
        assert stated["passed"] is None


def test_every_method_has_its_picture(json_of, tmp_path):
    written(
        json_of, tmp_path / "out", *options_of(FAMILY), "--samples", "2", inputs=("photo.png", "other.jpg")
    )
    page = (tmp_path / "out" / "report.html").read_text()
    for method in FAMILY:
        for name in ("photo", "other"):
            with Image.open(tmp_path / "out" / f"{name}-{method}.png") as picture:
                assert picture.size[0] == picture.size[1] >= 16
        assert METHODS[method].note.replace("'", "&#39;") in page


def test_tables_have_no_layer_and_the_rest_of_the_family(json_of, command, tmp_path):
    status, document = json_of("analyze", "two.onnx", "pair.npz", *options_of(FAMILY[:5]), "-o", tmp_path)
    assert status == 0 and set(document["samples"][0]["methods"]) == set(FAMILY[:5])
    status, _, err = command("analyze", "two.onnx", "pair.npz", *options_of(["grad-cam"]))
    assert status == 2 and "no layer to weigh" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--method", "gradient", "--layer", "h"), "grad-cam"),
        (("--method", "grad-cam", "--samples", "3"), "smooth-grad"),
        (("--steps", "3"), "integrated-gradients"),
        (("--method", "grad-cam", "--layer", "nowhere"), "nowhere"),
        (("--method", "grad-cam", "--layer", "logits"), "no positions"),
    ],
)
def test_a_setting_without_its_method_is_refused_in_a_line(command, flags, word):
    status, _, err = command("analyze", "plain.onnx", "batch.npy", *flags)
    assert status == 2 and word in err and len(err.strip().splitlines()) == 1
