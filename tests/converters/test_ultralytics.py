"""Metadata that Ultralytics stores in ONNX files: names, size and letterbox; nothing of it is evaluated."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxplain as ox
from analyzer.errors import TargetError
from tests.refusals.setting import model_of

NAMES = "{0: 'person', 1: 'bicycle', 2: \"cat's toy\"}"
DETECT = {
    "description": "Ultralytics YOLOv8n model",
    "stride": "32",
    "task": "detect",
    "imgsz": "[16, 24]",
    "names": NAMES,
}


def model(metadata: dict[str, str], shape: str = "1,3,H,W", outputs: int = 3) -> ox.Model:
    proto = model_of(
        f"g (float[{shape}] images) => (float[1,{outputs},P] output0) "
        "{ c = Conv(images, k) output0 = Reshape(c, s) }",
        k=np.ones((outputs, 3, 1, 1), np.float32),
        s=np.int64([0, outputs, -1]),
    )
    onnx.helper.set_model_props(proto, metadata)
    return ox.load(proto)


def linear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV's INTER_LINEAR, pixel by pixel: the four nearest pixels around the centre of each new one."""
    (h, w), (new_h, new_w) = image.shape[:2], size
    found = np.zeros((*size, 3))
    for i in range(new_h):
        for j in range(new_w):
            y, x = (
                min(max((k + 0.5) * old / new - 0.5, 0), old - 1)
                for k, old, new in ((i, h, new_h), (j, w, new_w))
            )
            t, s = int(y), int(x)
            b, r = min(t + 1, h - 1), min(s + 1, w - 1)
            top = image[t, s] * (1 - x + s) + image[t, r] * (x - s)
            bottom = image[b, s] * (1 - x + s) + image[b, r] * (x - s)
            found[i, j] = top * (1 - y + t) + bottom * (y - t)
    return found


def test_a_detector_is_fed_the_whole_image_on_grey():
    found = model(DETECT)
    assert found.class_names == ("person", "bicycle", "cat's toy")
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    sample = ox.load_images(picture, found)[0] * 255
    assert sample.shape == (3, 16, 24)
    np.testing.assert_allclose(sample[:, :, [0, 3, 20, 23]], 114, rtol=1e-5)
    np.testing.assert_allclose(sample[:, :, 4:20].transpose(1, 2, 0), linear(picture, (16, 16)), atol=1)


def test_a_classifier_is_fed_the_centre():
    found = model({**DETECT, "task": "classify", "imgsz": "[16, 16]"}).preprocessing
    assert (found.fit, found.resize, found.size, found.interpolation) == ("crop", 16, (16, 16), "bilinear")


def test_an_older_file_states_its_size_by_its_input():
    old = {"stride": "32", "names": "['person', 'bicycle', 'cat']"}
    assert model(old, "1,3,8,8").preprocessing.size == (8, 8)
    assert model(old).preprocessing is None
    assert model(old).class_names == ("person", "bicycle", "cat")
    assert model(DETECT, "1,3,8,8").preprocessing is None


def test_names_of_a_detector_are_not_those_of_its_elements():
    """Its first four are coordinates of a box: the class 0 is the element 4."""
    detector = model(DETECT, outputs=7)
    x = np.ones((1, 3, 4, 4), np.float32)
    with pytest.raises(TargetError, match="do not name the elements"):
        ox.full_grad(detector, x, "person")
    assert ox.full_grad(detector, x).class_names is None


@pytest.mark.parametrize(
    "names",
    [
        "__import__('os').system('true')",
        "{0: open('x')}",
        "(" * 10_000,
        "{0: 'a', 5: 'b'}",
        "{0: 3}",
        "7",
        "'a'",
        "x" * 2_000_000,
        "{[]: 1}",
    ],
    ids=range(9),
)
def test_other_texts_are_no_names(names):
    assert model({**DETECT, "names": names}).class_names is None


@pytest.mark.parametrize(
    "size", ["[0, 16]", "[1, 2, 3]", "'a'", "[999999, 999999]", "[1.5, 2]", "None", "((((", "{}"]
)
def test_other_sizes_are_no_preprocessing(size):
    assert model({**DETECT, "imgsz": size}).preprocessing is None
