"""Maps of several methods in the same colours: by rank, whatever their units."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from analyzer.methods import Attribution
from analyzer.methods.pictures import on_one_scale
from converters.model import Preprocessing

SIZE = 24
HOW = Preprocessing((SIZE, SIZE))


def result(values, method):
    maps = np.asarray(values, np.float32)[None]
    return Attribution(
        maps=maps, output=np.ones(1), target=np.array([0]), signed=False, wrt=("x",), method=method
    )


def test_maps_that_differ_by_a_monotone_function_have_one_picture():
    ramp = np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(float)
    inputs = {"x": np.full((1, 3, SIZE, SIZE), 0.5, np.float32)}
    plain, scaled, other = (
        result(ramp, "grad-cam"), result(1024 * ramp, "layer-cam"), result(ramp[::-1], "gradient")
    )  # fmt: skip
    ((first, second, third),) = on_one_scale([plain, scaled, other], inputs, HOW)
    assert first.png == second.png != third.png and first.scale == third.scale
    pixels = np.asarray(Image.open(io.BytesIO(first.png)).convert("L"), float)
    corner = len(pixels) // 6
    assert pixels[-corner:, -corner:].mean() > 1.5 * pixels[:corner, :corner].mean()
    assert on_one_scale([plain], inputs, HOW) == [[]]


def test_the_strongest_tenth_of_a_flat_map_is_about_a_tenth_of_it():
    rng = np.random.default_rng(0)
    flat = 100 + rng.random((SIZE, SIZE))
    inputs = {"x": np.zeros((1, 3, SIZE, SIZE), np.float32)}
    ((first, _),) = on_one_scale([result(flat, "grad-cam"), result(flat, "layer-cam")], inputs, HOW)
    # Smoothing keeps within the border what would fall beyond it.
    assert first.note in (f"its strongest tenth holds {share} % of the map" for share in (10, 11))
