"""Another model seen under the names of the first: what makes a comparison of two models one of two backends.

A Twin is read like a backend of model a (reading.py), but every number is model b's own: values and gradients at the
tensors that were paired, its own FullGrad; all in a's names and a's order of axes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analyzer.autodiff.biases import find_biases
from analyzer.autodiff.request import gradient_name, observe
from analyzer.backends import Differentiable
from analyzer.backends.differentiable import attributed
from analyzer.checks.explain.kinks import Side, decision_tensors
from analyzer.checks.match.pairing import Pairing, by_inputs_of_a, fed
from analyzer.checks.read.passes import Passes
from analyzer.checks.read.reading import Reader, Reading, maps_of, seeds_of, weights_of
from analyzer.errors import AnalysisError
from analyzer.graph.graph import Graph
from analyzer.methods.full_grad import read_full_grad
from analyzer.methods.full_gradient.decomposition import plan
from analyzer.target.target import Target
from analyzer.types import Arrays


@dataclass(frozen=True)
class Twin:
    """Model b for the eyes of a. graph: of a. target, roots: in a's terms. inputs: {input of b: of a}; outputs, layers:
    {tensor of a: of b}, as pairing.py finds them. spatial: of every root, the axes over which a's map is drawn; b's is
    drawn over the same, for where no layer tells, two models may take different axes for the channels.
    """

    name: str
    graph: Graph
    fn: Differentiable
    target: Target
    roots: tuple[str, ...]
    inputs: Pairing
    outputs: Pairing
    paired: Pairing
    spatial: Mapping[str, tuple[int, ...]]

    @property
    def outputs_of_a(self) -> tuple[str, ...]:
        """What the explained scalar is made of."""
        return tuple(weights_of(self.target))

    @cached_property
    def tensors(self) -> Pairing:
        """Every tensor of a that has a counterpart, inputs and outputs among them."""
        return {**self.paired, **self.outputs, **by_inputs_of_a(self.inputs)}

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The paired tensors between a's roots and what is explained, in a's order."""
        path = attributed(self.graph, self.outputs_of_a, self.roots)
        order = (name for node in self.graph.nodes for name in node.outputs)
        return tuple(name for name in order if name in self.tensors and name in path)

    @cached_property
    def _roots_of_b(self) -> list[str]:
        lost = [name for name in self.roots if name not in self.tensors]
        if lost:
            raise _lacks(self.name, lost[0])
        return [self.tensors[name].name for name in self.roots]

    def read(self, feeds: Arrays) -> Reading:
        """Values at every layer, gradients at the roots and at every bias of a, outputs, and b's own FullGrad."""
        began = time.perf_counter()
        biased = {bias.tensor for bias in find_biases(self.graph, self.outputs_of_a, self.roots)}
        side = self._side(feeds, self.layers, (*self.roots, *(n for n in self.layers if n in biased)))
        reader, theirs = self.as_reader(feeds)
        outputs = self.fn.forward(theirs, [one.name for one in self.outputs.values()])
        bound = reader.bind(theirs)
        planned = plan(bound, reader.settings)
        found = read_full_grad(planned, bound.evaluate(planned.request, defined=False), {})
        return Reading(
            side,
            self.layers,
            {name: one.to_onnx(outputs[one.name]) for name, one in self.outputs.items()},
            self._maps(maps_of(found)),
            found.completeness,
            time.perf_counter() - began,
        )

    def everywhere(self, feeds: Arrays) -> Side:
        """Values and gradients at every layer."""
        return self._side(feeds, self.layers, (*self.roots, *self.layers))

    def at_point(self, feeds: Arrays) -> Side:
        """Gradients at the roots, and the values that kink decisions of a hang on."""
        decisive = decision_tensors(Passes(self.graph), self.roots, self.outputs_of_a)
        return self._side(feeds, [name for name in self.layers if name in decisive], self.roots)

    def _side(self, feeds: Arrays, values: Iterable[str], wrt: Iterable[str]) -> Side:
        theirs, tensors = fed(self.inputs, feeds), self.tensors
        seen, at = tuple(dict.fromkeys(values)), tuple(dict.fromkeys(wrt))
        assert all(name in tensors for name in at) or self._roots_of_b
        request = observe([tensors[n].name for n in seen], [tensors[n].name for n in at])
        arrays = self.fn.evaluate(request, theirs, self._target(theirs), defined=False).arrays
        found = {name: tensors[name].to_onnx(arrays[f"value/{tensors[name].name}"]) for name in seen}
        gradients = {name: tensors[name].to_onnx(arrays[gradient_name(tensors[name].name)]) for name in at}
        return Side({**feeds, **found}, gradients, seeds=seeds_of(self.target, self.graph))

    def _target(self, theirs: Arrays) -> Target:
        """The explained scalar in b's terms: the same weights over every output's counterpart."""
        lost = [name for name in self.outputs_of_a if name not in self.tensors]
        if lost:
            raise _lacks(self.name, lost[0])
        found = {}
        for name, weights in weights_of(self.target).items():
            one = self.tensors[name]
            shape = self.fn.forward(theirs, [one.name])[one.name].shape
            found[one.name] = one.from_onnx(weights, shape)
        return Target(weights=found)

    def as_reader(self, feeds: Arrays) -> tuple[Reader, Arrays]:
        """The same model under its own names, and its inputs."""
        theirs = fed(self.inputs, feeds)
        spatial = {
            self.tensors[root].name: tuple(sorted(order))
            for root in self.roots
            if (order := self._spatial_order(root)) is not None
        }
        return Reader(self.fn, self._target(theirs), tuple(self._roots_of_b), self.name, spatial), theirs

    def counterpart(self, name: str) -> str | None:
        """The tensor of b that stands for a tensor of a."""
        # An output may be moved to its place after the node that has the term.
        one = self.paired.get(name) or self.tensors.get(name)
        return one.name if one is not None else None

    def term_of(self, name: str, term: np.ndarray) -> np.ndarray:
        """b's term at the counterpart of a tensor of a, in the order of a's axes."""
        return (self.paired.get(name) or self.tensors[name]).to_onnx(term)

    def maps_of(self, maps: Arrays) -> Arrays:
        """b's maps by its own roots, as maps of a's."""
        return {root: self.map_of(root, maps[self.tensors[root].name]) for root in self.roots}

    def map_of(self, root: str, drawn: np.ndarray) -> np.ndarray:
        """b's map of a root's counterpart, its axes in the order of a's."""
        order = self._spatial_order(root)
        if order:
            drawn = drawn.transpose(0, *(1 + sorted(order).index(axis) for axis in order))
        return np.ascontiguousarray(drawn)

    def _maps(self, maps: Mapping[str, np.ndarray]) -> Arrays:
        """b's maps by a's names."""
        mine = {self.tensors[name].name: name for name in self.roots}
        found = {}
        for key, drawn in maps.items():
            root = self.roots[0] if len(mine) == 1 else mine[key.removeprefix("map of ")]
            found[key if len(mine) == 1 else f"map of {root}"] = self.map_of(root, drawn)
        return found

    def _spatial_order(self, root: str) -> tuple[int, ...] | None:
        """a's spatial axes, where they stand in b; None where b's tensor has other axes."""
        one = self.tensors[root]
        whole = one.kept == tuple(range(len(one.order)))
        return tuple(one.order[axis] for axis in self.spatial[root]) if whole else None


def _lacks(model: str, tensor: str) -> AnalysisError:
    """Return the error for a tensor of a that b does not compute."""
    return AnalysisError(
        f"{model} has no tensor with the values of {tensor!r}. Fix: explain and attribute tensors that both models "
        "compute, such as their outputs and inputs"
    )
