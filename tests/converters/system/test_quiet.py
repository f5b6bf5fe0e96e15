"""Conversions that run at the same time leave the process as they found it, and silence nobody else."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from converters.system.quiet import quiet


def state():
    loggers = [logging.getLogger(name) for name in ("noisy", "noisy.child")]
    return sys.stdout, sys.stderr, list(warnings.filters), [(one.disabled, one.level) for one in loggers]


def noise():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger("noisy.child").error("a line")
    warnings.warn("a warning", stacklevel=2)


def test_threads_that_overlap_restore_the_process(capfd):
    before = state()

    def work(number):
        for _ in range(100):
            with quiet("noisy", native=number % 2 == 0):
                noise()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_the_first_in_may_leave_before_the_second(capfd):
    before, entered, left = state(), threading.Event(), threading.Event()

    def second():
        with quiet("noisy"):
            entered.set()
            left.wait(10)
            noise()

    thread = threading.Thread(target=second)
    with quiet("noisy"):
        thread.start()
        entered.wait(10)
    left.set()
    thread.join()
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_other_threads_and_tasks_are_heard(capsys):
    inside, said = threading.Event(), threading.Event()

    def silent():
        with quiet():
            inside.set()
            said.wait(10)
            print("dropped")

    thread = threading.Thread(target=silent)
    thread.start()
    inside.wait(10)
    print("heard")
    said.set()
    thread.join()

    async def silent_task(ready, done):
        with quiet():
            ready.set()
            await done.wait()
            print("dropped")

    async def both():
        ready, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(silent_task(ready, done))
        await ready.wait()
        print("heard, too")
        done.set()
        await task

    asyncio.run(both())
    assert capsys.readouterr().out == "heard\nheard, too\n"


def test_an_error_comes_out_and_restores_the_process():
    before = state()
    with pytest.raises(ValueError, match="inner"), quiet("noisy"), quiet("noisy", native=True):
        raise ValueError("inner")
    assert state() == before
