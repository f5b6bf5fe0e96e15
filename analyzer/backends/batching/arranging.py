"""Decide how the samples of a call lie in a model, and bind the model to a view that has them first.

From a Differentiable, feeds and a target to a Differentiable whose inputs and explained outputs hold one sample after
the other along axis 0, or to one that takes the whole call for one sample. Structure decides where its rules reach
(analyzer/graph/samples), else running does (trial.py). Refuses samples="independent" where samples depend on one
another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.backends.batching.branching import choosing_node, one_by_one
from analyzer.backends.batching.proof import Proof, prove, stated_size
from analyzer.backends.batching.trial import doubled, separate_outputs
from analyzer.backends.caches import Cache
from analyzer.errors import AnalysisError, BackendError, ShapeError, TargetError
from analyzer.graph.batch_axis import Place, batched_inputs
from analyzer.graph.fixes import ALIKE
from analyzer.graph.graph import Graph
from analyzer.graph.samples.arrangement import FIRST, JOINT, Arrangement
from analyzer.graph.samples.guesses import Guess, first_axes, guesses
from analyzer.graph.samples.labels import Span
from analyzer.graph.samples.view import stated, viewed
from analyzer.target.after import asked
from analyzer.target.before import at_logit, logit_output
from analyzer.target.target import Chosen, Target, TargetLike, as_target
from analyzer.types import Sizes

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

SAMPLES = ("joint", "independent")
_VIEWS: Cache[Differentiable] = Cache("views")
_DECIDED: Cache[Arrangement] = Cache("arrangements")
_ALONE = "the file runs one sample at a time: each is explained in a call of its own"


def arranged(fn: Differentiable, feeds: Arrays, target: TargetLike = None) -> Differentiable:
    """The model as methods run it on these feeds: itself, or a view with the samples first. Decided once.

    The result takes `result.arrangement.all_first(feeds)`. Raises AnalysisError where samples="independent" was asked
    for and samples depend on one another.
    """
    if fn.arrangement is not None:
        return fn
    outputs = explained(fn.graph, as_target(target))
    return view_of(fn, decide(fn, feeds, outputs), feeds, outputs)


def view_of(
    fn: Differentiable, arrangement: Arrangement, feeds: Arrays, outputs: Sequence[str]
) -> Differentiable:
    """The model in an arrangement that was decided for these feeds."""
    if arrangement.plain:
        same = replace(fn, arrangement=arrangement)
        # Share the open file and its results, so that nothing is compared twice.
        same.__dict__["file"] = fn.file
        return same
    shapes = {name: array.shape for name, array in feeds.items()}

    def made() -> Differentiable:
        lacking = [
            name for name in (*arrangement.wrapped, *arrangement.spans)
            if name not in shapes and name not in arrangement.inner
        ]  # fmt: skip
        sizes = {name: size for name, (_, size) in arrangement.inner.items()}
        unknown = [name for name in lacking if fn.graph.tensors[name].shape is None]
        if unknown:
            sizes |= {name: array.shape for name, array in fn.engine.forward(feeds, unknown).items()}
        sizes |= {
            name: (0,) * len(fn.graph.tensors[name].shape or ()) for name in lacking if name not in sizes
        }
        graph = viewed(fn.graph, arrangement, {**sizes, **shapes})
        return replace(fn, engine=fn.engine.arranged(graph, arrangement), caches={}, arrangement=arrangement)

    return _VIEWS.get(fn, (arrangement.key, tuple(shapes.items()), tuple(outputs)), made)


def arranged_like(fn: Differentiable, other: Differentiable, feeds: Arrays) -> Differentiable:
    """The same model on another backend, arranged as `other`, whose form the feeds have."""
    if other.arrangement is None:
        return fn
    return view_of(fn, other.arrangement, other.arrangement.all_back(feeds), ())


def moved_target(graph: Graph, arrangement: Arrangement, target: TargetLike) -> Target:
    """A target for the view: weights that are shaped like the whole output in the user's form are moved.

    A logit is named here, as the graph and not the view has the output with the activation that computes it.
    """
    wanted = at_logit(as_target(target), graph, partial(_axis_in_view, arrangement))
    if wanted.moved is not None and wanted.output in {*arrangement.spans, *arrangement.wrapped}:
        raise TargetError(
            f"before: expected the samples of {wanted.output!r} along its first axis. Fix: name the tensor of the "
            f"logits, Target(output={wanted.output!r}, …)"
        )
    if wanted.parts is not None:
        return Target(parts=tuple((k, moved_target(graph, arrangement, one)) for k, one in wanted.parts))
    if wanted.weights is None:
        return wanted

    def moved(name: str, weights: Any) -> Any:
        shape = graph.tensors[name].shape if name in graph.tensors else None
        array = np.asarray(weights)
        whole = name in arrangement.spans and shape is not None and array.ndim == len(shape)
        return arrangement.first(name, array) if whole else weights

    if isinstance(wanted.weights, Mapping):
        return Target(weights={name: moved(name, one) for name, one in wanted.weights.items()})
    name = wanted.output or graph.default_output
    return replace(wanted, weights=moved(name, wanted.weights))


def _axis_in_view(arrangement: Arrangement, name: str, axis: int) -> int:
    """The axis of a view that an axis of the user's form of a tensor is moved to."""
    if name in arrangement.wrapped:
        return axis + 1
    samples = arrangement.spans[name].axis if name in arrangement.spans else 0
    return 0 if axis == samples else axis + (axis < samples)


def explained(graph: Graph, target: Target) -> tuple[str, ...]:
    """The tensors that a target is made of, as far as the graph has them. Raises TargetError for a missing logit."""
    target = asked(target)
    if target.parts is not None:
        names = [name for _, part in target.parts for name in explained(graph, part)]
    elif isinstance(target.weights, Mapping):
        names = list(target.weights)
    else:
        names = [logit_output(target, graph)]
    return tuple(dict.fromkeys(name for name in names if name in graph.tensors))


def decide(fn: Differentiable, feeds: Arrays, outputs: Sequence[str]) -> Arrangement:
    """How the samples of these feeds lie in the inputs and the outputs named. Kept by the model.

    What only running tells holds for the numbers that were run, and is found anew for others.
    """
    shapes = tuple((name, array.shape) for name, array in feeds.items())
    key, kept = (fn.samples, tuple(outputs), shapes), _DECIDED.of(fn)
    if key in kept:
        return kept[key]
    by_value = (*key, digest(feeds))
    if by_value not in kept:
        found, lasting = _decided(fn, feeds, outputs)
        kept[key if lasting else by_value] = found
        return found
    return kept[by_value]


def digest(feeds: Arrays) -> str:
    found = hashlib.sha256()
    for array in feeds.values():
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _decided(fn: Differentiable, feeds: Arrays, outputs: Sequence[str]) -> tuple[Arrangement, bool]:
    """The arrangement, and whether it holds for all numbers of these shapes."""
    graph = fn.graph
    feeds = _one_piece(fn, feeds)
    shapes = {name: array.shape for name, array in feeds.items()}
    if fn.samples == JOINT:
        return joint(graph, outputs, feeds, ""), True
    plain = first_axes(graph, shapes)
    if plain is None:
        _refuse_counts(fn, shapes, outputs)
    if not feeds or _one_by_file(graph, plain, outputs):
        return Arrangement(), True
    proofs = []
    single = plain is not None and shapes[next(iter(plain))][0] == 1
    for guess in guesses(graph, shapes):
        if single and 0 not in guess.values():
            # One sample was given: steps or pixels that do not mix are not samples.
            continue
        proof = prove(fn, guess, shapes, outputs)
        if proof is not None and (found := _proved(graph, guess, proof, outputs)) is not None:
            return found, True
        proofs.append((guess, proof))
    return _by_running(fn, feeds, outputs, plain, proofs)


def _one_piece(fn: Differentiable, feeds: Arrays) -> Arrays:
    """As many samples as the file states."""
    from analyzer.backends.batching.micro_batches import batches

    size = fn.engine.batch
    plain = first_axes(fn.graph, {name: array.shape for name, array in feeds.items()})
    if size is None or plain is None or len(feeds[next(iter(plain))]) == size:
        return feeds
    return next(batches(fn.graph, feeds, size))[0]


def _one_by_file(graph: Graph, plain: Guess | None, outputs: Sequence[str]) -> bool:
    """Whether the file states one sample, first in every input and output: nothing is left to be decided."""
    if plain is None or set(plain) != {name for name in graph.inputs if graph.tensors[name].shape}:
        return False
    said = [graph.tensors[name].shape for name in (*plain, *outputs)]
    return all(shape is not None and shape[:1] == (1,) for shape in said)


def _proved(graph: Graph, guess: Guess, proof: Proof, outputs: Sequence[str]) -> Arrangement | None:
    """The arrangement of a guess that structure proves; None where it does not."""
    spans = proof.spans(outputs)
    if spans is None:
        return None
    inner = proof.inner()
    # Two inputs that are joined along the samples give each sample several rows. These rows are not samples.
    apart = frozenset(
        name for name, span in spans.items() if span.blocks > 1 or (span.runs > 1 and span.axis)
    )
    if apart:
        first = guess.keys() == set(graph.inputs) and not any(guess.values())
        alone = first and not isinstance(stated_size(graph, *next(iter(guess.items()))), int)
        # An output whose first axis is 1 in the file holds one sample as it is.
        wrapped = frozenset(name for name in apart if (graph.tensors[name].shape or ("",))[0] != 1)
        return Arrangement(wrapped=wrapped, alone=True, note=_ALONE) if alone else None
    moved = {name: span for name, span in spans.items() if span != FIRST}
    moved |= {name: Span(axis) for name, axis in guess.items() if axis}
    if moved and _shares(graph, guess):
        return None
    return Arrangement(spans=moved, inner=inner)


def _shares(graph: Graph, guess: Guess) -> bool:
    """Whether a file that states its number of samples has an input besides, whose rows would count as samples."""
    shared = [name for name in graph.inputs if name not in guess and graph.tensors[name].shape]
    return bool(shared) and isinstance(stated_size(graph, *next(iter(guess.items()))), int)


def _refuse_counts(fn: Differentiable, shapes: Mapping[str, Sizes], outputs: Sequence[str]) -> None:
    """Raise ShapeError for inputs of different numbers of samples, where these are proved to be samples."""
    batched = batched_inputs(fn.graph)
    counts = {shapes[name][0] for name in batched}
    if len(counts) < 2:
        return
    proof = prove(fn, dict.fromkeys(batched, 0), shapes, outputs)
    if proof is not None and proof.spans(outputs) is not None:
        raise ShapeError(f"the inputs have different numbers of samples: {sorted(counts)}. {ALIKE}")


def _by_running(
    fn: Differentiable,
    feeds: Arrays,
    outputs: Sequence[str],
    plain: Guess | None,
    proofs: Sequence[tuple[Guess, Proof | None]],
) -> tuple[Arrangement, bool]:
    """What running tells where structure does not."""
    graph = fn.graph
    why = next((why for guess, proof in proofs if (why := _why(graph, proof))), "")
    choosing = choosing_node(graph, proofs, outputs)
    if plain is not None and len(feeds[next(iter(plain))]) == 1:
        return _of_one_sample(fn, feeds, outputs, plain, why, stacked=choosing is None)
    if choosing is not None and plain is not None:
        alone = one_by_one(fn, feeds, plain, outputs, choosing)
        if alone is not None:
            return alone, False
    for guess, _ in proofs if choosing is None else ():
        name, axis = next(iter(guess.items()))
        if feeds[name].shape[axis] < 2 or (guess != plain and _shares(graph, guess)):
            continue
        try:
            axes = separate_outputs(fn, feeds, guess, outputs)
        except BackendError:
            if guess == plain and fn.engine.batch is None and _runs_alone(fn, feeds, guess, outputs):
                return Arrangement(alone=True, note=_ALONE), True
            raise
        if axes is not None:
            spans = {one: Span(k) for one, k in (*axes.items(), *guess.items()) if k}
            return Arrangement(spans=spans, tried=True, holding=frozenset(guess), why=why), False
    if fn.samples is not None:
        raise AnalysisError(
            f'samples="independent": {why or "the outputs of some samples move with the values of others"}. '
            'Fix: samples="joint" with a target that is one number of the whole call, such as Target(index=(row, 2))'
        )
    note = "the samples depend on one another" + (f" ({why})" if why else "") + ": they are explained as one"
    return joint(graph, outputs, feeds, note), choosing is None


def _why(graph: Graph, proof: Proof | None) -> str:
    if proof is None or proof.followed.mixed is None:
        return ""
    name = proof.followed.mixed
    node = graph.producer.get(name)
    return f"{node} computes {name!r} from several of them" if node is not None else ""


def _of_one_sample(
    fn: Differentiable, feeds: Arrays, outputs: Sequence[str], plain: Guess, why: str, *, stacked: bool
) -> tuple[Arrangement, bool]:
    """One sample was given: whether others may be stacked on it, as the points of a path are. stacked: try that."""
    if fn.engine.batch is None and stacked:
        try:
            axes = separate_outputs(fn, doubled(feeds, plain), plain, outputs)
        except BackendError:
            axes = None
        if axes is not None:
            spans = {name: Span(axis) for name, axis in axes.items() if axis}
            return Arrangement(spans=spans, tried=True, holding=frozenset(plain), why=why), False
    shapes = {name: array.shape for name, array in fn.engine.forward(feeds, outputs).items()}
    note = _ALONE if fn.engine.batch is None and stacked else ""
    if all(shape[:1] == (1,) for shape in shapes.values()):
        shared = frozenset(name for name in feeds if name not in plain)
        return Arrangement(wrapped=shared, alone=fn.engine.batch is None, note=note), True
    wrapped = [*feeds, *(name for name, shape in shapes.items() if shape[:1] != (1,))]
    return Arrangement(wrapped=frozenset(wrapped)), True


def _runs_alone(fn: Differentiable, feeds: Arrays, plain: Guess, outputs: Sequence[str]) -> bool:
    if plain.keys() != feeds.keys():
        return False
    one = {name: array[:1] for name, array in feeds.items()}
    try:
        found = fn.engine.forward(one, outputs)
    except BackendError:
        return False
    return all(array.shape[:1] == (1,) for array in found.values())


def joint(graph: Graph, outputs: Sequence[str], feeds: Arrays, note: str) -> Arrangement:
    """The whole call as one sample. An output whose first axis is 1 in the file holds one sample as it is."""
    several = [
        name
        for name in dict.fromkeys((*graph.outputs, *outputs))
        if (shape := graph.tensors[name].shape) is None or shape[:1] != (1,)
    ]
    return Arrangement(samples=JOINT, wrapped=frozenset((*feeds, *several)), note=note)


def known_places(graph: Graph, arrangement: Arrangement, guessed: Mapping[str, Place]) -> Mapping[str, Place]:
    """Places by shape, corrected by those that were followed: a size may be that of another axis, too."""
    open_sizes = any(
        not isinstance(size, int) for name in graph.inputs for size in graph.tensors[name].shape or ()
    )
    found = dict(guessed)
    for name, (span, _) in arrangement.inner.items():
        moved = stated(name) if name in arrangement.spans else name
        if moved in graph.tensors and (span.blocks == 1 or not open_sizes):
            found[moved] = Place(span.axis, span.blocks)
    return found


def refuse_rows(target: Target, graph: Graph, arrangement: Arrangement) -> None:
    """Raise TargetError for a class per row where all rows are one sample: which row is meant?"""
    if arrangement.samples != JOINT:
        return
    for part in (target,) if target.parts is None else [one for _, one in target.parts]:
        name = part.output or graph.default_output
        per_row = part.top is not None or part.each is not None
        # Classes that a result states are positions in the whole call.
        per_row = per_row or not (part.index is None or isinstance(part.index, (tuple, Chosen)))
        shape = graph.tensors[stated(name)].shape if name in arrangement.wrapped else ()
        per_row = per_row or (isinstance(part.index, tuple) and len(part.index) + 1 == len(shape or ()))
        if not per_row or shape == ():
            continue
        axes = "of unknown rank" if shape is None else f"({', '.join(map(str, shape))})"
        said = "top and each name" if part.index is None else f"index={part.index!r} names"
        raise TargetError(
            f"expected one number of the whole call{arrangement.note and ', as '}{arrangement.note}. {said} a class "
            f"of every row of {name!r} {axes}. Fix: Target(index=(row, class)) for one element, or "
            "Target(weights=array) for a sum over rows"
        )


__all__ = [
    "SAMPLES",
    "arranged",
    "arranged_like",
    "decide",
    "digest",
    "explained",
    "joint",
    "known_places",
    "moved_target",
    "refuse_rows",
    "view_of",
]
