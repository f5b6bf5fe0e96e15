"""Read memory budgets, and the memory that is free.

Reads a budget ("2 GiB", or a number of bytes) and what the system says; returns bytes. Refuses a budget that is not a
size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path

import psutil

from analyzer.errors import AnalysisError

SHARE = 0.5
"""The share of the free memory that a call may take by default."""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, endings in ((1000, ("B",)), (1024, ("", "IB")))
    for ending in endings
}
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
# Version 1 writes a huge number where there is no limit.
_NO_LIMIT = 2**60


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
