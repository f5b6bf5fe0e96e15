"""A command runs in a child process: crashes, signals and memory end in one line and a status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="Windows and macOS have no sigtimedwait"
)
# Runs the guard over a command that is given as Python code.
RUN = """
import os, signal, sys, time
from analyzer.cli import guard
def command():
    {body}
    return 0
guard.main = command
{setting}
sys.exit(guard.run())
"""


def started(body, setting="", **options):
    code = RUN.format(body=body, setting=setting)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE"])
def test_a_crash_is_one_line(name):
    process = started(f"os.kill(os.getpid(), signal.{name})")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith(f"onnxplain: a library crashed on this model or these inputs ({name})")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_status_and_the_output_are_those_of_the_command(status):
    process = started(f"print('done'); sys.exit({status})")
    assert process.communicate(timeout=60) == ("done\n", "") and process.returncode == status


def test_a_command_that_takes_all_memory_is_stopped():
    process = started(
        "held = bytearray(600 * 2**20); time.sleep(60)", "guard.free_memory = lambda: 400 * 2**20"
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "GiB of memory, its limit" in errors


def test_a_command_that_reads_has_a_limit_of_time():
    process = started("time.sleep(60)", "guard.SECONDS = 1.0; sys.argv[1:] = ['inspect', 'missing.onnx']")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.startswith("onnxplain: stopped after 1 s")


def test_a_command_that_does_not_hear_is_ended_after_a_while():
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    process = started(body, "guard.GRACE = 0.5")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143 and "ended while a library was busy" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_passed_on(number):
    body = (
        f"signal.signal({int(number)}, lambda *_: (print('ended', flush=True), sys.exit(7)));"
        " print('ready', flush=True); time.sleep(60)"
    )
    process = started(body)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("ended\n", "") and process.returncode == 7


def test_the_command_ends_with_its_parent():
    process = started("print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the child outlives its parent")
