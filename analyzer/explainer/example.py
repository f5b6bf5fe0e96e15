"""An example of a model's inputs. A file is emitted for its sizes, and compared with Python on its values.

From a model, inputs or none and a target to the model with its samples along axis 0, bound to the example. Refuses
models whose samples cannot be told apart along one axis, and free sizes without an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import helper

from analyzer.backends import Differentiable
from analyzer.backends.batching.arranging import moved_target
from analyzer.backends.batching.settling import arranged_to_move
from analyzer.backends.bound import Bound
from analyzer.backends.call import MOVES
from analyzer.backends.inputs import Feeds
from analyzer.errors import ExportError
from analyzer.graph.samples.arrangement import JOINT
from analyzer.graph.samples.labels import Span
from analyzer.methods.arranged import moved_options
from analyzer.methods.registry import Method
from analyzer.methods.result import Attribution
from analyzer.target.target import TargetLike
from analyzer.types import Inputs
from converters.sources.examples import example_of


@dataclass(frozen=True)
class Example:
    """A method on a model whose samples lie along axis 0, at an example.

    view: the model. bound: it and the target, at the example. target, options: as the view takes them.
    """

    method: Method
    view: Differentiable
    bound: Bound
    target: TargetLike
    options: Mapping[str, Any]

    @property
    def sized(self) -> bool:
        """Whether the model is for the sizes of the example alone."""
        return self.bound.fn is not self.view

    @property
    def spans(self) -> Mapping[str, Span]:
        """Where the samples lie in inputs and outputs of the user's model, where that is not axis 0."""
        assert self.view.arrangement is not None
        return self.view.arrangement.spans

    def explained(self) -> Attribution:
        """Run the method in Python at the example."""
        return self.method.run(self.view, self.bound.feeds, self.target, **self.options)


def example_at(
    fn: Differentiable,
    inputs: Inputs | None,
    target: TargetLike,
    kind: Method,
    options: Mapping[str, Any],
) -> Example:
    """Return an example of the inputs given, or of random ones. Arrays in the options are moved along."""
    moves = next((name for name in MOVES if name in kind.parameters), None)
    if moves is not None and options.get(moves) is None and fn.default_wrt is not None:
        options = {**options, moves: fn.default_wrt}
    wrt = options.get("wrt")
    names = () if kind.path is not None and wrt is not None else fn.roots(wrt)
    feeds = _feeds(fn, inputs)
    view = arranged_to_move(fn, feeds, fn.indexed(target), names)
    if _branches(fn, view) and all(array.ndim and len(array) > 1 for array in feeds.values()):
        # Every sample chooses its own branch: the file takes one at a time.
        feeds = Feeds(fn.graph, {name: array[:1] for name, array in feeds.items()}, single=feeds.single)
        view = arranged_to_move(fn, feeds, fn.indexed(target), names)
    arrangement = view.arrangement
    spans = () if arrangement is None else arrangement.spans.values()
    if (
        arrangement is None
        or arrangement.samples == JOINT
        or arrangement.wrapped
        or (arrangement.alone and not _branches(fn, view))
        or not all(span.whole for span in spans)
    ):
        why = "" if arrangement is None or not arrangement.note else f" ({arrangement.note})"
        raise ExportError(
            f"expected independent samples along one axis of each input and output, found others{why}. Fix: export "
            "the model with the batch first, or explain it in Python"
        )
    if arrangement.plain:
        return Example(kind, view, view.bind(feeds, target), target, options)
    first = Feeds(view.graph, arrangement.all_first(feeds), single=feeds.single)
    moved = moved_target(fn.graph, arrangement, fn.indexed(target))
    options = moved_options(fn, arrangement, feeds, options, kind.path)
    return Example(kind, view, view.bind(first, moved), moved, options)


def _branches(fn: Differentiable, view: Differentiable) -> bool:
    """Whether samples are not run together since the model has a branch that values decide."""
    found = view.arrangement
    apart = found is not None and (found.alone or found.samples == JOINT)
    return apart and any(node.op_type in ("If", "Loop") and not node.domain for node in fn.graph.nodes)


def _feeds(fn: Differentiable, inputs: Inputs | None) -> Feeds:
    """Checked inputs: those given, or random numbers of two samples."""
    if inputs is not None:
        return fn.feeds_of(inputs)
    graph, preprocessing = fn.graph, fn.model.preprocessing
    sizes = {}
    for name in graph.inputs:
        shape = graph.tensors[name].shape
        free = shape is None or any(not isinstance(size, int) for size in shape[1:])
        if free and preprocessing is not None and shape is not None and len(shape) == 4:
            height, width = preprocessing.size
            first = preprocessing.layout == "NCHW"
            known = (None, height, width) if first else (height, width, None)
            shape = (
                shape[0],
                *(s if isinstance(s, int) else k for s, k in zip(shape[1:], known, strict=True)),
            )
            free = any(not isinstance(size, int) for size in shape[1:])
        if free:
            raise ExportError(
                f"expected an example of the input {name!r}, whose sizes are free, {shape}. Fix: give inputs= "
                "(--inputs FILE) of the sizes that are explained"
            )
        sizes[name] = tuple(size if isinstance(size, int) else 2 for size in shape or ())
    infos = {
        name: helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(graph.tensors[name].dtype), sizes[name]
        )
        for name in graph.inputs
    }
    return fn.feeds_of(example_of(infos, None))
