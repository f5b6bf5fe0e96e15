"""Draw the pictures of docs/gallery.md: the photographs of the demo under every method, on its trained network.

Writes docs/gallery/NAME-METHOD.jpg. It needs the extra "demo" and takes a few minutes.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from make_paths import background
from PIL import Image

import onnxplain as ox
from analyzer.demo import PREPROCESSING, load_network, photographs
from analyzer.figures import preprocess
from analyzer.methods.pictures import sample_pictures

QUALITY = 88


def draw(folder: Path) -> None:
    """Explain both photographs with every method, and save each picture."""
    pictures = photographs()
    inputs = np.stack([preprocess(picture, PREPROCESSING) for picture in pictures.values()])
    fn = ox.differentiate(ox.convert(load_network(), inputs, preprocessing=PREPROCESSING))
    results = [
        ox.gradient(fn, inputs),
        ox.smooth_grad(fn, inputs, samples=25, noise=0.1),
        ox.full_grad(fn, inputs),
        ox.simple_full_grad(fn, inputs),
        ox.integrated_gradients(fn, inputs, baseline="black", tolerance=0.02),
        ox.expected_gradients(fn, inputs, None, background=background(), samples=100),
        ox.blur_integrated_gradients(fn, inputs, steps=50),
        ox.guided_integrated_gradients(fn, inputs, baseline="black", steps=100),
        ox.xrai(fn, inputs, steps=20),
        ox.grad_cam(fn, inputs),
        ox.grad_cam_plus_plus(fn, inputs),
        ox.layer_cam(fn, inputs),
    ]
    folder.mkdir(exist_ok=True)
    drawn = sample_pictures(results, {fn.graph.inputs[0]: inputs}, PREPROCESSING)
    for name, sample in zip(pictures, drawn, strict=True):
        for key, picture in sample.items():
            image = Image.open(io.BytesIO(picture.png), formats=["PNG"]).convert("RGB")
            image.save(folder / f"{name}-{key}.jpg", quality=QUALITY, optimize=True)
            print(key, picture.caption)


if __name__ == "__main__":
    draw(Path(__file__).parent / "gallery")
