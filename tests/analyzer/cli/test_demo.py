"""The demo, run once: what it predicts, explains, proves and writes."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

import analyzer.demo
from analyzer.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(status, JSON document, Demo, folder)"""
    folder = tmp_path_factory.mktemp("demo")
    kept = []
    checked = analyzer.demo.checked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyzer.demo, "checked", lambda *a, **k: kept.append(checked(*a, **k)) or kept[0])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = main(["demo", "-o", str(folder), "--backends", "onnxruntime,torch", "--json"])
    return status, json.loads(out.getvalue()), kept[0], folder


def test_the_demo_passes(demo):
    status, document, found, _ = demo
    assert status == 0 and document["passed"] and found.passed
    assert document["verification"]["relative_l2"] < 1e-5
    assert document["check"]["passed"] and document["check"]["backends"] == ["onnxruntime", "torch"]


def test_it_sees_a_cat_and_an_espresso(demo):
    cat, coffee = (sample["predictions"] for sample in demo[1]["samples"])
    assert "cat" in cat[0]["name"] and 0.3 < cat[0]["probability"] < 0.5
    assert coffee[0]["name"] == "espresso" and coffee[0]["probability"] > 0.9


def test_full_grad_is_complete_and_the_explicit_terms_are_not(demo):
    for sample in demo[1]["samples"]:
        complete, explicit, integrated = sample["completeness"]
        assert complete["relative_error"] < 1e-4 and complete["passed"]
        assert explicit["relative_error"] > 0.1 and explicit["passed"] is None
        assert integrated["relative_error"] < 0.01 and integrated["passed"]
    # Measured apart from this code, with PyTorch hooks: 7.20 of the cat's 9.17 are missed.
    cat = demo[1]["samples"][0]["completeness"][1]
    np.testing.assert_allclose([cat["explained"], cat["explained"] - cat["total"]], [9.17, 7.20], atol=0.05)


def test_the_map_has_its_mass_on_the_cup(demo):
    heat = demo[2].results[0].map[1]
    cup = np.zeros_like(heat, bool)
    cup[10:140, 40:185] = True
    assert heat[cup].mean() > 1.5 * heat[~cup].mean()
    assert cup[np.unravel_index(heat.argmax(), heat.shape)]


def test_what_it_writes_is_whole(demo):
    *_, document, _, folder = demo
    assert sorted(document["files"]) == sorted(str(path) for path in folder.iterdir())
    for name in ("cat-full-grad.png", "cat-full-grad-complete.png", "coffee-integrated-gradients.png"):
        with Image.open(folder / name) as picture:
            assert picture.size == (224, 224)
    page = (folder / "report.html").read_text()
    assert "http://" not in page and "https://" not in page and page.count("data:image/png;base64,") == 14


def test_the_file_it_writes_can_be_analyzed_alone(demo, capsys):
    folder = demo[3]
    # The stored preprocessing leaves a picture of the model's own size as it is.
    status = main(
        [
            "analyze",
            str(folder / "efficientnet-lite0.onnx"),
            str(folder / "coffee-photograph.png"),
            *("--resize", "224", "--target", "espresso", "--json"),
        ]
    )
    found = json.loads(capsys.readouterr().out)["samples"][0]
    assert status == 0 and found["methods"]["full-grad"]["target"] == 967
    assert found["predictions"][0]["name"] == "espresso" and found["predictions"][0]["probability"] > 0.9


def test_class_names_are_told_apart_where_they_can_be():
    names = analyzer.demo.class_names()
    assert len(names) == 1000 and len(set(names)) >= 998
    assert names[967] == "espresso" and names[0] == "tench"
