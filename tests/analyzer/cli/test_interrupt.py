"""Commands that are interrupted: one line, exit status 130, nothing half written; and what a bar shows meanwhile."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from analyzer.cli.terminal import Terminal

LINE = "onnxplain: interrupted: no file is left half written"
# The signal is a real one, sent where it is sure to meet the command at work.
WORKING = """
import os, signal, sys
from analyzer.cli import main, terminal

def struck(method):
    def begin(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return method(*arguments, **options)
    return begin

terminal.Terminal.progress = struck(terminal.Terminal.progress)
terminal.Terminal.steps = struck(terminal.Terminal.steps)
sys.exit(main())
"""
WRITING = """
import os, signal, sys
from analyzer.cli import main

def struck(give_name):
    def begin(*paths, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return give_name(*paths, **options)
    return begin

os.replace, os.link = struck(os.replace), struck(os.link)
sys.exit(main())
"""
RUN = "import sys; from analyzer.cli import main; sys.exit(main())"


def interrupted(code, arguments, folder):
    """Run a command; it must end as one that is interrupted, and leave the folder as it was."""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.split("\n")[-2] == LINE and "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "plain.onnx", "-o", "copy.onnx"),
        ("inspect", "plain.onnx"),
        ("analyze", "plain.onnx", "single.npy", "-o", "out"),
        ("check", "plain.onnx", "single.npy", "--html", "check.html"),
        ("compare", "plain.onnx", "stored.onnx", "single.npy", "--junit", "compare.xml"),
        ("demo", "-o", "demo"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_at_work_is_interrupted(arguments, files):
    interrupted(WORKING, arguments, files)


def test_a_file_that_is_being_written_is_not_left_behind(files):
    interrupted(WRITING, ("convert", "plain.onnx", "-o", "copy.onnx"), files)


def test_a_long_command_ends_when_it_is_told_to(files):
    command = [sys.executable, "-c", RUN, "analyze", "plain.onnx", "photo.png"]
    command += ["--method", "integrated-gradients", "--rule", "trapezoid", "--steps", "2000000"]
    with subprocess.Popen(command, cwd=files, stderr=subprocess.PIPE, text=True) as process:
        # The note on pixels comes just before the work.
        assert "pixels" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read().strip() == LINE


def shown(draw):
    """What a terminal shows while something is done."""
    terminal = Terminal(as_json=False)
    terminal.err = Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)
    draw(terminal)
    return terminal.err.file.getvalue()


def test_a_bar_shows_share_time_passed_and_time_left():
    def work(terminal):
        with terminal.progress("FullGrad") as report:
            report(1, 4)
            report(3, 4)

    text = shown(work)
    assert "FullGrad" in text and "75%" in text and "0:00:00" in text and "left" in text


def test_steps_show_their_share_and_never_more_than_all():
    def work(terminal):
        with terminal.steps("checking", 2) as step:
            for name in ("torch", "tensorflow", "source", "more"):
                step(name)

    text = shown(work)
    assert "checking: more" in text and "75%" in text and "100%" not in text
