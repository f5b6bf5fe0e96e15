"""--detection, --box and --segmentation: the list, the explained box, and pictures without the input's padding."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from analyzer.images.letterbox import Letterbox
from analyzer.images.preprocess import preprocess
from converters import Preprocessing, set_metadata
from tests.analyzer.cli.conftest import build

SIZE = 64


def detector(layout="yolov8"):
    """64 anchors of 8 × 8 pixels: each scores the mean red, or green, of its pixels; its box is its cell."""
    weights = np.zeros((2, 3, 8, 8), np.float32)
    weights[0, 0], weights[1, 1] = 1 / 64, 1 / 64
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8))).reshape(2, 64) * 8.0 + 4
    boxes = np.concatenate([cells, np.full((2, 64), 8.0)])[None].astype(np.float32)
    constants = {"w": weights, "boxes": boxes, "s": np.array([0, 2, 64])}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["means"], name="head", strides=[8, 8]),
        helper.make_node("Reshape", ["means", "s"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], axis=1),
    ]
    return build(nodes, [("image", [1, 3, SIZE, SIZE])], [("y", [1, 6, 64])], constants)


def selecting():
    """The same detector, which gives the boxes that it selects itself."""
    model = detector()
    constants = {"zero": [0], "four": [4], "six": [6], "one": [1]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value), name) for name, value in constants.items()
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(9, np.int64), "most"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["y", "zero", "four", "one"], ["b"]),
            helper.make_node("Slice", ["y", "four", "six", "one"], ["c"]),
            helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
            helper.make_node(
                "NonMaxSuppression", ["t", "c", "most", "half", "half"], ["kept"], center_point_box=1
            ),
            helper.make_node("Cast", ["kept"], ["found"], to=TensorProto.FLOAT),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("found", TensorProto.FLOAT, [None, 3]))
    return model


@pytest.fixture
def folder(command, tmp_path, monkeypatch):
    named = detector()
    set_metadata(named, class_names=["red", "green"])
    onnx.save(named, tmp_path / "yolo.onnx")
    onnx.save(selecting(), tmp_path / "selecting.onnx")
    # Twice as wide as high: in an input of 64 × 64 it fills the rows from 16 to 48. Black, with a red and a green cell.
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[16:32, 32:48, 0] = 255
    pixels[32:48, 96:112, 1] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_boxes_are_listed_in_pixels_of_the_photograph(folder, command):
    status, out, _ = command("analyze", "yolo.onnx", "wide.png", "--detection", "auto", "--min-score", "0.6")
    assert status == 0
    rows = [line.split() for line in out.splitlines() if "red" in line or "green" in line]
    assert [(*row[-7:-5], *row[-4:]) for row in rows] == [
        ("0", "red", "32,", "16,", "48,", "32"),
        ("1", "green", "96,", "32,", "112,", "48"),
    ]
    _, out, _ = command("analyze", "yolo.onnx", "wide.png", "--detection", "yolov8", "--json")
    first = json.loads(out)["detections"][0]
    assert (first["class_name"], first["anchor"], first["layout"]) == ("red", 8 * 3 + 2, "yolov8")
    np.testing.assert_allclose(first["box"], [16, 24, 24, 32], atol=1e-4)
    np.testing.assert_allclose(first["box_in_photograph"], [32, 16, 48, 32], atol=1e-3)


def test_a_box_is_explained_over_the_original_photograph(folder, command):
    options = ("--detection", "yolov8", "--box", "1", "-o", "out", "--json", "--min-score", "0.6")
    status, out, _ = command("analyze", "yolo.onnx", "wide.png", *options)
    document = json.loads(out)
    assert status == 0 and document["explained"][0]["class_name"] == "green"
    pixels = np.asarray(Image.open(folder / "wide.png"))
    x = preprocess(pixels, Preprocessing((SIZE, SIZE), (0.0,), (1.0,), fit="pad"))
    mean = x[1, 16 + 16 : 16 + 24, 48:56].mean()
    assert document["samples"][0]["methods"]["full-grad"]["output"] == pytest.approx(mean, rel=1e-4)
    picture = np.asarray(Image.open(folder / "out" / "wide-full-grad.png").convert("RGB"), float)
    height, width = picture.shape[:2]
    assert width == 2 * height
    # The map is bright at the green cell, and nowhere at the red one.
    scale = height / 64
    cell = picture[int(34 * scale) : int(46 * scale), int(98 * scale) : int(110 * scale)]
    red = picture[int(18 * scale) : int(30 * scale), int(34 * scale) : int(46 * scale)]
    assert cell[..., 0].mean() > 100 and red[..., 1].mean() < 60
    _, shown, _ = command("analyze", "yolo.onnx", "wide.png", *options[:4], "--min-score", "0.6")
    assert f"green {mean:.2f}, box 1" in shown


def test_the_default_target_of_a_detector_is_noted(folder, command):
    _, _, errors = command("analyze", "yolo.onnx", "wide.png")
    assert "--detection auto lists the boxes" in errors
    _, _, errors = command("analyze", "yolo.onnx", "wide.png", "--target", "4:26")
    assert "--detection" not in errors


def test_segmentation_is_short_for_a_predicted_mask(command, tmp_path, monkeypatch):
    weights = {"w": np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"], name="head")]
    model = build(nodes, [("image", ["N", 3, 4, 4])], [("y", ["N", 3, 4, 4])], weights)
    set_metadata(model, class_names=["sky", "road", "car"])
    onnx.save(model, tmp_path / "seg.onnx")
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("analyze", "seg.onnx", "x.npy", "--segmentation", "road", "--json")
    y = np.einsum("oi,nihw->nohw", weights["w"][..., 0, 0], x)
    expected = y[:, 1][y.argmax(axis=1) == 1].sum()
    found = json.loads(out)["samples"][0]["methods"]["full-grad"]["output"]
    assert status == 0 and found == pytest.approx(expected, rel=1e-4)
    status, _, errors = command("analyze", "seg.onnx", "x.npy", "--segmentation", "1", "--target", "2")
    assert status == 2 and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--box", "1"), "--box goes with --detection"),
        (("--detection", "yolov8", "--target", "1"), "--detection explains a box"),
        (("--detection", "yolov8", "--box", "7", "--min-score", "0.6"), "wide.png has 2 boxes"),
        (("--detection", "yolov8", "--box", "first"), "expected a number of the list"),
        (("--detection", "yolov8", "--box", "0,1"), "or one for each of 1 samples"),
        (("--detection", "ssd"), "expected one output"),
    ],
)
def test_bad_options_end_in_one_line_with_a_fix(folder, command, options, message):
    status, out, errors = command("analyze", "yolo.onnx", "wide.png", *options)
    told = [line for line in errors.splitlines() if line.startswith("onnxplain: ")]
    assert status == 2 and not out and len(told) == 1
    assert message in told[0] and "Fix: " in told[0]


def test_a_model_that_selects_boxes_names_the_tensor_before(folder, command):
    status, _, errors = command("analyze", "selecting.onnx", "wide.png", "--detection", "auto")
    assert status == 2 and "NonMaxSuppression" in errors
    assert "explain output='y' with layout='yolov8'" in errors and "--detection-output" in errors
    options = ("--detection", "auto", "--detection-output", "y", "--min-score", "0.6")
    status, out, _ = command("analyze", "selecting.onnx", "wide.png", *options)
    assert status == 0 and "output 'y'" in out
    status, _, errors = command("analyze", "selecting.onnx", "wide.png")
    assert status == 2 and errors.count("onnxplain: ") == 1
    assert "onnxplain.targets.detection('y', 'yolov8', box=…, score=…)" in errors
    status, out, _ = command("inspect", "selecting.onnx", "--json")
    assert json.loads(out)["selects_boxes"]["output"] == "y"
    _, out, _ = command("inspect", "selecting.onnx")
    assert "explain output='y' with layout='yolov8'" in " ".join(out.split())


@pytest.mark.parametrize("shape", [(64, 128), (100, 60), (33, 64), (7, 200), (64, 64)])
def test_a_letterbox_is_where_the_preprocessing_puts_the_photograph(shape):
    white = np.ones((*shape, 3), np.float32)
    padded = preprocess(white, Preprocessing((64, 64), (0.0,), (1.0,), fit="pad"))[0]
    box = Letterbox.of(shape, (64, 64))
    filled = np.zeros((64, 64), bool)
    filled[box.top : box.top + box.height, box.left : box.left + box.width] = True
    np.testing.assert_array_equal(padded > 0.99, filled)
    assert box.cut(padded, (64, 64)).min() > 0.99
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    np.testing.assert_allclose(box.back(corners), (0, 0, shape[1], shape[0]))
