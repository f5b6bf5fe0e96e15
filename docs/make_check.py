"""Draw docs/check.png, the page of a failed check: `python docs/make_check.py`.

The script converts the demo's classifier, changes one weight of the original, and checks the backends against it. A
headless Chromium, which must be installed, takes a screenshot of the upper part of the page.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from analyzer.demo import PREPROCESSING, load_network, photographs
from analyzer.figures import preprocess
from onnxplain import check, convert

LAYER = "_blocks.6._depthwise_conv.weight"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1180, 1850


def write_page(path: Path) -> None:
    """Check the classifier against an original with one depthwise convolution that is 5 % too strong."""
    inputs = np.stack([preprocess(picture, PREPROCESSING) for picture in photographs().values()])
    model = convert(load_network(), inputs, preprocessing=PREPROCESSING)
    assert model.source is not None
    with torch.no_grad():
        model.source.program.state_dict[LAYER] *= 1.05
    check(model, inputs, steps=4).to_html(path, "EfficientNet-Lite0, one weight changed after conversion")


def photograph(page: Path, destination: Path) -> None:
    """Save a screenshot of the upper part of a page."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"no browser: one of {', '.join(BROWSERS)} is needed")
    shot = page.with_suffix(".png")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command = [found, *options, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    Image.open(shot, formats=["PNG"]).convert("RGB").save(destination, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "check.html"
        write_page(written)
        photograph(written, Path(__file__).parent / "check.png")
