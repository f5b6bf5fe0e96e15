"""`python -m tools.defects`: defects caught and pinned of those planted, false alarms on healthy networks.

Prints a table of every planted defect and both counts. Exits 1 where a defect is missed or pinned to a wrong node, or
where a healthy network fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from tools.defects.page import counts, page
from tools.defects.search import Healthy, healthy, planted
from tools.defects.trial import Trial


def main() -> int:
    """Run, print, write; the exit status."""
    options = _parser().parse_args()
    warnings.simplefilter("ignore")
    trials, checks = [], []
    for trial in planted(options.seed, options.defects):
        trials.append(trial)
        if not options.json:
            print(line(trial), flush=True)
    for verdict in healthy(options.seed, options.healthy):
        checks.append(verdict)
        if verdict.alarm and not options.json:
            print(f"ALARM {verdict.by} {verdict.network}: {verdict.alarm}", flush=True)
    if options.json:
        print(json.dumps(_document(trials, checks), indent=2))
    else:
        print("\n".join(counts(trials, checks)))
    if options.write:
        options.write.write_text(page(trials, checks, options.seed), encoding="utf-8")
    return 0 if all(trial.pinned for trial in trials) and not any(one.alarm for one in checks) else 1


def line(trial: Trial) -> str:
    """A trial as a row of the table."""
    defect = trial.defect
    state = "pinned" if trial.pinned else "caught" if trial.caught else "MISSED"
    named = ", ".join(trial.named[:2]) + (f" and {len(trial.named) - 2} more" if len(trial.named) > 2 else "")
    place = f"at {defect.op_type} {defect.node} of {defect.network}, effect {defect.effect:.0e}"
    seen = f"{trial.quantity or 'nothing'}, names {named or 'no node'}, distance {trial.distance}"
    return f"{state} {trial.by:7} {defect.kind} ({defect.detail}) {place}: {seen}"


def _document(trials: list[Trial], checks: list[Healthy]) -> dict[str, object]:
    return {
        "counts": counts(trials, checks),
        "defects": [{**asdict(trial), "pinned": trial.pinned} for trial in trials],
        "healthy": [asdict(one) for one in checks],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.defects", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defects", type=int, default=30, help="how many to plant")
    parser.add_argument("--healthy", type=int, default=100, help="how many healthy networks to check")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page, docs/defects.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
