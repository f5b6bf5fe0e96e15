"""Bind a call once: a model on a backend, checked inputs and a resolved target.

From a Differentiable, inputs and a Target to a Bound, which runs requests at these inputs, and at other values of the
tensors that are attributed. It checks nothing again. Refuses inputs and targets that are not the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from analyzer.autodiff.request import CHOSEN, OUTPUT, Request, masked, observe
from analyzer.autodiff.sweep import check_gradient_paths
from analyzer.backends.appended import with_activation
from analyzer.backends.at_sizes import at_sizes
from analyzer.backends.batching.arranging import refuse_rows
from analyzer.backends.batching.micro_batches import batches, run
from analyzer.backends.batching.planning import Call
from analyzer.backends.inputs import Feeds, refuse_not_finite
from analyzer.backends.undefined import undefined, undefined_error
from analyzer.backends.watched import watch_of, with_output
from analyzer.errors import TargetError
from analyzer.graph.batch_axis import batched_inputs, samples_in
from analyzer.graph.samples.arrangement import INDEPENDENT, Arrangement
from analyzer.target.resolve import resolve
from analyzer.target.target import Seed, Target, chosen_classes
from analyzer.types import Arrays, Progress

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable


@dataclass(frozen=True)
class Gradients:
    """Values and gradients at tensors, by ONNX name.

    output: (N,), the explained scalar of each sample. target: (N,) the class explained, or the position of one element
    in the flattened sample; None where several are summed. `gradients[t]` is ∂output/∂t, shaped like `values[t]`.
    The values of the model's inputs are those that were given, to be read only.
    Where k scalars of each sample are explained, output and target are (N, k), gradients (N, k, …).
    samples: "independent", or "joint" where samples depend on one another and the whole call is one: output is (1,).
    """

    output: np.ndarray
    target: np.ndarray | None
    values: Arrays
    gradients: Arrays
    samples: str = INDEPENDENT

    def back(self, arrangement: Arrangement) -> Gradients:
        """The same with arrays at inputs and outputs as the user's model has them."""
        if arrangement.plain or self.output.ndim > 1:
            return self
        values = {name: _read_only(array) for name, array in arrangement.all_back(self.values).items()}
        return replace(self, values=values, gradients=arrangement.all_back(self.gradients))


@dataclass(frozen=True)
class Evaluation:
    """The answer to a Request. output: (N,); target: (N,) classes or None; arrays: the request's results."""

    output: np.ndarray
    target: np.ndarray | None
    arrays: Arrays


@dataclass(frozen=True)
class Bound:
    """A model at the sizes of its feeds, the checked feeds, and the target that was resolved for them.

    Made by `Differentiable.bind`.
    """

    fn: Differentiable
    feeds: Feeds
    seed: Seed

    @classmethod
    def of(cls, fn: Differentiable, feeds: Feeds, target: Target) -> Bound:
        """Bind a model to feeds. Raises TargetError where the target is not the model's."""
        sized, target = with_activation(at_sizes(fn, feeds), target)
        return cls(sized, feeds.of(sized.graph), _resolved(sized, feeds, target))

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return samples_in(self.fn.graph, self.feeds)

    def evaluate(
        self,
        request: Request,
        *,
        progress: Progress | None = None,
        named: bool = False,
        defined: bool = True,
    ) -> Evaluation:
        """Run a request: its named results, the explained output and the class of each sample.

        progress: called with the samples done and all. named: whether the caller named the tensors of the request.
        defined: raise UndefinedResult where a result is NaN.
        """
        fn, feeds, seed = self.fn, self.feeds, self.seed
        check_gradient_paths(fn.graph, request.wrt, seed.outputs, named=named)
        watch = watch_of(feeds, seed)
        request = request if watch is None else with_output(request, seed.output)
        arrays = self._run(request, progress)
        if undefined(arrays):
            arrays = self._run(masked(request), progress)
            if defined and (names := undefined(arrays)):
                raise undefined_error(self, names)
        explained, classes = arrays.pop(OUTPUT), arrays.pop(CHOSEN, None)
        if not explained.size and self.samples:
            raise TargetError(
                f"the output {seed.output!r} holds no numbers for these inputs, so that nothing is explained. Fix: "
                "give inputs for which it does, or explain another output, target=Target(output=…)"
            )
        if fn.file is not None and fn.file.due(feeds, seed.outputs):
            fn.file.compare(feeds, seed, explained)
        stated = None if classes is None else chosen_classes(classes, seed.output)
        return Evaluation(explained, stated, arrays)

    def _run(self, request: Request, progress: Progress | None) -> Arrays:
        """Return the results of a request; the values of the whole output go to the caller that watches it."""
        watch = watch_of(self.feeds, self.seed)
        wanted = request if watch is None else with_output(request, self.seed.output)
        arrays = run(self.fn, Call(wanted, (), self.seed), self.feeds, progress)
        if watch is not None:
            watch.take(arrays, self.seed.output, self.fn.graph)
        return arrays

    def gradients(self, names: Sequence[str], *, named: bool = True, defined: bool = True) -> Gradients:
        """Return the explained output, and its values and gradients at tensors. The options are those of `evaluate`."""
        feeds, arrangement = self.feeds, self.fn.arrangement
        request = observe([name for name in names if name not in feeds], names)
        found = self.evaluate(request, named=named, defined=defined)
        return Gradients(
            output=found.output,
            target=found.target,
            values={n: _read_only(feeds[n]) if n in feeds else found.arrays[f"value/{n}"] for n in names},
            gradients={name: _by_sample(found, found.arrays[f"gradient/{name}"]) for name in names},
            samples=INDEPENDENT if arrangement is None else arrangement.samples,
        )

    def outputs(self) -> Arrays:
        """Return the values of every output that the explained scalar is made of."""
        return self.fn.forward(self.feeds, self.seed.outputs)

    def holding(self, classes: np.ndarray | None) -> Bound:
        """The same with these classes explained, (N,) or (N, k), wherever they rank. None leaves the target as it is.

        classes: those that an evaluation explained, such as the highest ones at the feeds.
        """
        return self if classes is None else replace(self, seed=replace(self.seed, index=classes))

    def at(self, tensors: Arrays, rows: np.ndarray) -> Bound:
        """The same explanation at other values of some inputs, the k-th for sample `rows`[k].

        tensors: {input name: (n, *features)}; the other inputs of a sample stay as they are. Raises InputError where a
        value is not finite.
        """
        batched = batched_inputs(self.fn.graph)
        feeds: Arrays = {}
        for name, array in self.feeds.items():
            if name in tensors:
                feeds[name] = np.asarray(tensors[name], array.dtype, order="C")
                refuse_not_finite(name, feeds[name])
            else:
                feeds[name] = array[rows] if name in batched else array
        # All samples in their order are the whole target, which an output without an axis of samples has, too.
        whole = np.array_equal(rows, np.arange(self.samples))
        return self._moved(self.fn, feeds, self.seed if whole else self.seed.rows(rows))

    def on(self, part: Differentiable, feeds: Arrays) -> Bound:
        """The same target of a part of the model, which computes it from these feeds. See `at` for the errors."""
        for name, array in feeds.items():
            if name not in self.feeds:
                refuse_not_finite(name, array)
        return self._moved(part, feeds, self.seed)

    def _moved(self, fn: Differentiable, feeds: Arrays, seed: Seed) -> Bound:
        sized = at_sizes(fn, feeds)
        return Bound(sized, Feeds(sized.graph, feeds, single=self.feeds.single), seed)


def _resolved(fn: Differentiable, feeds: Arrays, target: Target) -> Seed:
    """A target checked against the graph, and where that leaves sizes open against a run. Raises TargetError."""
    graph, samples = fn.graph, samples_in(fn.graph, feeds)

    def sizes(output: str) -> tuple[int, ...]:
        micro_batch, _ = next(batches(graph, feeds, fn.engine.batch or 1))
        return fn.engine.forward(micro_batch, [output])[output].shape

    @cache
    def values(output: str) -> np.ndarray:
        return run(fn, Call(None, (output,), None), feeds)[output]

    if fn.arrangement is not None:
        refuse_rows(target, graph, fn.arrangement)
    output = graph.tensors.get(target.first_output or graph.default_output)
    if output is not None and output.shape is not None and fn.engine.batch in (None, samples):
        # The first axis of an output can differ from the samples, for example after a Transpose, Concat or ReduceSum.
        stated = output.shape[0] if output.shape else 1
        samples = stated if isinstance(stated, int) else samples
    return resolve(target, graph, samples, sizes, values)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _by_sample(found: Evaluation, gradient: np.ndarray) -> np.ndarray:
    """A gradient with the scalars of each sample, where there are several, behind its first axis, not its last."""
    return gradient if found.output.ndim < 2 else np.ascontiguousarray(np.moveaxis(gradient, -1, 1))
