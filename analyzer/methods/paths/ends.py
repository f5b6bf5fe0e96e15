"""Where paths begin and end: the inputs, or tensors within the network, and the baselines of either.

From a Differentiable, inputs and baselines to the model that is followed, which `wrt` cuts out of it, its feeds at the
end and at the start of each path, and the names of what is attributed. Refuses baselines and points that there are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analyzer.backends import Differentiable
from analyzer.backends.inner_tensors import cut
from analyzer.backends.inputs import Feeds, refuse_not_finite
from analyzer.errors import AnalysisError
from analyzer.graph.samples.arrangement import PLAIN, Arrangement
from analyzer.methods.paths.baselines import BaselineLike, baseline_feeds
from analyzer.types import Arrays, Inputs

Baselines = BaselineLike | Mapping[str, BaselineLike]


def path_ends(
    fn: Differentiable,
    inputs: Inputs,
    baseline: Baselines,
    wrt: str | Sequence[str] | None,
    baseline_inputs: Inputs | None,
    rng: np.random.Generator,
) -> tuple[Differentiable, Feeds, list[Arrays], tuple[str, ...]]:
    """The model that is followed, its feeds at the end and at the starts of the paths, and what is attributed."""
    feeds = fn.feeds_in_call(inputs)
    if wrt is None:
        if baseline_inputs is not None:
            raise AnalysisError(
                "baseline_inputs go with tensors within the network. Fix: name these in wrt= (--at), or give the "
                "inputs as baseline="
            )
        return fn, feeds, baseline_feeds(fn, feeds, baseline, rng), fn.roots()
    points = fn.roots(wrt)
    rest = cut(fn, points)
    moves = rest.arrangement or PLAIN
    whole = fn.arrangement
    if (
        whole is not None
        and whole.alone
        and not moves.plain
        and any(len(feeds[n]) > 1 for n in whole.holding)
    ):
        raise AnalysisError(
            f"no path of several samples within the network: {whole.note}. Fix: give one sample a call, or "
            'take all samples as one, differentiate(model, samples="joint")'
        )
    values = fn.forward(feeds, points)
    for name, array in values.items():
        refuse_not_finite(name, array)
    kept = {name: feeds[name] for name in rest.graph.inputs if name in feeds}
    end = Feeds(rest.graph, {**moves.all_first(values), **kept}, single=len(points) == 1)
    if baseline_inputs is None:
        given = baseline if isinstance(baseline, Mapping) else dict.fromkeys(points, baseline)
        beside = [name for name in given if name not in points]
        if beside:
            raise AnalysisError(
                f"a baseline for {beside[0]!r}, which is not attributed. Fix: give one for {', '.join(points)}"
            )
        given = {name: _first(one, moves, name, values[name].shape) for name, one in given.items()}
        starts = baseline_feeds(rest, end, given, rng)
        held = [name for name in rest.differentiable_inputs if name not in points]
        return rest, end, [{**start, **{name: end[name] for name in held}} for start in starts], points
    if not (isinstance(baseline, (int, float)) and baseline == 0):
        raise AnalysisError(
            "got a baseline and baseline_inputs. Fix: give one of them (--baseline or --baseline-inputs)"
        )
    before = fn.forward(baseline_inputs, points)
    start = {name: np.broadcast_to(moves.first(name, before[name]), end[name].shape) for name in points}
    return rest, end, [{**end, **start}], points


def _first(baseline: BaselineLike, moves: Arrangement, name: str, shape: tuple[int, ...]) -> BaselineLike:
    """A baseline of a point with the samples first, where it is an array that broadcasts to the point."""
    if isinstance(baseline, np.ndarray) and np.broadcast_shapes(baseline.shape, shape) == shape:
        return moves.first(name, np.broadcast_to(baseline, shape))
    return baseline
