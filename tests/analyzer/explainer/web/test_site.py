"""Sites as folders: what is written, what is refused, how they are served, and what the commands say."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from analyzer.cli.app import main
from analyzer.errors import ExportError
from analyzer.explainer.web import serve, write_site
from analyzer.explainer.web.description import read_description
from analyzer.explainer.web.vendored import FOLDER, versions
from analyzer.explainer.web.views import views_of
from analyzer.figures.heat import PIXELS, REGIONS
from tests.analyzer.explainer.web.chrome import Chrome
from tests.analyzer.explainer.web.conftest import serving
from tests.analyzer.explainer.web.standins import described

ROOT = Path(__file__).parents[4]


def test_a_site_feeds_all_inputs_of_its_model(photo_file: Path, photo_site: Path) -> None:
    page = json.loads((photo_site / "explainer.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(photo_site / "model.onnx"))
    assert {one.name for one in session.get_inputs()} == {"image", "target"} == set(page["page"]["fed"])
    assert not session.get_overridable_initializers() and not session.get_modelmeta().custom_metadata_map
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 7, 3)).astype(np.uint8)
    own = session.run(None, {"image": image, "target": np.array([3])})
    given = onnxruntime.InferenceSession(str(photo_file)).run(None, {"image": image, "target": np.array([3])})
    for one, other in zip(own, given, strict=True):
        np.testing.assert_array_equal(one, other)
    written = {path.relative_to(photo_site).as_posix() for path in photo_site.rglob("*") if path.is_file()}
    assert written == set(page["files"])
    assert page["page"]["files"]["model"]["bytes"] == (photo_site / "model.onnx").stat().st_size


def test_the_vendored_files_are_those_of_their_versions(photo_site: Path) -> None:
    names = {path.name.removesuffix(".gz") for path in FOLDER.iterdir()} - {"versions.json"}
    assert names == set(versions()) and any("LICENSE" in name for name in names)
    for name, entry in versions().items():
        path = photo_site / "vendor" / name
        if entry["package"] == "onnxruntime-web":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
            assert entry["version"] == "1.30.0"
        else:
            assert not path.exists(), "a site of pictures has no tokenizer"
    assert b"ONNX Runtime Web v1.30.0" in (photo_site / "vendor" / "ort.wasm.bundle.min.mjs").read_bytes()


def test_all_files_of_the_page_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = [*project["tool"]["setuptools"]["package-data"]["*"], "*.py"]
    held = [path for path in FOLDER.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(held) > 20
    assert not [path.name for path in held if not any(fnmatch(path.name, pattern) for pattern in patterns)]


def test_the_page_names_no_other_host(photo_site: Path, text_site: Path) -> None:
    for site in (photo_site, text_site):
        for path in (*site.glob("*.js"), *site.glob("*.css"), site / "index.html"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"https?://|//cdn|innerHTML|eval\(|new Function|document\.write", text), path


def test_the_title_is_text(photo_site: Path) -> None:
    page = (photo_site / "index.html").read_text(encoding="utf-8")
    assert "<h1>A &lt;small&gt; network &amp; its map</h1>" in page and "<small>" not in page


def test_samples_are_written_without_their_metadata(photo_file: Path, tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "SecretCamera", 6
    photo.save(tmp_path / "my photo.jpg", exif=exif)
    write_site(photo_file, tmp_path / "site", samples=[tmp_path / "my photo.jpg"])
    (sample,) = (tmp_path / "site" / "samples").iterdir()
    assert sample.name == "1-my-photo.jpg" and b"SecretCamera" not in sample.read_bytes()
    with Image.open(sample) as written:
        # Upright: the camera was turned.
        assert written.size == (30, 20) and not written.getexif()


def test_a_site_replaces_an_earlier_one_and_nothing_else(
    photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    write_site(photo_file, site)
    write_site(photo_file, site, title="Again")
    assert "Again" in (site / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    (site / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"found 'thesis.txt' in it. Fix"):
        write_site(photo_file, site)
    assert (site / "thesis.txt").read_text() == "mine"
    monkeypatch.chdir(site)
    with pytest.raises(ExportError, match="it is the current one"):
        write_site(photo_file, ".")
    other = tmp_path / "other"
    other.mkdir()
    (other / "explainer.json").write_text('{"files": ["explainer.json"]}')
    for place in (other, other / "explainer.json"):
        with pytest.raises(ExportError, match="Fix: give a"):
            write_site(photo_file, place)


def test_other_inputs_become_constants(text_file: Path, tmp_path: Path) -> None:
    """The page feeds no baseline: its default stays in the model, from the file or from its description."""
    proto = onnx.load(text_file)
    graph = proto.graph
    graph.node.append(onnx.helper.make_node("Add", ["explained", "baseline"], ["moved"]))
    graph.output.append(onnx.helper.make_tensor_value_info("moved", onnx.TensorProto.FLOAT, ["batch"]))
    graph.input.append(onnx.helper.make_tensor_value_info("baseline", onnx.TensorProto.FLOAT, ["batch"]))
    port = {
        "name": "baseline",
        "role": "baseline",
        "shape": ["batch"],
        "type": "float32",
        "meaning": "",
        "default": 100.0,
    }
    described(lambda stored: stored["inputs"].append(port))(proto)
    onnx.save(proto, tmp_path / "moved.onnx")
    write_site(tmp_path / "moved.onnx", tmp_path / "site")
    session = onnxruntime.InferenceSession(str(tmp_path / "site" / "model.onnx"))
    assert {one.name for one in session.get_inputs()} == {"ids", "target"}
    feeds = {"ids": np.ones((1, 24), np.int64), "target": np.array([-1])}
    explained, moved = session.run(["explained", "moved"], feeds)
    np.testing.assert_allclose(moved, explained + 100, rtol=1e-6)
    # Noise that is the same everywhere is no noise; a baseline without a value is unknown.
    for change, reason in (({"role": "noise"}, "stored noise"), ({"default": None}, "a default value")):
        described(lambda stored, change=change: stored["inputs"][-1].update(change))(proto)
        onnx.save(proto, tmp_path / "moved.onnx")
        with pytest.raises(ExportError, match=reason):
            write_site(tmp_path / "moved.onnx", tmp_path / "site")


def test_each_kind_of_method_has_its_views(photo_file: Path) -> None:
    def views(change: Callable[[dict[str, Any]], object]) -> list[tuple[Any, ...]]:
        proto = onnx.load(photo_file)
        described(change)(proto)
        found = views_of(read_description(proto), text=False)
        return [(one["key"], one["output"], one["absolute"], one["smoothing"]) for one in found]

    def like(method: str, *, signed: bool) -> Callable[[dict[str, Any]], object]:
        def change(stored: dict[str, Any]) -> None:
            stored.update(method=method, signed=signed)
            stored["outputs"][2]["role"] = "attribution"

        return change

    signed_map = ("signed", "complete_map", False, REGIONS)
    assert views(lambda one: None) == [("importance", "map", False, 0.0), signed_map]
    assert views(like("grad-cam", signed=False)) == [("importance", "map", False, 0.0)]
    both = [("signed", "map", False, PIXELS), ("importance", "map", True, PIXELS)]
    assert views(like("integrated-gradients", signed=True)) == both


def test_a_site_is_served_on_this_computer_alone(photo_site: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"index\.html, found none. Fix: write it with onnxplain web"):
        serve(tmp_path)
    with serving(photo_site) as address:
        kinds = {
            "": "text/html", "app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml",
            "vendor/ort.wasm.bundle.min.mjs": "text/javascript", "explainer.json": "application/json",
            "vendor/ort-wasm-simd-threaded.wasm": "application/wasm", "model.onnx": "application/octet-stream",
        }  # fmt: skip
        for name, kind in kinds.items():
            with urllib.request.urlopen(address + name) as answer:
                assert answer.headers["Content-Type"].split(";")[0] == kind
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        host = address.removeprefix("http://").rstrip("/")
        assert host.startswith("127.0.0.1:")
        for path in ("/vendor/", "/../conftest.py", "/%2e%2e/%2e%2e/etc/passwd", "/nothing"):
            connection = http.client.HTTPConnection(host)
            connection.request("GET", path)
            assert connection.getresponse().status == 404
            connection.close()


def test_serve_prints_the_address_and_ends_with_ctrl_c(photo_site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onnxplain", "serve", str(photo_site), "--port", "0", "--no-open"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
        port = address.rstrip("/").rsplit(":", 1)[1]
        taken = subprocess.run(
            [*command[:4], str(photo_site), "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert taken.returncode == 2 and "Fix: give another, or 0 for a free one" in taken.stderr
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0 and "Traceback" not in said and "has ended" in said


def test_web_tells_what_it_wrote(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site"
    assert (
        main(["web", str(text_file), "-o", str(site), "--sample", "a film", "--title", "Films", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["kind"], found["title"], found["method"]) == (
        "web",
        "text",
        "Films",
        "FullGrad",
    )
    assert found["bytes"] == sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert main(["web", str(text_file), "-o", str(site)]) == 0
    assert f"onnxplain serve {site}" in " ".join(capsys.readouterr().out.split())


def test_the_demo_refuses_options_of_its_other_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in (["--web", "--quick"], ["--web", "--backends", "torch"], ["--port", "0"], ["--no-open"]):
        assert main(["demo", *options]) == 2
        said = capsys.readouterr().err.strip()
        assert "Fix:" in said and "\n" not in said and "internal error" not in said
    assert not list(tmp_path.iterdir())


def test_the_page_says_what_is_wrong_with_its_folder(
    chrome: Chrome, photo_site: Path, tmp_path: Path
) -> None:
    """Copied under any path; and with a file that is missing, cut short or of another kind."""
    (tmp_path / "index.html").write_text("<!doctype html>")
    site = tmp_path / "my sites" / "ü" / "cats"
    with serving(tmp_path) as address:
        page = chrome.page()

        def told() -> str:
            page.open(f"{address}my%20sites/%C3%BC/cats/")
            page.until(
                "!document.querySelector('#problem').hidden || !document.querySelector('#check').hidden"
            )
            return page.text("#problem")

        shutil.copytree(photo_site, site)
        assert told() == "" and page.said == []
        model = site / "model.onnx"
        content = model.read_bytes()
        model.write_bytes(content[:-100])
        assert "model.onnx is incomplete" in told()
        model.write_bytes(content + b"\0")
        assert "is not the one that this page was made with" in told()
        model.write_bytes(b"\0" * len(content))
        assert told().startswith("The model could not be loaded: ")
        model.unlink()
        assert "model.onnx could not be loaded (404)" in told()
        (site / "explainer.json").unlink()
        assert "explainer.json could not be loaded" in told()
        assert page.run("document.querySelector('#loading').hidden")
        # Opened as a file no module runs: the page says how to serve it.
        page.call("Page.navigate", {"url": (photo_site / "index.html").as_uri()})
        page.until("document.querySelector('#opened-as-file')?.textContent.includes('onnxplain serve')", 10)
