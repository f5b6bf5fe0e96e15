"""Budgets of memory, the free memory, and the samples that an estimate leaves room for."""

from __future__ import annotations

import pytest

from analyzer.backends.batching import memory
from analyzer.backends.batching.estimate import MemoryEstimate
from analyzer.backends.batching.memory import as_bytes, budget, text_of
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


def test_an_estimate_holds_as_many_samples_as_its_bytes_say():
    estimate = MemoryEstimate(fixed=10.0, each=20.0)
    assert estimate.bytes(1) == 30 and estimate.bytes(5) == 110
    assert estimate.samples(110) == 5 and estimate.samples(109) == 4 and estimate.samples(29) == 0
    assert all(
        estimate.bytes(estimate.samples(size)) <= size < estimate.bytes(estimate.samples(size) + 1)
        for size in range(30, 400)
    )


def test_an_estimate_that_does_not_grow_fits_any_number_or_none():
    estimate = MemoryEstimate(fixed=100.0, each=0.0)
    assert estimate.samples(100) > 10**9 and estimate.samples(99) == 0


def test_an_estimate_has_a_least_number_of_samples():
    estimate = MemoryEstimate(fixed=0.0, each=10.0, least=4)
    assert estimate.bytes(1) == 40 and estimate.samples(39) == 0 and estimate.samples(50) == 5


def test_half_of_what_is_free_is_the_default(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert budget(None) == 500
    assert budget(4000) == 4000
