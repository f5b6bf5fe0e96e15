"""The gradient graph on ONNX Runtime: needs no framework, and is what an explainer file contains.

The runtime has every kernel in float32 and only some in other precisions. A graph in another one is computed
in it where that works, else in float32, with a warning; arrays keep the graph's own types.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx

from analyzer.autodiff.request import Request, program_for
from analyzer.backends.batching.estimate import Costs, sizes_at
from analyzer.errors import BackendError, note
from analyzer.graph.batch_axis import fixed_batch, samples_in
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, is_float
from analyzer.graph.precision import FLOAT32, in_precision, precisions
from analyzer.graph.program import Program, assemble
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.segments import Stage, stages_of
from analyzer.target.target import Seed
from analyzer.types import Arrays
from converters.errors import one_line
from converters.graph.runtime import CPU, RuntimeFailure, fed_weights, load_session
from converters.system.forks import ForkLock
from converters.system.processes import available_cores

# Each session holds its own copy of the weights, and making one costs as much as several runs: as many are kept as
# fit in this many bytes of programs, and two in any case, which a method may need in turn. Where memory is limited,
# they take a part of the limit, and none is kept in any case.
KEPT_BYTES = 2**30
KEPT_AT_LEAST = 2
KEPT_SHARE = 0.25
# Bytes of memory for each byte of a program that is kept: the weights, and these packed for the kernels.
HELD = 2


@dataclass(frozen=True)
class _Ready:
    """A session, the bytes of its program, and the program's own inputs and outputs: {result: tensor}."""

    session: Any
    bytes: int
    inputs: Sequence[str]
    outputs: Mapping[str, str]


class OnnxRuntime:
    """A graph on ONNX Runtime. Sessions are made on demand and the last few are kept."""

    name = "onnxruntime"
    options: Mapping[str, Any] | None = None

    def __init__(
        self,
        graph: Graph,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        max_memory: int | None = None,
        recomputes: bool = False,
    ) -> None:
        """recomputes: compute the activations of the forward pass again, segment by segment, in the backward pass."""
        self.graph = graph
        self.recomputes = recomputes
        self._max_memory = max_memory
        self._most = (
            KEPT_BYTES if max_memory is None else min(KEPT_BYTES, int(KEPT_SHARE * max_memory / HELD))
        )
        self._least = KEPT_AT_LEAST if max_memory is None else 1
        self._computed = graph
        self._providers = list(providers or [CPU])
        self._threads = threads
        self._sessions: OrderedDict[Hashable, _Ready] = OrderedDict()
        self._making = ForkLock()
        self._stages: dict[Hashable, tuple[list[str], tuple[Stage, ...]]] = {}

    @property
    def costs(self) -> Costs:
        """The memory that a session takes."""
        # The arena grows in doubling regions, whose rests are too small for large tensors: measured up to 1.75. Weights
        # are copied while a session is made: in the program, its bytes, the runtime's copy, the session, packed for
        # kernels. On the processor, many are read where they are.
        return Costs(tensors=1.75, weights=5, feeds=self._providers == [CPU])

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed: what the graph's inputs state."""
        return fixed_batch(self.graph)

    @property
    def held(self) -> int:
        """The bytes of memory that the sessions take which are kept."""
        return HELD * sum(ready.bytes for ready in self._sessions.values())

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """All tensors: the graph itself is what runs."""
        return self.graph.tensors.keys()

    @cached_property
    def single(self) -> tuple[OnnxRuntime, int] | None:
        """The same on one thread of the processor, and its threads, where it computes in float32 as it stands."""
        threads = self._threads if self._threads is not None else available_cores()
        if (
            self.recomputes
            or threads < 2
            or self._providers != [CPU]
            or not precisions(self.graph) <= {FLOAT32}
        ):
            return None
        single = OnnxRuntime(self.graph, self._providers, 1, self._max_memory)
        # Sessions are kept in one place, so that one limit holds for all.
        single._sessions, single._making = self._sessions, self._making
        return single, threads

    @cached_property
    def recomputing(self) -> OnnxRuntime | None:
        """The same with less memory: activations are computed again, segment by segment. None of that one itself."""
        if self.recomputes:
            return None
        found = OnnxRuntime(self.graph, self._providers, self._threads, self._max_memory, recomputes=True)
        found._sessions, found._making = self._sessions, self._making
        return found

    def stages(self, program: Program, sizes: Mapping[str, int]) -> tuple[Stage, ...]:
        """Return the stages in which a program runs; none where it runs as a whole. sizes: bytes of every tensor."""
        return stages_of(program, self.graph, sizes) if self.recomputes else ()

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""

        def program(graph: Graph) -> Program:
            outputs = {name: graph.tensors[name] for name in names}
            return assemble(graph, Builder(graph.opset), outputs)

        return self._run(("forward", tuple(names)), program, feeds)

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request; the explained scalar under OUTPUT, its class under CHOSEN."""

        def program(graph: Graph) -> Program:
            return program_for(graph, request, seed)

        targets = seed.fed(self._rows(seed.output, feeds))
        if self.recomputes and (found := self._staged((request.key, seed.form), program, feeds, targets)):
            return found
        return self._run((request.key, seed.form), program, feeds, targets)

    def program(self, request: Request, seed: Seed) -> Program:
        """The gradient graph itself."""
        return program_for(self.graph, request, seed)

    def cut(self, graph: Graph) -> OnnxRuntime:
        """A graph cut out of this one, with the same settings."""
        return OnnxRuntime(graph, self._providers, self._threads, self._max_memory, self.recomputes)

    def rebound(self, graph: Graph) -> OnnxRuntime:
        """Another graph of the same model, with the same settings."""
        return self.cut(graph)

    def arranged(self, graph: Graph, arrangement: Arrangement) -> OnnxRuntime:
        """A view of this graph, with the same settings."""
        return self.cut(graph)

    def release(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()

    def _rows(self, output: str, feeds: Mapping[str, np.ndarray]) -> int:
        """The number of samples in an output: what it states, else what is fed."""
        shape = self.graph.tensors[output].shape
        stated = None if shape is None else (shape[0] if shape else 1)
        return stated if isinstance(stated, int) else samples_in(self.graph, feeds)

    def _run(
        self,
        key: Hashable,
        program_of: Callable[[Graph], Program],
        feeds: Mapping[str, np.ndarray],
        targets: Sequence[np.ndarray] = (),
    ) -> Arrays:
        """Run a program, in float32 where the runtime lacks a kernel in the graph's own precision."""
        try:
            return self._run_session(key, program_of, feeds, targets)
        except BackendError as error:
            if precisions(self._computed) <= {FLOAT32}:
                raise
            self._computed = in_precision(self.graph, FLOAT32)
            self._sessions.clear()
            found = self._run_session(key, program_of, feeds, targets)
            lacking = re.search(r"(?:implementation for|while running) (\w+)", str(error))
            what = f"ONNX Runtime has no kernel for {lacking[1]} in this precision" if lacking else str(error)
            note(f"computed in float32: {what}", UserWarning)
            return found

    def _run_session(
        self,
        key: Hashable,
        program_of: Callable[[Graph], Program],
        feeds: Mapping[str, np.ndarray],
        targets: Sequence[np.ndarray],
        wanted: Sequence[str] | None = None,
    ) -> Arrays:
        """Run a program. wanted: the results to return; default all."""
        # The threads of a session do not survive a fork: a process makes its own.
        ready = self._ready((os.getpid(), self._threads, key), program_of)
        # What the model has no input for is the target's, in the order of its outputs.
        own = [name for name in ready.inputs if name not in feeds]
        given = {**{n: feeds[n] for n in ready.inputs if n in feeds}, **dict(zip(own, targets, strict=True))}
        if self._computed is not self.graph:
            given = {n: a.astype(FLOAT32) if is_float(a.dtype) else a for n, a in given.items()}
        names = list(ready.outputs if wanted is None else wanted)
        try:
            arrays = ready.session.run([ready.outputs[name] for name in names], given)
        except Exception as error:
            raise BackendError(
                f"the graph does not run on these inputs in ONNX Runtime ({one_line(error)}). Fix: give inputs of the "
                'sizes and values that the model takes, or try backend="torch"'
            ) from error
        return {name: self._stated(name, array) for name, array in zip(names, arrays, strict=True)}

    def _staged(
        self,
        key: Hashable,
        program_of: Callable[[Graph], Program],
        feeds: Mapping[str, np.ndarray],
        targets: Sequence[np.ndarray],
    ) -> Arrays:
        """Run a program in stages; return nothing where it has none."""
        if self._computed is not self.graph:
            return {}
        kept = dict(feeds)
        shapes = tuple((name, array.shape) for name, array in kept.items())
        if (key, shapes) not in self._stages:
            program = program_of(self.graph)
            own = [name for name in program.inputs if name not in feeds]
            sizes = {name: array.shape for name, array in (*kept.items(), *zip(own, targets, strict=True))}
            self._stages[key, shapes] = (
                own,
                stages_of(program, self.graph, sizes_at(self.graph, sizes, program)),
            )
        own, stages = self._stages[key, shapes]
        kept |= dict(zip(own, targets, strict=True))
        results: Arrays = {}
        for index, stage in enumerate(stages):
            needed = {name: kept[name] for name in stage.program.inputs}
            part = partial(_program_of, stage.program)
            wanted = [*stage.keeps, *stage.results.values()]
            found = self._run_session((key, shapes, index), part, needed, (), wanted)
            kept |= {name: found[name] for name in stage.keeps}
            results |= {name: found[tensor] for name, tensor in stage.results.items()}
            for name in stage.frees:
                del kept[name]
        return results

    def _ready(self, key: Hashable, program_of: Callable[[Graph], Program]) -> _Ready:
        """The session of a program, made once however many threads ask for it."""
        with self._making:
            if key not in self._sessions:
                program = program_of(self._computed)
                proto, weights = program.apart()
                fed = fed_weights(proto.graph.node, weights) if self.costs.feeds else {}
                size = proto.ByteSize() + sum(a.nbytes for name, a in weights.items() if name not in fed)
                self._make_room(size)
                # Each stage would keep its own.
                arena = not self.recomputes
                session = make_session(proto, self._providers, self._threads, weights, arena)
                self._sessions[key] = _Ready(session, size, program.inputs, program.outputs)
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def _make_room(self, size: int) -> None:
        """Drop the sessions used longest ago until one of this many bytes may be added."""
        while len(self._sessions) >= self._least:
            if size + sum(ready.bytes for ready in self._sessions.values()) <= self._most:
                return
            self._sessions.popitem(last=False)

    def _stated(self, name: str, array: np.ndarray) -> np.ndarray:
        """A result in the precision of the tensor that it is named after, else of the graph's first output."""
        if self._computed is self.graph or not is_float(array.dtype):
            return array
        tensors = self.graph.tensors
        like = next((n for n in (name, name.partition("/")[2]) if n in tensors), self.graph.outputs[0])
        return array.astype(tensors[like].dtype)


def _program_of(program: Program, graph: Graph) -> Program:
    """A stage's program, which is that of the graph already."""
    return program


def make_session(
    proto: onnx.ModelProto,
    providers: Sequence[str],
    threads: int | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    arena: bool = True,
) -> Any:
    """Return an ONNX Runtime session of a program. Raises BackendError with the runtime's reason and a fix.

    weights: those that are inputs of the program, as `Program.apart` gives them.
    arena: whether the session keeps the memory of a run for the next one.
    """
    try:
        session = load_session(proto, providers=providers, threads=threads, weights=weights, arena=arena)
    except RuntimeFailure as error:
        raise BackendError(_unloaded(str(error))) from error
    # A provider may come with its options, (name, options). The runtime leaves out one that does not start.
    names = [one[0] if isinstance(one, tuple) else one for one in providers]
    if lost := [name for name in names if name not in session.get_providers()]:
        raise BackendError(
            f"the provider {lost[0]!r} did not start. Fix: install the libraries that it needs, or use {CPU}"
        )
    return session


def _unloaded(words: str) -> str:
    """Return why a graph is not loaded, in the runtime's words, and a fix."""
    if re.search("No opset import for domain|is not a registered function", words):
        return (
            f"the graph holds an op of which ONNX Runtime has no kernel ({words}). Fix: replace custom ops by standard "
            "ops, or by functions in the file"
        )
    return (
        f'the gradient graph is not one that ONNX Runtime loads ({words}). Fix: use backend="torch", or report the '
        "model as a defect of onnxplain"
    )
