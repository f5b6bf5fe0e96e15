"""Generated defects are caught and pinned, healthy networks raise no alarm, and both can fail.

For a search by hand: python -m tools.defects --seed 1 --defects 300 --healthy 100.
"""

from __future__ import annotations

import pytest

from analyzer.graph.graph import Graph
from tools.defects.__main__ import line
from tools.defects.networks import written
from tools.defects.search import healthy, planted
from tools.defects.trial import distance

SEED, DEFECTS, HEALTHY = 0, 20, 12


@pytest.mark.filterwarnings("ignore")
def test_twenty_planted_defects_are_caught_and_pinned():
    trials = list(planted(SEED, DEFECTS))
    assert [line(trial) for trial in trials if not trial.pinned] == []
    assert {trial.by for trial in trials} == {"check", "compare"}
    assert len({trial.defect.kind for trial in trials}) >= 10


@pytest.mark.filterwarnings("ignore")
def test_healthy_networks_raise_no_alarm():
    checks = list(healthy(SEED, HEALTHY))
    assert [one for one in checks if one.alarm] == []
    assert {one.by for one in checks} == {"check", "compare"}


def test_the_distance_of_two_nodes_is_counted_in_edges():
    graph = Graph.from_proto(written(1).proto)
    first, second, third, *_ = graph.nodes
    assert third.inputs[0] == second.outputs[0]
    assert distance(graph, [third.name], [third.name]) == 0
    assert distance(graph, [third.name], [second.name]) == 1
    assert distance(graph, [third.name], [first.name]) == 2
    assert distance(graph, [], [first.name]) == -1
