"""A model at the sizes of its inputs: what placing needs. From a Differentiable to a Graph whose shapes are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analyzer.backends import Differentiable
from analyzer.emitter import Emitter
from analyzer.graph import Graph
from analyzer.precision import FLOAT32, in_precision
from analyzer.program import assemble
from analyzer.samples import batched_inputs
from converters.sizes import at_sizes


def samples_laid_out(fn: Differentiable) -> int:
    """The number of samples in a graph at fixed sizes: the one that the file states, else one."""
    return fn.engine.batch or 1


def at_input_sizes(fn: Differentiable, shapes: Mapping[str, tuple[int, ...]], wanted: Sequence[str]) -> Graph:
    """The part of the graph that computes the tensors `wanted`, for inputs of these shapes."""
    graph, samples = fn.graph, samples_laid_out(fn)
    batched = batched_inputs(graph)
    fixed_shapes = {
        name: (samples, *shape[1:]) if name in batched else shape for name, shape in shapes.items()
    }
    # Shapes are those of float32, in which every op's are inferred.
    single = in_precision(graph, FLOAT32)
    forward = assemble(single, Emitter(graph.opset), {name: single.tensors[name] for name in wanted})
    return Graph.from_proto(at_sizes(forward.proto, fixed_shapes))
