"""The passes of one graph that a check runs on values it has read, each made ready once.

A check compares many pairs of backends at many points, with the same programs: building them anew takes longer than
running them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from analyzer.autodiff.request import gradient_name, observe, remainder_program
from analyzer.backends.onnxruntime import make_session
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node
from analyzer.graph.program import Program, assemble
from analyzer.types import Arrays

# The programs that stay ready hold at most this many bytes, weights included.
KEPT = 256 * 2**20


@dataclass(frozen=True)
class Pass:
    """A program that can be run."""

    program: Program

    @property
    def inputs(self) -> Collection[str]:
        """The names of the arrays that it reads."""
        return self.program.inputs

    @cached_property
    def _session(self) -> Any:
        proto, weights = self.program.apart()
        return make_session(proto, ["CPUExecutionProvider"], weights=weights)

    def run(self, given: Arrays) -> Arrays:
        """Its results by name. given: arrays by name, those that it reads among them."""
        found = self._session.run(
            list(self.program.outputs.values()), {name: given[name] for name in self.program.inputs}
        )
        return dict(zip(self.program.outputs, found, strict=True))


@dataclass(eq=False)
class Passes:
    """The passes of one graph, by our rules, on values and gradients that a side knows."""

    graph: Graph
    _kept: OrderedDict[Hashable, tuple[Pass, int]] = field(default_factory=OrderedDict, init=False)
    _derivatives: dict[str, Pass | None] = field(default_factory=dict, init=False)

    def values(self, wanted: Iterable[str], known: Iterable[str]) -> Pass:
        """Compute tensors from others that are known."""
        wanted, known = tuple(wanted), frozenset(known)
        tensors = {name: self.graph.tensors[name] for name in wanted}
        return self._ready(
            (wanted, known),
            lambda: assemble(self.graph, Builder(self.graph.opset), tensors, available=sorted(known)),
        )

    def gradients(
        self,
        wrt: Iterable[str],
        values: Iterable[str],
        gradients: Iterable[str],
        seeds: Iterable[str] = (),
    ) -> Pass:
        """Compute gradients from values and from the gradients behind them; see `remainder_program`."""
        wrt, values, gradients, seeds = tuple(wrt), frozenset(values), frozenset(gradients), tuple(seeds)
        return self._ready(
            (wrt, values, gradients, seeds),
            lambda: remainder_program(
                self.graph, observe((), wrt), sorted(values), sorted(gradients), seeds=seeds
            ),
        )

    def derivative(self, node: Node) -> Pass | None:
        """The VJP of one node, from its own values; None where it does not depend on them."""
        if node.name not in self._derivatives:
            self._derivatives[node.name] = self._derivative(node)
        return self._derivatives[node.name]

    def _derivative(self, node: Node) -> Pass | None:
        tensors, y = self.graph.tensors, node.outputs[0]
        wrt = tuple(
            name
            for name in dict.fromkeys(node.inputs)
            if name and tensors[name].is_float and tensors[name].constant is None
        )
        alone = Graph((node,), tensors, self.graph.inputs, (y,), self.graph.opset)
        program = remainder_program(alone, observe((), wrt), tensors.keys(), [y])
        reads_values = any(name != gradient_name(y) for name in program.inputs)
        return Pass(program) if reads_values else None

    def _ready(self, key: Hashable, build: Callable[[], Program]) -> Pass:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        program = build()
        made, size = Pass(program), sum(array.nbytes for array in program.constants.values())
        if size <= KEPT:
            self._kept[key] = made, size
            while sum(held for _, held in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        return made
