"""Candidates and targets of tiny detectors, against PyTorch's gradients and suppression worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser

import onnxplain as ox
from analyzer.errors import TargetError
from analyzer.target.suppressed import before_suppression
from analyzer.targets.layouts import guess_layout, read_layout
from analyzer.targets.suppression import overlaps, suppress
from tests.analyzer.targets.detectors import SIZE, Detector, element

LAYOUTS = ["yolov8", "yolov5", "ssd", "detr"]
NAMES = ("ant", "bee", "cat")
X = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)


@pytest.fixture(scope="module")
def detectors():
    found = {}
    for layout in LAYOUTS:
        net = Detector(layout).eval()
        found[layout] = net, ox.convert(net, torch.from_numpy(X), class_names=NAMES)
    return found


def named(layout, index):
    """The name of a class as an output counts it: 0 is the background of ssd."""
    return NAMES[index - 1] if layout == "ssd" else NAMES[index]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_a_candidate_is_that_of_its_score(detectors, layout):
    net, model = detectors[layout]
    fn = ox.differentiate(model)
    found = ox.targets.candidates(fn, X, layout, min_score=0.05)
    assert {one.sample for one in found} == {0, 1}
    x = torch.from_numpy(X).requires_grad_()
    outputs = net(x)
    for one in (found[0], next(one for one in found if one.sample == 1)):
        scores = element(layout, outputs, one.anchor, one.class_index)
        (expected,) = torch.autograd.grad(scores.sum(), x, retain_graph=True)
        pure = ox.targets.detection(one.output, layout, box=one.anchor, score=one.class_index)
        assert pure == one.target == ox.targets.detection(box=one)
        gradients = fn.gradients(X, pure)
        np.testing.assert_allclose(gradients.output, scores.detach(), rtol=1e-5)
        np.testing.assert_allclose(gradients.gradients["x"], expected, rtol=1e-4, atol=1e-6)
        assert one.class_name == named(layout, one.class_index)
    second = next(one for one in found if one.sample == 1)
    numbered = ox.targets.detection(layout=layout, box=0, model=fn, inputs=X, min_score=0.05)
    value = fn.gradients(X, numbered).output
    for row, one in enumerate((found[0], second)):
        scores = element(layout, outputs, one.anchor, one.class_index)
        np.testing.assert_allclose(value[row], scores[row].item(), rtol=1e-5)
    bee = ox.targets.detection(layout=layout, box=[0, 0], score="bee", model=fn, inputs=X, min_score=0.05)
    scores = element(layout, outputs, found[0].anchor, 2 if layout == "ssd" else 1)
    np.testing.assert_allclose(fn.gradients(X, bee).output[0], scores[0].item(), rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_and_boxes_are_those_of_the_layout(detectors, layout):
    """The probability and the corners of every candidate, from the outputs of PyTorch."""
    net, model = detectors[layout]
    with torch.no_grad():
        outputs = net(torch.from_numpy(X))
    found = ox.targets.candidates(model, X, layout, min_score=0.0, overlap=1.0)
    for one in found[:5]:
        if layout in ("yolov8", "yolov5"):
            row = (outputs[one.sample] if layout == "yolov5" else outputs[one.sample].T)[one.anchor]
            x, y, w, h = row[:4]
            expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            score = row[4 + one.class_index] if layout == "yolov8" else row[4] * row[5 + one.class_index]
        else:
            row, box = outputs[0][one.sample, one.anchor], outputs[1][one.sample, one.anchor] * SIZE
            score = (row.softmax(0) if layout == "detr" else row)[one.class_index]
            x, y, w, h = box
            expected = box if layout == "ssd" else [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        np.testing.assert_allclose(one.box, [float(v) for v in expected], rtol=1e-4, atol=1e-4)
        assert one.score == pytest.approx(float(score), rel=1e-5)
    by_sample = [one.score for one in found if one.sample == 0]
    assert by_sample == sorted(by_sample, reverse=True) and len(by_sample) <= 64


def test_the_layout_is_found_where_shapes_and_names_allow_one(detectors):
    for layout in ("yolov8", "yolov5", "ssd"):
        _, model = detectors[layout]
        assert {one.layout for one in ox.targets.candidates(model, X, min_score=0.0)} == {layout}
    plain = lambda *shapes: {f"y{k}": np.zeros(shape, np.float32) for k, shape in enumerate(shapes)}  # noqa: E731
    no = lambda name: False  # noqa: E731
    assert guess_layout(plain((1, 84, 8400)), None, no) == "yolov8"
    assert guess_layout(plain((1, 25200, 85)), None, no) == "yolov5"
    assert guess_layout(plain((1, 84, 84)), None, no) is None
    assert guess_layout(plain((1, 300, 6)), None, no) is None
    assert guess_layout(plain((1, 1000)), None, no) is None
    detr = {"logits": np.zeros((1, 100, 92)), "pred_boxes": np.zeros((1, 100, 4))}
    detr = {name: array.astype(np.float32) for name, array in detr.items()}
    assert guess_layout(detr, None, no) == "detr"
    assert guess_layout(plain((1, 100, 4), (1, 100, 9)), None, no) is None


def test_scores_of_transformers_are_told_from_features_and_read_with_or_without_no_object():
    rng = np.random.default_rng(0)
    outputs = {
        "last_hidden_state": rng.normal(size=(1, 5, 8)),
        "logits": rng.normal(size=(1, 5, 4)),
        "pred_boxes": rng.random((1, 5, 4)),
    }
    found = read_layout("detr", outputs, (10, 20), classes=3)
    powers = np.exp(outputs["logits"])
    np.testing.assert_allclose(found.scores, (powers / powers.sum(2, keepdims=True))[:, :, :3])
    x, y, w, h = np.moveaxis(outputs["pred_boxes"], 2, 0)
    corners = [(x - w / 2) * 20, (y - h / 2) * 10, (x + w / 2) * 20, (y + h / 2) * 10]
    np.testing.assert_allclose(found.boxes, np.stack(corners, axis=2))
    without = read_layout("detr", outputs, (10, 20), classes=4)
    np.testing.assert_allclose(without.scores, 1 / (1 + np.exp(-outputs["logits"])))
    assert found.output == without.output == "logits" and not found.suppress


def test_every_method_and_check_takes_a_box(detectors):
    _, model = detectors["yolov8"]
    one = ox.targets.candidates(model, X, min_score=0.05)[0]
    fg = ox.full_grad(model, X, one.target)
    assert fg.completeness.within(1e-4).all()
    assert ox.check(model, X, one.target, backends=["onnxruntime", "torch", "source"], steps=2).passed
    objectness = ox.targets.detection("permute", "yolov5", box=[3, 5], score="objectness")
    np.testing.assert_array_equal(objectness.position, [[3, 4], [5, 4]])


def test_suppression_keeps_the_best_of_each_class():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 5]], float)
    scores = np.array([0.6, 0.9, 0.5, 0.3, 0.4])
    # 81 of 119 are shared by the first two; the third is of another class; half of the first is the last.
    np.testing.assert_allclose(overlaps(boxes[0], boxes[1:2]), 81 / 119)
    classes = np.array([0, 0, 1, 0, 0])
    assert suppress(boxes, scores, classes, 0.45).tolist() == [1, 2, 4, 3]
    assert suppress(boxes, scores, classes, 0.7).tolist() == [1, 0, 2, 4, 3]
    assert suppress(boxes[:0], scores[:0], classes[:0], 0.5).tolist() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "yolov9", "box": 0, "score": 0}, "layout='yolov9': expected one of 'yolov8'"),
        ({"layout": "yolov8", "box": 0}, "expected the class of an anchor"),
        ({"layout": "yolov8", "box": 0, "score": "bee"}, "expected the index of a class"),
        ({"layout": "yolov8", "box": 0, "score": "objectness"}, "of yolov5"),
        ({"layout": "yolov8", "box": -1, "score": 0}, "ints from 0 on"),
        ({"layout": "yolov8", "box": 0.5, "score": 0}, "ints from 0 on"),
        ({"layout": "yolov8", "box": [1, 2], "score": [1, 2, 0]}, "one class for each box"),
    ],
)
def test_what_a_target_lacks_is_named(arguments, message):
    with pytest.raises(TargetError, match=message) as caught:
        ox.targets.detection("y", **arguments)
    assert "Fix: " in str(caught.value)


def test_what_a_model_lacks_is_named(detectors):
    _, model = detectors["yolov8"]
    for call, message in (
        (lambda: ox.targets.detection(box=99, model=model, inputs=X), "no number 99"),
        (lambda: ox.targets.detection(box=0, score="dog", model=model, inputs=X), "no class of that name"),
        (lambda: ox.targets.candidates(model, X, "ssd"), "expected one output .* of scores and one"),
        (lambda: ox.targets.candidates(model, X, "yolov5"), "values for each anchor"),
        (lambda: ox.targets.candidates(model, X, "detr"), "Fix: "),
    ):
        with pytest.raises(TargetError, match=message):
            call()


def suppressed(outputs, tail):
    """boxes (N, 4 + 2, 6) of x, and what a tail selects of them."""
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,6,6] x) => '
        f"({outputs}) <int64[1] zero = {{0}}, int64[1] four = {{4}}, int64[1] six = {{6}}, int64[1] one = {{1}}, "
        "int64 two = {2}, int64[1] k = {3}, float least = {0.1}, float twice = {2.0}> "
        f"{{ y = Mul(x, twice) b = Slice(y, zero, four, one) s = Slice(y, four, six, one) {tail} }}"
    )


def test_the_tensor_before_suppression_within_a_model_is_proposed():
    tail = (
        "int64[m,3] kept, float[1,6,4] t",
        "t = Transpose<perm = [0, 2, 1]>(b) kept = NonMaxSuppression(t, s, two, least, least)",
    )
    graph = ox.differentiate(suppressed(*tail)).graph
    found = before_suppression(graph)
    assert (found.output, found.layout) == ("y", "yolov8")
    softmax = (
        "int64[m,3] kept, float[1,6,4] t",
        "t = Transpose<perm = [0, 2, 1]>(b) u = Transpose<perm = [0, 2, 1]>(s) p = Softmax(u)"
        " q = Transpose<perm = [0, 2, 1]>(p) kept = NonMaxSuppression(t, q, two, least, least)",
    )
    found = before_suppression(ox.differentiate(suppressed(*softmax)).graph)
    assert (found.output, found.layout, found.tensors) == ("p", "ssd", ("p", "t"))
    ranked = ("float[1,3] best", "m = ReduceMax<keepdims = 0>(s, one) best, at = TopK(m, k)")
    assert before_suppression(ox.differentiate(suppressed(*ranked)).graph) is not None
    assert before_suppression(ox.differentiate(suppressed("float[1,2,6] s", "")).graph) is None
