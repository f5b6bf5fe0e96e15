"""Measure the peak memory of a call, as Linux counts it for this process."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path


def growth(call: Callable[[], object]) -> int:
    """Return the peak bytes of a call, in addition to the memory before the call."""
    # Freed memory that was not returned to the system would hide a part of the growth.
    ctypes.CDLL(None).malloc_trim(0)
    # Reset the recorded peak to the current memory, because earlier calls had a peak, too.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    call()
    return peak() - before


def peak() -> int:
    """Return the highest resident size of this process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
