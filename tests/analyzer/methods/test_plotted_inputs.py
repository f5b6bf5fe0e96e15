"""`plot` takes the inputs that were explained as people have them, and refuses others with a fix."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import onnxplain as ox
from tests.refusals.setting import CONV, DENSE, IMAGES, X

TWO, ONE = ox.full_grad(CONV, IMAGES, 1), ox.full_grad(CONV, IMAGES[:1], 1)
PICTURE = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))


@pytest.mark.parametrize(
    ("result", "images"),
    [
        (TWO, IMAGES),
        (TWO, [PICTURE, PICTURE]),
        (TWO, np.zeros((2, 16, 16, 3), np.uint8)),
        (ONE, PICTURE),
        (ONE, np.asarray(PICTURE)),
        (ONE, IMAGES[0]),
        (TWO, None),
    ],
    ids=range(7),
)
def test_pictures_of_the_samples_are_drawn(result, images):
    # An axis for each sample, of the photograph and of the overlay, and their scales.
    assert len(result.plot(images).axes) >= len(result.output)


@pytest.mark.parametrize(
    ("result", "images", "words"),
    [
        (
            TWO,
            IMAGES[:1],
            "of the 2 samples that were explained, got 1. Fix: cut the result, too, as in result[:1]",
        ),
        (TWO, PICTURE, "of the 2 samples"),
        (TWO, [PICTURE, PICTURE.resize((3, 3))], "different sizes"),
        (ONE, PICTURE.resize((8, 5)), "do not have the proportions of the maps"),
        (ONE, "cat.png", "onnxplain.load_images"),
        (ox.gradient(DENSE, X, 1), X[:1], "of the 2 samples"),
    ],
    ids=range(6),
)
def test_other_pictures_are_refused_with_a_fix(result, images, words):
    with pytest.raises(ValueError) as caught:
        result.plot(images)
    assert words in str(caught.value) and "Fix: " in str(caught.value)
