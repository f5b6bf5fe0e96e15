"""Run a command in a child process, so that a library that crashes on a model ends in one clear line.

A file from outside can crash what reads it: ONNX Runtime, PyTorch and TensorFlow have aborted on malformed graphs. The
child does the whole work; the parent passes signals on, watches the child's memory, and reports how it ended. Where the
system cannot fork, the command runs in the process itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import time

from analyzer.cli.app import BAD_INPUT, main
from converters.system.processes import free_memory, resident_bytes
from converters.system.text import fitted

# Signals by which the kernel ends a process whose code has failed.
CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL", "SIGTRAP", "SIGSYS")
# How often the memory of the child is looked at, in seconds.
INTERVAL = 0.25
# Of the memory that is free at the start. Without a bound the system would end some process, perhaps another one.
SHARE = 0.8
# A child that was asked to end and is busy in compiled code is killed after so many seconds.
GRACE = 10.0
# What only reads a model ends within these: seconds, and bytes besides six times those of the file.
READING = ("inspect",)
SECONDS, BYTES, COPIES = 120.0, 2 * 2**30, 6
_BY_A_PROCESS = 0  # si_code of a signal that `kill` sent, and not the terminal
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def run() -> int:
    """Run the command line in a child process; return its exit status."""
    if not hasattr(os, "fork") or not hasattr(signal, "sigtimedwait"):
        return main()
    limits = _limits(sys.argv[1:])
    passed_on = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    parent, child = os.getpid(), os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _end_with(parent)
        return main()
    try:
        return _watched(child, passed_on, *limits)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _limits(arguments: list[str]) -> tuple[int, float]:
    """The bytes and the seconds that a command may take."""
    free = int(SHARE * free_memory())
    if not set(READING).intersection(arguments[:1]):
        return free, math.inf
    sizes = [os.path.getsize(path) for path in arguments[1:] if os.path.isfile(path)]
    return min(free, BYTES + COPIES * sum(sizes)), SECONDS


def _watched(child: int, passed_on: set[signal.Signals], limit: int, seconds: float) -> int:
    """Wait for the child, which may take so many bytes and seconds; return the exit status."""
    begun, killed_at, interrupted = time.monotonic(), math.inf, False
    while True:
        given = signal.sigtimedwait({*passed_on, signal.SIGCHLD}, INTERVAL)
        if given is not None and given.si_signo in passed_on:
            # The terminal has sent its own to the child as well.
            if given.si_code == _BY_A_PROCESS:
                os.kill(child, given.si_signo)
            # A first Ctrl-C lets the command finish what it has begun, a second one does not.
            if given.si_signo != signal.SIGINT or interrupted:
                killed_at = min(killed_at, time.monotonic() + GRACE)
            interrupted = True
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _status(status)
        if time.monotonic() > killed_at:
            _kill(child, "ended while a library was busy; nothing is half written")
            return 128 + signal.SIGTERM
        if (used := resident_bytes(child)) > limit:
            what = "fewer or smaller inputs, or --max-memory" if seconds == math.inf else "a smaller model"
            _kill(child, f"stopped at {used / 2**30:.1f} GiB of memory, its limit. Fix: give {what}")
            return BAD_INPUT
        if time.monotonic() - begun > seconds:
            _kill(
                child,
                f"stopped after {seconds:.0f} s, the limit of a command that only reads a model. Fix: give a smaller "
                "model, or read it in Python with converters.load, which has no limit",
            )
            return BAD_INPUT


def _kill(child: int, reason: str) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _tell(reason)


def _status(status: int) -> int:
    """The exit status of a command whose process ended so."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name
    if name in CRASHES:
        _tell(
            f"a library crashed on this model or these inputs ({name}); nothing is half written. Fix: check the model "
            "with onnx.checker.check_model; if it is valid, report it to onnxplain"
        )
        return BAD_INPUT
    if name == "SIGKILL":
        _tell(
            "the system ended the process, most likely for want of memory. Fix: give fewer or smaller inputs"
        )
    return 128 + number


def _tell(reason: str) -> None:
    print(fitted(f"onnxplain: {reason}", sys.stderr), file=sys.stderr)


def _end_with(parent: int) -> None:
    """End this process when its parent ends, however that happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
