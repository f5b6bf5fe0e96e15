"""The search for damaged files that end badly: it runs, it is repeatable, and it sees a bad end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.fuzz import outcomes
from tools.fuzz.mutants import mutant

CORPUS = Path(__file__).parent / "corpus"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def test_damaged_files_end_well():
    command = [sys.executable, "-m", "tools.fuzz", "--files", "30", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert sum(int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("inspect")) == 30


def test_files_that_ended_badly_end_well():
    """Each file of the corpus once crashed, hung, filled the memory or ended in an internal error."""
    command = [sys.executable, "-m", "tools.fuzz", "--replay", str(CORPUS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    read = {line.split(": ")[0] for line in done.stdout.splitlines()}
    assert read == {path.name for path in CORPUS.glob("*.onnx")} and len(read) > 30
    assert all(path.stat().st_size <= 10 * 2**10 for path in CORPUS.iterdir())


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
