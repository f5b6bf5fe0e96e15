"""Read the limits that users set: a budget of memory ("2 GiB", or a number of bytes), and a number of samples."""

from __future__ import annotations

import re
from numbers import Integral

from analyzer.errors import AnalysisError
from converters.system.processes import free_memory

SHARE = 0.5
"""The share of the free memory that a call may take by default."""
CHECKPOINT = ("auto", "always", "never")
"""When activations are computed again in the backward pass."""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, endings in ((1000, ("B",)), (1024, ("", "IB")))
    for ending in endings
}


def as_bytes(size: int | str | None) -> int | None:
    """Return a memory budget in bytes, from a number of bytes or a text such as "2 GiB" or "500MB"; None stays None.

    Raises AnalysisError for anything but a size above 0.
    """
    if size is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(size), re.IGNORECASE)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise AnalysisError(
            f"expected max_memory above 0, got {size!r}. Fix: give a number of bytes, or a text such as '2 GiB'"
        )
    return int(float(found[1]) * unit)


def as_batch_size(size: int | None) -> int | None:
    """Return the samples of a micro-batch; None stays None. Raises AnalysisError for anything but a number above 0."""
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise AnalysisError(
            f"expected batch_size of at least 1, got {size!r}. Fix: omit it, or give a whole number"
        )
    return int(size)


def text_of(size: int) -> str:
    """Return a number of bytes as text for a reader."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} bytes"


def budget(max_memory: int | None) -> int:
    """Return the bytes that a call may take: those given, else half of the free memory."""
    return max_memory if max_memory is not None else int(SHARE * free_memory())


def as_checkpoint(value: str, backend: str) -> str:
    """Return the choice. Raises AnalysisError for an unknown one, or one that the backend does not have."""
    if value not in CHECKPOINT:
        raise AnalysisError(
            f"unknown checkpoint={value!r}. Fix: give {', '.join(map(repr, CHECKPOINT))}, or omit it"
        )
    if value == "always" and backend != "onnxruntime":
        raise AnalysisError(
            f'backend={backend!r} cannot recompute activations. Fix: use backend="onnxruntime", or omit checkpoint'
        )
    return value
