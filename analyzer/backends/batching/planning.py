"""How many samples a backend can compute at once within a memory budget.

Reads a model on a backend, what is asked of it and its inputs; gives the need in memory for any number of samples, and
where the samples lie in every result. Refuses a single sample that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analyzer.autodiff.request import Request, observe
from analyzer.backends.batching.liveness import COUNTS, Flow, Shapes, flow
from analyzer.backends.batching.memory import Need, budget, free_memory, text_of
from analyzer.errors import BackendError, NotEnoughMemory, UnsupportedOp
from analyzer.graph.batch_axis import Place, batched_inputs, samples_in
from analyzer.graph.builder import Emitter
from analyzer.graph.graph import Graph
from analyzer.graph.program import Program, assemble
from analyzer.target.target import Seed, TargetLike, as_target
from converters.errors import ConversionError

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays, Inputs

AMPLE = 50
"""A call whose forward pass is this many times smaller than the budget is not planned: its gradients, and what a method
computes of them, fit beside it."""
TRIVIAL = 64 * 2**20
"""Bytes that any machine has: below, the system is not even asked what is free."""
STEADY = 256 * 2**20
"""Bytes of a forward pass after which progress is told."""


@dataclass(frozen=True)
class Call:
    """What is asked of a model: a request for a seed, or without one the values of tensors."""

    request: Request | None
    names: tuple[str, ...] = ()
    seed: Seed | None = None

    @property
    def key(self) -> Hashable:
        """What all calls share that compute the same."""
        if self.request is None or self.seed is None:
            return ("forward", self.names)
        return (self.request.key, self.seed.form)

    def program(self, fn: Differentiable) -> Program:
        """What is computed, as one ONNX program. Raises UnsupportedOp where a node on the path has no rule."""
        graph = fn.graph
        if self.request is None or self.seed is None:
            return assemble(graph, Emitter(graph.opset), {name: graph.tensors[name] for name in self.names})
        return fn.engine.program(self.request, self.seed)


@dataclass(frozen=True)
class Planned:
    """What a call takes. places: of the samples in each result; None where it must not be cut into pieces."""

    need: Need
    places: Mapping[str, Place] | None


def plan_batch(
    fn: Differentiable,
    wanted: Request | Sequence[str] | None,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    at_most: int | None = None,
    max_memory: int | None = None,
) -> int:
    """How many samples like the inputs a backend can compute at once within a memory budget, at least one.

    wanted: a method's request, or the tensors whose gradients are wanted; None for the floating inputs.
    at_most: no more are asked for, which spares the planning where so many surely fit. max_memory: bytes that the call
        may take; default that of `differentiate`.
    Where the model states its batch, it is that.
    Raises NotEnoughMemory where a single sample does not fit, and what `fn.gradients` raises for inputs and targets.
    """
    if fn.engine.batch is not None:
        return fn.engine.batch
    feeds = fn.check_inputs(inputs)
    allowed = max_memory if max_memory is not None else fn.max_memory
    if at_most is not None and ample(fn, feeds, at_most, allowed):
        return at_most
    if not isinstance(wanted, Request):
        names = tuple(dict.fromkeys(wanted)) if wanted is not None else fn.differentiable_inputs
        wanted = observe(names, names)
    call = Call(wanted, (), fn.seed(as_target(target), samples_in(fn.graph, feeds), feeds))
    found = planned(fn, call, feeds)
    fits = samples_in(fn.graph, feeds) if found is None else fitting(fn, call, found.need, allowed)
    return fits if at_most is None else min(fits, at_most)


def ample(fn: Differentiable, feeds: Arrays, samples: int, max_memory: int | None) -> bool:
    """Whether so many samples surely fit, by the size of the forward pass alone."""
    fixed, each = forward_bytes(fn, feeds)
    needed = AMPLE * (fixed + samples * each)
    if max_memory is None and needed <= TRIVIAL:
        return True
    return bool(needed <= budget(max_memory))


def steady(fn: Differentiable, feeds: Arrays) -> int:
    """How many samples are computed between two reports of progress, at least one."""
    _, each = forward_bytes(fn, feeds)
    return max(1, STEADY // max(each, 1))


def fitting(fn: Differentiable, call: Call, need: Need, max_memory: int | None) -> int:
    """How many samples of a call fit, at least one. Raises NotEnoughMemory where not even one does.

    Of a model that states its batch, the need of any number is that of the batch.
    """
    allowed = budget(max_memory)
    # What is kept from earlier calls is a part of a limit; it goes where nothing else fits.
    held = getattr(fn.engine, "held", 0) if max_memory is not None else 0
    fits = need.samples(max(allowed - held, 0))
    if held and not fits:
        fn.release()
        fits = need.samples(allowed)
    if max_memory is None:
        # What an earlier call has taken is still there for this one, though it is no longer free.
        fits = max(fits, fn.plans.get(("fitted", call.key), 0))
    if fits:
        return fits
    # Where nobody said how much it may be, a single sample may take all that is free.
    needed, most = need.at(1), allowed if max_memory is not None else free_memory()
    if needed <= most:
        return 1
    least = "one sample" if fn.engine.batch is None else f"the stated batch of {fn.engine.batch}"
    raise NotEnoughMemory(
        f"{least} needs about {text_of(needed)} of memory on {fn.backend}, and "
        f"{text_of(most)} {'may be used' if max_memory is not None else 'is free'}. "
        f'Fix: allow more with max_memory="{math.ceil(needed / 2**20)} MiB" (--max-memory), or make the inputs smaller'
    )


def planned(fn: Differentiable, call: Call, feeds: Arrays) -> Planned | None:
    """What a call takes on feeds of such shapes, worked out once; None where only running it shows."""
    batched = batched_inputs(fn.graph)
    sizes = tuple((name, a.shape[1:] if name in batched else a.shape) for name, a in feeds.items())
    key = ("memory", call.key, sizes)
    if key not in fn.plans:
        try:
            fn.plans[key] = _planned(fn, call, feeds)
        except (UnsupportedOp, BackendError, ConversionError):
            # A framework may differentiate what has no rule here, or run what ONNX Runtime does not.
            fn.plans[key] = None
    found: Planned | None = fn.plans[key]
    return found


def _planned(fn: Differentiable, call: Call, feeds: Arrays) -> Planned:
    program = call.program(fn)
    # Of a stated batch there is one size: all of it is fixed.
    counts = COUNTS if fn.engine.batch is None else (fn.engine.batch, fn.engine.batch)
    few, more = (_shapes(fn.graph, call, program, feeds, samples) for samples in counts)
    found = flow(program, (few, more))
    if found.unknown:
        found = found.with_measured(_measured(fn, call, found, feeds))
    # Of each of the scalars that are explained.
    wrt = (
        call.request.wrt * (call.seed.ranks or 1)
        if call.request is not None and call.seed is not None
        else ()
    )
    return Planned(fn.engine.need(found, wrt), _places(fn, call, found))


def _measured(fn: Differentiable, call: Call, found: Flow, feeds: Arrays) -> Mapping[str, int]:
    """The bytes, with one sample, of tensors whose size only running the program shows. Raises BackendError."""
    from analyzer.backends.onnxruntime import make_session

    batched = batched_inputs(fn.graph)
    one = {name: array[:1] if name in batched else array for name, array in feeds.items()}
    seed = call.seed.rows(np.array([0])) if call.seed is not None else None
    session = make_session(found.program.returning(found.unknown), ["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    targets = [name for name in found.program.inputs if name not in one]
    given = {**one, **dict(zip(targets, seed.fed(1) if seed is not None and targets else (), strict=True))}
    given = {name: array for name, array in given.items() if name in wanted}
    return {
        name: array.nbytes
        for name, array in zip(found.unknown, session.run(list(found.unknown), given), strict=True)
    }


def _shapes(graph: Graph, call: Call, program: Program, feeds: Arrays, samples: int) -> Shapes:
    """The shapes of what a program is fed with so many samples; what the graph does not have is the target."""
    batched = batched_inputs(graph)
    shapes = {name: (samples, *a.shape[1:]) if name in batched else a.shape for name, a in feeds.items()}
    lacking = [name for name in program.inputs if name not in shapes]
    targets = call.seed.fed(samples) if call.seed is not None and lacking else ()
    fed = {name: (samples, *array.shape[1:]) for name, array in zip(lacking, targets, strict=True)}
    return {name: shapes[name] if name in shapes else fed[name] for name in program.inputs}


def _places(fn: Differentiable, call: Call, found: Flow) -> dict[str, Place] | None:
    """Where the samples lie in each result; None where one of them, or the target, has no axis of samples."""
    if call.seed is not None and any(fn.places.get(name) != Place(0) for name in call.seed.outputs):
        return None
    places: dict[str, Place] = {}
    for name, shapes in found.results.items():
        place = place_of(fn, name) or Place(0)
        if shapes is None or not _grows(*shapes, place.axis):
            return None
        places[name] = place
    return places


def place_of(fn: Differentiable, result: str) -> Place | None:
    """Where samples lie in a result, which is named after a tensor: term/…, value/…, gradient/…."""
    return fn.places.get(result) or fn.places.get(result.partition("/")[2])


def _grows(few: tuple[int, ...], more: tuple[int, ...], axis: int) -> bool:
    """Whether one axis, and no other, grows in proportion to the number of samples."""
    if not len(few) == len(more) > axis or not few[axis]:
        return False
    expected = list(few)
    expected[axis] = few[axis] // COUNTS[0] * COUNTS[1]
    return few[axis] % COUNTS[0] == 0 and tuple(expected) == more


def forward_bytes(fn: Differentiable, feeds: Arrays) -> tuple[int, int]:
    """The bytes of all tensors of the graph, weights included: fixed, and per sample."""
    symbols: dict[str, int] = {}
    for name, array in feeds.items():
        for axis, size in zip(fn.graph.tensors[name].shape or (), array.shape, strict=False):
            if isinstance(axis, str):
                symbols[axis] = size
    key = ("forward bytes", tuple(sorted(symbols.items())))
    if key not in fn.plans:
        fn.plans[key] = _sum_of_sizes(fn.graph, symbols)
    found: tuple[int, int] = fn.plans[key]
    return found


def _sum_of_sizes(graph: Graph, symbols: Mapping[str, int]) -> tuple[int, int]:
    """What all tensors take, where a size that the graph leaves open is taken for the largest of the others."""
    batch = {graph.tensors[name].shape[0] for name in batched_inputs(graph)}  # type: ignore[index]
    fixed, each, largest, open_sizes = 0, 0, 0, 0
    for tensor in graph.tensors.values():
        shape = (None,) if tensor.shape is None else tensor.shape
        sizes = [1 if axis in batch else symbols.get(str(axis), axis) for axis in shape]
        if not all(isinstance(size, int) for size in sizes):
            open_sizes += 1
            continue
        size = math.prod(int(size or 0) for size in sizes) * tensor.dtype.itemsize
        if batch.intersection(shape):
            each += size
            largest = max(largest, size)
        else:
            fixed += size
    return fixed, each + open_sizes * largest
