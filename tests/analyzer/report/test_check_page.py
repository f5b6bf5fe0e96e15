"""The page of a check: its order, its numbers, its escaping; and how a real browser shows it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from analyzer import check
from analyzer.checks.read.attributions import Attributions
from analyzer.checks.report import Report
from analyzer.report import render_check, write_check
from analyzer.report.check_page import explanations, pair_matrix, ranked_rows
from converters import convert
from tests.analyzer.figures.browser import browser, opened
from tests.analyzer.report.test_page import Page

HOSTILE = "<script>parent.ran = true</script><img src=x onerror='parent.ran = true'>"


def row(quantity="layer", tensor="relu", depth=1, error=1e-7, **changes):
    usual = {
        "quantity": quantity, "tensor": tensor, "a": "onnxruntime", "b": "torch", "max_abs": error,
        "max_relative": error, "relative_l2": error, "cosine": 1.0, "tolerance": 1e-4, "passed": error <= 1e-4,
        "explanation": "",
        "node": f"node_{tensor}", "op_type": "Relu", "layer": f"layer.{depth}", "depth": depth,
    }  # fmt: skip
    return {**usual, **changes}


def report(rows, **changes):
    sums = [
        {"backend": side, "method": "full grad", "error": 3e-6, "tolerance": 1e-4, "passed": True}
        for side in ("onnxruntime", "torch")
    ]
    usual = {"rows": rows, "completeness": sums, "backends": ("onnxruntime", "torch")}
    return Report(**{**usual, **changes})


def attributions(images=True):
    rng = np.random.default_rng(0)
    shape = (2, 3, 12, 10) if images else (2, 50)
    inputs = rng.uniform(size=shape).astype(np.float32)
    maps = inputs.sum(axis=1) if images else np.abs(inputs)
    sides = ("onnxruntime", "torch")
    return Attributions(
        (4, 1),
        {"x": inputs},
        {side: {"x": maps * (1 + 0.1 * index)} for index, side in enumerate(sides)},
        {side: {"x": inputs - 0.5} for side in sides},
    )


FAILING = [
    row(tensor="fine", depth=0, error=2e-8),
    row(tensor="broken", depth=1, error=3e-2),
    row(tensor="behind", depth=2, error=0.5),
    row("output", tensor="behind", depth=2, error=0.5),
    row("bias gradient", tensor="fine", depth=0, error=0.2),
    row("full grad", tensor="map", depth=-1, error=0.1),
]


def test_the_verdict_comes_first_with_the_reason_and_the_node_at_fault():
    found = report(FAILING, origins={("onnxruntime", "torch"): "Conv 'conv_7': wrong by itself"})
    text = Page(render_check(found, "my.onnx")).text
    order = [
        "my.onnx", found.verdict, "Conv 'conv_7': wrong by itself", "layer 'broken'", "Every side", "Where it parts",
        "What is apart", "Completeness", "How it was made", "onnxruntime",
    ]  # fmt: skip
    places, start = [], text.index("onnxplain check")
    for part in order:
        start = text.index(part, start)
        places.append(start)
    assert places == sorted(places)
    assert "5 disagree" in found.verdict and found.headline.startswith(found.verdict + "; layer 'broken'")


def test_rows_are_ranked_by_what_a_reader_looks_for():
    rows = [row(tensor="explained", error=0.3, passed=True, explanation="1 decision of Relu 'r'"), *FAILING]
    names = [(found["quantity"], found["tensor"]) for found in ranked_rows(report(rows))]
    assert names[0] == ("layer", "broken"), "where it first diverges"
    assert names[1:5] == [
        ("layer", "behind"), ("output", "behind"), ("bias gradient", "fine"), ("full grad", "map"),
    ]  # fmt: skip
    assert names[5:] == [("layer", "explained"), ("layer", "fine")]


def test_the_matrix_has_every_pair_once_below_its_diagonal():
    rows = [
        row(),
        row(b="source", error=0.2, passed=True, explanation="2 decisions of Relu 'r'"),
        row(a="torch", b="source", error=0.3),
        row(a="torch", b="source", error=1e-6),
    ]
    matrix = pair_matrix(report(rows, backends=("onnxruntime", "torch", "source")))
    assert [(name, error) for name, _, error in matrix] == [
        ("onnxruntime", 3e-6), ("torch", 3e-6), ("source", None),
    ]  # fmt: skip
    assert [[cell.state for cell in cells] for _, cells, _ in matrix] == [[], ["good"], ["explained", "bad"]]
    worst = matrix[2][1][1]
    assert (worst.worst, worst.failed, worst.count, worst.mark) == (0.3, 1, 2, "✗")


def test_what_is_explained_is_named_and_counted_once():
    told = "1 decision of Relu 'r' within rounding of a kink"
    rows = [
        row("input gradient", "x", error=0.1, passed=True, explanation=told),
        row("full grad", "map", error=0.3, passed=True, explanation=told),
        row(b="source", error=0.2, passed=True, explanation=told),
        row(),
    ]
    first, second = explanations(rows)
    assert (first.pair, first.count, first.quantities, first.worst) == (
        "onnxruntime · torch", 2, "input gradient, full grad", 0.3,
    )  # fmt: skip
    assert (second.pair, second.count) == ("onnxruntime · source", 1)
    assert "What is explained" in render_check(report(rows))
    assert "What is explained" not in render_check(report([row()]))


def test_a_comparison_of_models_shows_layers_and_drift():
    drift = [
        {
            "sample": 3, "output": 0.25, "changed": True, "full grad relative_l2": 0.125, "full grad cosine": 0.9,
            "full grad rank_correlation": 0.8, "full grad top_overlap": 0.5,
        }
    ]  # fmt: skip
    found = report(
        FAILING,
        matched={"fine": "b_fine"},
        near={"broken": "b_broken"},
        unmatched={"onnxruntime": ("lost",), "torch": ()},
        inner={"onnxruntime": (), "torch": ("product",)},
        drift=drift,
    )
    text = " ".join(re.sub("<[^>]*>", " ", render_check(found)).split())
    assert "comparison of two models" in text and "onnxruntime against torch" in text
    assert (
        "broken b_broken 0.03" in text
        and "fine b_fine 2.0e-08" in text
        and "lost" in text
        and "product" in text
    )
    assert "3 0.25 0.125 0.9000 0.8000 0.5000 – another" in text


def hostile_report():
    rows = [{**found, "tensor": HOSTILE, "layer": HOSTILE, "tensor_b": HOSTILE + "b"} for found in FAILING]
    rows.append(row("input gradient", HOSTILE, -1, 0.3, passed=True, explanation=HOSTILE, op_type=HOSTILE))
    found = attributions()
    by_name = [{HOSTILE: arrays["x"]} for arrays in (found.inputs, *found.maps.values())]
    sides = ("onnxruntime", "torch")
    return report(
        rows,
        origins={sides: HOSTILE},
        skipped={"jax": HOSTILE},
        referee=HOSTILE,
        environment={HOSTILE: HOSTILE},
        seconds={HOSTILE: 1.0},
        matched={HOSTILE: HOSTILE},
        near={HOSTILE: HOSTILE},
        unmatched={"onnxruntime": (HOSTILE,), "torch": (HOSTILE,)},
        attributions=Attributions((0, 1), by_name[0], dict(zip(sides, by_name[1:], strict=True)), {}),
    )


def test_names_are_shown_as_text_and_nothing_comes_from_outside():
    html = render_check(hostile_report(), HOSTILE)
    page = Page(html)
    assert not any(tag in ("script", "link", "iframe", "object", "use", "a") for tag, _ in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert page.text.count(HOSTILE) >= 20


def test_the_float64_run_says_who_is_nearer_or_how_far_two_models_are_apart():
    judged = row(error=0.5, a_error=1e-7, b_error=0.25, nearer="onnxruntime")
    told = re.sub("<[^>]*>", " ", render_check(report([judged])))
    assert "onnxruntime 1.0e-07 torch 0.25 onnxruntime is nearer" in " ".join(told.split())
    told = render_check(report([{**judged, "float64": 0.125}]))
    assert "in float64 0.125 apart" in told and "is nearer" not in told
    assert "From float64" not in render_check(report([row()]))


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "check.html"
    write_check(path, report([row()], skipped={"jax": "absent"}))
    text = path.read_text(encoding="utf-8")
    assert "not run: jax (absent)" in text and text.rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == [path]


def small_network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 8, 3)
    )
    images = np.random.default_rng(0).uniform(size=(5, 3, 8, 10)).astype(np.float32)
    return convert(net.eval(), torch.tensor(images[:1])), images


@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
def test_a_browser_shows_the_page_without_scripts_resources_or_overflow(tmp_path):
    model, images = small_network()
    with torch.no_grad():
        model.source.program.state_dict["0.weight"] *= 1.05
    found = check(model, images, target=1, backends=["onnxruntime", "torch", "source"])
    pages = {
        "check": render_check(found),
        "hostile": render_check(hostile_report(), HOSTILE),
        "table": render_check(report([row()], attributions=attributions(images=False))),
    }
    told = opened(pages, (1280, 390), tmp_path)
    assert not told.ran and not told.console
    assert [frame["width"] for frame in told.frames] == [1280, 390] * 3
    for frame in told.frames:
        assert frame["scroll_width"] <= frame["width"], frame["name"]
        width, height, top = frame["verdict"]
        assert width > 300 and height > 20 and top < 400
        assert frame["scripts"] == frame["handlers"] == frame["broken"] == 0
        assert all(name.startswith("data:") for name in frame["fetched"])
        assert frame["points"] > 0
    first, _, hostile, *_ = told.frames
    assert "disagree" in first["text"] and found.at_fault in first["text"]
    assert HOSTILE in hostile["text"] and hostile["title"].startswith(HOSTILE)
    assert first["images"] == 3 * (1 + 2 * 4), (
        "per sample the input, and per method three sides and a difference"
    )


@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
def test_a_browser_follows_the_scheme_and_the_measurements_can_fail(tmp_path):
    page = render_check(report([row()]))
    loose = page.replace("default-src 'none'; ", "").replace(
        "</main>",
        '<p style="width: 3000px">wide</p><script>parent.ran = true; console.error("told")</script>'
        '<img src="http://nowhere.invalid/a.png"></main>',
    )
    told = opened({"sound": page, "loose": loose.replace("img-src data:;", "")}, (390,), tmp_path, dark=True)
    sound, wide = told.frames
    assert sound["scheme"] == "rgb(20, 22, 26)" and sound["scroll_width"] <= 390 and not sound["fetched"]
    assert wide["scroll_width"] >= 3000 and wide["scripts"] == 1 and wide["broken"] == 1
    assert told.ran and any("told" in line for line in told.console)
    assert any("nowhere.invalid" in name for name in wide["fetched"])
