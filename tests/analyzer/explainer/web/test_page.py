"""The page in a real browser: what it shows and computes, compared with Python on ONNX Runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from analyzer.demo import write_demo_site
from analyzer.explainer.export import export_explainer
from analyzer.explainer.web import write_site
from analyzer.figures.heat import REGIONS, overlay, smoothed
from analyzer.figures.images import preprocess
from converters import Preprocessing, convert
from tests.analyzer.explainer.web.chrome import Chrome, Page
from tests.analyzer.explainer.web.conftest import serving
from tests.analyzer.explainer.web.driving import (
    after,
    assert_equal,
    opened,
    pixels,
    python,
)
from tests.analyzer.explainer.web.networks import HOSTILE, NAMES, photo_classifier


def test_a_reader_explains_pictures(
    chrome: Chrome, photo_file: Path, photo_site: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    def truth(name: str, target: int) -> dict[str, np.ndarray]:
        return python(photo_file, {"image": pixels(photos[name])[None], "target": np.array([target])})

    with serving(photo_site) as address:
        page = opened(chrome, address)
        assert page.text("h1") == "A <small> network & its map"
        # The first sample is explained at once.
        assert_equal(page.run("window.found"), truth("wide", -1))

        found = after(page, page.drop, "#stage", photos["tall"])
        assert_equal(found, expected := truth("tall", -1))
        assert (found["width"], found["height"]) == (33, 90)
        best = np.argsort(-expected["logits"][0])[:5]
        assert page.run("[...document.querySelectorAll('#top .name')].map(one => one.textContent)") == [
            NAMES[index] for index in best
        ]
        share = np.exp(expected["logits"][0] - expected["logits"].max())
        assert page.text("#top .share") == f"{100 * share.max() / share.sum():.1f} %"
        assert page.text("#completeness").startswith("✓") and NAMES[best[0]] in page.text("#completeness")
        assert "ms" in page.text("#time")

        # Another class: of the list with the mouse, then by its name with the keyboard alone.
        second = f"#top input[value='{best[1]}']"
        assert_equal(after(page, page.click, second), truth("tall", int(best[1])))
        page.run("document.querySelector('#search').focus()")
        page.type("white")
        assert page.text("#found").split("\n") == ["white wolf", "great white shark"]
        page.press("ArrowDown", "ArrowUp", "ArrowDown")
        found = after(page, page.press, "Enter")
        assert_equal(found, truth("tall", NAMES.index("great white shark")))
        assert "great white shark" in page.text("#sentence") and page.run(
            "document.querySelector('#found').hidden"
        )

        # A name is text, whatever it holds.
        page.type("onerror")
        after(page, page.press, "Enter")
        assert HOSTILE in page.text("#sentence") and HOSTILE in page.text("#completeness")
        assert page.run("document.querySelectorAll('img[src=x]').length") == 0
        page.type("{{")
        found = after(page, page.press, "Enter")
        assert "{{ 7 * 7 }} {class} $&" in page.text("#sentence")

        # Chosen by file, a transparent picture lies on white.
        found = after(page, page.choose, "#file", photos["clear"])
        white = np.full((1, 20, 30, 3), 255, np.uint8)
        assert_equal(found, python(photo_file, {"image": white, "target": np.array([-1])}))
        page.choose("#file", photos["notes"])
        page.until("!document.querySelector('#problem').hidden")
        assert page.text("#problem").startswith("“notes.png” is not a picture")

        after(page, page.choose, "#file", photos["tall"])
        assert not page.text("#problem")
        drawn_and_downloaded(chrome, page, pixels(photos["tall"]), truth("tall", -1), tmp_path)
        assert page.said == []
        assert {url.partition("?")[0][: len(address)] for url in page.requested if "blob:" not in url} == {
            address
        }


def drawn_and_downloaded(
    chrome: Chrome, page: Page, photo: np.ndarray, expected: dict[str, np.ndarray], folder: Path
) -> None:
    """The downloaded picture is that of the reports, at each strength and in both views."""
    chrome.call(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": False},
    )

    def saved() -> np.ndarray:
        for path in folder.glob("*.png"):
            path.unlink()
        page.click("#download")
        for _ in range(200):
            if files := list(folder.glob("*.png")):
                return np.asarray(Image.open(files[0]).convert("RGB"), np.float64)
            chrome.pump(0.02)
        raise AssertionError("nothing was downloaded")

    def slide(value: int) -> None:
        page.run(
            f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input')) }})(document.querySelector('#opacity'))"
        )

    slide(0)
    assert page.run("getComputedStyle(document.querySelector('#heat')).opacity") == "0"
    np.testing.assert_array_equal(saved(), photo)
    slide(100)
    unsigned = overlay(photo, expected["map"][0], strength=1.0).astype(np.float64)
    assert np.abs(saved() - unsigned).mean() < 1.5
    page.run("document.querySelector('#views input').focus()")
    page.press("ArrowRight")
    assert page.run("document.querySelector('#views input:checked').value") == "signed"
    assert page.text("#sentence").startswith("Red areas raise the score")
    map_ = smoothed(expected["complete_map"][0], REGIONS)
    signed = overlay(photo, map_, signed=True, strength=1.0).astype(np.float64)
    # Three boxes are nearly a Gaussian.
    assert np.abs(saved() - signed).mean() < 4.0 < np.abs(unsigned - signed).mean()


@pytest.mark.parametrize("signed", [False, True])
def test_layers_are_the_pictures_of_the_reports(chrome: Chrome, photo_site: Path, *, signed: bool) -> None:
    rng = np.random.default_rng(5)
    photo, values = rng.integers(0, 256, (14, 23, 3)).astype(np.uint8), rng.standard_normal((14, 23))
    rgba = np.concatenate([photo, np.full((14, 23, 1), 255, np.uint8)], axis=2)
    view = json.dumps({"signed": signed, "absolute": False, "smoothing": 0})
    with serving(photo_site) as address:
        page = opened(chrome, address)
        drawn = page.run(
            f"""Promise.all([import("./draw.js"), fetch("explainer.json").then(one => one.json())])
            .then(([{{ layers, smoothed, unpacked }}, {{ page }}]) => {{
              const map = Float32Array.from({values.ravel().tolist()}), rgba = {rgba.ravel().tolist()};
              const {"{ ground, heat }"} = layers(map, rgba, 23, 14, {view}, unpacked(page.look));
              return [Array.from(ground), Array.from(heat), Array.from(smoothed(map, 23, 14, 0.15))];
            }})"""
        )
    ground, heat = (np.reshape(one, (14, 23, 4)).astype(np.float64) for one in drawn[:2])
    share = heat[..., 3:] / 255
    laid = (1 - share) * ground[..., :3] + share * heat[..., :3]
    expected = overlay(photo, values, signed=signed, strength=1.0)
    # A step of the colour map, which both have in 256 steps.
    assert np.abs(laid - expected).max() <= 6 and np.abs(laid - expected).mean() < 1
    # Three boxes are nearly a Gaussian, and keep the sum.
    blurred, truth = np.reshape(drawn[2], (14, 23)), smoothed(values, 0.15)
    np.testing.assert_allclose(blurred.sum(), values.sum(), rtol=1e-6)
    assert np.linalg.norm(blurred - truth) <= 0.2 * np.linalg.norm(truth) <= 0.1 * np.linalg.norm(values)


def test_the_frame_is_what_the_model_sees(chrome: Chrome, photo_site: Path) -> None:
    """Of pictures whose colours are their coordinates, the extremes that come through the preprocessing."""
    cases = [
        (Preprocessing((24, 24), resize=32), (90, 160)),
        (Preprocessing((24, 24), resize=32, rounding="down"), (161, 93)),
        (Preprocessing((25, 25), resize=32, rounding="torchvision"), (97, 55)),
        (Preprocessing((20, 40)), (100, 90)),
        (Preprocessing((24, 24), fit="stretch", resize=30), (77, 201)),
        (Preprocessing((24, 24), fit="stretch"), (77, 201)),
        (Preprocessing((24, 24), fit="pad", interpolation="linear"), (50, 99)),
        (Preprocessing((30, 30), resize=20), (66, 99)),
    ]
    asked, expected = [], []
    for preprocessing, (height, width) in cases:
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        coordinates = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
        near = (
            replace(preprocessing, interpolation="nearest") if preprocessing.fit != "pad" else preprocessing
        )
        seen = 255 * preprocess(coordinates.astype(np.float32) / 255, near)
        across, down = seen[0], seen[1]
        kept = seen[2] < 1  # What is padded is grey.
        expected.append([across[kept].min(), down[kept].min(), across[kept].max() + 1, down[kept].max() + 1])
        own = {key: getattr(preprocessing, key) for key in ("size", "resize", "fit", "rounding")}
        asked.append([width, height, own])
    with serving(photo_site) as address:
        page = opened(chrome, address)
        found = page.run(
            f"""import("./draw.js").then(({{ framed }}) => {json.dumps(asked)}.map(one => framed(...one)).map(
            ({{ left, top, right, bottom }}) => [left, top, right, bottom]))"""
        )
    for (preprocessing, (height, width)), own, truth in zip(cases, found, expected, strict=True):
        # Of each element of the input, the nearest pixel is read: others between two of them are seen, too.
        steps = max(height, width) / min(preprocessing.size) / 2 + 1
        np.testing.assert_allclose(own, truth, atol=steps, err_msg=str(preprocessing))


def test_the_demo_shows_what_python_computes(chrome: Chrome, tmp_path: Path) -> None:
    """EfficientNet-Lite0, exported with its preprocessing; the page answers while the model runs."""
    site = write_demo_site(tmp_path / "demo")
    path = site.folder.parent / "efficientnet-lite0-explainer.onnx"
    # Of the cat: on the cup, kernels of one processor differ by 8e-4, where rounding decides a Clip.
    photo = pixels(site.folder.parent / "cat.png")
    # Turns that the page gets while the model runs.
    turns = "window.turns = 0; setInterval(() => { window.turns += document.body.hasAttribute('aria-busy') }, 10);"
    with serving(site.folder) as address:
        page = opened(chrome, address, more=turns)
        assert page.text("h1") == "EfficientNet-Lite0" and page.text("#top .name") == "tiger cat"
        found = page.run("window.found")
        expected = python(path, {"image": photo[None], "target": np.array([-1])})
        assert_equal(found, {**expected, "logits": expected["linear"]})
        # Outside the frame the map is zero, and inside it is not.
        left, top, right, bottom = (found["frame"][side] for side in ("left", "top", "right", "bottom"))
        map_ = np.reshape(found["maps"]["map"], photo.shape[:2])
        assert (map_[top:bottom, left:right] > 0).all()
        outside = map_.copy()
        outside[top:bottom, left:right] = 0
        assert not outside.any() and (right - left, bottom - top) == (262, 262)
        assert page.text("#framed") == "The model sees only the framed part of the picture."
        page.run("document.querySelector('#search').focus()")
        page.type("snow leopard")
        found = after(page, page.press, "Enter")
        assert "snow leopard" in page.text("#sentence")
        own = python(path, {"image": photo[None], "target": np.array([found["target"]])})
        assert_equal(found, {**own, "logits": own["linear"]})
        page.run("window.turns = 0")
        found = after(page, page.click, ".sample:nth-child(2)")
        assert found["milliseconds"] > 50 and page.run("window.turns") >= 3
        assert page.text("#top .name") == "espresso"
        assert page.said == [] and all(url.startswith(address) for url in page.requested)


def test_files_of_the_exporter_run_in_the_page(
    chrome: Chrome, photos: dict[str, Path], tmp_path: Path
) -> None:
    """A path method whose inputs must be fed, and a method without a sum; the page's numbers are those of the file."""
    preprocessing = Preprocessing((16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), resize=20)
    onnx.save(photo_classifier(), tmp_path / "net.onnx")
    model = convert(tmp_path / "net.onnx", preprocessing=preprocessing, class_names=NAMES)
    feeds = {"image": pixels(photos["wide"])[None], "target": np.array([-1])}
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        (
            "integrated-gradients",
            {"steps": 16, "check_for": "web"},
            "Yes: its parts sum",
            "Red",
        ),
        ("grad-cam", {}, "no sum to check", "Bright areas are where the last layers"),
    ]
    for method, settings, sums, sentence in cases:
        path = tmp_path / f"{method}.onnx"
        written = export_explainer(model, path, method, with_preprocessing=True, **settings)
        write_site(path, tmp_path / method, samples=[photos["wide"]])
        with serving(tmp_path / method) as address:
            page = opened(chrome, address)
            found = page.run("window.found")
            stored = {
                port.name: np.array(port.default, port.type)
                for port in written.description.inputs
                if port.default is not None
            }
            given = {name: value for name, value in stored.items() if settings and name not in feeds}
            expected = python(path, feeds | given)
            own, truth = np.array(found["maps"]["map"]), expected["map"].ravel()
            assert np.linalg.norm(own - truth) <= 1e-4 * np.linalg.norm(truth)
            assert sums in page.text("#completeness") and page.text("#sentence").startswith(sentence)
            if method == "integrated-gradients":
                np.testing.assert_allclose(found["delta"], expected["delta"][0], atol=1e-4)
                np.testing.assert_allclose(found["total"], expected["attribution"].sum(), rtol=1e-4)
            else:
                assert page.run("document.querySelector('#views').hidden")
            assert page.said == []
