"""A small audit of every pass, and that the audit can fail."""

from __future__ import annotations

import numpy as np
import pytest

from converters.graph.mutable import MutableGraph
from converters.passes import affine, packed, simplify
from tools.audit import coverage
from tools.audit.comparison import bitwise, within
from tools.audit.passes import PASSES
from tools.audit.trial import audit

GRAPHS = 25


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_changes_graphs_and_no_values(name):
    count = audit(PASSES[name], GRAPHS, 0)
    assert count.passed, (count.changed, count.reproducers)
    assert count.values > 100


def test_every_function_that_rewrites_a_graph_has_a_row():
    assert coverage.uncovered() == []
    assert coverage.UNTOUCHED.keys() <= coverage.rewriters()


def test_a_pass_without_a_row_is_found(monkeypatch):
    without = {name: one for name, one in PASSES.items() if name != "lower"}
    monkeypatch.setattr(coverage, "PASSES", without)
    assert coverage.uncovered() == ["lower_ops"]


def test_a_sum_that_loses_the_sign_of_zero_is_found(monkeypatch):
    monkeypatch.setattr(simplify, "is_zero", lambda array, negative=False: not array.any())
    count = audit(PASSES["simplify"], 400, 0)
    assert count.differences
    assert "-0.0" in count.reproducers[0] or "inf" in count.reproducers[0]


def test_a_chain_that_drops_a_small_shift_is_found(monkeypatch):
    composed = affine._composed

    def lossy(graph: MutableGraph, chain: list) -> object:
        found = composed(graph, chain)
        return found and (found[0], np.where(np.abs(found[1]) < 1e-3, 0, found[1]))

    monkeypatch.setattr(affine, "_composed", lossy)
    assert audit(PASSES["affine"], 400, 0).differences


def test_a_pass_that_fails_and_one_that_does_nothing_do_not_pass(monkeypatch):
    monkeypatch.setattr(packed._Packing, "ways", lambda self, layer: [])
    assert not audit(PASSES["packed"], 20, 0).passed
    monkeypatch.setattr(packed._Packing, "ways", lambda self, layer: [][0])
    assert "IndexError" in audit(PASSES["packed"], 20, 0).reproducers[0]


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        ([1.0, np.nan, 0.0], None),
        ([1.0 + 1e-15, np.nan, 0.0], None),
        ([1.0 + 1e-11, np.nan, 0.0], "after"),
        ([1.0, np.inf, 0.0], "inf"),
        ([1.0, np.nan, 1e-300], "1e-300"),
    ],
)
def test_what_is_within_the_tolerance(after, problem):
    before = np.array([1.0, np.nan, 0.0])
    found = within([before], [np.array(after)], lambda noise: [before])
    assert (found is None) if problem is None else (problem in found)


def test_terms_that_cancel_may_differ_by_a_part_of_their_size():
    a, b = np.array([1e8 + 1.0]), np.array([1e8])

    def noisy(noise):
        rng, scale = noise
        return [a * (1 + scale * rng.standard_normal(1)) - b]

    assert within([a - b], [a - b + 1e-6], noisy) is None
    assert within([a - b], [a - b + 1e-2], noisy) is not None


def test_bits_include_the_sign_of_zero_and_the_type():
    zero = np.zeros(1)
    assert bitwise([zero], [zero]) is None
    assert bitwise([zero], [-zero]) is not None
    assert bitwise([zero], [zero.astype(np.float32)]) is not None
