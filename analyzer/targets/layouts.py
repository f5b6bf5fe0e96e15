"""Read the outputs of a detector: where each layout has its boxes, class scores and objectness.

From {output: array} and the name of a layout to Scores: the class scores (N, anchors, classes) as probabilities, the
boxes as corners in pixels of the input, and the coordinates of a score in its output. Refuses shapes that are not the
layout's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.errors import TargetError

LAYOUTS = ("yolov8", "yolov5", "ssd", "detr")
AUTO = "auto"
_BOX_WORDS = ("box", "loc", "coord")
_SCORE_WORDS = ("logit", "score", "class", "conf", "label")
# Corners of at most this size are fractions of the image.
_FRACTION = 2.0


@dataclass(frozen=True)
class Scores:
    """What a layout holds. output: the name of the output with the class scores.

    scores: (N, anchors, classes), probabilities of the classes that can be found, the first of which is class `first`.
    boxes: (N, anchors, 4), x1, y1, x2, y2 in pixels of the input. suppress: whether overlapping boxes are duplicates.
    place: (anchor, class) to the coordinates of its score in the output. objectness: likewise; None without one.
    """

    layout: str
    output: str
    scores: np.ndarray
    boxes: np.ndarray
    suppress: bool
    place: Callable[[int, int], tuple[int, int]]
    objectness: Callable[[int], tuple[int, int]] | None = None
    first: int = 0


def place_of(layout: str, anchor: int, index: int) -> tuple[int, int]:
    """Return the coordinates of a class score in its output, without the batch axis."""
    if layout == "yolov8":
        return 4 + index, anchor
    return (anchor, 5 + index) if layout == "yolov5" else (anchor, index)


def read_layout(
    layout: str,
    values: Mapping[str, np.ndarray],
    size: tuple[int, int],
    output: str | None = None,
    classes: int | None = None,
) -> Scores:
    """Read the outputs of a detector in a layout. Raises TargetError where their shapes are not those of the layout.

    size: (height, width) of the input. output: the name of the scores' output, where several fit. classes: their
    number, where the model stores their names: an output may hold more rows after them, as the masks of a segmentation.
    """
    if layout not in LAYOUTS:
        raise TargetError(f"unknown layout={layout!r}. Fix: give one of {', '.join(map(repr, LAYOUTS))}")
    if layout in ("yolov8", "yolov5"):
        return _yolo(layout, values, size, output, classes)
    return _pair(layout, values, size, output, classes)


def _yolo(
    layout: str,
    values: Mapping[str, np.ndarray],
    size: tuple[int, int],
    output: str | None,
    classes: int | None,
) -> Scores:
    name = output or _only(
        layout, values, "(N, 4 + classes, anchors)" if layout == "yolov8" else "(N, anchors, 5 + classes)"
    )
    array = _rank_three(values[name], name, layout).astype(np.float64)
    rows = array if layout == "yolov5" else array.transpose(0, 2, 1)
    head = 5 if layout == "yolov5" else 4
    found = rows.shape[2] - head
    # More values than classes are masks or points of the body; of fewer anchors than values it is another layout.
    strange = classes is not None and classes != found and (classes > found or rows.shape[1] <= rows.shape[2])
    if found < 1 or strange:
        raise TargetError(
            f"layout={layout!r}: expected {head} + {classes or 'classes'} values for each anchor of {name!r}, got "
            f"{rows.shape[2]} of shape {array.shape}. Fix: give another layout, one of {', '.join(LAYOUTS)}"
        )
    scores = _probabilities(rows[:, :, head : head + (classes or found)])
    if layout == "yolov5":
        scores = scores * _probabilities(rows[:, :, 4:5])
    return Scores(
        layout,
        name,
        scores,
        _in_pixels(_corners(rows[:, :, :4]), size),
        suppress=True,
        place=lambda anchor, index: place_of(layout, anchor, index),
        objectness=(lambda anchor: (anchor, 4)) if layout == "yolov5" else None,
    )


def _pair(
    layout: str,
    values: Mapping[str, np.ndarray],
    size: tuple[int, int],
    output: str | None,
    classes: int | None,
) -> Scores:
    """Scores (N, anchors, classes) and boxes (N, anchors, 4) of two outputs."""
    name, boxes = box_pair(layout, values, output)
    raw = np.asarray(values[name], np.float64)
    corners = np.asarray(values[boxes], np.float64)
    if layout == "detr":
        # The last class is "no object". Where every class has a name there is none, as in RT-DETR.
        whole = classes == raw.shape[2]
        scores, first = _probabilities(raw) if whole else _softmax(raw)[:, :, :-1], 0
        corners = _corners(corners)
    else:
        # Class 0 is the background.
        scores, first = (raw if _sums_to_one(raw) else _softmax(raw))[:, :, 1:], 1
    if not scores.shape[2]:
        raise TargetError(f"layout={layout!r}: {name!r} {raw.shape} holds no class. Fix: give another layout")
    return Scores(
        layout,
        name,
        scores,
        _in_pixels(corners, size),
        suppress=layout == "ssd",
        place=lambda anchor, index: place_of(layout, anchor, index),
        first=first,
    )


def box_pair(layout: str, values: Mapping[str, np.ndarray], output: str | None) -> tuple[str, str]:
    """Return the names of the scores (N, anchors, classes) and of the boxes (N, anchors, 4) among outputs."""
    arrays = {name: array for name, array in values.items() if array.ndim == 3}
    pairs = [
        (name, boxes)
        for name, scores in arrays.items()
        for boxes, array in arrays.items()
        if name != boxes
        and output in (None, name)
        and array.shape[2] == 4
        and scores.shape[:2] == array.shape[:2]
    ]
    # Scores of four classes may be taken for boxes, and features for scores: names tell, then numbers.
    for told in (_told_by_names, _told_by_numbers, _scores_by_name):
        if len(pairs) > 1:
            pairs = [pair for pair in pairs if told(layout, arrays, *pair)] or pairs
    if len(pairs) != 1:
        shapes = ", ".join(f"{name!r} {array.shape}" for name, array in values.items())
        raise TargetError(
            f"layout={layout!r}: expected one output (N, anchors, classes) of scores and one (N, anchors, 4) of boxes, "
            f"got {shapes}. Fix: give the name of the scores, output=…, or another layout"
        )
    return pairs[0]


def _told_by_names(layout: str, arrays: Mapping[str, np.ndarray], scores: str, boxes: str) -> bool:
    said = [any(word in name.lower() for word in _BOX_WORDS) for name in (scores, boxes)]
    return said == [False, True]


def _scores_by_name(layout: str, arrays: Mapping[str, np.ndarray], scores: str, boxes: str) -> bool:
    return any(word in scores.lower() for word in _SCORE_WORDS)


def _told_by_numbers(layout: str, arrays: Mapping[str, np.ndarray], scores: str, boxes: str) -> bool:
    """Whether only one of two outputs are probabilities of an "ssd", or fractions of the image of a "detr"."""
    a, b = arrays[scores], arrays[boxes]
    if layout != "detr" and _sums_to_one(a) != _sums_to_one(b):
        return _sums_to_one(a)
    inside = [bool((one >= 0).all() and (one <= 1).all()) for one in (a, b)]
    return layout == "detr" and inside == [False, True]


def _only(layout: str, values: Mapping[str, np.ndarray], shape: str) -> str:
    """The only output of three axes."""
    found = [name for name, array in values.items() if array.ndim == 3 and array.dtype.kind == "f"]
    if len(found) != 1:
        shapes = ", ".join(f"{name!r} {array.shape}" for name, array in values.items())
        raise TargetError(
            f"layout={layout!r}: expected one output {shape}, got {shapes}. Fix: give the name of the output, "
            "output=…, or another layout"
        )
    return found[0]


def _rank_three(array: np.ndarray, name: str, layout: str) -> np.ndarray:
    if array.ndim != 3:
        raise TargetError(
            f"layout={layout!r}: expected {name!r} with three axes, got {array.shape}. Fix: give another output"
        )
    return array


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores as they are where they are within [0, 1], else their sigmoid."""
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        return np.asarray(0.5 * (1 + np.tanh(0.5 * scores)))
    return scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.asarray(powers / powers.sum(axis=2, keepdims=True))


def _sums_to_one(scores: np.ndarray) -> bool:
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=2), 1, atol=1e-3))


def _corners(boxes: np.ndarray) -> np.ndarray:
    """x, y of the centre, width, height to x1, y1, x2, y2."""
    centre, half = boxes[:, :, :2], boxes[:, :, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=2)


def _in_pixels(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corners in pixels, also of boxes that are fractions of the image."""
    if corners.size and np.abs(corners).max() <= _FRACTION:
        height, width = size
        return np.asarray(corners * np.array([width, height, width, height]))
    return corners


def guess_layout(
    values: Mapping[str, np.ndarray], names: Sequence[str] | None, softmax: Callable[[str], bool]
) -> str | None:
    """Return the one layout that the shapes of outputs allow, None where they allow none or several.

    names: of the classes, where the model stores them. softmax: whether an output is computed by a Softmax.
    """
    arrays = {name: array for name, array in values.items() if array.ndim == 3 and array.dtype.kind == "f"}
    if len(arrays) == 1:
        ((_, array),) = arrays.items()
        _, rows, columns = array.shape
        if names is not None:
            fitting = [
                layout
                for layout, size, other in (("yolov8", rows - 4, columns), ("yolov5", columns - 5, rows))
                if size == len(names) and other > 6
            ]
            return fitting[0] if len(fitting) == 1 else None
        if min(rows, columns) < 5 or rows == columns:
            return None
        if rows < columns:
            return "yolov8"
        return "yolov5" if columns > 6 else None
    if len(arrays) < 2:
        return None
    try:
        scores, boxes = box_pair(AUTO, arrays, None)
    except TargetError:
        return None
    if softmax(scores):
        return "ssd"
    told = "logit" in scores.lower() or "pred_boxes" in boxes.lower()
    return "detr" if told else None


__all__ = ["AUTO", "LAYOUTS", "Scores", "box_pair", "guess_layout", "place_of", "read_layout"]
