"""Draw the figures of the documentation from a run of the demo: `python docs/make_figures.py`.

The script runs `onnxplain demo` in a temporary folder and combines its pictures in demo.png. It explains the cat with
the demo's ONNX file in full_grad.png and full_grad_layers.png. examples/02_gallery.py draws gallery.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from analyzer.cli import main
from analyzer.demo import PREPROCESSING, photographs
from analyzer.figures import overlay, panel, scale_of, smoothed
from analyzer.figures.images import photographs as as_pictures
from analyzer.figures.images import preprocess
from onnxplain import differentiate, full_grad

COLUMNS = {
    "photograph": "photograph",
    "input-term": "input × gradient",
    "full-grad": "FullGrad",
    "integrated-gradients": "Integrated Gradients",
}
ROWS = {"cat": "tiger cat", "coffee": "espresso"}


def draw(folder: Path, destination: Path) -> None:
    """Draw one row per photograph and one column per picture of the demo."""
    rows = []
    for name, label in ROWS.items():
        captions = [label, *list(COLUMNS.values())[1:]]
        pictures = [
            np.asarray(Image.open(folder / f"{name}-{column}.png", formats=["PNG"]).convert("RGB"))
            for column in COLUMNS
        ]
        rows.append(list(zip(captions, pictures, strict=True)))
    panel(rows, width=2.2).savefig(destination, dpi=110)


def draw_full_grad(network: Path, destination: Path) -> None:
    """Draw the cat's published map, its variant and the complete map, and the layers that add up to its logit."""
    inputs = preprocess(photographs()["cat"], PREPROCESSING)[None]
    drawn = as_pictures(inputs, PREPROCESSING)
    assert drawn is not None
    cat, fn = drawn[0], differentiate(str(network))
    paper = full_grad(fn, inputs, terms="explicit").map[0]
    library = full_grad(fn, inputs, terms="explicit", post_processing="pytorch-grad-cam").map[0]
    complete = full_grad(fn, inputs)
    plane = smoothed(complete.complete_map[0])
    panel(
        [
            [
                ("tiger cat", cat),
                ("FullGrad, as published", overlay(cat, paper), scale_of(paper, "saliency, without unit")),
                ("pytorch-grad-cam's", overlay(cat, library), scale_of(library, "saliency, without unit")),
                (
                    f"complete map, sums to {complete.complete_map[0].sum():.2f}",
                    overlay(cat, plane, signed=True),
                    scale_of(plane, "logit per pixel", signed=True),
                ),
            ]
        ],
        width=2.4,
    ).savefig(destination / "full_grad.png", dpi=110)
    complete.bar_chart(most=20).savefig(destination / "full_grad_layers.png", dpi=100)


if __name__ == "__main__":
    docs = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        if status := main(["demo", "-o", folder]):
            sys.exit(status)
        draw(Path(folder), docs / "demo.png")
        draw_full_grad(Path(folder) / "efficientnet-lite0.onnx", docs)
