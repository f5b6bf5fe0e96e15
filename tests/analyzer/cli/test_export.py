"""`onnxplain export`: the file, the words and the document; and `inspect` of the file."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime as ort
import pytest

import onnxplain as ox


def run(path, **feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options)
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


def test_export_writes_a_file_that_gives_the_map(files, command, tmp_path):
    path = tmp_path / "e.onnx"
    status, out, errors = command("export", str(files / "stored.onnx"), "-o", str(path), "--target", "dog")
    assert status == 0, errors
    assert "FullGrad" in out and "completeness_error" in out and "default [4]" in out
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    found = run(path, image=x)
    np.testing.assert_allclose(
        found["map"], ox.full_grad(files / "stored.onnx", x, 4).map, rtol=1e-4, atol=1e-6
    )
    status, out, _ = command("inspect", str(path))
    assert status == 0 and "FullGrad of a model" in out and "the class to explain" in out
    status, out, _ = command("inspect", str(path), "--json")
    assert json.loads(out)["explainer"]["method"] == "full-grad"


def test_settings_of_a_method_are_options(files, command, tmp_path):
    path = tmp_path / "e.onnx"
    options = (
        "--method",
        "integrated-gradients",
        "--steps",
        "4",
        "--rule",
        "trapezoid",
        "--baseline",
        "black",
    )
    status, out, errors = command(
        "export", str(files / "stored.onnx"), "-o", str(path), *options, "--at-once", "1", "--json"
    )
    assert status == 0, errors
    document = json.loads(out)
    assert document["settings"]["steps"] == 4 and document["settings"]["at_once"] == 1
    assert document["bytes"] == path.stat().st_size and document["relative_l2"] < 1e-5
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    wanted = ox.integrated_gradients(files / "stored.onnx", x, steps=4, rule="trapezoid", baseline="black")
    np.testing.assert_allclose(run(path, image=x)["attribution"], wanted.attributions, rtol=1e-4, atol=1e-6)


def test_photographs_go_in_and_pictures_come_out(files, command, tmp_path):
    path = tmp_path / "e.onnx"
    status, _, errors = command(
        "export", str(files / "stored.onnx"), "-o", str(path), "--with-preprocessing", "--overlay"
    )
    assert status == 0, errors
    photograph = np.random.default_rng(0).integers(0, 256, (1, 40, 30, 3), np.uint8)
    found = run(path, image=photograph)
    assert found["map"].shape == (1, 40, 30) and found["overlay"].shape == (1, 40, 30, 4)
    assert found["overlay"].dtype == np.uint8
    assert (found["completeness_error"] < 1e-4).all()


def test_the_hash_of_the_model_is_stored(files, tmp_path):
    model = files / "stored.onnx"
    written = ox.export_explainer(model, tmp_path / "e.onnx", "gradient")
    assert written.description.model_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "xrai"), "integrated-gradients"),
        (("--method", "gradient,full-grad"), "a file has one method"),
        (("--method", "fullgrad"), "Did you mean full-grad?"),
        (("--target", "5"), "out of range"),
        (("--method", "integrated-gradients", "--max-error", "0.1"), "needs the host"),
        (("--method", "integrated-gradients", "--baseline", "blurred"), "depends on the sample"),
        (("--at-once", "few"), "expected all, or a number above 0"),
        (("--overlay",), "with_preprocessing"),
        (("--opset", "3"), "opset"),
        (("--tokenizer", "none.json"), "give the tokenizer.json"),
    ],
)
def test_bad_options_end_with_status_2_and_write_nothing(files, command, tmp_path, options, words):
    path = tmp_path / "e.onnx"
    status, out, errors = command("export", str(files / "stored.onnx"), "-o", str(path), *options)
    last = errors.strip().splitlines()[-1]
    assert status == 2 and not out
    assert words in last and "Fix: " in last
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["e.txt", "", "none/e.onnx"])
def test_a_bad_destination_is_refused_before_the_work(files, command, tmp_path, output):
    status, out, errors = command("export", str(files / "stored.onnx"), "-o", str(tmp_path / output))
    assert status == 2 and not out and errors.count("\n") == 1 and "Fix: " in errors
