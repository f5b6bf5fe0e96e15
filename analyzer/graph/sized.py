"""A part of a graph at the sizes of its inputs: every shape is a number, every size that is computed a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor, is_float
from analyzer.graph.precision import FLOAT32, in_precision
from analyzer.graph.program import Program, assemble
from converters.passes.sizes import at_sizes

# A constant of more floats than these is a weight.
WEIGHTS = 2**12


def graph_at(graph: Graph, shapes: Mapping[str, tuple[int, ...]], wanted: Sequence[str]) -> Graph:
    """The part of a graph that computes the tensors `wanted`, for inputs of these shapes.

    Raises ConversionError where the graph does not take them.
    """
    # Shapes are those of float32, in which every op's are inferred.
    single = in_precision(graph, FLOAT32)
    forward = assemble(single, Builder(graph.opset), {name: single.tensors[name] for name in wanted})
    return _at_sizes(forward, shapes)


def _at_sizes(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph of a program at the sizes of its inputs. Weights, on which no shape depends, are not copied for it."""
    weights = {
        name: array
        for name, array in program.constants.items()
        if array.size > WEIGHTS and is_float(array.dtype)
    }
    light = {name: array for name, array in program.constants.items() if name not in weights}
    fixed = Graph.from_proto(at_sizes(program.with_constants(light), shapes))
    held = {
        name: Tensor(name, program.widened.get(name, array.dtype), array.shape, array)
        for name, array in weights.items()
    }
    inputs = tuple(name for name in fixed.inputs if name not in held)
    return replace(fixed, tensors={**fixed.tensors, **held}, inputs=inputs)
