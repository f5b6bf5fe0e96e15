"""A model bound to a backend: the object that every method calls.

A backend answers one question: for these inputs, what are the values and the gradients of the target at
these tensors? `Differentiable` is what users hold. It binds inputs and a target once (bound.py). NumPy arrays go to a
Backend and back, in micro-batches where a batch is split (micro_batches.py). Names are ONNX tensor names throughout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from analyzer.autodiff.request import Request
from analyzer.autodiff.sweep import active_tensors
from analyzer.backends.at_sizes import at_sizes
from analyzer.backends.batching.arranging import arranged, known_places, moved_target
from analyzer.backends.batching.estimate import Costs
from analyzer.backends.batching.micro_batches import run
from analyzer.backends.batching.planning import Call
from analyzer.backends.bound import Bound, Evaluation, Gradients
from analyzer.backends.caches import Caches
from analyzer.backends.call import within_call
from analyzer.backends.file import FileCheck, file_of
from analyzer.backends.inputs import Feeds, check_inputs, checked_for
from analyzer.backends.pixels import from_pictures, refuse_raw
from analyzer.errors import AnalysisError, UnknownTensor
from analyzer.graph.batch_axis import Place, find_places
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Graph
from analyzer.graph.names import EMBEDDING, TensorName, find_tensors, near_names
from analyzer.graph.program import Program
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.segments import Stage
from analyzer.graph.token_inputs import token_vectors
from analyzer.target.class_names import names_of_output, with_indices
from analyzer.target.saturation import note_saturated
from analyzer.target.target import Seed, TargetLike, as_target, one_scalar
from analyzer.types import Arrays, Inputs, Names, Progress
from converters.model import Model
from converters.weights.mapping import refuse_changed


class Backend(Protocol):
    """What computes: NumPy at the border, checked inputs, a resolved target."""

    name: str
    graph: Graph
    options: Mapping[str, Any] | None
    """The options with which `differentiate` made it; None of one that was made for a part or a view of a model."""

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed, None where any will do."""

    @property
    def single(self) -> tuple[Backend, int] | None:
        """The same on one thread, and how many may be called side by side; None where that is never faster."""

    @property
    def recomputing(self) -> Backend | None:
        """The same with less memory, which computes activations again; None where there is none, or it is that."""

    def stages(self, program: Program, sizes: Mapping[str, int]) -> tuple[Stage, ...]:
        """Return the stages in which a program runs; none where it runs as a whole. sizes: bytes of every tensor."""

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """The tensors that the backend measures itself."""

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request; the explained scalar under OUTPUT, its class under CHOSEN."""

    @property
    def costs(self) -> Costs:
        """The memory that the backend takes for the tensors and weights of a program."""

    def program(self, request: Request, seed: Seed) -> Program:
        """Return the ONNX program of a request, or one with tensors of the same sizes.

        Raises UnsupportedOp where a node on the path has no rule.
        """

    def cut(self, graph: Graph) -> Backend:
        """The same for a graph that was cut out of this one, whose further inputs are tensors of it."""

    def rebound(self, graph: Graph) -> Backend:
        """The same for another graph of the same model."""

    def arranged(self, graph: Graph, arrangement: Arrangement) -> Backend:
        """The same for a view of this graph (analyzer/graph/samples/view.py)."""

    def release(self) -> None:
        """Let go of copies of the weights, which are made again when they are needed."""


@dataclass(frozen=True)
class Differentiable:
    """A model on a backend. Made by `differentiate`."""

    model: Model
    engine: Backend
    max_memory: int | None = None
    """Bytes that a call may take, without its results; None for half of the free memory."""
    batch_size: int | None = None
    """Samples of a micro-batch; None for as many as fit into memory."""
    caches: Caches = field(default_factory=dict, repr=False, compare=False)
    """Values that are computed once for this model; every module declares its own cache (caches.py)."""
    verify: bool = True
    """Whether the output of the model's file is compared with what is explained, on the inputs that are explained."""
    samples: str | None = None
    """"joint" takes a whole call for one sample; "independent" refuses a model that mixes samples; None finds out."""
    checkpoint: str = "auto"
    """Whether activations are computed again in the backward pass: "auto" where a sample would not fit otherwise."""
    arrangement: Arrangement | None = field(default=None, repr=False, compare=False)
    """How inputs and outputs hold the samples, once that is decided for inputs of one shape (arranging.py)."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Make the backend of a Differentiable that was read from a pickle, at its first use."""
            if name != "engine" or "_unbound" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            from analyzer.backends.pickling import bind

            bind(self)
            return self.engine

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle makes this again. Raises AnalysisError for what has no form outside this process."""
        from analyzer.backends.pickling import reduced

        return reduced(self)

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.engine.name

    @property
    def graph(self) -> Graph:
        """The canonical graph, in the precision of the backend."""
        return self.engine.graph

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The names of all tensors that can be asked for: inputs, then nodes' outputs in graph order."""
        computed = [name for node in self.graph.nodes for name in node.outputs if name]
        return (*self.graph.inputs, *computed)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The stored names of the classes of the first output; None where it has another number of classes."""
        return names_of_output(self.graph, None, self.model.class_names)

    @cached_property
    def differentiable_inputs(self) -> tuple[str, ...]:
        """The model's floating inputs: what is attributed."""
        return tuple(name for name in self.graph.inputs if self.graph.tensors[name].is_float)

    @cached_property
    def default_wrt(self) -> Names | None:
        """What methods attribute where `wrt` is omitted: the vectors of tokens without a floating input, else None."""
        if self.differentiable_inputs or not (vectors := token_vectors(self.graph)):
            return None
        return EMBEDDING if vectors == embedded_tokens(self.graph) else tuple(map(TensorName, vectors))

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where the samples lie in every tensor of which it can be told."""
        places = find_places(self.graph)
        if self.engine.batch == 1:
            # All that is computed belongs to the one sample.
            return {**dict.fromkeys(self.graph.tensors, Place(0)), **places}
        return places if self.arrangement is None else known_places(self.graph, self.arrangement, places)

    @cached_property
    def file(self) -> FileCheck | None:
        """The file that the model was read from; None where nothing is to be compared with it."""
        moved = self.arrangement is not None and not self.arrangement.plain
        return file_of(self, self.model) if self.verify and not moved else None

    def release(self) -> None:
        """Let go of what was made ready to run, copies of the weights among it; it is made again on demand."""
        self.engine.release()
        if self.file is not None:
            self.file.release()
        for kept in self.caches.values():
            for value in kept.values():
                if isinstance(value, Differentiable) and value.caches is not self.caches:
                    value.release()

    def roots(self, wrt: Names | None = None) -> tuple[str, ...]:
        """Return the ONNX names of the tensors that are attributed: those of `wrt`, else the floating inputs.

        wrt: ONNX names, module paths, names of Keras layers, or "embedding"; see `find_tensors`.
        Raises UnknownTensor for a name that the graph does not have or whose tensor is not a float, AnalysisError
        where nothing can be attributed, or where one of the tensors is computed from another.
        """
        names = self._tensors_of(wrt)
        if wrt is not None and not names:
            raise UnknownTensor("`wrt` names no tensor. Fix: omit it to attribute the floating inputs")
        if not names:
            raise AnalysisError(
                "the model has no floating input. Fix: name tensors to attribute, such as its embedded tokens with "
                "wrt='embedding' (--wrt embedding)"
            )
        if wrt is not None:
            for name in self.graph.dependent(names)[:1]:
                above = self.graph.ancestors([name])
                first = next(other for other in names if other != name and other in above)
                raise AnalysisError(
                    f"{name!r} is computed from {first!r}. Fix: attribute one of them at a time"
                )
        return names

    def forward(self, inputs: Inputs, outputs: str | Sequence[str] | None = None) -> Arrays:
        """Return the values of the model's outputs, or of the tensors named, as {name: array}.

        Raises InputError or ShapeError where the inputs are not the model's, UnknownTensor for a name.
        """
        given = (outputs,) if isinstance(outputs, str) else outputs
        names = tuple(given) if given is not None else self.graph.outputs
        self._known(names)
        feeds = self.feeds_of(inputs)
        if not names:
            return {}
        sized = at_sizes(self, feeds)
        found = run(sized, Call(None, names, None), feeds)
        shown = [name for name in names if name in self.graph.outputs]
        if shown and sized.file is not None and sized.file.due(feeds, shown):
            sized.file.compare_values(feeds, {name: found[name] for name in shown})
        return found

    def gradients(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        wrt: Names | None = None,
        *,
        defined: bool = True,
    ) -> Gradients:
        """The explained output of each sample, and its gradient at `wrt` (default: the floating inputs).

        inputs: (N, *features), or {input name: array}. target: see `Target`; names of classes that the model stores are
        taken for indices. wrt: see `roots`; without a floating input it is "embedding". The results have ONNX names,
        and one tensor may be computed from another.
        defined: raise AnalysisError where a gradient is NaN. It may be infinite, as that of a square root at 0.
        Raises InputError, ShapeError, TargetError, UnknownTensor, or UnsupportedOp where a node between a
        wanted tensor and the target has no rule.
        """
        wrt = self.default_wrt if wrt is None else wrt
        self._tensors_of(wrt)
        target = self.indexed(target)
        feeds = self.feeds_of(inputs)
        if self.arrangement is None:
            fn = at_sizes(self, feeds)
            return fn._arranged_gradients(feeds.of(fn.graph), target, wrt, defined)
        bound = self.bind(feeds, target, several=True)
        return bound.gradients(bound.fn._tensors_of(wrt), named=wrt is not None, defined=defined)

    def _arranged_gradients(
        self, feeds: Feeds, target: TargetLike, wrt: Names | None, defined: bool
    ) -> Gradients:
        """The gradients of a view with the samples first, in the user's form."""
        fn = arranged(self, feeds, target)
        assert fn.arrangement is not None
        wanted = moved_target(self.graph, fn.arrangement, target)
        moved = Feeds(fn.graph, fn.arrangement.all_first(feeds), single=feeds.single)
        names = None if wrt is None else self._tensors_of(wrt)
        found = fn.gradients(moved, wanted, names, defined=defined).back(fn.arrangement)
        if not fn.arrangement.plain and self.file is not None:
            # The view has other axes than the file: the outputs are compared in the user's form.
            self.forward(feeds)
        if not within_call():
            note_saturated(self.graph, found.output, found.target)
        return found

    def evaluate(
        self,
        request: Request,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        progress: Progress | None = None,
        defined: bool = True,
    ) -> Evaluation:
        """Run a method's request: its named results, the explained output and the class of each sample.

        progress: called with the samples done and all. defined: raise AnalysisError where a result is NaN.
        """
        bound = self.bind(inputs, target, several=request.by_rank)
        return bound.evaluate(request, progress=progress, defined=defined)

    def bind(self, inputs: Inputs, target: TargetLike = None, *, several: bool = False) -> Bound:
        """Check the inputs and resolve the target, once for all that is computed of them.

        inputs: those that a method was given are checked already; do not change them in place.
        several: whether several classes of each sample may be explained, one by one.
        Raises InputError or ShapeError for the inputs, TargetError for the target.
        """
        target = self.indexed(target)
        wanted = as_target(target) if several else one_scalar(target)
        return Bound.of(self, self.feeds_in_call(inputs), wanted)

    def check_inputs(self, inputs: Inputs) -> Arrays:
        """The feeds {input name: array} in the model's dtypes. See `feeds_of`."""
        return dict(self.feeds_of(inputs))

    def feeds_of(self, inputs: Inputs) -> Feeds:
        """Check inputs for this model, once; those that were checked are returned as they are.

        Images of Pillow are read as the model's preprocessing says.
        Raises InputError or ShapeError; InputError for raw pixels where the model takes normalised ones, too;
        InvalidModel where the file of a large model was written since it was read.
        """
        refuse_changed(self.graph.files)
        if isinstance(inputs, Feeds) and inputs.graph is self.graph:
            return inputs
        feeds = check_inputs(self.graph, from_pictures(inputs, self.model))
        refuse_raw(feeds, self.model.preprocessing, self.graph)
        return feeds

    def feeds_in_call(self, inputs: Inputs) -> Feeds:
        """Return the feeds of the inputs that a method was given, which are checked already; check any others."""
        known = checked_for(self.graph, inputs)
        return self.feeds_of(inputs) if known is None else known

    def indexed(self, target: TargetLike) -> TargetLike:
        """The target with the names of classes replaced by their indices. Raises TargetError for an unknown name."""
        return with_indices(target, self.model.class_names, self.graph)

    def _known(self, names: Collection[str]) -> None:
        for name in names:
            if name not in self.graph.tensors:
                near = near_names(str(name), self.tensors)
                told = f"try {', '.join(map(repr, near))}, or " if near else ""
                raise UnknownTensor(
                    f"the graph has no tensor {name!r}. Fix: {told}choose from fn.tensors, which lists them"
                )

    def _tensors_of(self, wrt: Names | None) -> tuple[str, ...]:
        """The float tensors that `wrt` names. Raises UnknownTensor."""
        names = find_tensors(self.graph, wrt) if wrt is not None else self.differentiable_inputs
        self._known(names)
        for name in names:
            if not self.graph.tensors[name].is_float:
                raise UnknownTensor(
                    f"{name!r} is {self.graph.tensors[name].dtype} and has no gradient. Fix: name a float tensor, "
                    "such as the vectors that are looked up for token ids, 'embedding'"
                )
        return names


def attributed(graph: Graph, outputs: tuple[str, ...], inputs: Sequence[str]) -> frozenset[str]:
    """The tensors between the inputs and the outputs that carry a gradient."""
    return active_tensors(graph, inputs) & graph.ancestors(outputs)
