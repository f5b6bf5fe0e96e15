"""Apply optimizers and quantizers to an ONNX file, each as one function from file to file.

The tools of ONNX Runtime and onnxscript are installed with onnxplain. onnxslim and onnxsim are used if they are
installed. Every function raises the exceptions of its tool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

Batches = Sequence[dict[str, np.ndarray]]
Rewriter = Callable[[Path, Path, Batches], None]
"""Rewrite a source file to a destination file, with batches for calibration."""


class _Calibration(CalibrationDataReader):
    def __init__(self, batches: Batches) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the messages that quantizers log."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def runtime(level: str, source: Path, made: Path, batches: Batches) -> None:
    """Save the graph that ONNX Runtime runs at a level of optimization."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(made)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def slimmed(source: Path, made: Path, batches: Batches) -> None:
    """Optimize with onnxslim."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), made)


def simplified(source: Path, made: Path, batches: Batches) -> None:
    """Simplify with onnxsim, which checks the result on random inputs."""
    import onnxsim

    proto, same = onnxsim.simplify(onnx.load(source))
    if not same:
        raise ValueError("onnxsim reports that its result is a different function")
    onnx.save(proto, made)


def scripted(source: Path, made: Path, batches: Batches) -> None:
    """Optimize with onnxscript."""
    import onnxscript.optimizer

    onnx.save(onnxscript.optimizer.optimize(onnx.load(source)), made)


def halved(source: Path, made: Path, batches: Batches) -> None:
    """Convert weights and arithmetic to float16, with inputs and outputs in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), made)


def quantized_dynamically(source: Path, made: Path, batches: Batches) -> None:
    """Quantize weights to 8 bits, and activations with a scale that is measured at run time."""
    with _quietly():
        quantize_dynamic(source, made)


def quantized(source: Path, made: Path, batches: Batches, *, per_channel: bool) -> None:
    """Quantize weights and activations to 8 bits, with scales measured on the batches (QuantizeLinear)."""
    with _quietly():
        quantize_static(source, made, _Calibration(batches), per_channel=per_channel)


REWRITERS: dict[str, Rewriter] = {
    "ONNX Runtime, basic": partial(runtime, "BASIC"),
    "ONNX Runtime, extended": partial(runtime, "EXTENDED"),
    "ONNX Runtime, all": partial(runtime, "ALL"),
    "onnxscript": scripted,
    **({"onnxslim": slimmed} if find_spec("onnxslim") else {}),
    **({"onnxsim": simplified} if find_spec("onnxsim") else {}),
    "float16": halved,
    "static quantization, per channel": partial(quantized, per_channel=True),
    "static quantization": partial(quantized, per_channel=False),
    "dynamic quantization": quantized_dynamically,
}
