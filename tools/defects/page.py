"""The page of planted defects: both counts, and what became of every kind."""

from __future__ import annotations

from collections.abc import Sequence

from tools.defects.effect import EFFECT
from tools.defects.search import Healthy
from tools.defects.trial import Trial

HEAD = """# Planted defects and false alarms

`python -m tools.defects` draws random healthy networks, plants one defect in each, and asks `check` or `compare`. A
defect of the forward pass stands at one node of the ONNX graph, held against the intact PyTorch source or against the
intact graph, or at one layer of a port to Keras, held against the PyTorch network. A defect of the backward pass is a
wrong rule of one backend, at one node or at every node of an op, or an autograd Function in the source whose backward
is wrong.

A defect is caught where the report fails, and pinned where the report names the planted node or one beside it; where
a side keeps no value between several nodes, all of them are named. A defect that moves nothing by more than
{effect:.0e} in double precision is none, and another is drawn: of two models neither the output nor the gradient at
what is attributed, of a graph and its source no tensor on the way either.

"""


def counts(trials: Sequence[Trial], checks: Sequence[Healthy]) -> list[str]:
    """Both counts, as sentences."""
    caught, pinned = sum(t.caught for t in trials), sum(t.pinned for t in trials)
    exact = sum(t.caught and t.distance == 0 for t in trials)
    alarms, excused = sum(bool(h.alarm) for h in checks), sum(h.explained > 0 for h in checks)
    explained = f"in {excused} of them an excess was explained and named"
    return [
        f"defects: {caught} of {len(trials)} caught, {pinned} pinned ({exact} to the very node)",
        f"false alarms: {alarms} on {len(checks)} healthy networks; {explained}",
    ]


def page(trials: Sequence[Trial], checks: Sequence[Healthy], seed: int) -> str:
    """The page as Markdown."""
    lines = [
        HEAD.format(effect=EFFECT),
        f"`python -m tools.defects --seed {seed} --defects {len(trials)} --healthy {len(checks)}`:\n\n",
    ]
    lines += [f"- {line}\n" for line in counts(trials, checks)]
    lines.append("\n| kind | planted | caught | pinned | seen first in |\n|---|---|---|---|---|\n")
    for kind in sorted({trial.defect.kind for trial in trials}):
        of_kind = [trial for trial in trials if trial.defect.kind == kind]
        caught, pinned = sum(t.caught for t in of_kind), sum(t.pinned for t in of_kind)
        seen = ", ".join(sorted({t.quantity for t in of_kind if t.quantity}))
        lines.append(f"| {kind} | {len(of_kind)} | {caught} | {pinned} | {seen} |\n")
    return "".join(lines)
