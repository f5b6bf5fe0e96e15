"""Cases of the recurrent ops: every direction, function and optional input, and each output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal

STEPS, SAMPLES, FEATURES, HIDDEN = 4, 3, 2, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ENDS = np.asarray([3, 4, 1], np.int32)


def recurrent(
    op: str,
    *,
    bias: bool = True,
    lengths: bool = False,
    states: bool = False,
    peepholes: bool = False,
    active: tuple[int, ...] = (0,),
    **given: Any,
) -> Case:
    """A small node of one of the three ops, with the optional inputs that are asked for."""
    directions = 2 if given.get("direction") == "bidirectional" else 1
    gates = GATES[op]
    inputs: list[np.ndarray | None] = [
        normal(STEPS, SAMPLES, FEATURES),
        normal(directions, gates * HIDDEN, FEATURES),
    ]
    inputs += [
        normal(directions, gates * HIDDEN, HIDDEN) * 0.7,
        normal(directions, 2 * gates * HIDDEN) if bias else None,
    ]
    inputs += [ENDS if lengths else None, normal(directions, SAMPLES, HIDDEN) if states else None]
    if op == "LSTM":
        inputs += [normal(directions, SAMPLES, HIDDEN) if states else None]
        inputs += [normal(directions, 3 * HIDDEN) if peepholes else None]
    while inputs[-1] is None:
        inputs.pop()
    outputs = 3 if op == "LSTM" else 2
    return case(op, *inputs, active=active, outputs=outputs, hidden_size=HIDDEN, **given)


def _recurrences() -> list[Case]:
    cases = []
    for op in GATES:
        every = (0, 5, 6) if op == "LSTM" else (0, 5)
        cases += [
            recurrent(op),
            recurrent(op, bias=False, direction="reverse", symbolic=(0, 1)),
            recurrent(op, direction="bidirectional", states=True, active=every, symbolic=(1,)),
            recurrent(op, lengths=True, direction="bidirectional", states=True, active=every),
            recurrent(op, direction="bidirectional", states=True, active=every, target=1),
            recurrent(op, lengths=True, direction="bidirectional", states=True, active=every, target=1),
            recurrent(op, states=True, active=every[1:]),
            recurrent(op, clip=0.4),
        ]
    cases += [
        recurrent("LSTM", lengths=True, direction="bidirectional", states=True, active=(0, 5, 6), target=2),
        recurrent("LSTM", target=2),
        recurrent("LSTM", peepholes=True, direction="bidirectional", states=True, active=(0, 6)),
        recurrent("LSTM", peepholes=True, clip=0.4, target=2),
        recurrent("LSTM", input_forget=1, peepholes=True),
        recurrent("LSTM", activations=["HardSigmoid", "Relu", "Softsign"], activation_alpha=[0.3]),
        recurrent(
            "LSTM",
            direction="bidirectional",
            activations=["Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "ScaledTanh", "Affine"],
            activation_alpha=[0.2, 0.7, 0.25, 1.5, 0.8],
            activation_beta=[0.4, 0.6, 0.1],
        ),
        recurrent("GRU", linear_before_reset=1),
        recurrent("GRU", linear_before_reset=1, bias=False, direction="bidirectional", clip=0.4),
        recurrent("GRU", linear_before_reset=1, lengths=True, states=True, active=(0, 5), target=1),
        recurrent("GRU", activations=["HardSigmoid", "Softplus"]),
        recurrent("RNN", activations=["ThresholdedRelu"], activation_alpha=[0.1]),
        recurrent("RNN", activations=["Relu"]),
        recurrent("RNN", activations=["Elu", "Tanh"], direction="bidirectional"),
    ]
    return cases


CASES = [*_recurrences()]
