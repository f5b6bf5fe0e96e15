"""Run an ONNX graph on ONNX Runtime, quietly, and turn its failures into one exception.

Reads a ModelProto and arrays by input name; returns arrays in the order of the graph's outputs. Functions import ONNX
Runtime, which starts threads when it is imported: the command line forks before (analyzer/cli/guard.py).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from converters.budget import current_trial, stopped_when
from converters.errors import one_line
from converters.graph.nodes import reads
from converters.system.forks import survives_fork
from converters.weights.halves import HALVES, is_widening
from converters.weights.mapping import maps_of, refuse_changed
from converters.weights.references import LARGEST_MESSAGE, external, lifted, sharing, with_weights_fed

CPU = "CPUExecutionProvider"
FED = 384 * 2**20
"""Bytes of the weights of a model from which on a session reads them where they are, and packs none of them."""
# The runtime stores the weights of these in another layout when it makes a session, and asks some to be constants.
_LAID_OUT = frozenset(("Conv", "ConvTranspose", "FusedConv", "LSTM", "GRU", "RNN", "DeformConv"))


class RuntimeFailure(Exception):
    """ONNX Runtime cannot load or run the graph; the message is its own, on one line."""


class Stopped(RuntimeFailure):
    """A run on noise was stopped, since it took too long."""


class Session:
    """A graph that is ready to run on the CPU."""

    def __init__(self, proto: onnx.ModelProto, *, optimise: bool = True) -> None:
        self._session = load_session(proto, optimise=optimise)
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        """The outputs, in order. options: ONNX Runtime's own, of this run."""
        trial = current_trial()
        if options is None and trial is not None:
            if trial.over():
                raise Stopped("the time of its trial runs is over")
            try:
                with stopped_when(trial.over) as options:
                    return self.run(feeds, options)
            except RuntimeFailure as error:
                raise (Stopped(str(error)) if trial.stopped else error) from error
        try:
            read = {name: array for name, array in feeds.items() if name in set(self.inputs)}
            if any(array.dtype.kind == "O" for array in read.values()):
                # Text has no OrtValue.
                return list(self._session.run(self.outputs, read, options))
            # Numbers that NumPy has not cannot cross the border.
            given = {name: _to_value(array) for name, array in read.items()}
            return [
                _from_value(one) for one in self._session.run_with_ort_values(self.outputs, given, options)
            ]
        except Exception as error:
            raise RuntimeFailure(one_line(error)) from error


class Erf(OpRun):
    """The error function in the type of its input: the evaluator's own rounds float64 to float32."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


class GatherElements(OpRun):
    """Refuse indices beyond the axis: the evaluator's own subtracts the size until one is within it."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
        places: list[np.ndarray] = [*np.ogrid[tuple(slice(size) for size in indices.shape)]]
        places[axis] = indices
        return (data[tuple(places)],)


class ReferenceSession:
    """The same on ONNX's reference evaluator: slow, but with every op in every type."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        try:
            light, self._weights = with_weights_fed(proto)
            self._evaluator = ReferenceEvaluator(light, new_ops=[Erf, GatherElements])
        except Exception as error:  # the evaluator documents no exceptions
            raise RuntimeFailure(one_line(error)) from error
        self.inputs = [name for name in self._evaluator.input_names if name not in self._weights]
        self.outputs = list(self._evaluator.output_names)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs, in order."""
        try:
            given = {name: feeds[name] for name in self.inputs if name in feeds}
            values = self._evaluator.run(None, {**given, **self._weights})
        except Exception as error:
            raise RuntimeFailure(one_line(error)) from error
        return [np.asarray(value) for value in values]


def load_session(
    proto: onnx.ModelProto,
    *,
    providers: Sequence[Any] = (CPU,),
    threads: int | None = None,
    optimise: bool = True,
    weights: Mapping[str, np.ndarray] | None = None,
    arena: bool = True,
) -> Any:
    """Return an ONNX Runtime session of a model. Raises RuntimeFailure with the runtime's reason.

    weights: arrays of inputs of the model that are the same in every run. The session holds them without a copy where
    they are large together, and the model's own large weights, too, where it refers to them (weights/references.py).
    providers: names of execution providers, or (name, options), in order of preference.
    threads: the number of threads of a run; by default the runtime's own choice.
    optimise: whether the runtime may rewrite the graph.
    arena: whether the session keeps the memory of a run for the next one.
    """
    settings = _Settings(providers, threads, optimise, arena)
    with sharing():
        # Protobuf writes no message above 2 GiB.
        proto = without_trailing_blanks(lifted(proto, LARGEST_MESSAGE))
        proto, own = with_weights_fed(proto)
        weights = {**own, **(weights or {})}
        try:
            if not weights:
                return _made(proto, settings)
            return _with_weights(proto, weights, settings)
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise RuntimeFailure(one_line(error)) from error


@dataclass(frozen=True)
class _Settings:
    """How a session is made; see `load_session`."""

    providers: Sequence[Any]
    threads: int | None
    optimise: bool
    arena: bool


def _made(
    proto: onnx.ModelProto,
    settings: _Settings,
    given: Mapping[str, np.ndarray] | None = None,
    *,
    halves: bool = False,
) -> Any:
    """Return a session.

    given: initializers that the runtime copies, which the model states as external data.
    halves: whether Casts widen weights where they are used. Equal ones are then kept apart.
    """
    import onnxruntime

    options = _options(settings.threads, settings.optimise)
    # The arena would keep room for the wide weights, in regions of powers of two.
    options.enable_cpu_mem_arena = settings.arena and not halves
    if given:
        options.add_external_initializers(list(given), [_to_value(array) for array in given.values()])
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(),
        sess_options=options,
        providers=list(settings.providers),
        disabled_optimizers=crashing_optimizers(proto) + ["CommonSubexpressionElimination"] * halves,
    )
    return survives_fork(session)


def _with_weights(
    proto: onnx.ModelProto,
    weights: dict[str, np.ndarray],
    settings: _Settings,
) -> Any:
    """Return a session that reads large weights where they are: as inputs, which it neither folds, packs nor copies.

    Weights that are few, or that kernels lay out anew, are given as initializers, which the runtime copies.
    """
    refuse_changed(maps_of(weights.values()))
    # Another device would be sent the weights in every run.
    fed = fed_weights(proto.graph.node, weights) if list(settings.providers) == [CPU] else {}
    given = {name: array for name, array in weights.items() if name not in fed}
    halves = any(array.dtype in HALVES for array in fed.values())
    proto = _as_initializers(proto, given)
    if fed:
        proto = _with_constants_first(proto, fed)
    session = _made(proto, settings, given, halves=halves)
    return FedSession(session, fed) if fed else session


def fed_weights(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights that a session reads where they are: none where they are few."""
    laid_out: set[str] = set()
    stored = {name: name for name in weights}
    for node in nodes:
        if is_widening(node) and node.input[0] in weights:
            stored[node.output[0]] = node.input[0]
        foreign = node.domain not in ("", "ai.onnx") or any(_bodies(node))
        if foreign or node.op_type in _LAID_OUT:
            laid_out.update(stored[name] for name in reads(node) if name in stored)
    found = {name: array for name, array in weights.items() if name not in laid_out}
    # The runtime would widen weights in half precision when it makes the session.
    size = sum(array.nbytes * (2 if array.dtype in HALVES else 1) for array in found.values())
    return found if size >= FED else {}


def _with_constants_first(proto: onnx.ModelProto, fed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model with the nodes that depend on weights alone at its beginning.

    The runtime visits the producers of a node from the last to the first in the list, and runs them in that order. A
    weight that is widened would else be widened before all that the node reads is computed, as all weights would be.
    """
    known = {*fed, *(tensor.name for tensor in proto.graph.initializer)}
    first, others = list[onnx.NodeProto](), list[onnx.NodeProto]()
    for node in proto.graph.node:
        if known.issuperset(reads(node)):
            known.update(name for name in node.output if name)
            first.append(node)
        else:
            others.append(node)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    copy.graph.node.extend([*first, *others])
    return copy


def _as_initializers(proto: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model with some of its inputs as initializers in external data."""
    if not weights:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    inputs = [info for info in proto.graph.input if info.name not in weights]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    for name, array in weights.items():
        copy.graph.initializer.append(external(array, name))
    return copy


def _options(threads: int | None, optimise: bool) -> Any:
    """Return the settings of a session: silent, and with threads that give way to others.

    The runtime's warnings speak of its own fusions; its errors are raised. Its idle threads spin for long by default.
    On cores that anything else uses, such as PyTorch's threads, a gradient then takes up to five times as long; 100 µs
    is enough to bridge the gaps between nodes. A memory pattern is a block for all tensors of a run, which the runtime
    takes in addition to the memory of the first run: it doubles the memory, and no network measured is faster for it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return options


class FedSession:
    """A session of ONNX Runtime that is fed weights in every run, which no one else sees as inputs."""

    def __init__(self, session: Any, weights: Mapping[str, np.ndarray]) -> None:
        self._session = session
        self._files = maps_of(weights.values())
        self._weights = {name: _to_value(array) for name, array in weights.items()}

    def get_inputs(self) -> list[Any]:
        """Return the inputs without the weights."""
        return [entry for entry in self._session.get_inputs() if entry.name not in self._weights]

    def get_outputs(self) -> list[Any]:
        """Return the outputs."""
        return list(self._session.get_outputs())

    def get_providers(self) -> list[str]:
        """Return the execution providers in use."""
        return list(self._session.get_providers())

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray], options: Any = None) -> Any:
        """Return the outputs of these names, all of them by default."""
        names = [entry.name for entry in self.get_outputs()] if names is None else list(names)
        given = {name: _to_value(np.asarray(array)) for name, array in feeds.items()}
        return [_from_value(one) for one in self.run_with_ort_values(names, given, options)]

    def run_with_ort_values(self, names: Sequence[str], feeds: Mapping[str, Any], options: Any = None) -> Any:
        """Return the outputs of these names as values of the runtime. Raises InvalidModel for a changed file."""
        refuse_changed(self._files)
        return self._session.run_with_ort_values(names, {**feeds, **self._weights}, options)


def runtime_version() -> str:
    """Return the version of ONNX Runtime."""
    import onnxruntime

    return str(onnxruntime.__version__)


def without_trailing_blanks(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with omitted inputs at a node's end left out; itself where there are none.

    Both forms mean the same, but ONNX Runtime 1.32 crashes on a LayerNormalization whose bias is a blank.
    """
    if not any(node.input and not node.input[-1] for node in proto.graph.node):
        return proto
    trimmed = onnx.ModelProto()
    trimmed.CopyFrom(proto)
    for node in trimmed.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
    return trimmed


def crashing_optimizers(proto: onnx.ModelProto) -> list[str]:
    """Return the optimizers of ONNX Runtime 1.32 that crash the process on such a model.

    NchwcTransformer crashes on some float16 convolutions. ConstantFolding crashes where it inlines an If
    inside another subgraph, as in an exported EmbeddingBag.
    """
    halves = any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in proto.graph.initializer)
    nested = any(_holds_if(body) for node in proto.graph.node for body in _bodies(node))
    return ["NchwcTransformer"] * halves + ["ConstantFolding"] * nested


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the subgraphs of a node."""
    return [body for entry in node.attribute for body in ([entry.g] if entry.HasField("g") else entry.graphs)]


def _holds_if(graph: onnx.GraphProto) -> bool:
    """Return whether a subgraph holds an If at any depth."""
    return any(node.op_type == "If" or any(map(_holds_if, _bodies(node))) for node in graph.node)


def run(
    proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, optimise: bool = True, options: Any = None
) -> Sequence[np.ndarray]:
    """Load and run once."""
    return Session(proto, optimise=optimise).run(feeds, options)


def _to_value(array: np.ndarray) -> Any:
    import onnxruntime

    array = np.ascontiguousarray(array) if array.ndim else np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, onnx.TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _from_value(value: Any) -> Any:
    if value.is_tensor() and value.data_type() == "tensor(bfloat16)":
        # NumPy has no bfloat16 of its own, so the runtime hands out the address alone.
        raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
        return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())
    return value.numpy()
