"""A model at the sizes of its inputs: what placing needs. From a Differentiable to a Graph whose shapes are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analyzer.backends import Differentiable
from analyzer.emitter import Emitter
from analyzer.graph import Graph, Tensor, is_float
from analyzer.precision import FLOAT32, in_precision
from analyzer.program import Program, assemble
from analyzer.samples import batched_inputs
from converters.sizes import at_sizes

# A constant of more floats than these is a weight.
WEIGHTS = 2**12


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
    return _at_sizes(forward, fixed_shapes)


def _at_sizes(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph of a program at the sizes of its inputs. Weights, on which no shape depends, are not copied for it."""
    weights = {
        name: array
        for name, array in program.constants.items()
        if array.size > WEIGHTS and is_float(array.dtype)
    }
    light = {name: array for name, array in program.constants.items() if name not in weights}
    fixed = Graph.from_proto(at_sizes(program.with_constants(light), shapes))
    held = {name: Tensor(name, array.dtype, array.shape, array) for name, array in weights.items()}
    inputs = tuple(name for name in fixed.inputs if name not in held)
    return replace(fixed, tensors={**fixed.tensors, **held}, inputs=inputs)
