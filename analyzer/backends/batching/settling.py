"""Settle how the samples of a call lie for methods that explain other points than the inputs, several of them at once.

From an Arrangement that holds at the inputs to one that holds at any point: samples that were only tried are run one at
a time; samples whose number the model reads, or that share an input which is attributed, are explained as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.batching.arranging import decide, digest, explained, joint, view_of
from analyzer.backends.batching.micro_batches import run
from analyzer.backends.batching.planning import Call
from analyzer.backends.batching.trial import near
from analyzer.backends.caches import Cache
from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.samples.arrangement import JOINT, Arrangement
from analyzer.graph.samples.counted import counting_node
from analyzer.target.target import TargetLike, as_target

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

_SETTLED: Cache[Arrangement] = Cache("settled arrangements")
ALONE = "each is explained in a call of its own"


def arranged_to_move(
    fn: Differentiable, feeds: Arrays, target: TargetLike, names: Sequence[str]
) -> Differentiable:
    """The model as methods run it that change these inputs, several points at once; see `arranged`.

    names: the tensors that are attributed. Raises AnalysisError where samples="independent" does not hold.
    """
    if fn.arrangement is not None:
        return fn
    outputs = explained(fn.graph, as_target(target))
    found = decide(fn, feeds, outputs)
    shapes = tuple((name, array.shape) for name, array in feeds.items())
    key = (found.key, outputs, tuple(names), shapes, digest(feeds) if found.tried else "")
    lasting = _SETTLED.get(fn, key, lambda: settled(fn, feeds, found, outputs, names))
    return view_of(fn, lasting, feeds, outputs)


def settled(
    fn: Differentiable, feeds: Arrays, found: Arrangement, outputs: Sequence[str], names: Sequence[str]
) -> Arrangement:
    """The arrangement for such methods. names: the tensors that are attributed."""
    if found.samples == JOINT or found.alone or not feeds:
        return found

    def as_one(note: str) -> Arrangement:
        if fn.samples is not None and fn.samples != JOINT:
            raise AnalysisError(f'samples="independent": {note}. Fix: samples="joint"')
        return joint(fn.graph, outputs, feeds, f"{note}: all samples are explained as one")

    view = view_of(fn, found, feeds, outputs)
    held = batched_inputs(view.graph)
    shared = [name for name in names if name in feeds and name not in held]
    count = len(found.first(held[0], feeds[held[0]])) if held else 1
    if shared and (count > 1 or not held):
        others = [name for name in names if name not in shared]
        way = f" (wrt={others} leaves it out)" if others else ""
        return as_one(f"the input {shared[0]!r} has no axis of samples{way}")
    if shared:
        return replace(found, wrapped=found.wrapped | {*shared}, alone=fn.engine.batch is None, inner={})
    if found.tried:
        one = replace(found, tried=False, alone=True, note=_note(found), inner={})
        if found.holding == {*held} and _same(fn, feeds, found, one, outputs):
            return one
        return as_one(f"the samples are independent at the inputs alone{found.why and f' ({found.why})'}")
    size = view.engine.batch
    if size is not None and size > 1 and not _same_everywhere(view, found.all_first(feeds), held, outputs):
        told = f"the file computes each of its {size} samples in its own way"
        if count != size:
            raise AnalysisError(
                f"{told}, so that they cannot be moved to other places. Fix: give {size} samples a call, got {count}"
            )
        return as_one(told)
    node = counting_node(view.graph, outputs) if fn.engine.batch is None else None
    if node is not None and not _stacks(view, found.all_first(feeds), held, outputs):
        return as_one(f"{node} reads the number of samples")
    return found


def _note(found: Arrangement) -> str:
    return f"the samples are independent at the inputs{found.why and f' ({found.why})'}: {ALONE}"


def _same(
    fn: Differentiable, feeds: Arrays, found: Arrangement, alone: Arrangement, outputs: Sequence[str]
) -> bool:
    """Whether every sample alone has the outputs that it has in the batch."""
    try:
        arrays = [
            run(view, Call(None, tuple(outputs), None), found.all_first(feeds))
            for view in (view_of(fn, one, feeds, outputs) for one in (found, alone))
        ]
    except AnalysisError:
        return False
    return all(near(arrays[0][name], arrays[1][name]) for name in outputs)


def _same_everywhere(
    view: Differentiable, feeds: Arrays, held: Sequence[str], outputs: Sequence[str]
) -> bool:
    """Whether a sample of a stated batch has the same outputs at another place in it."""
    size = view.engine.batch
    assert size is not None
    if not held:
        return True
    rows = np.arange(size) % len(feeds[held[0]])
    here, there = (
        {name: array[chosen] if name in held else array for name, array in feeds.items()}
        for chosen in (rows, np.roll(rows, 1))
    )
    found, moved = (view.engine.forward(one, outputs) for one in (here, there))
    return all(
        near(np.roll(found[name], 1, axis=0), moved[name])
        for name in outputs
        if found[name].shape[:1] == (size,)
    )


def _stacks(view: Differentiable, feeds: Arrays, held: Sequence[str], outputs: Sequence[str]) -> bool:
    """Whether samples have the same outputs in a batch of another size, at other places."""
    count = len(feeds[held[0]])
    rows = np.asarray([count - 1, *[0] * (2 if count != 3 else 3)])
    stacked = {name: array[rows] if name in held else array for name, array in feeds.items()}
    try:
        here, there = (view.engine.forward(one, outputs) for one in (feeds, stacked))
    except AnalysisError:
        return False
    return all(near(here[name][rows], there[name]) for name in outputs)
