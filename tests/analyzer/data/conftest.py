"""A model in a file, and photographs in class folders."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.analyzer.data.networks import CLASSES, image_model
from tests.analyzer.data.runs import table_rows, table_truth, undisturbed  # noqa: F401


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """The image network, with its preprocessing and class names."""
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(image_model().proto, path)
    return str(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of nine photographs of cats and dogs, in sub-folders."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(9):
        folder = root / CLASSES[k % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (20 + k, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"img{k}.png")
    return root
