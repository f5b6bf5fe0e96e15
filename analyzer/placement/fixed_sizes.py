"""A model at the sizes of its inputs: what placing needs. From a Differentiable to a Graph whose shapes are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analyzer.backends import Differentiable
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.graph import Graph
from analyzer.graph.sized import WEIGHTS, graph_at

__all__ = ["WEIGHTS", "at_input_sizes", "samples_laid_out"]


def samples_laid_out(fn: Differentiable) -> int:
    """The number of samples in a graph at fixed sizes: the one that the file states, else one."""
    return fn.engine.batch or 1


def at_input_sizes(fn: Differentiable, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Graph:
    """The part of the graph that computes the tensors `wanted`, for inputs of these sizes."""
    graph, samples = fn.graph, samples_laid_out(fn)
    batched = batched_inputs(graph)
    fixed_shapes = {
        name: (samples, *array.shape[1:]) if name in batched else array.shape for name, array in feeds.items()
    }
    return graph_at(graph, fixed_shapes, wanted)
