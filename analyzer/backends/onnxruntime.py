"""The gradient graph on ONNX Runtime: needs no framework, and is what an explainer file contains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from analyzer.backends.base import fixed_batch, samples_in
from analyzer.emitter import Emitter
from analyzer.errors import BackendError
from analyzer.graph import Graph
from analyzer.program import Program, assemble
from analyzer.request import Request, full_program
from analyzer.target import HIGHEST, Seed
from converters.errors import one_line

Arrays = dict[str, np.ndarray]

# Each session holds its own copy of the weights; a method needs one or two at a time.
SESSIONS_KEPT = 2
LARGEST_IN_MEMORY = 2**31 - 2**20


class OnnxRuntime:
    """A graph on ONNX Runtime. Sessions are made on demand and the last few are kept."""

    name = "onnxruntime"

    def __init__(
        self, graph: Graph, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> None:
        self.graph = graph
        self._providers = list(providers or ["CPUExecutionProvider"])
        self._threads = threads
        self._sessions: OrderedDict[Hashable, tuple[Any, Program]] = OrderedDict()

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed: what the graph's inputs state."""
        return fixed_batch(self.graph)

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """All tensors: the graph itself is what runs."""
        return self.graph.tensors.keys()

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        key = ("forward", tuple(names))
        if key not in self._sessions:
            outputs = {name: self.graph.tensors[name] for name in names}
            self._keep(key, assemble(self.graph, Emitter(self.graph.opset), outputs))
        return self._run(key, feeds)

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request; the explained scalar under OUTPUT, its class under CHOSEN."""
        key = (request.key, seed.output, seed.weights is not None)
        if key not in self._sessions:
            self._keep(key, full_program(self.graph, request, seed.output, weights=seed.weights is not None))
        target = seed.weights if seed.weights is not None else seed.index
        if target is None:
            target = np.full(self._rows(seed.output, feeds), HIGHEST, np.int64)
        program = self._sessions[key][1]
        target_name = next((name for name in program.inputs if name not in self.graph.tensors), None)
        return self._run(key, {**feeds, target_name: target} if target_name else feeds)

    def _rows(self, output: str, feeds: Mapping[str, np.ndarray]) -> int:
        """The number of samples in an output: what it states, else what is fed."""
        shape = self.graph.tensors[output].shape
        stated = None if shape is None else (shape[0] if shape else 1)
        return stated if isinstance(stated, int) else samples_in(self.graph, feeds)

    def _keep(self, key: Hashable, program: Program) -> None:
        self._sessions[key] = (make_session(program.proto, self._providers, self._threads), program)
        while len(self._sessions) > SESSIONS_KEPT:
            self._sessions.popitem(last=False)

    def _run(self, key: Hashable, feeds: Mapping[str, np.ndarray]) -> Arrays:
        session, program = self._sessions[key]
        self._sessions.move_to_end(key)
        names = list(program.outputs)
        try:
            arrays = session.run(
                [program.outputs[name] for name in names], {name: feeds[name] for name in program.inputs}
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime could not run the graph: {one_line(error)}") from error
        return dict(zip(names, arrays, strict=True))


def make_session(proto: onnx.ModelProto, providers: Sequence[str], threads: int | None = None) -> Any:
    """An ONNX Runtime session of a model in memory. Raises BackendError with the runtime's reason."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # The runtime's warnings speak of its own fusions; errors are raised anyway.
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if proto.ByteSize() > LARGEST_IN_MEMORY:
        raise BackendError(
            f"the graph is {proto.ByteSize() / 2**30:.1f} GiB; ONNX Runtime takes 2 GiB from memory"
        )
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=list(providers))
    except Exception as error:
        raise BackendError(f"ONNX Runtime could not load the graph: {one_line(error)}") from error
