"""Budgets of memory, what is free, and how many samples a need leaves room for."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.backends.batching import memory
from analyzer.backends.batching.memory import Need, as_bytes, budget, free_memory, text_of
from analyzer.errors import AnalysisError


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1000, 1000),
        ("1000", 1000),
        ("2 GiB", 2 * 2**30),
        ("2g", 2 * 2**30),
        ("1.5GB", 1_500_000_000),
        (" 64 mib ", 64 * 2**20),
        (None, None),
    ],
)
def test_budgets(size, expected):
    assert as_bytes(size) == expected


@pytest.mark.parametrize("size", ["much", "", 0, -1, "0 GiB", "2 GiB free", "1e9", "3 XB", True])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(AnalysisError, match=r"max_memory above 0, .* a number of bytes, or a text"):
        as_bytes(size)


def test_a_size_is_read_back_as_it_is_written():
    assert text_of(3 * 2**29) == "1.5 GiB"
    assert as_bytes(text_of(3 * 2**29)) == 3 * 2**29


def test_the_highest_moment_bounds_the_samples():
    need = Need(np.array([[100.0, 0.0], [10.0, 20.0], [50.0, 10.0]]))
    assert need.at(1) == 100 and need.at(5) == 110 and need.at(10) == 210
    assert need.samples(110) == 5 and need.samples(109) == 4
    assert need.samples(99) == 0
    assert all(
        need.at(need.samples(size)) <= size < need.at(need.samples(size) + 1) for size in range(101, 400)
    )


def test_a_need_that_does_not_grow_fits_any_number_or_none():
    need = Need(np.array([[100.0, 0.0]]))
    assert need.samples(100) > 10**9 and need.samples(99) == 0


def test_half_of_what_is_free_is_the_default(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert budget(None) == 500
    assert budget(4000) == 4000


def _system(folder, monkeypatch, available, groups, files):
    (folder / "cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(memory, "_machine", lambda: available)
    monkeypatch.setattr(memory, "GROUPS", folder / "cgroup")
    monkeypatch.setattr(memory, "MOUNTED", folder / "mounted")


def test_the_tightest_control_group_bounds_what_is_free(tmp_path, monkeypatch):
    files = {
        "a/memory.max": "1000\n",
        "a/memory.current": "300\n",
        "a/memory.stat": "anon 5\ninactive_file 100\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "200\n",
    }
    _system(tmp_path, monkeypatch, 5000, "0::/a/b\n", files)
    assert free_memory() == 1000 - 300 + 100
    _system(tmp_path, monkeypatch, 400, "0::/a/b\n", files)
    assert free_memory() == 400


def test_control_groups_of_version_1(tmp_path, monkeypatch):
    files = {
        "memory/job/memory.limit_in_bytes": "2000",
        "memory/job/memory.usage_in_bytes": "900",
        "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
    }
    _system(tmp_path, monkeypatch, 5000, "3:cpuset:/job\n4:cpu,memory:/job\n", files)
    assert free_memory() == 2000 - 900 + 50


def test_without_control_groups_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "none")
    monkeypatch.setattr(memory, "_machine", lambda: 77)
    assert free_memory() == 77


def test_this_machine_has_memory_free():
    assert 2**20 < free_memory() < 2**50
