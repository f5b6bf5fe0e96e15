"""The network that was converted, differentiated by its own framework: the truth a conversion is held to.

The PyTorch program is run node by node under autograd, the TensorFlow function's own graph is differentiated by
tf.gradients. Their tensors are found by the names that the exporter kept, verified on values (matching.py).
A tensor that the source does not have, such as the sigmoid inside a SiLU, is derived from those it has by our
local rules; `found` says which are the source's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from analyzer.backends.batching.estimate import Costs
from analyzer.backends.interpreter import Framework, TensorFlow, Torch
from analyzer.backends.native import Fed, Measured, Native
from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.backends.source.arranged import ArrangedSource
from analyzer.backends.source.matching import MOVES_ONLY, Match, match
from analyzer.errors import AnalysisError, BackendError
from analyzer.graph.batch_axis import batched_inputs, fixed_batch
from analyzer.graph.graph import Graph
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.target import after
from analyzer.target.target import Seed
from analyzer.types import Arrays
from converters.model import Model, PyTorchSource, TensorFlowSource

# Values are compared on this many samples: enough to tell layers apart, and an axis of samples from one of length 1.
MATCHED_SAMPLES = 2


Cotangents = Callable[[Arrays], list[Arrays]]
"""From a network's outputs, {name: array}, to the weights over them, of each scalar that is explained."""


class Network(Protocol):
    """An original network whose tensors can be fetched and differentiated by name."""

    @property
    def framework(self) -> Framework:
        """What its tensors are made with."""

    @property
    def keeps_names(self) -> bool:
        """Whether an ONNX name that the source knows stands for that very tensor."""

    @property
    def batch(self) -> int | None:
        """The number of samples that it was traced with, None where it takes any."""

    def names(self) -> dict[str, bool]:
        """Every float tensor in topological order, and whether a layer computes it (see MOVES_ONLY)."""

    def candidates(self, name: str) -> Sequence[str]:
        """The source names that an ONNX name may stand for."""

    def values(self, feeds: Fed, names: Sequence[str]) -> Arrays:
        """The values of these tensors, by the source's names."""

    def measure(
        self,
        feeds: Fed,
        outputs: Sequence[str],
        cotangents: Cotangents,
        values: Sequence[str],
        wrt: Sequence[str],
    ) -> Measured:
        """The outputs, values, and the gradients of Σ ⟨cotangent, output⟩ for each of the cotangents {output: array}
        that are made of the outputs; all by the source's names.
        """


class SourceBackend(Native):
    """The original network of a converted model, seen under the names of the ONNX graph."""

    name = "source"
    # Weights and tensors of the ONNX graph are held with those of the network, the tensors of two samples.
    costs = Costs(tensors=1.5, weights=7, fixed=128 * 2**20, keeps=True, least=2 * MATCHED_SAMPLES)

    def __init__(
        self,
        graph: Graph,
        network: Network,
        outputs: Mapping[str, str],
        whole: SourceBackend | None = None,
    ) -> None:
        super().__init__(graph, network.framework)
        self.network = network
        self._outputs = outputs
        self._whole = whole
        self._found: dict[str, Match] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._few = True

    @property
    def batch(self) -> int | None:
        """The number of samples that the source, or else the graph, must be fed."""
        return self.network.batch or fixed_batch(self.graph)

    @property
    def found(self) -> Mapping[str, Match]:
        """The tensors that the source itself has. Empty before the first evaluation."""
        return self._found or {}

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """The tensors found in the source; the search runs once, on the first inputs seen."""
        return {*self._matches(feeds), *self.graph.inputs}

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors. Raises AnalysisError for one that the source does not have."""
        matches = self._matches(feeds)
        own = {name: (after.parts_of(name) or (name,))[0] for name in names if name not in feeds}
        missing = [name for name in own.values() if name not in matches]
        if missing:
            raise _absent(missing[0])
        wanted = {name: matches[output] for name, output in own.items()}
        values = self.network.values(self._fed(feeds), list(dict.fromkeys(m.name for m in wanted.values())))
        found = {name: after.activation(name, m.to_onnx(values[m.name])) for name, m in wanted.items()}
        return {name: feeds[name] if name in feeds else found[name] for name in names}

    def measure(
        self, feeds: Mapping[str, np.ndarray], seed: Seed, values: Sequence[str], wrt: Sequence[str]
    ) -> Measured:
        """The seed's whole outputs, values and gradients, by the source's own framework."""
        matches = self._matches(feeds)
        # A Softmax that the target appends to an output is not in the source.
        own = {name: (after.parts_of(name) or (name,))[0] for name in seed.outputs}
        lost = [name for name in own.values() if name not in matches]
        if lost:
            raise _absent(lost[0])
        outputs = {name: matches[output] for name, output in own.items()}

        def value(name: str, ys: Arrays) -> np.ndarray:
            return after.activation(name, outputs[name].to_onnx(ys[outputs[name].name]))

        def cotangents(ys: Arrays) -> list[Arrays]:
            ours = {name: value(name, ys) for name in outputs}
            found: list[Arrays] = []
            for given in seed.cotangents(ours):
                theirs: Arrays = {}
                for name, array in given.items():
                    y = ys[outputs[name].name]
                    laid = outputs[name].from_onnx(after.pulled_back(name, ours[name], array), y.shape)
                    # Two outputs of the graph may be one tensor of the source.
                    theirs[outputs[name].name] = laid + theirs.get(outputs[name].name, np.zeros((), y.dtype))
                found.append(theirs)
                seeds.append(given)
            return found

        seeds: list[Arrays] = []
        names = {
            name: matches[name].name if name in matches else self.network.candidates(name)[0]
            for name in wrt
            if after.parts_of(name) is None
        }
        wanted = {name: matches[name].name for name in values}
        fetched = [match.name for match in outputs.values()]
        found = self.network.measure(
            self._fed(feeds), fetched, cotangents, list(wanted.values()), list(names.values())
        )
        return Measured(
            {name: value(name, found.outputs) for name in outputs},
            {name: matches[name].to_onnx(found.values[source]) for name, source in wanted.items()},
            [
                {
                    name: matches[name].to_onnx(gradients[source]) if name in matches else gradients[source]
                    for name, source in names.items()
                }
                | {name: given[name] for name in wrt if name not in names}
                for gradients, given in zip(found.gradients, seeds, strict=True)
            ],
        )

    def cut(self, graph: Graph) -> SourceBackend:
        """The network run from inner tensors on: those that the graph has among its inputs, and this one's not."""
        return SourceBackend(graph, self.network, self._outputs, whole=self._whole or self)

    def rebound(self, graph: Graph) -> SourceBackend:
        """The same network for another graph of it."""
        return SourceBackend(graph, self.network, self._outputs, whole=self._whole)

    def arranged(self, graph: Graph, arrangement: Arrangement) -> Native:
        """The network under a view of the graph. Its tensors are found on whole feeds: axis 0 counts no samples."""
        whole = SourceBackend(self.graph, self.network, self._outputs, self._whole)
        whole._few = arrangement.plain
        return ArrangedSource(whole, graph, arrangement)

    def _fed(self, feeds: Mapping[str, np.ndarray]) -> Fed:
        """What the network is fed: its own inputs, and tensors in place of those that it computes."""
        if self._whole is None:
            return Fed(feeds)
        own = self._whole.graph.inputs
        matches = self._matches(feeds)
        inner = {}
        for name, array in feeds.items():
            if name in own:
                continue
            if name not in matches:
                raise _absent(name)
            matched = matches[name]
            shape = matched.shape_of(array.shape, self._whole._shapes[matched.name])
            inner[matched.name] = matched.from_onnx(array, shape)
        return Fed({name: array for name, array in feeds.items() if name in own}, inner)

    def _matches(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Match]:
        if self._found is None:
            if self._whole is None:
                self._found = self._search(
                    _samples(self.graph, feeds) if self._few and not self.batch else feeds
                )
            else:
                self._found = self._inherited(self._whole)
        return self._found

    def _inherited(self, whole: SourceBackend) -> dict[str, Match]:
        """What was found for the whole graph, of the tensors of this one."""
        if whole._found is None:
            raise AnalysisError(
                "the source's tensors are found by their values. Fix: run the whole model once, as in "
                "fn.forward(inputs, points), before what is cut out of it"
            )
        return {name: matched for name, matched in whole.found.items() if name in self.graph.tensors}

    def _search(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Match]:
        graph = self.graph
        computed = [
            (name, node.op_type)
            for node in graph.nodes
            for name in node.outputs
            if name and graph.tensors[name].is_float and after.parts_of(name) is None
        ]
        ours = OnnxRuntime(graph).forward(feeds, [name for name, _ in computed])
        offered = self.network.names()
        theirs = self.network.values(Fed(feeds), list(offered))
        self._shapes = {name: array.shape for name, array in theirs.items()}
        candidates = {name: self.network.candidates(name) for name, _ in computed}
        candidates.update(
            {name: [source, *candidates.get(name, ())] for name, source in self._outputs.items()}
        )
        found = match(
            ours,
            theirs,
            candidates,
            frozenset(name for name, op_type in computed if op_type not in MOVES_ONLY),
            frozenset(name for name, moves in offered.items() if moves),
            trusted={*graph.outputs, *(ours if self.network.keeps_names else ())},
        )
        lost = [name for name in graph.outputs if name in ours and name not in found]
        if lost:
            raise BackendError(
                f"the source has no tensor with the values of the output {lost[0]!r}. Fix: use "
                'backend="onnxruntime" (--backend onnxruntime)'
            )
        return found


def _absent(name: str) -> AnalysisError:
    """Return the error for a tensor of the graph that the source does not have."""
    return AnalysisError(
        f"the source has no tensor {name!r}: conversion folded or rewrote it. Fix: use "
        'backend="onnxruntime", or convert the model with fold_batch_norm=False'
    )


def _samples(graph: Graph, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the first samples, a single one twice; all of the inputs where some have no axis of samples."""
    if {name for name, array in feeds.items() if array.ndim} - set(batched_inputs(graph)):
        # Offsets or indices of a stated size may point at rows that a part would lack.
        return dict(feeds)
    return {
        name: np.take(array, np.arange(MATCHED_SAMPLES), axis=0, mode="clip") if array.ndim else array
        for name, array in feeds.items()
    }


def source_backend(model: Model, graph: Graph, *, half: bool = False) -> SourceBackend:
    """The backend of the network that a model was converted from. Raises AnalysisError where it has none."""
    source = model.source
    if source is None:
        raise AnalysisError(
            'backend="source" needs the original network: an ONNX file has no source. Fix: give the model that '
            '`convert` returned, or use backend="onnxruntime" (--backend onnxruntime)'
        )
    if isinstance(source, PyTorchSource):
        from analyzer.backends.source.pytorch import PyTorchNetwork

        return SourceBackend(graph, PyTorchNetwork(source, Torch(), half=half), {})
    assert isinstance(source, TensorFlowSource)
    from analyzer.backends.source.tensorflow import TensorFlowNetwork

    return SourceBackend(graph, TensorFlowNetwork(source, TensorFlow()), source.outputs)
