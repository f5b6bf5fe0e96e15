"""Random networks of every op family: backends agree, gradients are the measured ones, FullGrad is complete.

For a search by hand: RANDOM_NETWORKS=500 pytest tests/analyzer/checks/test_random_networks.py.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from analyzer import Differentiable, check, differentiate
from analyzer.checks.explain.rounding import ROUNDING
from converters import load
from tests.analyzer.methods.completeness import assert_complete
from tests.zoo.random_networks import CLASSES, RandomNetwork, random_network

SEEDS = range(int(os.environ.get("RANDOM_NETWORKS", "30")))
STEPS = (1e-5, 1e-6, 1e-7)
EXCUSES = ("within rounding of a kink", ROUNDING)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_network(seed: int) -> None:
    network = random_network(seed)
    model, target = load(network.proto), seed % CLASSES
    report = check(model, network.feeds, target, wrt=network.wrt, steps=1)
    assert report.backends[:3] == ("onnxruntime", "torch", "tensorflow") and set(report.backends[3:]) <= {
        "file"
    }
    report.raise_for_disagreement()
    for row in report.rows:
        assert row["relative_l2"] <= 1e-4 or row["explanation"].endswith(EXCUSES), row
    assert_complete(model, network.feeds, target, network.wrt)
    if network.wrt is None:  # no small step can be made along whole numbers
        referee = differentiate(model, "torch", precision="float64")
        assert slope_error(referee, network, target) <= 1e-6, network.blocks


def slope_error(fn: Differentiable, network: RandomNetwork, target: int) -> float:
    """How far the gradient is from a derivative measured along a random line, relative to its norm.

    The best of several steps: a line may cross a kink, and a shorter one does so less often.
    """
    gradients = fn.gradients(network.feeds, target).gradients
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    rng = np.random.default_rng(0)
    lines = {name: rng.normal(size=x.shape) for name, x in network.feeds.items()}
    slope = sum(float((gradients[name] * lines[name]).sum()) for name in lines)

    def explained(step: float) -> float:
        moved = {name: x + step * lines[name] for name, x in network.feeds.items()}
        (y,) = fn.forward(moved).values()
        return float(y[:, target].sum())

    measured = [(explained(step) - explained(-step)) / (2 * step) for step in STEPS]
    return min(abs(slope - found) for found in measured) / max(norm, 1e-2)
