"""One planted defect: drawn, held against the intact model by `check` or `compare`, and judged.

A defect is caught where the report does not pass. It is pinned where a node that the report names, its `suspects` or
else the node of its first divergence, is the planted one or reads from it or is read by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np

from analyzer import Report, check, compare
from analyzer.graph.graph import Graph
from converters import Model
from tools.defects import attributes, weights  # noqa: F401 -- they register their kinds
from tools.defects.edit import Edit
from tools.defects.effect import EFFECT, forward_effect, gradient_effect
from tools.defects.kinds import KINDS
from tools.defects.networks import Network
from tools.defects.rules import wrong_rule

# The path of Integrated Gradients is walked in as few points: it repeats what the gradients at the inputs show.
STEPS = 1


@dataclass(frozen=True)
class Defect:
    """What was planted, where, and how it shows. effect: the largest relative L2 between intact and planted."""

    kind: str
    network: str
    node: str
    op_type: str
    detail: str
    effect: float


@dataclass(frozen=True)
class Trial:
    """A defect and what the report made of it. by: `check` or `compare`; quantity: in which it was seen first; named:
    the nodes that the report names; distance: of the nearest from the planted one in the graph, −1 where none is named.
    """

    defect: Defect
    by: str
    caught: bool
    quantity: str
    named: tuple[str, ...]
    distance: int

    @property
    def pinned(self) -> bool:
        """Whether the right node is named, or one beside it."""
        return self.caught and 0 <= self.distance <= 1


def plant(network: Network, rng: np.random.Generator) -> tuple[Defect, Model] | None:
    """A defect of a random kind at a random eligible node; None where that has no effect, or there is no such node."""
    kind = KINDS[sorted(KINDS)[int(rng.integers(len(KINDS)))]]
    graph = Graph.from_proto(network.proto)
    path = graph.ancestors(graph.outputs[:1]) & graph.descendants(network.wrt or graph.inputs)
    nodes = [node for node in graph.nodes if node.op_type in kind.ops and node.outputs[0] in path]
    for index in rng.permutation(len(nodes)):
        node, edit = nodes[index], Edit(network.proto, rng)
        detail = kind.spoil(edit, edit.node(node.outputs[0]))
        if detail is None:
            continue
        planted = replace(network.model, proto=edit.proto)
        effect = forward_effect(network, planted)
        if effect > EFFECT:
            return Defect(kind.name, network.name, node.name, node.op_type, detail, effect), planted
    return None


def tried(network: Network, defect: Defect, planted: Model) -> Trial:
    """Hold the planted model against its source where it has one, else against the intact model."""
    if planted.source is not None:
        report = check(
            planted,
            network.feeds,
            network.target,
            backends=["onnxruntime", "source"],
            steps=STEPS,
            referee=False,
        )
        return judged(report, defect, "check", Graph.from_proto(planted.proto), [defect.node])
    report = compare(network.model, planted, network.feeds, network.target, wrt=network.wrt, steps=STEPS)
    return judged(report, defect, "compare", Graph.from_proto(planted.proto), [defect.node])


def tried_rule(network: Network, rng: np.random.Generator) -> Trial | None:
    """A wrong rule of one backend, held against another backend; None where it has no effect."""
    rule = wrong_rule(network, rng)
    if rule is None or (effect := gradient_effect(network, rule)) <= EFFECT:
        return None
    other = "torch" if rule.backend == "onnxruntime" else "onnxruntime"
    with rule.planted():
        report = check(
            network.model, network.feeds, network.target, wrt=network.wrt, backends=[other, rule.backend],
            steps=STEPS, referee=False,
        )  # fmt: skip
    nodes = sorted(rule.nodes)
    defect = Defect(rule.kind, network.name, nodes[0], rule.op_type, f"{rule.backend}, {rule.detail}", effect)
    return judged(report, defect, "check", Graph.from_proto(network.proto), nodes)


def judged(report: Report, defect: Defect, by: str, graph: Graph, planted: Collection[str]) -> Trial:
    """What a report of one pair made of a defect at one of these nodes."""
    (pair,) = report.pairs
    first = pair.first_divergence
    named = pair.suspects or ((first["node"],) if first and first["node"] else ())
    quantity = first["quantity"] if first else "completeness"
    return Trial(
        defect,
        by,
        not report.passed,
        quantity if not report.passed else "",
        named,
        distance(graph, named, planted),
    )


def distance(graph: Graph, named: Iterable[str], planted: Collection[str]) -> int:
    """The number of edges from the nearest node named to the nearest planted one; −1 where there is no way."""
    by_name = {node.name: node for node in graph.nodes}
    reached, steps = {name for name in named if name in by_name}, 0
    seen = set(reached)
    while reached:
        if reached & set(planted):
            return steps
        beside = {
            other.name
            for name in reached
            for tensor in (*by_name[name].reads, *by_name[name].outputs)
            for other in (graph.producer.get(tensor), *graph.consumers.get(tensor, ()))
            if other is not None and tensor and graph.tensors[tensor].constant is None
        }
        reached, steps = beside - seen, steps + 1
        seen |= beside
    return -1
