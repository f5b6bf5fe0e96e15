"""Read the memory that a process holds, the memory that it can still take, and the processors that it may use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
# Version 1 writes a huge number where there is no limit.
_NO_LIMIT = 2**60


def resident_bytes(process: int | None = None) -> int:
    """Return the bytes of memory that a process holds, or 0 where the system does not say.

    Pages of mapped files are left out, because the system drops them when memory is scarce.
    process: its number; default this process.
    """
    try:
        found = psutil.Process(process).memory_info()
        return int(found.rss) - int(getattr(found, "shared", 0))
    except psutil.Error:
        return 0


def available_cores() -> int:
    """Return the processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not say
        return os.cpu_count() or 1


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take, within the machine and within all of its control groups.

    root: the folder that has `proc` and `sys`.
    """
    return max(0, min((int(psutil.virtual_memory().available), *_control_groups(root))))


def _control_groups(root: Path) -> Iterator[int]:
    """Yield the free bytes of each Linux control group of the process that has a limit. A group limits its children."""
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (mounted / "memory", _VERSION_1) if controllers else (mounted, _VERSION_2)
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(top):
                break
            limit, used = (_text(folder / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit() and int(limit) < _NO_LIMIT:
                # The system drops cached files first, though they count as used.
                cache = re.search(rf"^{names[2]} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                yield int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _text(path: Path) -> str:
    """Return the text of a file, empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
