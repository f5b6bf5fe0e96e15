"""The memory of processes, of the machine, and of control groups as fake files."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from converters.system.processes import free_memory, resident_bytes


def system(root, monkeypatch, available, groups, files):
    """A root folder with fake files of the kernel, on a machine with so many bytes available."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    return root


VERSION_2 = {
    "sys/fs/cgroup/a/memory.max": "1000\n",
    "sys/fs/cgroup/a/memory.current": "300\n",
    "sys/fs/cgroup/a/memory.stat": "anon 5\ninactive_file 100\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
    "sys/fs/cgroup/a/b/memory.current": "200\n",
}
VERSION_1 = {
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2000",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "900",
    "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
}
# Inside a container the path is that of the host, and the limit lies at the top of the mounted folder.
CONTAINER = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "700",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "100",
}
UNLIMITED = {
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "900",
}
CGROUPS = {
    "version 2, limit of the parent": (5000, "0::/a/b\n", VERSION_2, 1000 - 300 + 100),
    "version 2, the machine has less": (400, "0::/a/b\n", VERSION_2, 400),
    "version 2, another group": (5000, "0::/c\n", VERSION_2, 5000),
    "version 2, a nearer limit": (
        5000,
        "0::/a/b\n",
        {**VERSION_2, "sys/fs/cgroup/a/b/memory.max": "450"},
        450 - 200,
    ),
    "version 2, over the limit": (5000, "0::/a\n", {**VERSION_2, "sys/fs/cgroup/a/memory.max": "50"}, 0),
    "version 1": (5000, "3:cpuset:/job\n4:cpu,memory:/job\n", VERSION_1, 2000 - 900 + 50),
    "version 1, other controllers alone": (5000, "3:cpuset:/job\n", VERSION_1, 5000),
    "version 1, in a container": (5000, "4:memory:/docker/0123\n", CONTAINER, 700 - 100),
    "version 1, no limit": (5000, "4:memory:/job\n", UNLIMITED, 5000),
    "both versions": (5000, "4:memory:/job\n0::/a\n", {**VERSION_1, **VERSION_2}, 1000 - 300 + 100),
    "a path outside the namespace": (5000, "0::/../..\n", VERSION_2, 5000),
    "no control group": (77, "", {}, 77),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_control_groups_limit_the_free_memory(name, tmp_path, monkeypatch):
    available, groups, files, expected = CGROUPS[name]
    assert free_memory(system(tmp_path, monkeypatch, available, groups, files)) == expected


def test_without_linux_files_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=77))
    assert free_memory(tmp_path / "none") == 77


def test_this_machine_has_memory_free():
    assert 2**20 < free_memory() < 2**50


def test_resident_memory_of_this_process_and_of_one_that_ended():
    before = resident_bytes()
    held = np.ones(2**24)
    assert resident_bytes() - before > 0.9 * held.nbytes
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_bytes(ended.pid) == 0
