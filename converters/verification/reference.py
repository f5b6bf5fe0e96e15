"""An original model, to be run, and the distance of a value from the original's.

A Reference takes arrays by ONNX input name and gives the outputs in the order of the ONNX graph. Raises
ConversionError where the original itself fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from converters.errors import ConversionError, one_line
from converters.types import NamedArrays
from converters.verification.norms import norm

FLOOR = 1e-6
"""Norms below this per element count as rounding noise: an output of exact zeros may come out as 1e-9."""


@dataclass(frozen=True)
class Reference:
    """The original, to be run: arrays by ONNX input name in, outputs in the order of the ONNX graph out.

    `label` names framework and version. `batch` is the one batch size it accepts, None where any will do.
    `proto` is the original itself where it is an ONNX model. `half` says that it computes in half precision, whatever
    its outputs are. `hard` says that its values at extreme inputs can be trusted: ONNX's reference evaluator casts to
    integers otherwise than runtimes do.
    """

    run: Callable[[NamedArrays], Sequence[np.ndarray]]
    label: str
    batch: int | None = None
    proto: onnx.ModelProto | None = None
    half: bool = False
    hard: bool = True


def relative_l2(value: np.ndarray, expected: np.ndarray) -> float:
    """‖value − expected‖ / ‖expected‖ over finite elements; infinite where NaN or infinity stand apart."""
    v, e = value.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    if v.shape != e.shape or not np.array_equal(v[~finite], e[~finite], equal_nan=True):
        return float("inf")
    v, e = v[finite], e[finite]
    if not np.isfinite(v).all():
        return float("inf")
    floor = float(FLOOR * np.sqrt(max(e.size, 1)))
    return norm(v - e) / max(norm(e), floor)


def run_original(reference: Reference, given: NamedArrays) -> Sequence[np.ndarray]:
    """Run the original. Raises ConversionError with the shapes and the reason where it fails."""
    try:
        return reference.run(given)
    except ConversionError:
        raise
    except Exception as error:  # the original is the user's code
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        precision = (
            ", of the type of its weights, as in example.to(weight.dtype)" if "dtype" in str(error) else ""
        )
        raise ConversionError(
            f"the original fails in {reference.label} on {shapes}: {one_line(error)}. "
            f"Fix: give an example on which the original runs{precision}"
        ) from error
