"""Write the page of planted defects: both counts, and the results of every kind."""

from __future__ import annotations

from collections.abc import Sequence

from tools.defects.effect import EFFECT
from tools.defects.search import Healthy
from tools.defects.trial import Trial

HEAD = """# Planted defects and false alarms

`python -m tools.defects` draws random healthy networks, plants one defect in each, and runs `check` or `compare`.

- A defect of the forward pass is at one node of the ONNX graph, which is compared with the intact PyTorch source or
  with the intact graph. Or it is at one layer of a port to Keras, which is compared with the PyTorch network.
- A defect of the backward pass is a wrong rule of one backend, at one node or at every node of an op. Or it is an
  autograd Function in the source with a wrong backward.

A defect is *detected* if the report fails. It is *located* if the report names the planted node or a neighbouring node.
If a side keeps no value between several nodes, the report names all of them.

A defect that changes nothing by more than {effect:.0e} in double precision does not count, and another one is drawn.
For two models, it must change the output or the gradient at the attributed tensor. For a graph and its source, a change
of any tensor between input and output counts, too.

"""


def counts(trials: Sequence[Trial], checks: Sequence[Healthy]) -> list[str]:
    """Return both counts as sentences."""
    caught, pinned = sum(t.caught for t in trials), sum(t.pinned for t in trials)
    exact = sum(t.caught and t.distance == 0 for t in trials)
    alarms, waived = sum(bool(h.alarm) for h in checks), sum(h.explained > 0 for h in checks)
    explained = f"in {waived} of them an excess was waived for a stated reason"
    return [
        f"defects: {caught} of {len(trials)} detected, {pinned} located ({exact} at the exact node)",
        f"false alarms: {alarms} on {len(checks)} healthy networks; {explained}",
    ]


def page(trials: Sequence[Trial], checks: Sequence[Healthy], seed: int) -> str:
    """Return the page as Markdown."""
    lines = [
        HEAD.format(effect=EFFECT),
        f"`python -m tools.defects --seed {seed} --defects {len(trials)} --healthy {len(checks)}`:\n\n",
    ]
    lines += [f"- {line}\n" for line in counts(trials, checks)]
    lines.append("\n| kind | planted | detected | located | first seen in |\n|---|---|---|---|---|\n")
    for kind in sorted({trial.defect.kind for trial in trials}):
        of_kind = [trial for trial in trials if trial.defect.kind == kind]
        caught, pinned = sum(t.caught for t in of_kind), sum(t.pinned for t in of_kind)
        seen = ", ".join(sorted({t.quantity for t in of_kind if t.quantity}))
        lines.append(f"| {kind} | {len(of_kind)} | {caught} | {pinned} | {seen} |\n")
    return "".join(lines)
