"""Detection the short way: list the boxes of a detector, and state the score of one of them as a Target.

From a model and inputs to Candidates, after non-maximum suppression on the host; from an anchor, or a candidate, and a
class to a Target. Refuses layouts that the outputs do not have, and models that suppress boxes within, with the tensor
before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.backends import Differentiable, ModelLike
from analyzer.errors import TargetError
from analyzer.target.target import Target
from analyzer.targets.detector import OBJECTNESS, Candidate, Detector, Score
from analyzer.targets.layouts import AUTO, LAYOUTS, place_of
from analyzer.types import Inputs

MIN_SCORE, OVERLAP, MOST = 0.25, 0.45, 300
_LAYOUTS = ", ".join(map(repr, LAYOUTS))

Numbers = int | Sequence[int] | np.ndarray


def candidates(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    layout: str = AUTO,
    *,
    output: str | None = None,
    min_score: float = MIN_SCORE,
    overlap: float = OVERLAP,
    most: int = MOST,
) -> list[Candidate]:
    """List the boxes that a detector finds, sample by sample, the highest score first.

    model: a model, or `differentiate(model)`. inputs: (N, C, H, W) or (N, H, W, C), as preprocessed for the model.
    layout: "yolov8" (N, 4 + classes, anchors): centre, size and class scores, also of YOLO11; "yolov5"
        (N, anchors, 5 + classes): centre, size, objectness and class scores, also of YOLOv7; "ssd": scores
        (N, anchors, classes), class 0 the background, and corners (N, anchors, 4); "detr": logits (N, queries,
        classes + 1), the last "no object" (none where the model stores as many names), and centre and size (N, queries,
        4). "auto" takes the one that the shapes
        of the outputs and the stored class names allow. Boxes with all numbers within 2 are fractions of the image.
    output: the name of the tensor with the class scores, where the model has several or suppresses boxes itself.
    min_score: the least score of a candidate. overlap: of two boxes of a class with a larger intersection over union
        the lower one is dropped; not for "detr". most: candidates of a sample.
    Raises TargetError where the outputs do not have the layout, or several layouts fit.
    """
    detector = Detector.read(model, inputs, layout, output)
    return [
        one for sample in range(detector.samples) for one in detector.of(sample, min_score, overlap)[:most]
    ]


def detection(
    output: str | None = None,
    layout: str = AUTO,
    *,
    box: Numbers | Candidate,
    score: Score = None,
    model: Differentiable | ModelLike | None = None,
    inputs: Inputs | None = None,
    min_score: float = MIN_SCORE,
    overlap: float = OVERLAP,
) -> Target:
    """Return the Target of the score of one box of a detector.

    Without a model, `box` is the anchor and `score` the class: `detection("output0", "yolov8", box=17, score=3)`. With
    model= and inputs=, `box` is the number of a candidate as `candidates` lists them, and `score` its class unless
    another is given. A Candidate as `box` needs nothing else.

    output: the name of the tensor with the class scores. Default: that of the layout.
    layout: "yolov8", "yolov5", "ssd" or "detr", see `candidates`; "auto" needs a model.
    box: an int for all samples, or one for each.
    score: a class, as the output counts it (of "ssd" 0 is the background), or its name where a model is given; one for
        all samples, or one for each. "objectness" of "yolov5".
    model, inputs: of which candidates are numbered. min_score, overlap: as for `candidates`.

    The scalar is one element of the output, so that every method and check takes it. Of "detr" it is a logit. A score
    of "yolov5" is objectness times class. A Target is a sum and no product: the class score is explained, and
    `score="objectness"` explains the other factor.
    Raises TargetError for a candidate, a class or a layout that does not exist.
    """
    if isinstance(box, Candidate):
        output, layout = box.output, box.layout
        score = box.class_index if score is None else score
        return _target(output, layout, np.asarray(box.anchor), _classes(score, layout))
    if model is None or inputs is None:
        if layout not in LAYOUTS:
            raise TargetError(
                f'layout={layout!r}: expected one of {_LAYOUTS}. Fix: give it, or give model= and inputs= for "auto"'
            )
        if score is None:
            raise TargetError(
                f"box={box!r}: expected the class of an anchor. Fix: give score=, or give model= and inputs= to take "
                "the class of a candidate"
            )
        return _target(output, layout, np.asarray(box), _classes(score, layout))
    detector = Detector.read(model, inputs, layout, output)
    numbers = np.broadcast_to(np.asarray(box), (detector.samples,)) if np.ndim(box) == 0 else np.asarray(box)
    if numbers.shape != (detector.samples,):
        raise TargetError(
            f"box: expected one number, or one for each of {detector.samples} samples, got shape {numbers.shape}. "
            "Fix: give one candidate for each sample"
        )
    chosen = [detector.candidate(sample, int(k), min_score, overlap) for sample, k in enumerate(numbers)]
    anchors = np.asarray([one.anchor for one in chosen])
    given = [one.class_index for one in chosen] if score is None else detector.classes(score)
    return _target(
        detector.scores.output, detector.scores.layout, anchors, _classes(given, detector.scores.layout)
    )


def _classes(score: Score, layout: str) -> np.ndarray | str:
    """Classes as an array of ints, or "objectness". Raises TargetError."""
    if isinstance(score, str):
        if score != OBJECTNESS or layout != "yolov5":
            raise TargetError(
                f'score={score!r}: expected the index of a class, or "objectness" of yolov5. Fix: give an int, or '
                "model= and inputs= to give a name"
            )
        return OBJECTNESS
    classes = np.asarray(score)
    if classes.dtype.kind not in "iu" or classes.ndim > 1 or (classes < 0).any():
        raise TargetError(
            f"score={score!r}: expected a class, or one for each sample. Fix: give ints from 0 on"
        )
    return classes


def _target(output: str | None, layout: str, anchors: np.ndarray, classes: np.ndarray | str) -> Target:
    """The element of the output with the score of an anchor; of one for each sample where several are given."""
    if anchors.dtype.kind not in "iu" or anchors.ndim > 1 or (anchors < 0).any():
        raise TargetError(
            f"box={anchors!r}: expected an anchor, or one for each sample. Fix: give ints from 0 on"
        )
    if isinstance(classes, str):
        return _element(output, np.stack([anchors, np.full_like(anchors, 4)], axis=-1))
    try:
        anchors, classes = np.broadcast_arrays(anchors, classes)
    except ValueError as error:
        raise TargetError(
            f"got {anchors.size} boxes and {classes.size} classes. Fix: give one class for each box"
        ) from error
    places = [place_of(layout, int(a), int(c)) for a, c in zip(anchors.flat, classes.flat, strict=True)]
    return _element(output, np.asarray(places).reshape(*anchors.shape, 2))


def _element(output: str | None, places: np.ndarray) -> Target:
    """places: (2,) for all samples, or (N, 2)."""
    if places.ndim == 1:
        return Target(output, index=(int(places[0]), int(places[1])))
    return Target(output, position=places)
