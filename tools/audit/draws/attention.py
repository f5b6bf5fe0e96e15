"""Softmax over masked scores whose rows are replaced afterwards, and near misses of that."""

from __future__ import annotations

import numpy as np

from tools.audit.sketch import Sketch


def draw_masked(sketch: Sketch) -> None:
    """Scores, a softmax, and a Where that puts a constant in the place of rows, or of single elements."""
    shape = (2, 3, 4)
    scores = sketch.input(*shape)
    if sketch.chance(40):
        scores = str(sketch.add("Mul", scores, sketch.floats(0.5)))
    axis = sketch.choose(-1, 2, None, 1)
    softmax = str(sketch.add("Softmax", scores, axis=axis))
    kept = softmax
    if sketch.chance(25):
        kept = str(sketch.add("Cast", softmax, to=11 if sketch.dtype == np.float64 else 1))
    sketch.leak(softmax, kept, percent=6)
    condition = _condition(sketch, scores, softmax)
    filler = sketch.choose((), (1,), (2, 3, 1), (2, 3, 4), (1, 2, 3, 4))
    constant = sketch.floats(np.full(filler, sketch.choose(0.0, 1.0, np.nan)))
    pair = (kept, constant) if sketch.chance(10) else (constant, kept)
    weights = str(sketch.add("Where", condition, *pair))
    if sketch.chance(50):
        weights = str(sketch.add("MatMul", weights, sketch.weight(4, 2, flavour="ordinary")))
    sketch.output(weights)


def _condition(sketch: Sketch, scores: str, softmax: str) -> str:
    """Rows without a finite score, NaN in the softmax, or what an input says of rows, columns or elements."""
    kind = sketch.choose("rows", "behind", "elements", "input")
    if kind == "rows":
        most = sketch.add("ReduceMax", scores, sketch.integers(-1), keepdims=1)
        return str(sketch.add("Equal", str(most), sketch.floats(-np.inf)))
    if kind == "behind":
        if sketch.chance(50):
            return str(sketch.add("IsNaN", str(sketch.add("ReduceSum", softmax, sketch.integers(-1)))))
        most = sketch.add("ReduceMax", scores, sketch.integers(-1), keepdims=1)
        return str(sketch.add("Less", str(sketch.add("Neg", str(most))), sketch.floats(0.0)))
    if kind == "elements":
        return str(sketch.add("IsInf", scores))
    return sketch.input(
        *sketch.choose((2, 3, 1), (3, 1), (1,), (), (2, 3, 4), (1, 4), (1, 2, 3, 1)), dtype=bool
    )
