"""Conductance from the command line: what it writes is what the API computes."""

from __future__ import annotations

import numpy as np

from analyzer import conductance, differentiate


def inner(files):
    """The model, and the name of its first computed tensor."""
    fn = differentiate(str(files / "plain.onnx"))
    return fn, fn.tensors[len(fn.graph.inputs)]


def test_the_attributions_are_those_of_the_api(files, json_of, tmp_path):
    fn, point = inner(files)
    options = (
        "--method",
        "conductance",
        "--wrt",
        point,
        "--baseline",
        "0.25",
        "--steps",
        "9",
        "--rule",
        "left",
    )
    status, document = json_of("analyze", "plain.onnx", "batch.npy", "-o", tmp_path / "out", *options)
    assert status == 0
    expected = conductance(fn, np.load(files / "batch.npy"), wrt=point, baseline=0.25, steps=9, rule="left")
    with np.load(tmp_path / "out" / "arrays.npz") as arrays:
        (name,) = (name for name in arrays if name.startswith("conductance/attributions"))
        np.testing.assert_allclose(arrays[name], expected.attributions, rtol=1e-4, atol=1e-6)
    method = document["samples"][0]["methods"]["conductance"]
    assert method["settings"]["rule"] == "left"
    assert method["settings"]["beside"] == {}


def test_a_tolerance_is_judged(files, json_of):
    _, point = inner(files)
    options = ("--method", "conductance", "--wrt", point, "--max-error", "1e-9", "--max-evaluations", "3")
    status, document = json_of("analyze", "plain.onnx", "batch.npy", *options)
    assert status == 1
    assert document["samples"][0]["methods"]["conductance"]["settings"]["spent"] == [3] * len(
        document["samples"]
    )


def test_without_units_there_is_nothing_to_conduct(command):
    status, _, errors = command("analyze", "plain.onnx", "batch.npy", "--method", "conductance")
    assert status == 2
    assert "name a module or a tensor" in " ".join(errors.split())
