"""Read one backend: everything that a check compares, from as few runs of the model as can be.

What belongs together is measured in one run: an explanation of a difference by kink decisions must speak of the very
values that the gradients came from, and a second run may round otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analyzer.autodiff.request import gradient_name, joined, observe, remainder_program
from analyzer.backends import Differentiable
from analyzer.backends.bound import Bound, Evaluation
from analyzer.backends.differentiable import attributed
from analyzer.backends.onnxruntime import make_session
from analyzer.checks.explain.kinks import Side, decision_tensors
from analyzer.checks.read.passes import Passes
from analyzer.errors import AnalysisError
from analyzer.graph.graph import Graph
from analyzer.methods import FullGrad
from analyzer.methods.completeness import Completeness
from analyzer.methods.full_grad import read_full_grad
from analyzer.methods.full_gradient.decomposition import Plan, Settings, plan
from analyzer.methods.full_gradient.maps import PUBLISHED
from analyzer.target.target import Target
from analyzer.types import Arrays
from converters.verification.original import draws


@dataclass(frozen=True)
class Reading:
    """What one backend says of the model on the inputs, at the tensors that it measures itself."""

    side: Side
    layers: tuple[str, ...]
    outputs: Arrays
    maps: Arrays
    completeness: Completeness
    seconds: float

    def without_layers(self, roots: Sequence[str]) -> Reading:
        """What is still told of a reading after its layers were compared: values at the roots, maps, completeness."""
        values = {name: array for name, array in self.side.values.items() if name in roots}
        return replace(self, side=Side(values, {}), layers=(), outputs={})

    def quantities(self, roots: Sequence[str]) -> dict[str, Arrays]:
        """What is compared, {quantity: {tensor: array}}, in the order of a report."""
        values, gradients = self.side.values, self.side.gradients
        return {
            "output": self.outputs,
            "layer": {name: values[name] for name in self.layers},
            "input gradient": {name: gradients[name] for name in roots},
            "bias gradient": {name: array for name, array in gradients.items() if name not in roots},
            "full grad": self.maps,
        }


@dataclass(frozen=True)
class Reader:
    """A backend, and the tensors on the way from the attributed ones, `roots`, to the explained output. name: what a
    report calls it. spatial: {root: its axes over which the map is drawn} where these are known.
    """

    fn: Differentiable
    target: Target
    roots: tuple[str, ...]
    name: str
    spatial: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The graph whose tensors are read."""
        return self.fn.graph

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the explained scalar is made of."""
        return tuple(weights_of(self.target))

    def layers(self, feeds: Arrays) -> list[str]:
        """The tensors between the roots and the outputs that the backend measures itself."""
        own = frozenset(self.fn.engine.known(feeds))
        path = attributed(self.fn.graph, self.outputs, self.roots) - feeds.keys()
        return [name for name in self.fn.tensors if name in own and name in path]

    @cached_property
    def _decisions(self) -> frozenset[str]:
        return decision_tensors(Passes(self.fn.graph), self.roots, self.outputs)

    @property
    def settings(self) -> Settings:
        """The decomposition that is compared: all terms, and the published map."""
        spatial = tuple(self.spatial.items())
        return Settings(self.outputs, self.roots, explicit=False, psi=PUBLISHED, spatial=spatial)

    def bind(self, feeds: Arrays) -> Bound:
        """The model at these inputs, with the target that is compared."""
        return self.fn.bind(feeds, self.target)

    def plan(self, feeds: Arrays) -> Plan:
        """FullGrad of the model at the inputs' sizes."""
        return plan(self.bind(feeds), self.settings)

    def read(self, feeds: Arrays) -> Reading:
        """Values at every layer, gradients at the roots and at every bias, and FullGrad, in one run."""
        began = time.perf_counter()
        layers, bound = self.layers(feeds), self.bind(feeds)
        planned = plan(bound, self.settings)
        biased = {bias.tensor for bias in planned.biases}
        wrt = [*self.roots, *(name for name in layers if name in biased and name not in self.roots)]
        request = joined(planned.request, observe(layers, wrt))
        found = bound.evaluate(request, defined=False)
        side = self._side(found.arrays, layers, wrt, feeds)
        tensors = self.fn.graph.tensors
        # A weight that the model returns is no result: nothing of it is compared.
        floats = [n for n in self.fn.graph.outputs if tensors[n].is_float and tensors[n].constant is None]
        others = [name for name in floats if name not in side.values]
        full_grad = read_full_grad(planned, found, {})
        outputs = {**side.values, **(self.fn.forward(feeds, others) if others else {})}
        return Reading(
            side,
            tuple(layers),
            {name: outputs[name] for name in floats},
            maps_of(full_grad),
            full_grad.completeness,
            time.perf_counter() - began,
        )

    def as_reader(self, feeds: Arrays) -> tuple[Reader, Arrays]:
        """Itself and its inputs: what a Twin is under names of its own."""
        return self, feeds

    def counterpart(self, name: str) -> str:
        """Every tensor stands for itself."""
        return name

    def term_of(self, name: str, term: np.ndarray) -> np.ndarray:
        """A term as it is."""
        return term

    def maps_of(self, maps: Arrays) -> Arrays:
        """Maps as they are."""
        return maps

    def decompose(self, feeds: Arrays, side: Side, explained: np.ndarray) -> FullGrad:
        """FullGrad by our rules on values that were read, and on the gradients that show a choice at a tie.

        explained: (N,), what it must sum to.
        """
        planned = self.plan(feeds)
        program = remainder_program(
            self.graph, planned.request, list(side.values), side.chosen, seeds=side.outputs
        )
        proto, weights = program.apart()
        session = make_session(proto, ["CPUExecutionProvider"], weights=weights)
        given = side.given
        arrays = session.run(list(program.outputs.values()), {name: given[name] for name in program.inputs})
        found = Evaluation(explained, None, dict(zip(program.outputs, arrays, strict=True)))
        return read_full_grad(planned, found, {})

    def everywhere(self, feeds: Arrays) -> Side:
        """Values and gradients at every layer, in one run."""
        layers = self.layers(feeds)
        wrt = list(dict.fromkeys([*self.roots, *layers]))
        found = self.fn.evaluate(observe(layers, wrt), feeds, self.target, defined=False)
        return self._side(found.arrays, layers, wrt, feeds)

    def at_point(self, feeds: Arrays) -> Side:
        """Gradients at the roots, and the values that kink decisions hang on, in one run."""
        values = [name for name in self.layers(feeds) if name in self._decisions]
        found = self.fn.evaluate(observe(values, self.roots), feeds, self.target, defined=False)
        return self._side(found.arrays, values, self.roots, feeds)

    def _side(self, found: Arrays, values: Sequence[str], wrt: Sequence[str], feeds: Arrays) -> Side:
        return Side(
            {**feeds, **{name: found[f"value/{name}"] for name in values}},
            {name: found[gradient_name(name)] for name in wrt},
            seeds=seeds_of(self.target, self.graph),
        )


def refuse_noise(fn: Differentiable) -> None:
    """Raise AnalysisError where an output depends on a node that draws at random."""
    if drawn := draws(fn.model.light):
        raise AnalysisError(
            f"the outputs depend on random numbers ({drawn}): two runs differ, so that no comparison has a meaning. "
            "Fix: export the model in inference mode, without noise"
        )


def weights_of(target: Target) -> Mapping[str, np.ndarray]:
    """The weights of a scalar that was fixed (agreement.py), over every output that it is made of."""
    assert isinstance(target.weights, Mapping)
    return target.weights


def seeds_of(target: Target, graph: Graph) -> Arrays:
    """The same, each in the precision of the output."""
    return {name: weights.astype(graph.tensors[name].dtype) for name, weights in weights_of(target).items()}


def maps_of(found: FullGrad) -> Arrays:
    """The maps by what rows call them: "map", or "map of" each of several inputs."""
    if not isinstance(found.map, Mapping):
        return {"map": found.map}
    return {f"map of {name}": drawn for name, drawn in found.map.items()}
