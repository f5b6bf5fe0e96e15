"""Estimate the memory that a call takes, from above.

Reads the ONNX program of a call, and the shapes of its inputs at two numbers of samples; returns a MemoryEstimate for
every number between. Sizes are polynomials of the number of samples with positive coefficients, and so convex: the line
through two numbers is an upper bound between them. Shape inference runs once for each of the two. An open axis counts
as the longest of all axes, in a tensor that is at most as large as the largest known one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import helper

from analyzer.graph.graph import Graph
from analyzer.graph.program import Program
from analyzer.graph.segments import Stage
from converters.graph.inference import inferred_of
from converters.graph.nodes import reads

Shapes = Mapping[str, tuple[int, ...]]
Type = tuple[int, tuple[int, ...]]
"""The bytes of an element, and the shape; OPEN for an open axis."""
OPEN = -1

# Bytes that autograd takes for a tensor that it keeps, in addition to the elements.
_RECORD = 2**11
# Bytes of a session, in addition to its weights.
_SESSION = 5 * 2**20
# The values of larger constants are weights: no shape depends on them.
_LIGHT = 1024
# The output of these ops shares the memory of their first input.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class Costs:
    """The memory that a backend takes.

    tensors: for each byte of the tensors that are alive together; above 1 for fragments of the heap.
    weights: for each byte of the weights; the number of copies.
    fixed: bytes for threads, kernels and workspaces.
    keeps: whether the forward pass is kept until the end, every step of its loops included.
    least: the number of samples that are computed at least.
    feeds: whether the many weights of a large program are read where they are, without a copy.
    """

    tensors: float
    weights: float
    fixed: int = 0
    keeps: bool = False
    least: int = 1
    feeds: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a call, as a line over the number of samples."""

    fixed: float
    each: float
    least: int = 1

    def bytes(self, samples: int) -> int:
        """Return the bytes for this number of samples."""
        return math.ceil(self.fixed + self.each * max(samples, self.least))

    def samples(self, budget: int) -> int:
        """Return the most samples within a budget: 0 where one is too much, 2⁶⁰ where any number fits."""
        if self.bytes(1) > budget:
            return 0
        # `bytes` of a number of samples holds that number, however the quotient is rounded.
        return int((budget - self.fixed) / self.each * (1 + 1e-12)) if self.each > 0 else 2**60


class TensorSizes(dict[str, int]):
    """Return the size of every tensor in bytes, by name. A tensor of unknown type gets the size of the largest one."""

    def __init__(self, types: Mapping[str, Type]) -> None:
        super().__init__(
            (name, each * math.prod(shape)) for name, (each, shape) in types.items() if OPEN not in shape
        )
        self.shapes = {name: shape for name, (_, shape) in types.items()}
        self.largest = max(self.values(), default=1)
        longest = max((axis for name in self for axis in self.shapes[name]), default=1)
        for name in types.keys() - self.keys():
            each, shape = types[name]
            size = each * math.prod(longest if axis == OPEN else axis for axis in shape)
            self[name] = min(size, self.largest)

    def __missing__(self, name: str) -> int:
        return self.largest

    def of(self, names: Iterable[str]) -> int:
        """Return the bytes of these tensors together."""
        return sum(self[name] for name in names)


def estimate(program: Program, graph: Graph, at: Mapping[int, TensorSizes], costs: Costs) -> MemoryEstimate:
    """Return the estimate of a program. graph: the one that it computes. at: the sizes at numbers of samples."""
    fed = program.fed_weights if costs.feeds else frozenset[str]()
    lasting = program.constants.keys() - fed
    for node in program.nodes:
        # A runtime computes these once, from constants alone, and keeps them.
        if lasting.issuperset(reads(node)):
            lasting.update(name for name in node.output if name)
    lasting |= fed
    weights = _weights(program, costs)
    points = []
    for samples, sizes in sorted(at.items()):
        alive = sizes.of(lasting - program.constants.keys())
        alive += _most_alive(program, graph, sizes, lasting, keeps=costs.keeps)
        points.append((samples, costs.fixed + costs.weights * weights + costs.tensors * alive))
    return _line(points, costs)


def staged_estimate(
    stages: Sequence[Stage], graph: Graph, at: Mapping[int, TensorSizes], costs: Costs
) -> MemoryEstimate:
    """Return the estimate of a program in stages, whose sessions are all kept, and one of which runs at a time."""
    fixed = costs.weights * sum(_weights(stage.program, costs) for stage in stages) + _SESSION * len(stages)
    points = []
    for samples, sizes in sorted(at.items()):
        most, kept, own = 0.0, set[str](), replace(costs, weights=0, fixed=0)
        for stage in stages:
            alive = estimate(stage.program, graph, {samples: sizes}, own).bytes(0)
            kept |= set(stage.keeps)
            most = max(most, alive + costs.tensors * sizes.of(kept))
            kept -= set(stage.frees)
        points.append((samples, costs.fixed + fixed + most))
    return _line(points, costs)


def _weights(program: Program, costs: Costs) -> int:
    """The bytes of the weights that a session copies."""
    fed = program.fed_weights if costs.feeds else frozenset[str]()
    return sum(array.nbytes for name, array in program.constants.items() if name not in fed)


def _line(points: Sequence[tuple[int, float]], costs: Costs) -> MemoryEstimate:
    """The line through the bytes at two numbers of samples; a constant through one."""
    (few, least), (many, most) = points[0], points[-1]
    each = (most - least) / (many - few) if many > few else 0.0
    return MemoryEstimate(least - few * each, each, costs.least)


def _most_alive(program: Program, graph: Graph, sizes: TensorSizes, lasting: set[str], *, keeps: bool) -> int:
    """Return the most bytes that are alive at once: each tensor from its node to the last node that reads it."""
    storage = {name: name for name in (*program.inputs, *lasting)}
    never = frozenset(storage)
    last: dict[str, int] = {}
    for index, node in enumerate(program.nodes):
        shared = node.op_type in _VIEWS and not node.domain
        storage |= {name: storage[node.input[0]] if shared else name for name in node.output if name}
        last |= {storage.get(name, name): index for name in reads(node)}
    last |= {storage[tensor.name]: len(program.nodes) for tensor in program.results.values()}
    forward = [index for index, node in enumerate(program.nodes) if node.output[0] in graph.producer]
    end = forward[-1] if keeps and forward else -1
    alive = most = sizes.of(program.inputs)
    for index, node in enumerate(program.nodes):
        made = {name for name in node.output if storage.get(name) == name} - never
        alive += sizes.of(made)
        if index <= end:
            alive += _RECORD * len(made) + _in_steps(node, sizes)
        # A framework also holds the elements of the sequences of a Scan.
        apart = keeps and node.op_type == "Scan"
        most = max(most, alive + (sizes.of({*node.input, *node.output} - lasting - {""}) if apart else 0))
        ended = {storage.get(name, name) for name in (*reads(node), *made)} - never
        alive -= sizes.of(name for name in ended if last.get(name, index) == index) if index > end else 0
    return most


def _in_steps(node: onnx.NodeProto, sizes: TensorSizes) -> int:
    """Return the bytes of the tensors that all steps of a Scan compute."""
    if node.op_type != "Scan":
        return 0
    fields = {entry.name: entry for entry in node.attribute}
    length = max(sizes.shapes.get(node.input[-fields["num_scan_inputs"].i], (1,))[0], 1)
    names = [
        name for one in fields["body"].g.node if one.op_type not in _VIEWS for name in one.output if name
    ]
    return length * (sizes.of(names) + _RECORD * len(names))


def sizes_at(graph: Graph, shapes: Shapes, program: Program | None = None) -> TensorSizes:
    """Return the sizes of a graph's tensors, for inputs of these shapes; those of a program of it by inference, too.

    Raises onnx.shape_inference.InferenceError where the program does not take them.
    """
    stated = {tensor.name: tensor for tensor in (*graph.tensors.values(), *(program.fed if program else ()))}
    symbols: dict[object, int] = {
        axis: size
        for name, shape in shapes.items()
        for axis, size in zip(stated[name].shape or (), shape, strict=False)
    }
    types: dict[str, Type] = {
        name: (
            tensor.dtype.itemsize,
            tuple(axis if isinstance(axis, int) else symbols.get(axis, OPEN) for axis in tensor.shape),
        )
        for name, tensor in stated.items()
        if tensor.shape is not None
    }
    if program is not None:
        for name, found in _inferred(program, shapes, symbols):
            if name not in types or OPEN not in found[1]:
                types[name] = found
    return TensorSizes(types)


def _inferred(program: Program, shapes: Shapes, symbols: Mapping[object, int]) -> Iterator[tuple[str, Type]]:
    proto = program.with_constants(
        {n: array for n, array in program.constants.items() if array.size <= _LIGHT}
    )
    for info in proto.graph.input:
        for axis, size in zip(info.type.tensor_type.shape.dim, shapes.get(info.name, ()), strict=False):
            axis.dim_value = size
    for info in proto.graph.value_info:
        for axis in info.type.tensor_type.shape.dim:
            if axis.dim_param in symbols:
                axis.dim_value = symbols[axis.dim_param]
    graphs = [inferred_of(proto).graph]
    for graph in graphs:
        graphs += [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
        for info in (*graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            if tensor.elem_type and tensor.HasField("shape"):
                axes = (
                    axis.dim_value if axis.HasField("dim_value") else symbols.get(axis.dim_param, OPEN)
                    for axis in tensor.shape.dim
                )
                yield info.name, (helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize, tuple(axes))
