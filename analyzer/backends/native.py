"""What the native backends share: a framework measures values and gradients, our own arithmetic follows.

A Native backend states which tensors it knows and measures them; `evaluate` then runs the rest of a request (the
method's own ONNX, and local rules for tensors that the framework does not know) through the interpreter, in the
same framework and precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analyzer.autodiff import active_tensors
from analyzer.graph import Graph
from analyzer.interpreter import Framework, Interpreter
from analyzer.liveness import Flow
from analyzer.memory import Need
from analyzer.program import Program
from analyzer.request import CHOSEN, OUTPUT, Request, gradient_name, remainder_program
from analyzer.samples import fixed_batch
from analyzer.target import Seed

Arrays = dict[str, np.ndarray]

OVERHEAD = 64 * 2**20
"""Bytes that a framework takes for threads, kernels and workspaces."""
GRADIENTS = 3
"""Copies of a measured tensor that a method reads: its value, its gradient, and a tensor of the framework."""


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
    """Base of the backends whose gradients come from a framework's own autodiff.

    keeps: the memory of a differentiated forward pass, as a multiple of its tensors. copies: of the weights.
    """

    name: str
    # All of them, and the gradients on their way.
    keeps = 1.15
    copies = 2

    def __init__(self, graph: Graph, framework: Framework) -> None:
        self.graph = graph
        self.framework = framework
        self._programs: dict[Hashable, tuple[Program, Interpreter]] = {}

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed: what the graph's inputs state."""
        return fixed_batch(self.graph)

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
        tensors = {name: self.framework.tensor(supplied[name]) for name in program.inputs}
        computed = interpreter.run(tensors, list(program.outputs.values()))
        results = {key: self.framework.array(computed[name]) for key, name in program.outputs.items()}
        chosen = seed.chosen(measured.outputs[seed.output])
        explained = seed.explained(measured.outputs)
        return {OUTPUT: explained, **({} if chosen is None else {CHOSEN: chosen}), **results}

    def need(self, flow: Flow, wrt: Collection[str]) -> Need:
        """What the framework keeps for the way back, the measured gradients with copies, and those of the weights."""
        forward = flow.total(self.graph.producer)
        if all(self.graph.producer.keys() >= set(node.output) for node in flow.program.nodes):
            # Nothing is differentiated, and a value goes with its last reader.
            held = flow.live()
        else:
            kept = self.keeps * forward + GRADIENTS * flow.total(wrt)
            held = np.concatenate([flow.live(), kept.reshape(1, 2)])
        return Need(held + np.array([OVERHEAD + self.copies * flow.weights, 0]))

    def release(self) -> None:
        """Drop the programs that follow the framework's gradients."""
        self._programs.clear()

    def _program(
        self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed
    ) -> tuple[Program, Interpreter]:
        key = (request.key, seed.outputs, seed.ranks)
        if key not in self._programs:
            known = frozenset(self.known(feeds))
            roots = (*request.wrt, *(name for name in self.graph.inputs if self.graph.tensors[name].is_float))
            leading = self.graph.ancestors(seed.outputs)
            active = active_tensors(self.graph, roots)
            measurable = (known & leading & active) | {*seed.outputs}
            # A wanted tensor that the target does not depend on has gradient zero, which the sweep supplies.
            program = remainder_program(self.graph, request, known, measurable, seed.ranks)
            self._programs[key] = (program, Interpreter(Graph.from_proto(program.proto), self.framework))
        return self._programs[key]
