"""An original model, to be run, and the distance of a value from the original's.

A Reference takes arrays by ONNX input name and gives the outputs in the order of the ONNX graph. Raises
ConversionError where the original itself fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from converters.errors import ConversionError, one_line
from converters.types import NamedArrays
from converters.verification.norms import in_blocks, norm

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
    if value.shape != expected.shape:
        return float("inf")
    count, distances, lengths = 0, [0.0], [0.0]
    for v, e in in_blocks(value, expected):
        finite = np.isfinite(e)
        if not np.array_equal(v[~finite], e[~finite], equal_nan=True):
            return float("inf")
        v, e = v[finite], e[finite]
        if not np.isfinite(v).all():
            return float("inf")
        count += e.size
        distances.append(norm(v - e))
        lengths.append(norm(e))
    floor = float(FLOOR * np.sqrt(max(count, 1)))
    return math.hypot(*distances) / max(math.hypot(*lengths), floor)


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
