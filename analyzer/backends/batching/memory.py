"""How much memory computing may take, and how many samples that is.

Reads a budget ("2 GiB", bytes, or half of what this machine has free) and a Need, what a call takes for any number of
samples. Refuses budgets that are no sizes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analyzer.errors import AnalysisError

SHARE = 0.5
"""Of the free memory, what is taken where nobody says how much it may be."""
ASSUMED_FREE = 4 * 2**30
"""Bytes, where the system does not tell."""
GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux tells the control groups of a process, and their limits."""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, endings in ((1000, ("B",)), (1024, ("", "IB")))
    for ending in endings
}
_NO_LIMIT = 2**60


@dataclass(frozen=True)
class Need:
    """The bytes that a call takes: at each of some moments a fixed part and a part per sample, (moments, 2)."""

    moments: np.ndarray

    def at(self, samples: int) -> int:
        """The bytes for this many samples."""
        return math.ceil((self.moments @ (1.0, float(samples))).max(initial=0))

    def samples(self, budget: int) -> int:
        """The most samples that the budget holds, 0 where it does not hold one; a large number where any do."""
        fixed, each = self.moments[:, 0], self.moments[:, 1]
        if (fixed + each > budget).any():
            return 0
        growing = each > 0
        fits = ((budget - fixed[growing]) / each[growing]).min(initial=_NO_LIMIT)
        # What `at` says of a number of samples holds that many, however the quotient is rounded.
        return int(fits * (1 + 1e-12))


def as_bytes(size: int | str | None) -> int | None:
    """A memory budget in bytes, of a number of bytes or a text such as "2 GiB" or "500MB"; None stays None.

    Raises AnalysisError for what is no size above 0.
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


def text_of(size: int) -> str:
    """A number of bytes, to read."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} bytes"


def budget(max_memory: int | None) -> int:
    """The bytes that a call may take: those given, else half of what is free."""
    return max_memory if max_memory is not None else int(SHARE * free_memory())


def free_memory() -> int:
    """The bytes that this process can still take: of the machine's memory, and of every control group it is in."""
    return max(0, min((_machine(), *_control_groups())))


def _machine() -> int:
    accounts = _read(Path("/proc/meminfo"))
    found = re.search(r"^MemAvailable:\s+(\d+) kB", accounts, re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, and macOS not this name
        return ASSUMED_FREE


def _control_groups() -> Iterator[int]:
    """What the limits of the process's groups leave, of version 2 and of version 1; a group bounds those within it."""
    for line in _read(GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = MOUNTED, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = MOUNTED / "memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(root):
                break
            limit = _read(folder / names[0]).strip()
            if not limit.isdigit() or int(limit) >= _NO_LIMIT:
                continue
            used = _read(folder / names[1]).strip()
            if used.isdigit():
                # Files that nobody has open count as used, and are given up when memory is wanted.
                stat = _read(folder / "memory.stat")
                cache = re.search(rf"^{names[2]} (\d+)$", stat, re.MULTILINE)
                yield int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _read(path: Path) -> str:
    """A file's text; none where there is no such file, or it is not for us."""
    try:
        return path.read_text()
    except OSError:
        return ""
