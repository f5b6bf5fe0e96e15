"""`python -m tools.kill`: end every command that writes at random moments, and look at what it leaves behind.

Sends SIGKILL, SIGTERM and SIGHUP in turn. Half of the commands write over older files. Exits 1 where a file is half
written, or where a file is left that a complete run does not write.
"""

from __future__ import annotations

import argparse
import collections
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from tools.fuzz.outcomes import warm
from tools.kill.commands import commands, write_models
from tools.kill.runs import complete, interrupted

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run, print; the exit status."""
    options = _parser().parse_args()
    rng = np.random.default_rng(options.seed)
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        warm()
        measured = [complete(command, folder) for command in commands(folder, options.demo)]
        for number in range(options.times):
            done = measured[number % len(measured)]
            sent = SIGNALS[number // len(measured) % len(SIGNALS)]
            ended, found = interrupted(done, sent, folder, rng)
            counts[done.command.name, sent.name, ended] += 1
            faults += len(found)
            for fault in found:
                print(f"{done.command.name} {sent.name}: {fault}", flush=True)
    for key, count in sorted(counts.items()):
        print(f"{key[0]:8} {key[1]:8} {key[2]:12} {count:5}")
    print(f"{options.times} times, {faults} faults")
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.kill", description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", action="store_true", help="include `onnxplain demo`, which takes minutes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
