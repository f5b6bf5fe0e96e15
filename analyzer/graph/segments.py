"""Divide a program into stages, so that the activations of one segment of the forward pass are alive at a time.

Reads a Program of forward pass and backward pass, and the sizes of its tensors; returns Stages that compute the same
nodes. The first ones run the forward pass and keep the tensors at the borders of the segments alone. The others go back
from the last segment to the first: each computes the activations of its segment again, and the backward nodes that
read them. Programs that draw at random are not divided: their activations would be others.
Source: Chen, Xu, Zhang & Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise

import onnx

from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import Program
from converters.graph.inference import inferred_of
from converters.graph.nodes import reads
from converters.graph.opset import RANDOM, all_nodes
from converters.graph.tensors import shape_of

SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""The numbers of segments that are tried."""
# A border is looked for so far from its even place, in shares of a segment.
_WINDOW = 0.5
_LIGHT = 1024


@dataclass(frozen=True)
class Stage:
    """A part of a program.

    keeps: the tensors that later stages read, by name. frees: those that none reads after it.
    results: the results of the program that it computes, {name of the result: tensor}.
    The stage's program also returns the activations that the backward pass reads, for a runtime to compute them as it
    does in the whole program: it would fuse their nodes with others, and round otherwise.
    """

    program: Program
    keeps: tuple[str, ...]
    frees: tuple[str, ...]
    results: Mapping[str, str]


def stages_of(program: Program, graph: Graph, sizes: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return the stages of a program; none where it has too few layers, draws at random, or has unknown types.

    sizes: the bytes of every tensor.
    """
    if any(node.op_type in RANDOM or node.op_type == "Dropout" for node in all_nodes(list(program.nodes))):
        return ()
    borders = _borders(program, graph, sizes)
    if not borders:
        return ()
    types = _types(program)
    activations = {
        name for node in program.nodes[borders[-1] :] for name in reads(node)
    } & graph.producer.keys()
    return _stages(program, _divided(program, borders), types, activations)


def _forward_nodes(program: Program, graph: Graph) -> int:
    """The number of nodes at the beginning of a program that are the forward pass."""
    return 1 + max(
        (i for i, node in enumerate(program.nodes) if set(node.output) & graph.producer.keys()), default=-1
    )


def _borders(program: Program, graph: Graph, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The positions in the list of nodes at which segments of the forward pass begin; none where nothing is gained."""
    count = _forward_nodes(program, graph)
    saved, crossing = _costs(program, count, sizes)
    best: tuple[int, ...] = (0, count)
    least = float(saved[-1])
    for number in SEGMENTS:
        found = _evenly(saved, crossing, number)
        kept = sum(crossing[border] for border in found[1:-1])
        most = kept + max(saved[end] - saved[begin] for begin, end in pairwise(found))
        if most < least:
            best, least = found, most
    return best if len(best) > 2 else ()


def _costs(program: Program, count: int, sizes: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Of each position among the first `count` nodes: the bytes of the activations before it, and of what crosses it.

    Activations are the tensors that the backward pass reads.
    """
    forward, backward = program.nodes[:count], program.nodes[count:]
    activations = {name for node in backward for name in reads(node)}
    # An input of the model costs no memory, but a skip connection from it is cut as any other.
    made = dict.fromkeys(program.inputs, -1)
    made |= {name: index for index, node in enumerate(forward) for name in node.output if name}
    last = {name: index for index, node in enumerate(forward) for name in reads(node)}
    saved = [0]
    for node in forward:
        saved.append(saved[-1] + sum(sizes[name] for name in node.output if name in activations))
    crossing = [0] * (count + 1)
    for name, index in made.items():
        for border in range(index + 1, last.get(name, index) + 1):
            crossing[border] += sizes[name]
    return saved, crossing


def _evenly(saved: Sequence[int], crossing: Sequence[int], number: int) -> tuple[int, ...]:
    """Borders with about equal activations between them, where little crosses them."""
    total, found = saved[-1], {0, len(saved) - 1}
    for index in range(1, number):
        around = [
            border
            for border in range(1, len(saved) - 1)
            if abs(saved[border] - total * index / number) <= _WINDOW * total / number
        ]
        if around:
            middle = total * index / number
            found.add(min(around, key=lambda border: (crossing[border], abs(saved[border] - middle))))
    return tuple(sorted(found))


@dataclass
class _Division:
    """A program whose forward pass is cut, and the turn of each node of the backward pass: 0 is the last segment's.

    crossing: tensors that another segment reads. results: those of the program. cheap: tensors that depend on constants
    alone. early: those that depend on kept tensors alone. free: the nodes that compute the cheap ones.
    """

    nodes: Sequence[onnx.NodeProto]
    segments: list[list[onnx.NodeProto]]
    crossing: set[str]
    results: set[str]
    cheap: set[str]
    early: set[str]
    free: list[onnx.NodeProto] = field(default_factory=list)
    turn_of: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, borders: Sequence[int]) -> _Division:
        """Cut the forward pass at the borders."""
        segments = [list(program.nodes[begin:end]) for begin, end in pairwise(borders)]
        own = [{name for node in one for name in node.output if name} for one in segments]
        read = [{name for node in one for name in reads(node)} for one in segments]
        always = {*program.constants, *program.inputs}
        crossing = {name for one, made in zip(read, own, strict=True) for name in one - made - always}
        results = {tensor.name for tensor in program.results.values()}
        return cls(program.nodes, segments, crossing, results, set(program.constants), always | crossing)

    def take_turns(self, count: int) -> None:
        """Give each node after the first `count` the first turn in which all that it reads is known."""
        turns = len(self.segments)
        known = {
            name: 0 if name in self.crossing else turns - 1 - index
            for index, one in enumerate(self.segments)
            for node in one
            for name in node.output
        }
        for position, node in enumerate(self.nodes[count:], count):
            made, read = [name for name in node.output if name], set(reads(node)) - self.cheap
            if not read:
                # Each stage that reads a weight in another layout lays it out again.
                self.cheap.update(made)
                self.free.append(node)
                continue
            if self.early.issuperset(read):
                self.early.update(made)
            self.turn_of[position] = max(known.get(name, 0) for name in read)
            known |= dict.fromkeys(made, self.turn_of[position])

    def wait(self) -> None:
        """Move nodes that depend on kept tensors alone to the turn in which they are read.

        Computed earlier, their results would take memory until then.
        """
        first_read: dict[str, int] = {}
        for position in reversed(self.turn_of):
            node = self.nodes[position]
            made = {name for name in node.output if name}
            turns = [first_read[name] for name in made if name in first_read]
            if turns and self.early.issuperset(made) and not self.results & made:
                self.turn_of[position] = min(turns)
            for name in reads(node):
                first_read[name] = min(first_read.get(name, self.turn_of[position]), self.turn_of[position])

    def stages(self) -> list[list[onnx.NodeProto]]:
        """Return the nodes of each stage."""
        turns = len(self.segments)
        backward = [
            [self.nodes[at] for at, turn in self.turn_of.items() if turn == one] for one in range(turns)
        ]
        found = [_needed(one, self.crossing, set()) for one in self.segments[:-1]]
        later = set(self.results)
        back: list[list[onnx.NodeProto]] = []
        for turn in reversed(range(turns)):
            # What a later turn reads of a segment is kept from the turn of the segment.
            later |= {name for node in backward[turn] for name in reads(node)}
            again = _needed(self.segments[turns - 1 - turn], later - self.crossing, self.crossing)
            read = {name for node in (*backward[turn], *again) for name in reads(node)} | self.results
            back.append([*again, *_needed(self.free, read, set()), *backward[turn]])
        return [stage for stage in (*found, *reversed(back)) if stage]


def _divided(program: Program, borders: Sequence[int]) -> list[list[onnx.NodeProto]]:
    """The nodes of each stage: forward without the last segment, then backward from it, with what is computed again."""
    division = _Division.of(program, borders)
    division.take_turns(borders[-1])
    division.wait()
    return division.stages()


def _needed(
    nodes: Iterable[onnx.NodeProto], wanted: Collection[str], kept: Collection[str]
) -> list[onnx.NodeProto]:
    """The nodes that tensors are computed by, in order. kept: tensors that need not be computed."""
    found, names = list[onnx.NodeProto](), set(wanted)
    for node in reversed(list(nodes)):
        if names.intersection(node.output):
            found.append(node)
            names.update(name for name in reads(node) if name not in kept)
    return found[::-1]


def _types(program: Program) -> dict[str, Tensor]:
    """The dtype and shape of every tensor that a program computes, as far as they are known."""
    proto = program.with_constants({n: a for n, a in program.constants.items() if a.size <= _LIGHT})
    found: dict[str, Tensor] = {}
    for info in (*(inferred := inferred_of(proto)).graph.value_info, *inferred.graph.output):
        if info.type.tensor_type.elem_type:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            found[info.name] = Tensor(info.name, dtype, shape_of(info.type))
    return found | {tensor.name: tensor for tensor in program.fed}


def _stages(
    program: Program,
    parts: Sequence[Sequence[onnx.NodeProto]],
    types: Mapping[str, Tensor],
    activations: Set[str],
) -> tuple[Stage, ...]:
    """The stages with what each is fed, keeps and frees; none where a tensor between them has an unknown type.

    activations: tensors of the forward pass that the backward pass reads.
    """
    results = {tensor.name: key for key, tensor in program.results.items()}
    read_by = [{name for node in part for name in reads(node)} for part in parts]
    made_by = [{name for node in part for name in node.output if name} for part in parts]
    stages, alive, left = list[Stage](), set[str](), dict(results)
    for index, (read, made) in enumerate(zip(read_by, made_by, strict=True)):
        outer = read - made - program.constants.keys()
        # A later stage that computes a tensor again does not need it.
        after = {
            name
            for one, own in zip(read_by[index + 1 :], made_by[index + 1 :], strict=True)
            for name in one - own
        }
        keeps = tuple(sorted((made & after) - alive - set(program.inputs)))
        own = {
            left.pop(name): name for name in sorted(made & left.keys()) if _last_maker(name, index, made_by)
        }
        alive |= set(keeps)
        frees = tuple(sorted(alive - after))
        alive -= set(frees)
        if not {*outer, *keeps}.issubset(types):
            return ()
        shown = sorted(
            (made & activations)
            - {*keeps, *own.values()}
            - {tensor.name for tensor in program.results.values()}
        )
        outputs = {
            name: types.get(name) or program.results[results[name]]
            for name in (*keeps, *own.values(), *(name for name in shown if name in types))
        }
        part = replace(
            program,
            nodes=parts[index],
            fed=[types[name] for name in sorted(outer)],
            constants={name: array for name, array in program.constants.items() if name in read},
            results=outputs,
            stated=[tensor for tensor in program.stated if tensor.name in made],
            widened={name: dtype for name, dtype in program.widened.items() if name in read},
        )
        stages.append(Stage(part, keeps, frees, own))
    assert not left, f"no stage computes {sorted(left)}"
    return tuple(stages)


def _last_maker(name: str, index: int, made_by: Sequence[Collection[str]]) -> bool:
    """Whether no later stage computes a tensor again: a result is taken from the backward pass."""
    return not any(name in made for made in made_by[index + 1 :])
