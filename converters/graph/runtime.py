"""Run an ONNX graph on ONNX Runtime, quietly, and turn its failures into one exception.

Reads a ModelProto and arrays by input name; returns arrays in the order of the graph's outputs. Functions import ONNX
Runtime, which starts threads when it is imported: the command line forks before (analyzer/cli/guard.py).
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from converters.budget import current_trial, stopped_when
from converters.errors import one_line
from converters.system.forks import survives_fork

CPU = "CPUExecutionProvider"
LARGEST_IN_MEMORY = 2**31 - 2**20
"""The bytes of a protobuf message; larger models go to the runtime through files."""


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
            self._evaluator = ReferenceEvaluator(proto, new_ops=[Erf, GatherElements])
        except Exception as error:  # the evaluator documents no exceptions
            raise RuntimeFailure(one_line(error)) from error
        self.inputs = list(self._evaluator.input_names)
        self.outputs = list(self._evaluator.output_names)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs, in order."""
        try:
            values = self._evaluator.run(None, {name: feeds[name] for name in self.inputs if name in feeds})
        except Exception as error:
            raise RuntimeFailure(one_line(error)) from error
        return [np.asarray(value) for value in values]


def load_session(
    proto: onnx.ModelProto,
    *,
    providers: Sequence[Any] = (CPU,),
    threads: int | None = None,
    optimise: bool = True,
) -> Any:
    """Return an ONNX Runtime session of a model. Raises RuntimeFailure with the runtime's reason.

    providers: names of execution providers, or (name, options), in order of preference.
    threads: the number of threads of a run; by default the runtime's own choice.
    optimise: whether the runtime may rewrite the graph.
    """
    import onnxruntime

    options = _options(threads, optimise)
    session_of = partial(
        onnxruntime.InferenceSession,
        sess_options=options,
        providers=list(providers),
        disabled_optimizers=crashing_optimizers(proto),
    )

    def made(model: bytes | str) -> Any:
        return survives_fork(session_of(model))

    proto = without_trailing_blanks(proto)
    try:
        if proto.ByteSize() <= LARGEST_IN_MEMORY:
            return made(proto.SerializeToString())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            copy = onnx.ModelProto()
            copy.CopyFrom(proto)
            onnx.save_model(copy, os.fspath(path), save_as_external_data=True)
            return made(os.fspath(path))
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise RuntimeFailure(one_line(error)) from error


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
