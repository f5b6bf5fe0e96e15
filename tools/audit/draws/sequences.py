"""Lists of tensors: made, changed, read and joined; and optional tensors."""

from __future__ import annotations

import numpy as np

from tools.audit.sketch import Sketch


def draw(sketch: Sketch) -> None:
    """A list from a split or from tensors, up to three changes, and one to three readings."""
    shape, axis = (*sketch.shape(1, 3), 4), 1
    x = sketch.input(*shape)
    name, count = _list(sketch, x, axis)
    for _ in range(sketch.number(0, 3)):
        name, count = _changed(sketch, name, count, x)
    for _ in range(sketch.number(1, 3)):
        _read(sketch, name, count)


def _list(sketch: Sketch, x: str, axis: int) -> tuple[str, int]:
    kind = sketch.choose("split", "sizes", "one by one", "keeps no axis", "construct", "empty")
    axis = sketch.choose(axis, axis - 2)
    if kind == "split":
        step = sketch.number(1, 4)
        made = sketch.add("SplitToSequence", x, sketch.constant(np.asarray(step, np.int64)), axis=axis)
        return str(made), -(-4 // step)
    if kind == "sizes":
        sizes = sketch.choose((1, 3), (2, 2), (1, 1, 2), (4,))
        return str(sketch.add("SplitToSequence", x, sketch.integers(*sizes), axis=axis)), len(sizes)
    if kind in ("one by one", "keeps no axis"):
        keeps = 0 if kind == "keeps no axis" else sketch.choose(None, 1)
        return str(sketch.add("SplitToSequence", x, axis=axis, keepdims=keeps)), 4
    if kind == "construct":
        parts = [sketch.choose(x, str(sketch.add("Neg", x))) for _ in range(sketch.number(1, 3))]
        return str(sketch.add("SequenceConstruct", *parts)), len(parts)
    kind_of = 11 if sketch.dtype == np.float64 else 1
    empty = str(sketch.add("SequenceEmpty", dtype=kind_of))
    return str(sketch.add("SequenceInsert", empty, x)), 1


def _changed(sketch: Sketch, name: str, count: int, x: str) -> tuple[str, int]:
    if sketch.chance(60) or count < 2:
        item = str(sketch.add("SequenceAt", name, sketch.constant(np.asarray(0, np.int64))))
        place = _place(sketch, count)
        return str(sketch.add("SequenceInsert", name, str(sketch.add("Neg", item)), *place)), count + 1
    return str(sketch.add("SequenceErase", name, *_place(sketch, count - 1))), count - 1


def _place(sketch: Sketch, last: int) -> list[str]:
    if sketch.chance(30):
        return []
    at = sketch.number(-last, last) if last else 0
    return [sketch.constant(np.asarray(at, np.int64))]


def _read(sketch: Sketch, name: str, count: int) -> None:
    kind = sketch.choose("at", "length", "concat", "new axis", "computed")
    if kind == "at":
        index = sketch.constant(np.asarray(sketch.number(-count, count - 1), np.int64))
        item = str(sketch.add("SequenceAt", name, index))
        sketch.output(item if sketch.chance(50) else str(sketch.add("Abs", item)))
    elif kind == "length":
        sketch.output(str(sketch.add("Identity", str(sketch.add("SequenceLength", name)))))
    elif kind == "computed":
        index = sketch.input(dtype=np.int64)
        sketch.notes["integers"] = (0, count)
        sketch.output(str(sketch.add("SequenceAt", name, index)))
    else:
        axis = sketch.choose(0, -1)
        new = 1 if kind == "new axis" else None
        sketch.output(str(sketch.add("ConcatFromSequence", name, axis=axis, new_axis=new)))
