"""Draw the picture of docs/paths.md: two photographs with the path methods, on the demo's trained network.

Expected Gradients average over six other photographs of scikit-image. The script prints the expected and the computed
sum of each method. It needs the extra "demo" and takes several minutes.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import onnxplain as ox
from analyzer.demo import PREPROCESSING, load_network, photographs
from analyzer.figures import panel, preprocess
from analyzer.figures.picture import Picture
from analyzer.methods.pictures import sample_pictures

BACKGROUND = ("astronaut", "camera", "coins", "moon", "page", "rocket")


def background() -> np.ndarray:
    """Return the other photographs as inputs of the network, (6, 3, 224, 224)."""
    from skimage import color, data

    images = [getattr(data, name)() / 255 for name in BACKGROUND]
    colour = [image if image.ndim == 3 else color.gray2rgb(image) for image in images]
    return np.stack([preprocess(image.astype(np.float32), PREPROCESSING) for image in colour])


def draw(destination: Path) -> None:
    """Draw the picture and save it."""
    pictures = photographs()
    inputs = np.stack([preprocess(picture, PREPROCESSING) for picture in pictures.values()])
    fn = ox.differentiate(ox.convert(load_network(), inputs, preprocessing=PREPROCESSING))
    results = [
        ox.expected_gradients(fn, inputs, None, background=background()),
        ox.blur_integrated_gradients(fn, inputs),
        ox.guided_integrated_gradients(fn, inputs, baseline="black"),
        ox.xrai(fn, inputs),
    ]
    for result in results:
        if (sums := result.completeness) is not None:
            print(result.label, "must sum to", sums.output, "and sums to", sums.total)
    drawn = sample_pictures(results, {fn.graph.inputs[0]: inputs}, PREPROCESSING)
    rows = [[_captioned(picture) for picture in sample.values()] for sample in drawn]
    panel(rows, width=2.2).savefig(destination, dpi=110)


def _captioned(picture: Picture) -> tuple[str, np.ndarray]:
    return picture.caption, np.asarray(Image.open(io.BytesIO(picture.png), formats=["PNG"]).convert("RGB"))


if __name__ == "__main__":
    draw(Path(__file__).parent / "paths.png")
