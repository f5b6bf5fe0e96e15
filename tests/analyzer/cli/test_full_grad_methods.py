"""FullGrad and its two variants from the command line: what they write is what the API computes, and adds up."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from analyzer import full_grad, simple_full_grad, smooth_full_grad
from analyzer.cli.analyze_view import show_completeness, show_layers
from analyzer.cli.terminal import Terminal
from analyzer.figures import Bar
from analyzer.methods.full_grad import post_processing_of
from analyzer.report.page import CompletenessRow

ALL = ("--method", "full-grad", "--method", "simple-full-grad", "--method", "smooth-full-grad")


def written(json_of, folder, *options, inputs=("batch.npy",)):
    """The document and the arrays of a run of `analyze` on the small classifier."""
    status, document = json_of("analyze", "plain.onnx", *inputs, "-o", folder, *options)
    assert status == 0
    with np.load(folder / "arrays.npz") as arrays:
        return document, dict(arrays)


def test_the_maps_are_those_of_the_api(files, json_of, tmp_path):
    options = ("--samples", "3", "--noise", "0.2", "--rng", "5", "--terms", "explicit")
    _, arrays = written(json_of, tmp_path / "out", *ALL, *options)
    model, x = str(files / "plain.onnx"), np.load(files / "batch.npy")
    expected = {
        "full_grad": full_grad(model, x, terms="explicit").map,
        "simple_full_grad": simple_full_grad(model, x).map,
        "smooth_full_grad": smooth_full_grad(model, x, samples=3, noise=0.2, rng=5, terms="explicit").map,
    }
    for name, map_ in expected.items():
        np.testing.assert_allclose(arrays[f"{name}/map"], map_, rtol=1e-4, atol=1e-5)
    distinct = {arrays[f"{name}/map"].tobytes() for name in expected}
    assert len(distinct) == 3


@pytest.mark.parametrize("flags", [("pytorch-grad-cam", None), ("pytorch-grad-cam", True), ("paper", False)])
def test_the_post_processing_is_that_of_the_options(files, json_of, tmp_path, flags):
    name, aligned = flags
    corners = {None: (), True: ("--align-corners",), False: ("--no-align-corners",)}[aligned]
    _, arrays = written(json_of, tmp_path / "out", *ALL[:4], "--post-processing", name, *corners)
    model, x = str(files / "plain.onnx"), np.load(files / "batch.npy")
    decomposition = full_grad(model, x, post_processing=name, align_corners=aligned)
    simple = simple_full_grad(model, x, post_processing=post_processing_of(name, aligned, None))
    np.testing.assert_allclose(arrays["full_grad/map"], decomposition.map, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["simple_full_grad/map"], simple.map, rtol=1e-4, atol=1e-5)


def test_the_complete_map_and_what_has_no_place_sum_to_the_output(json_of, tmp_path):
    document, arrays = written(json_of, tmp_path / "out")
    in_map = arrays["full_grad/complete_map"].sum(axis=(1, 2))
    np.testing.assert_allclose(
        in_map + arrays["full_grad/unplaced_total"], arrays["full_grad/explained"], rtol=1e-4, atol=1e-5
    )
    for index, sample in enumerate(document["samples"]):
        complete = sample["methods"]["full-grad"]["complete_map"]
        assert complete["unplaced"] == ["logits"]
        np.testing.assert_allclose(complete["sums"]["image"], in_map[index], rtol=1e-4, atol=1e-5)


def test_every_input_has_its_own_map(json_of, tmp_path):
    status, document = json_of("analyze", "two.onnx", "pair.npz", "-o", tmp_path / "out")
    with np.load(tmp_path / "out" / "arrays.npz") as arrays:
        sums = {name: arrays[f"full_grad/complete_map/{name}"].sum(axis=1) for name in "ab"}
        whole = sum(sums.values()) + arrays["full_grad/unplaced_total"]
        np.testing.assert_allclose(whole, arrays["full_grad/explained"], rtol=1e-4, atol=1e-6)
    for index, sample in enumerate(document["samples"]):
        found = sample["methods"]["full-grad"]["complete_map"]["sums"]
        assert status == 0 and list(found) == ["a", "b"]
        np.testing.assert_allclose([found["a"], found["b"]], [sums["a"][index], sums["b"][index]], rtol=1e-5)


def test_layers_and_inputs_sum_to_the_output_and_their_shares_to_one(json_of, tmp_path):
    document, _ = written(json_of, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["samples"] == document["samples"]
    for sample in document["samples"]:
        found = sample["methods"]["full-grad"]
        parts = [*found["inputs"].values(), *found["layers"]]
        np.testing.assert_allclose(sum(part["sum"] for part in parts), found["output"], rtol=1e-4)
        np.testing.assert_allclose(sum(part["share"] for part in parts), 1, rtol=1e-4)
        assert [(layer["layer"], layer["kind"]) for layer in found["layers"]] == [
            ("stem", "explicit"),
            ("head", "explicit"),
        ]
        assert [layer["tensors"] for layer in found["layers"]] == [["h"], ["logits"]]


def test_the_variants_claim_no_sum(json_of):
    _, document = json_of("analyze", "plain.onnx", "single.npy", *ALL[2:], "--samples", "2")
    assert document["passed"]
    for method in document["samples"][0]["methods"].values():
        assert method["completeness"] is None and "layers" not in method


def test_every_sample_has_a_noise_of_its_own(files, json_of, tmp_path):
    # The same image everywhere: only the noise can tell the samples' maps apart.
    np.save(tmp_path / "same.npy", np.repeat(np.load(files / "batch.npy")[:1], 6, axis=0))
    options = ("--method", "smooth-full-grad", "--samples", "2")
    _, arrays = written(json_of, tmp_path / "out", *options, inputs=(tmp_path / "same.npy",))
    maps = arrays["smooth_full_grad/map"]
    assert len({map_.tobytes() for map_ in maps}) == 6


def test_every_method_has_its_pictures(json_of, tmp_path):
    written(json_of, tmp_path / "out", *ALL, "--samples", "2", inputs=("photo.png",))
    keys = ("input-term", "full-grad", "full-grad-complete", "simple-full-grad", "smooth-full-grad")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {f"photo-{key}.png" for key in (*keys, "full-grad-layers")}
    assert names == pictures | {"arrays.npz", "report.html", "summary.json"}
    for key in keys:
        with Image.open(tmp_path / "out" / f"photo-{key}.png") as picture:
            assert picture.size[0] == picture.size[1] >= 16


class Text(HTMLParser):
    """The visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(html)

    def handle_data(self, data):
        self.text += data


def test_the_report_says_how_the_complete_map_is_read(json_of, tmp_path):
    document, _ = written(json_of, tmp_path / "out", inputs=("photo.png",))
    page = Text((tmp_path / "out" / "report.html").read_text()).text
    complete = document["samples"][0]["methods"]["full-grad"]["complete_map"]
    numbers = (complete["sums"]["image"], complete["unplaced_total"])
    total, apart = (f"{number:.3g}".replace("-", "−") for number in numbers)
    assert (
        f"red adds, blue takes away; the map sums to {total}; {apart} more belongs to no place in the image"
        in page
    )
    assert "Where the output comes from" in page and "implicit bias" not in page


def test_the_terminal_shows_the_largest_layers(command):
    status, out, _ = command("analyze", "plain.onnx", "single.npy")
    table = out[out.index("What makes the output") :]
    assert status == 0
    for text in ("input × gradient", "stem", "head", "explicit bias", " %", "the map sums to", "from logits"):
        assert text in table


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--samples", "0"), "--samples"),
        (("--noise", "-1"), "--noise"),
        (("--post-processing", "x"), "paper"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_line(command, flags, word):
    status, _, err = command("analyze", "plain.onnx", "single.npy", *flags)
    assert status == 2 and word in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_terminal_and_no_row_is_folded(monkeypatch, capsys, width):
    bars = [
        Bar(f"model.encoder.stage_{i}.block_{i}.attention.projection", 1.0 + i, "implicit") for i in range(9)
    ]
    monkeypatch.setattr("analyzer.methods.pictures.result_bars", lambda result, index: bars)
    monkeypatch.setattr("analyzer.methods.pictures.complete_sum", lambda result, index: "the map sums to 9")
    terminal = Terminal(as_json=False)
    terminal.out.width = width
    row = {"output": 9.167, "total": 9.167, "error": 2.3e-7, "passed": True}
    labels = ("FullGrad, all terms", "Integrated Gradients, 50 gradients")
    show_completeness(
        terminal, [CompletenessRow(sample="coffee.png", method=label, **row) for label in labels]
    )
    result = SimpleNamespace(
        completeness=SimpleNamespace(output=np.array([45.0])), complete_map=None, by_tensor=lambda value: {}
    )
    show_layers(terminal, result, ["coffee.png"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    # Two tables, each with a heading, its columns and a rule; two methods; six layers and the rest.
    assert len(lines) == 2 * 3 + 2 + 7
    assert max(len(line.rstrip()) for line in lines) <= width
