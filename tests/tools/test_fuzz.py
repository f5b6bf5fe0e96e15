"""The search for damaged files that end badly: it runs, it is repeatable, and it sees a bad end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tools.fuzz import outcomes
from tools.fuzz.mutants import mutant

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each file is read in a forked process")


def test_damaged_files_end_well():
    command = [sys.executable, "-m", "tools.fuzz", "--files", "30", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert sum(int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("inspect")) == 30


def test_the_same_seed_gives_the_same_file():
    assert mutant(np.random.default_rng([3, 4])) == mutant(np.random.default_rng([3, 4]))


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (lambda given: os.kill(os.getpid(), signal.SIGKILL), "crash SIGKILL"),
        (lambda given: 1 / 0, "internal error"),
        (lambda given: 0, "answer"),
        (lambda given: 2, "unclear"),
    ],
)
def test_how_a_command_ended(command, kind, monkeypatch):
    monkeypatch.setattr(outcomes, "main", command)
    assert outcomes.outcome([]).kind == kind
