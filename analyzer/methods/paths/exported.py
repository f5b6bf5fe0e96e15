"""The ends of paths, and results along them, as ONNX: what the exporters of path methods share.

From an ExplainerGraph and baselines to the part of the model that is followed and to the starts of the paths, which are
inputs of the file where there is one. Refuses baselines that depend on the sample: these are fed to the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from analyzer.errors import ExportError
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Graph, Tensor
from analyzer.methods.exporting import ExplainerGraph, Exported, rank_of, reduced_map, sample_total
from analyzer.methods.paths.baselines import Dataset
from analyzer.methods.paths.ends import Baselines, path_ends
from analyzer.types import Inputs, Names

if TYPE_CHECKING:
    from analyzer.backends import Differentiable

_FIXED = ("black", "white")


def exported_ends(
    explainer: ExplainerGraph, baseline: Baselines, wrt: Names | None, baseline_inputs: Inputs | None
) -> tuple[Differentiable, list[dict[str, Tensor]], tuple[str, ...]]:
    """Return the part of the model that is followed, the starts of the paths, and the names of what is attributed."""
    for one in _single(baseline):
        if isinstance(one, str) and one not in _FIXED:
            raise _depends(f"baseline={one!r}")
        if not isinstance(one, (str, int, float, np.generic, np.ndarray, Dataset)) and not hasattr(
            one, "__array__"
        ):
            raise _depends(f"a baseline of type {type(one).__name__}")
    part, _, starts, names = path_ends(
        explainer.fn, explainer.bound.feeds, baseline, wrt, baseline_inputs, np.random.default_rng(0)
    )
    if part is not explainer.fn and part.arrangement is not None and not part.arrangement.plain:
        raise ExportError(
            f"expected samples along the first axis of {', '.join(names)}, found them elsewhere. Fix: attribute the "
            "inputs, or another tensor, in wrt (--wrt)"
        )
    stored = [{name: _shared(name, start[name]) for name in names} for start in starts]
    if len(stored) > 1:
        return part, [{n: explainer.op.constant(a) for n, a in one.items()} for one in stored], names
    inputs = {
        name: explainer.input(
            "baseline",
            array,
            tuple(f"baseline_{axis}" for axis in range(array.ndim)),
            "where the path begins, in the units of the input; broadcasts to it",
            of=name,
            alone=len(names) == 1,
        )
        for name, array in stored[0].items()
    }
    return part, [inputs], names


def exported_path(
    explainer: ExplainerGraph, graph: Graph, attributions: Mapping[str, Tensor], before: Tensor
) -> Exported:
    """Return the results of a path method. before (N,): the score where the paths begin."""
    op, known, tokens = explainer.op, channel_axes(graph), embedded_tokens(explainer.fn.graph)
    maps = {}
    for name, tensor in attributions.items():
        axis = input_channel_axis(graph, name, known) if rank_of(tensor) > 2 else None
        if name in tokens:
            axis = rank_of(tensor) - 1
        maps[name] = reduced_map(op, tensor, axis, signed=True)
    double = onnx.TensorProto.DOUBLE
    difference = op.Sub(op.Cast(explainer.explained, to=double), op.Cast(before, to=double))
    total = sample_total(op, list(attributions.values()))
    return Exported(attributions, maps, signed=True, delta=op.Sub(total, difference))


def _single(baseline: Any) -> Sequence[Any]:
    """The baselines that were given, one by one."""
    if isinstance(baseline, Mapping):
        return [one for value in baseline.values() for one in _single(value)]
    return [one for value in baseline for one in _single(value)] if isinstance(baseline, list) else [baseline]


def _shared(name: str, start: np.ndarray) -> np.ndarray:
    """A baseline (N, *features) with one row, and one element along every axis on which it does not change."""
    if len(start) > 1 and (start != start[:1]).any():
        raise _depends(f"the baseline of {name!r}")
    for axis in range(start.ndim):
        first = start.take([0], axis=axis)
        if (start == first).all():
            start = first
    return np.ascontiguousarray(start)


def _depends(what: str) -> ExportError:
    return ExportError(
        f'{what} depends on the sample, and is not stored in a file. Fix: give a number, "black", "white" or an '
        "array of one sample, and feed others to the file as its input `baseline`"
    )
