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
from analyzer.target import Seed, rows_of

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fed:
    """What an original network is fed: its inputs by ONNX name, and arrays by the network's own names that take the
    place of what it computes there; from these on it is run.
    """

    inputs: Mapping[str, np.ndarray]
    inner: Mapping[str, np.ndarray] = field(default_factory=dict)


class Native(ABC):
    """Base of the backends whose gradients come from a framework's own autodiff."""

    name: str

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
    ) -> tuple[np.ndarray, Arrays, Arrays]:
        """The whole output, values and gradients of known tensors, by the framework's own autodiff."""

    @abstractmethod
    def cut(self, graph: Graph) -> Native:
        """The same for a graph that was cut out of this one, whose further inputs are tensors of it."""

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request; the explained scalar under OUTPUT, its class under CHOSEN."""
        program, interpreter = self._program(request, feeds, seed.output)
        gradients = {gradient_name(name): name for name in self.graph.tensors}
        wrt = [gradients[name] for name in program.inputs if name in gradients]
        values = [name for name in program.inputs if name not in gradients and name not in feeds]
        y, measured, measured_gradients = self.measure(feeds, seed, values, wrt)
        supplied = {**feeds, **measured, **{gradient_name(name): g for name, g in measured_gradients.items()}}
        tensors = {name: self.framework.tensor(supplied[name]) for name in program.inputs}
        found = interpreter.run(tensors, list(program.outputs.values()))
        results = {key: self.framework.array(found[name]) for key, name in program.outputs.items()}
        chosen = seed.chosen(y)
        weights = seed.cotangent(y)
        # The mask of an attention may put −∞ where the weight is 0.
        weighted = np.multiply(y, weights, out=np.zeros_like(y), where=weights != 0)
        explained = rows_of(weighted).sum(axis=1, dtype=y.dtype)
        return {OUTPUT: explained, **({} if chosen is None else {CHOSEN: chosen}), **results}

    def need(self, flow: Flow) -> Need:
        """What the framework keeps for the way back, its copies of the weights, and what is live beside them."""
        return Need(flow.live() + np.array([2 * flow.weights, 0]))

    def release(self) -> None:
        """Drop the programs that follow the framework's gradients."""
        self._programs.clear()

    def _program(
        self, request: Request, feeds: Mapping[str, np.ndarray], output: str
    ) -> tuple[Program, Interpreter]:
        key = (request.key, output)
        if key not in self._programs:
            known = frozenset(self.known(feeds))
            roots = (*request.wrt, *(name for name in self.graph.inputs if self.graph.tensors[name].is_float))
            leading = self.graph.ancestors([output])
            active = active_tensors(self.graph, roots)
            measurable = (known & leading & active) | {output}
            # A wanted tensor that the target does not depend on has gradient zero, which the sweep supplies.
            program = remainder_program(self.graph, request, known, measurable)
            self._programs[key] = (program, Interpreter(Graph.from_proto(program.proto), self.framework))
        return self._programs[key]
