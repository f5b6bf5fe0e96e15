"""Run a node test forward: stock ONNX Runtime on the file as it is, and `differentiate` on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from analyzer import differentiate
from converters import Model
from tools.coverage.node_tests import NodeTest

BACKENDS = ("onnxruntime", "torch", "tensorflow")
STOCK = "stock"
HALVES = ("float16", "bfloat16")


def backend_failures(test: NodeTest, model: Model) -> dict[str, str | None]:
    """Per backend None where its outputs are the expected ones, else what went wrong, in a line."""
    return {backend: failure(test, partial(_run, model, backend, test)) for backend in BACKENDS}


def stock_failure(test: NodeTest) -> str | None:
    """The same of stock ONNX Runtime on the file as it is: what any user of ONNX has without this project."""
    return failure(test, partial(_run_stock, test))


def failure(test: NodeTest, run: Callable[[], Mapping[str, Any]]) -> str | None:
    """Why a run does not give what the standard expects, or None."""
    try:
        found = run()
        for name, expected in test.outputs.items():
            assert_equal(found[name], expected, test.rtol, test.atol)
    # A case that fails is a result, whatever a runtime raises.
    except Exception as error:
        return described(error)
    return None


def described(error: Exception) -> str:
    """An exception in one line, with its kind."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def assert_equal(found: Any, expected: Any, rtol: float, atol: float) -> None:
    """Equal in dtype, shape and, up to the tolerance, in value; as the standard's own runner compares.

    Half precision is answered in float32, in which it is computed.
    """
    if isinstance(expected, list) or expected is None:
        assert isinstance(found, list) == isinstance(expected, list), f"{type(found)} for {type(expected)}"
        for one, other in zip(found or (), expected or (), strict=True):
            assert_equal(one, other, rtol, atol)
        return
    widened = expected.dtype.name in HALVES and found.dtype == np.float32
    assert widened or found.dtype == expected.dtype, f"dtype {found.dtype}, expected {expected.dtype}"
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype.kind in "OSU":
        np.testing.assert_array_equal(found, expected)
        return
    number = np.complex128 if expected.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(found.astype(number), expected.astype(number), rtol=rtol, atol=atol)


def _run(model: Model, backend: str, test: NodeTest) -> Mapping[str, Any]:
    return differentiate(model, backend).forward(test.inputs)


def _run_stock(test: NodeTest) -> Mapping[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        test.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, test.inputs), strict=True))
