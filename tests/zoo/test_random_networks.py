"""Random networks are healthy and the same for the same seed, and together they hold most of the op families."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.zoo.random_networks import CLASSES, RandomNetwork, random_network

SEEDS = range(12)


@pytest.fixture(scope="module")
def networks() -> list[RandomNetwork]:
    return [random_network(seed) for seed in SEEDS]


def test_outputs_are_of_order_one_for_any_number_of_samples(networks: list[RandomNetwork]) -> None:
    for network in networks:
        session = onnxruntime.InferenceSession(network.proto.SerializeToString())
        (logits,) = session.run(None, network.feeds)
        assert logits.shape == (2, CLASSES), network.blocks
        assert 0.02 < np.abs(logits).max() < 20, network.blocks
        (three,) = session.run(None, {name: array[[0, 1, 0]] for name, array in network.feeds.items()})
        np.testing.assert_allclose(three, logits[[0, 1, 0]], rtol=1e-3, atol=1e-4)


def test_a_seed_gives_one_network(networks: list[RandomNetwork]) -> None:
    assert random_network(3).proto == networks[3].proto
    assert len({network.proto.SerializeToString() for network in networks}) == len(networks)


def test_few_networks_hold_many_ops(networks: list[RandomNetwork]) -> None:
    found = {node.op_type for network in networks for node in network.proto.graph.node}
    assert len(found) > 50
    assert {"Conv", "LSTM", "Attention", "LayerNormalization", "Resize", "Softmax"} <= found
