"""Plan how many samples of a call a backend computes at once, within a memory budget.

Reads a model on a backend, a call and its inputs; returns a MemoryPlan: an estimate, and where the samples lie in every
result. Refuses a single sample that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx.shape_inference import InferenceError

from analyzer.autodiff.request import Request, observe
from analyzer.backends.batching.estimate import (
    OPEN,
    MemoryEstimate,
    TensorSizes,
    estimate,
    sizes_at,
    staged_estimate,
)
from analyzer.backends.batching.memory import budget, text_of
from analyzer.backends.caches import Cache
from analyzer.errors import NotEnoughMemory, UnsupportedOp
from analyzer.graph.batch_axis import Place, batched_inputs, samples_in
from analyzer.graph.builder import Builder
from analyzer.graph.program import Program, assemble
from analyzer.target.target import Seed
from converters.system.processes import free_memory

if TYPE_CHECKING:
    from analyzer.backends.bound import Bound
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

_AMPLE = 50
"""A call surely fits where its forward pass takes this share of the budget: gradients and methods take far less."""
_TRIVIAL = 64 * 2**20
"""Bytes that any machine has free."""


@dataclass(frozen=True)
class Call:
    """A request for a seed, or without a request the values of tensors."""

    request: Request | None
    names: tuple[str, ...] = ()
    seed: Seed | None = None

    @property
    def key(self) -> Hashable:
        """What all calls share that run the same program."""
        if self.request is None or self.seed is None:
            return ("forward", self.names)
        return (self.request.key, self.seed.form)

    def program(self, fn: Differentiable) -> Program:
        """Return the ONNX program of the call. Raises UnsupportedOp where a node on the path has no rule."""
        graph = fn.graph
        if self.request is None or self.seed is None:
            return assemble(graph, Builder(graph.opset), {name: graph.tensors[name] for name in self.names})
        return fn.engine.program(self.request, self.seed)


@dataclass(frozen=True)
class MemoryPlan:
    """places: of the samples in each result; None where the call must not be split."""

    estimate: MemoryEstimate
    places: Mapping[str, Place] | None


_PLANS: Cache[MemoryPlan | None] = Cache("plans of memory")
_FORWARD: Cache[tuple[int, int]] = Cache("bytes of the forward pass")
_RECOMPUTING: Cache[Differentiable] = Cache("models on engines that recompute")
FITTED: Cache[int] = Cache("samples that were computed at once")


def plan_batch(
    bound: Bound,
    wanted: Sequence[str] | None = None,
    *,
    at_most: int | None = None,
    max_memory: int | None = None,
) -> int:
    """Return how many samples like the inputs a backend computes at once within a memory budget, at least one.

    wanted: the tensors whose gradients are wanted; None for the floating inputs. at_most: the highest number that is
    of use. max_memory: bytes; default that of `differentiate`.
    The result is the batch that the model states, where it states one, and not more than the model's batch_size.
    Raises NotEnoughMemory where a single sample does not fit.
    """
    fn, feeds = bound.fn, bound.feeds
    allowed = fn.max_memory if max_memory is None else max_memory
    if fn.engine.batch is not None:
        return fn.engine.batch
    if fn.batch_size is not None:
        at_most = min(fn.batch_size, at_most or fn.batch_size)
        if allowed is None:
            return at_most
    if at_most is not None and ample(fn, feeds, at_most, allowed):
        return at_most
    names = tuple(dict.fromkeys(wanted)) if wanted is not None else fn.differentiable_inputs
    call = Call(observe(names, names), (), bound.seed)
    fn = checkpointing(fn, call, feeds, allowed)
    found = plan(fn, call, feeds, at_most)
    fits = bound.samples if found is None else fitting(fn, call, found, allowed)
    return fits if at_most is None else min(fits, at_most)


def plan(fn: Differentiable, call: Call, feeds: Arrays, samples: int | None = None) -> MemoryPlan | None:
    """Return the plan of a call for feeds of these sizes, made once; None where only a run shows the memory.

    samples: the number that the plan must hold for; default that of the feeds.
    """
    # One plan for all numbers of samples up to a power of two.
    most = 2 ** math.ceil(math.log2(max(samples or 1, samples_in(fn.graph, feeds), 4)))
    key = (call.key, fn.engine.recomputing is None, tuple(_shapes(fn, feeds, 1).items()), most)
    return _PLANS.get(fn, key, lambda: _plan(fn, call, feeds, most))


def _plan(fn: Differentiable, call: Call, feeds: Arrays, most: int) -> MemoryPlan | None:
    try:
        program = call.program(fn)
        sizes = {}
        # With one sample, its axis would be taken for one that is broadcast.
        for count in (2, most) if fn.engine.batch is None else (fn.engine.batch,):
            shapes = _shapes(fn, feeds, count)
            lacking = [name for name in program.inputs if name not in shapes]
            targets = call.seed.fed(count) if call.seed is not None and lacking else ()
            shapes |= {name: (count, *a.shape[1:]) for name, a in zip(lacking, targets, strict=True)}
            sizes[count] = sizes_at(fn.graph, shapes, program)
    except (UnsupportedOp, InferenceError):
        # A framework may differentiate an op that has no rule here.
        return None
    costs = replace(fn.engine.costs, keeps=fn.engine.costs.keeps and call.request is not None)
    places = _places(fn, call, program, sizes)
    if stages := fn.engine.stages(program, sizes[max(sizes)]):
        return MemoryPlan(staged_estimate(stages, fn.graph, sizes, costs), places)
    return MemoryPlan(estimate(program, fn.graph, sizes, costs), places)


def fitted_key(fn: Differentiable, call: Call) -> Hashable:
    """Return the key of the samples that were computed at once, by the engine that computed them."""
    return call.key, fn.engine.recomputing is None


def _places(
    fn: Differentiable, call: Call, program: Program, at: Mapping[int, TensorSizes]
) -> dict[str, Place] | None:
    """Return where the samples lie in each result; None where one of them, or the target, has no axis of samples."""
    if call.seed is not None and any(fn.places.get(name) != Place(0) for name in call.seed.outputs):
        return None
    places: dict[str, Place] = {}
    for name, tensor in program.results.items():
        few, many = (at[count].shapes.get(tensor.name, ()) for count in (min(at), max(at)))
        place = place_of(fn, name) or Place(0)
        if place.axis >= len(few) == 1:
            # Such as sum/…, which has one number for each sample.
            place = Place(0)
        axis, times = place.axis, max(at) / min(at)
        if axis >= len(few) or OPEN in few or not few[axis]:
            return None
        if many != (*few[:axis], few[axis] * times, *few[axis + 1 :]):
            return None
        places[name] = place
    return places


def place_of(fn: Differentiable, result: str) -> Place | None:
    """Return where samples lie in a result, which is named after a tensor: term/…, value/…, gradient/…."""
    return fn.places.get(result) or fn.places.get(result.partition("/")[2])


def checkpointing(
    fn: Differentiable, call: Call, feeds: Arrays, max_memory: int | None = None
) -> Differentiable:
    """Return the model on the engine that a call runs on: one that computes activations again, where a sample would not
    fit otherwise, or where the user asked for it.

    max_memory: bytes; default that of `differentiate`.
    """
    engine = fn.engine.recomputing
    if engine is None or call.request is None or fn.checkpoint == "never":
        return fn
    slim = _RECOMPUTING.get(fn, (id(engine), id(fn.arrangement)), lambda: replace(fn, engine=engine))
    if fn.checkpoint == "always":
        return slim
    allowed = fn.max_memory if max_memory is None else max_memory
    if (fn.batch_size is not None and allowed is None) or ample(
        fn, feeds, samples_in(fn.graph, feeds), allowed
    ):
        return fn
    found = plan(fn, call, feeds)
    if found is None:
        return fn
    # A batch that cannot be split is as large as it is.
    whole = fn.engine.batch or samples_in(fn.graph, feeds)
    least = whole if fn.engine.batch is not None or found.places is None else 1
    if found.estimate.bytes(least) <= (free_memory() if allowed is None else budget(allowed)):
        return fn
    other = plan(slim, call, feeds)
    smaller = other is not None and other.estimate.bytes(least) < found.estimate.bytes(least)
    return slim if smaller else fn


def fitting(fn: Differentiable, call: Call, found: MemoryPlan, max_memory: int | None) -> int:
    """Return how many samples of a call fit, at least one. Raises NotEnoughMemory where not even one does."""
    allowed, needed = budget(max_memory), found.estimate
    # The sessions of earlier calls are a part of a limit; they go where nothing else fits.
    kept = getattr(fn.engine, "held", 0) if max_memory is not None else 0
    fits = needed.samples(max(allowed - kept, 0))
    if kept and not fits:
        fn.release()
        fits = needed.samples(allowed)
    if max_memory is None:
        # The memory of an earlier call is not free, but this call can use it.
        fits = max(fits, FITTED.of(fn).get(fitted_key(fn, call), 0))
    # Without a limit, a single sample may take all free memory.
    most = allowed if max_memory is not None else free_memory()
    if fits or needed.bytes(1) <= most:
        return max(fits, 1)
    least = "one sample" if fn.engine.batch is None else f"the stated batch of {fn.engine.batch}"
    raise NotEnoughMemory(
        f"{least} needs about {text_of(needed.bytes(1))} of memory on {fn.backend}, and "
        f"{text_of(most)} {'may be used' if max_memory is not None else 'is free'}. "
        f'Fix: allow more with max_memory="{math.ceil(needed.bytes(1) / 2**20)} MiB" (--max-memory), or make the '
        "inputs smaller"
    )


def ample(fn: Differentiable, feeds: Arrays, samples: int, max_memory: int | None) -> bool:
    """Return whether so many samples surely fit, by the size of the forward pass alone."""
    fixed, each = forward_bytes(fn, feeds)
    needed = _AMPLE * (fixed + samples * each)
    return (max_memory is None and needed <= _TRIVIAL) or needed <= budget(max_memory)


def forward_bytes(fn: Differentiable, feeds: Arrays) -> tuple[int, int]:
    """Return the bytes of all tensors of the graph, weights included: fixed, and for each sample."""
    one, two = (_shapes(fn, feeds, count) for count in (1, 2))

    def made() -> tuple[int, int]:
        fixed, more = (sum(sizes_at(fn.graph, shapes).values()) for shapes in (one, two))
        return 2 * fixed - more, more - fixed

    return _FORWARD.get(fn, tuple(one.items()), made)


def _shapes(fn: Differentiable, feeds: Arrays, samples: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the feeds with another number of samples."""
    batched = batched_inputs(fn.graph)
    return {n: (samples, *array.shape[1:]) if n in batched else array.shape for n, array in feeds.items()}
