"""Path methods from the command line: what they write is what the API computes, and every setting arrives."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from analyzer import (
    blur_integrated_gradients,
    expected_gradients,
    guided_integrated_gradients,
    integrated_gradients,
    xrai,
)
from analyzer.figures.images import preprocess, read_image
from converters import Preprocessing


def written(json_of, folder, *options, model="plain.onnx", inputs="batch.npy"):
    """The document and the arrays of a run of `analyze`."""
    status, document = json_of("analyze", model, inputs, "-o", folder, *options)
    assert status == 0
    with np.load(folder / "arrays.npz") as arrays:
        return document, dict(arrays)


def test_the_attributions_are_those_of_the_api(files, json_of, tmp_path):
    methods = [part for name in ("blur-ig", "guided-ig", "xrai") for part in ("--method", name)]
    settings = (
        "--steps",
        "9",
        "--max-sigma",
        "3",
        "--fraction",
        "0.5",
        "--max-dist",
        "0.1",
        "--anchors",
        "1",
    )
    _, arrays = written(json_of, tmp_path / "out", *methods, *settings)
    model, x = str(files / "plain.onnx"), np.load(files / "batch.npy")
    guided = guided_integrated_gradients(model, x, steps=9, fraction=0.5, max_dist=0.1, anchors=1)
    expected = {
        "blur_ig/attributions/image": blur_integrated_gradients(
            model, x, steps=9, max_sigma=3.0
        ).attributions,
        "guided_ig/attributions/image": guided.attributions,
        "xrai/map": xrai(model, x, steps=9).map,
    }
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-4, atol=1e-5)


def test_a_background_is_an_array(files, json_of, tmp_path):
    options = ("--method", "expected-gradients", "--background", "batch.npy", "--samples", "8", "--rng", "4")
    document, arrays = written(json_of, tmp_path / "out", *options, inputs="single.npy")
    data = np.load(files / "batch.npy")
    x = np.load(files / "single.npy")[None]
    eg = expected_gradients(str(files / "plain.onnx"), x, None, data, samples=8, rng=4)
    np.testing.assert_allclose(
        arrays["expected_gradients/attributions/image"], eg.attributions, rtol=1e-4, atol=1e-6
    )
    method = document["samples"][0]["methods"]["expected-gradients"]
    np.testing.assert_allclose(method["output"], eg.output, rtol=1e-4)
    np.testing.assert_allclose(method["completeness"]["explained"], eg.completeness.output, rtol=1e-4)


def test_a_background_is_a_folder_of_images_read_as_the_inputs_are(files, json_of, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("photo.png", "other.jpg"):
        shutil.copy(files / name, folder)
    options = ("--method", "expected-gradients", "--background", folder, "--samples", "6")
    _, arrays = written(json_of, tmp_path / "out", *options, model="stored.onnx", inputs="photo.png")
    stored = Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3, "NCHW", 20)
    images = {name: preprocess(read_image(files / name), stored, 3) for name in ("photo.png", "other.jpg")}
    data = np.stack([images["other.jpg"], images["photo.png"]])
    eg = expected_gradients(str(files / "stored.onnx"), images["photo.png"][None], None, data, samples=6)
    np.testing.assert_allclose(
        arrays["expected_gradients/attributions/image"], eg.attributions, rtol=1e-4, atol=1e-6
    )


def test_a_background_of_several_inputs_is_an_archive(files, json_of, tmp_path):
    options = ("--method", "expected-gradients", "--background", "pair.npz", "--samples", "6")
    _, arrays = written(json_of, tmp_path / "out", *options, model="two.onnx", inputs="pair.npz")
    with np.load(files / "pair.npz") as pair:
        given = dict(pair)
    eg = expected_gradients(str(files / "two.onnx"), given, None, given, samples=6)
    for name in "ab":
        np.testing.assert_allclose(
            arrays[f"expected_gradients/attributions/{name}"], eg.attributions[name], rtol=1e-4, atol=1e-6
        )


def test_several_baselines_stand_with_commas_between(files, json_of, tmp_path):
    methods = ("--method", "guided-ig", "--method", "integrated-gradients")
    options = (*methods, "--steps", "4", "--baseline", "black, white,0.25")
    document, arrays = written(json_of, tmp_path / "out", *options)
    x = np.load(files / "batch.npy")
    expected = guided_integrated_gradients(
        str(files / "plain.onnx"), x, baseline=["black", "white", 0.25], steps=4
    )
    np.testing.assert_allclose(
        arrays["guided_ig/attributions/image"], expected.attributions, rtol=1e-4, atol=1e-6
    )
    straight = integrated_gradients(str(files / "plain.onnx"), x, baseline=["black", "white", 0.25], steps=4)
    np.testing.assert_allclose(
        arrays["integrated_gradients/attributions/image"], straight.attributions, rtol=1e-4, atol=1e-6
    )
    for method in document["samples"][0]["methods"].values():
        assert method["settings"]["baseline"] == ["black", "white", 0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "expected-gradients"), "give it as background=array (--background FILE)"),
        (("--method", "expected-gradients", "--background", "none.npy"), "none.npy: no such file"),
        (("--method", "expected-gradients", "--background", "wrong.npy"), "wrong.npy: has shape"),
        (("--method", "blur-ig", "--background", "batch.npy"), "--background is a setting of expected-grad"),
        (("--method", "blur-ig", "--max-sigma", "0"), "above 0, got 0"),
        (("--method", "guided-ig", "--fraction", "2"), "got 2"),
        (("--method", "guided-ig", "--baseline", "black,pink"), "--baseline black,pink"),
    ],
)
def test_what_is_refused_in_one_line(command, options, message):
    status, _, errors = command("analyze", "plain.onnx", "batch.npy", *options)
    assert status == 2
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors


def test_an_empty_folder_is_no_background(command, tmp_path):
    (tmp_path / "nothing").mkdir()
    status, _, errors = command(
        "analyze", "plain.onnx", "batch.npy",
        "--method", "expected-gradients", "--background", tmp_path / "nothing",
    )  # fmt: skip
    assert status == 2
    assert "the folder is empty" in " ".join(errors.split())
