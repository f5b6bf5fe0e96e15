"""A search for planted defects and for false alarms, both counted.

`planted(seed, count)` plants so many defects, drawing again where one has no effect; `healthy(seed, count)` runs as
many healthy networks through `check`, or through `compare` with an equivalent rewrite of themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from analyzer import Report, check, compare
from tools.defects.networks import Network, converted, tied, written
from tools.defects.ports import compared, port, tried_port
from tools.defects.trial import STEPS, Trial, plant, tried, tried_rule

# PyTorch networks, and ports, take seconds to export: a few of them serve for many defects.
MODULES, PORTS, SEEDS = 5, 3, 1000


def planted(seed: int, count: int) -> Iterator[Trial]:
    """Trials of as many defects, no two of one kind at one node, about a third of them in backward passes."""
    known: set[tuple[str, str, str]] = set()
    attempt = 0
    while len(known) < count:
        trial = _trial(seed, np.random.default_rng([seed, attempt]))
        attempt += 1
        key = trial and (trial.defect.kind, trial.defect.network, trial.defect.node)
        if trial is not None and key is not None and key not in known:
            known.add(key)
            yield trial


def _trial(seed: int, rng: np.random.Generator) -> Trial | None:
    drawn, backward = rng.random(), rng.random() < 1 / 3
    if not backward and drawn < 0.25:
        return tried_port(PORTS * seed + int(rng.integers(PORTS)), rng)
    if backward and drawn < 0.25:
        network = tied(int(rng.integers(SEEDS)))
    elif drawn < 0.55:
        network = converted(MODULES * seed + int(rng.integers(MODULES)))
    else:
        network = written(int(rng.integers(SEEDS)))
    if backward:
        return tried_rule(network, rng)
    made = plant(network, rng)
    return None if made is None else tried(network, *made)


@dataclass(frozen=True)
class Healthy:
    """What a check of a healthy network says: nothing, but for kinks that are named."""

    network: str
    by: str
    alarm: str
    explained: int


def healthy(seed: int, count: int) -> Iterator[Healthy]:
    """Checks of as many networks: every tenth converted from PyTorch, every tenth fed exact ties, every tenth compared
    with its port to Keras, a third of the others with a rewrite of itself, all else on three backends.
    """
    for number in range(count):
        yield _checked(seed, number)


def _checked(seed: int, number: int) -> Healthy:
    drawn = int(np.random.default_rng([seed, number, 1]).integers(SEEDS))
    if number % 10 == 2:
        whole = port(PORTS * seed + number // 10 % PORTS)
        return _verdict(whole.keras, "compare", compared(whole, whole.keras.model))
    if number % 10 == 0:
        network = converted(MODULES * seed + number // 10 % MODULES)
    else:
        network = tied(drawn) if number % 10 == 1 else written(drawn)
    if number % 10 > 2 and number % 3 == 0:
        rewrite = rewritten(network.proto)
        report = compare(network.model, rewrite, network.feeds, network.target, wrt=network.wrt, steps=STEPS)
        return _verdict(network, "compare", report)
    report = check(network.model, network.feeds, network.target, wrt=network.wrt, steps=STEPS)
    return _verdict(network, "check", report)


def _verdict(network: Network, by: str, report: Report) -> Healthy:
    explained = sum(pair.explained for pair in report.pairs)
    return Healthy(network.name, by, "" if report.passed else report.reason, explained)


def rewritten(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in other nodes: ReLU as a maximum, subtraction as a sum, Sigmoid as half a tanh; new names."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    graph = found.graph
    for name, value in (("rewrite/zero", 0.0), ("rewrite/half", 0.5)):
        graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, (), [value]))
    nodes = []
    for node in graph.node:
        nodes += _alternative(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    del found.metadata_props[:]
    return found


def _alternative(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    stem = f"rewrite/{node.output[0]}"
    if node.op_type == "Relu":
        return [helper.make_node("Max", [node.input[0], "rewrite/zero"], node.output, stem)]
    if node.op_type == "Sub":
        negated = helper.make_node("Neg", [node.input[1]], [f"{stem}/neg"], f"{stem}/neg")
        return [negated, helper.make_node("Add", [node.input[0], f"{stem}/neg"], node.output, stem)]
    if node.op_type == "Sigmoid":
        steps = [("Mul", [node.input[0], "rewrite/half"]), ("Tanh", [f"{stem}/0"])]
        steps += [("Mul", [f"{stem}/1", "rewrite/half"]), ("Add", [f"{stem}/2", "rewrite/half"])]
        outputs = [f"{stem}/0", f"{stem}/1", f"{stem}/2", node.output[0]]
        return [
            helper.make_node(op_type, inputs, [output], f"{output}/node")
            for (op_type, inputs), output in zip(steps, outputs, strict=True)
        ]
    return [node]
