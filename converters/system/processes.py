"""Read the memory that a process holds."""

from __future__ import annotations

import psutil


def resident_bytes(process: int | None = None) -> int:
    """Return the bytes of memory that a process holds, or 0 where the system does not say.

    process: its number; default this process.
    """
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return 0
