"""The page explains a photograph in a real browser, with Python's numbers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.analyzer.figures.browser import browser
from tests.examples.explainer.programs import EXAMPLES, browse, copied

DRIVER = Path(__file__).with_name("driver.html")


def outputs(path, image, target):
    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {"image": image[None], "target": np.array([target])}), strict=True)
    )


@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
def test_the_page_explains_a_photograph(made, packages, tmp_path):
    folder = copied("browser", tmp_path, packages)
    shutil.copy(DRIVER, folder)
    shutil.copy(EXAMPLES / "node" / "refine.mjs", folder)
    shutil.copy(made.folder / "photograph.png", folder)
    shutil.copy(made.folder / "photograph-web.onnx", folder / "explainer.onnx")
    found = browse(folder, DRIVER.name, tmp_path / "profile")
    assert found["errors"] == []
    (height, width), highest = found["size"], outputs(folder / "explainer.onnx", made.photograph, -1)
    assert (height, width) == made.photograph.shape[:2]
    _, first, second, wrong = found["said"]
    words = re.fullmatch(r"Class (\d), output (\S+), completeness error (\S+)", first)
    assert words and int(words[1]) == highest["explained_target"][0]
    assert abs(float(words[2]) - highest["explained"][0]) <= 1e-3 and float(words[3]) <= 1e-4
    # The page shows the photograph under its overlay.
    bare, overlay = (Image.fromarray(one).convert("RGBA") for one in (made.photograph, highest["overlay"][0]))
    pixels = np.reshape(found["pixels"], (height, width, 4))
    assert np.abs(pixels.astype(int) - np.asarray(Image.alpha_composite(bare, overlay))).max() <= 3
    # Another class has another map.
    chosen = outputs(folder / "explainer.onnx", made.photograph, 3)["map"]
    assert second.startswith("Class 3, output ")
    assert np.linalg.norm(np.reshape(found["map"], chosen.shape) - chosen) <= 1e-5 * np.linalg.norm(chosen)
    assert "Explaining" not in wrong and len(wrong) > 0
    # Refinement runs in the browser, too: from 1 to 3, a² grows by 8.
    assert found["refined"]["converged"] and abs(found["refined"]["attribution"][0] - 8) <= 1e-5
