"""What the native backends share: a framework measures values and gradients, our own arithmetic follows.

A Native backend states which tensors it knows and measures them; `evaluate` then runs the rest of a request (the
method's own ONNX, and local rules for tensors that the framework does not know) through the interpreter, in the
same framework and precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from analyzer.autodiff.request import CHOSEN, OUTPUT, Request, gradient_name, remainder_program, sized_program
from analyzer.autodiff.sweep import active_tensors
from analyzer.backends.batching.estimate import Costs
from analyzer.backends.interpreter import Framework, Interpreter
from analyzer.graph.batch_axis import fixed_batch
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph
from analyzer.graph.program import Program
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.segments import Stage
from analyzer.ops import find
from analyzer.ops.eager import Composed
from analyzer.target.target import Seed
from analyzer.types import Arrays


@dataclass(frozen=True)
class Fed:
    """What an original network is fed: its inputs by ONNX name, and arrays by the network's own names that take the
    place of what it computes there; from these on it is run.
    """

    inputs: Mapping[str, np.ndarray]
    inner: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a framework computed. gradients: of each scalar that is explained of a sample."""

    outputs: Arrays
    values: Arrays
    gradients: list[Arrays]


class Native(ABC):
    """Base of the backends whose gradients come from a framework's own autodiff."""

    name: str
    options: Mapping[str, Any] | None = None
    costs = Costs(tensors=1.25, weights=2, fixed=128 * 2**20, keeps=True)

    def __init__(self, graph: Graph, framework: Framework) -> None:
        self.graph = graph
        self.framework = framework
        self._programs: dict[Hashable, tuple[Program, Interpreter]] = {}

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed: what the graph's inputs state."""
        return fixed_batch(self.graph)

    @property
    def single(self) -> None:
        """None: the framework spreads a batch over its threads itself."""
        return None

    @property
    def recomputing(self) -> None:
        """None: the framework keeps what its backward pass reads."""
        return None

    def stages(self, program: Program, sizes: Mapping[str, int]) -> tuple[Stage, ...]:
        """Return no stages: a program runs as a whole."""
        return ()

    @abstractmethod
    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """The tensors whose values and gradients the framework measures itself."""

    @abstractmethod
    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""

    @abstractmethod
    def measure(
        self, feeds: Mapping[str, np.ndarray], seed: Seed, values: Sequence[str], wrt: Sequence[str]
    ) -> Measured:
        """The seed's whole outputs, values and gradients of known tensors, by the framework's own autodiff."""

    @abstractmethod
    def cut(self, graph: Graph) -> Native:
        """The same for a graph that was cut out of this one, whose further inputs are tensors of it."""

    def rebound(self, graph: Graph) -> Native:
        """The same for another graph of the same model."""
        return self.cut(graph)

    def arranged(self, graph: Graph, arrangement: Arrangement) -> Native:
        """The same for a view of this graph."""
        return self.cut(graph)

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request; the explained scalar under OUTPUT, its class under CHOSEN."""
        program, interpreter = self._program(request, feeds, seed)
        ranks = (None,) if seed.ranks is None else range(seed.ranks)
        gradients = {gradient_name(name, rank): name for name in self.graph.tensors for rank in ranks}
        wrt = [*dict.fromkeys(gradients[name] for name in program.inputs if name in gradients)]
        values = [name for name in program.inputs if name not in gradients and name not in feeds]
        measured = self.measure(feeds, seed, values, wrt)
        supplied = {**feeds, **measured.values}
        for rank, found in zip(ranks, measured.gradients, strict=True):
            supplied |= {gradient_name(name, rank): g for name, g in found.items()}
            found.clear()
        measured.values.clear()
        # Only the framework's copies stay, each until it is read: they may be the larger part of all memory.
        tensors = {name: self.framework.tensor(supplied.pop(name)) for name in program.inputs}
        computed = interpreter.run(tensors, list(program.outputs.values()))
        results = {key: self.framework.array(computed[name]) for key, name in program.outputs.items()}
        chosen = seed.chosen(measured.outputs[seed.output])
        explained = seed.explained(measured.outputs)
        return {OUTPUT: explained, **({} if chosen is None else {CHOSEN: chosen}), **results}

    def program(self, request: Request, seed: Seed) -> Program:
        """Return the forward pass and what follows the gradients, for their sizes. All tensors count as known."""
        measurable = self._measurable(request, seed, self.graph.tensors.keys())
        sized = sized_program(self.graph, request, seed.outputs, measurable, seed.ranks)
        return _written_out(sized, self.graph, self.framework.name)

    def release(self) -> None:
        """Drop the programs that follow the framework's gradients."""
        self._programs.clear()

    def _program(
        self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed
    ) -> tuple[Program, Interpreter]:
        key = (request.key, seed.outputs, seed.ranks)
        if key not in self._programs:
            known = frozenset(self.known(feeds))
            measurable = self._measurable(request, seed, known)
            program = remainder_program(self.graph, request, known, measurable, seed.ranks)
            self._programs[key] = (program, Interpreter(Graph.from_proto(program.proto), self.framework))
        return self._programs[key]

    def _measurable(self, request: Request, seed: Seed, known: Collection[str]) -> frozenset[str]:
        """The tensors among those known whose gradients the framework can tell.

        A wanted tensor that the target does not depend on has gradient zero, which the sweep supplies.
        """
        if request.masked:
            # A framework's own backward pass multiplies 0 by ∞: our rules are run in it.
            return frozenset(seed.outputs)
        roots = (*request.wrt, *(name for name in self.graph.inputs if self.graph.tensors[name].is_float))
        leading = self.graph.ancestors(seed.outputs)
        return (active_tensors(self.graph, roots) & leading & set(known)) | {*seed.outputs}


def _written_out(program: Program, graph: Graph, framework: str) -> Program:
    """Return a program with the nodes that a framework runs in place of an op that it does not have."""
    nodes, constants = list[onnx.NodeProto](), dict(program.constants)
    for node in program.nodes:
        ours = graph.producer.get(node.output[0])
        form = getattr(find(ours), framework, None) if ours is not None else None
        if ours is None or not isinstance(form, Composed):
            nodes.append(node)
            continue
        op = Builder(graph.opset, prefix=f"{ours.outputs[0]}/inside/")
        written = form.write(op, *graph.inputs_of(ours), **ours.attributes)
        written = written if isinstance(written, tuple) else (written,)
        ends = [
            helper.make_node("Identity", [one.name], [name])
            for one, name in zip(written, ours.outputs, strict=False)
            if name
        ]
        nodes += [*op.nodes, *ends]
        constants |= op.initializers
    return replace(program, nodes=nodes, constants=constants)
