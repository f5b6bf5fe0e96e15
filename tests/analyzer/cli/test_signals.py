"""Signals and closed pipes end a command in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import analyzer.demo
from analyzer.cli import main

RUN = "import sys; from analyzer.cli import main; sys.exit(main())"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_command_with_its_status(number, monkeypatch, tmp_path, capsys):
    def interrupted(*arguments, **settings):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(analyzer.demo, "explain", interrupted)
    # A shell may start the tests in the background, with these ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)]
    assert main(["demo", "-o", str(tmp_path / "out")]) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == "onnxplain: interrupted: no file is left half written"
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)] == before
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_closed_pipe_is_no_failed_check(files):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "check", "plain.onnx", "photo.png", "--backends", "onnxruntime"],
        cwd=files,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == -signal.SIGPIPE
    assert "Traceback" not in errors and "BrokenPipe" not in errors


def test_a_destination_that_cannot_be_written_is_refused_before_the_work(
    files, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(files)
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "out"
    for command in (["analyze", "plain.onnx", "photo.png", "-o", place], ["demo", "-o", place]):
        assert main([str(one) for one in command]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{place}: the folder {tmp_path / 'file'} cannot be written" in line
