"""Commands that are ended at random moments leave whole files alone, and the tool that does so sees half of a file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.kill.runs import faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def test_commands_that_are_ended_leave_whole_files_alone():
    command = [sys.executable, "-m", "tools.kill", "--times", "8", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "8 times, 0 faults"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("report.html", b"<html><body>"),
        ("summary.json", b'{"a": 1'),
        ("map.png", b"\x89PNG\r\n\x1a\n"),
        ("arrays.npz", b"PK\x03\x04"),
        ("report.xml", b"<testsuites><testsuite>"),
        ("model.onnx", b"\x08\x0a\x3a\x05"),
    ],
)
def test_half_of_a_file_is_seen(tmp_path, name, data):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(data)
    (found,) = faults(tmp_path / "out", tmp_path / "temporary", frozenset([name]))
    assert found.startswith(f"{name} is not whole")


def test_a_file_that_is_left_is_seen(tmp_path):
    for folder in ("out", "temporary"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".a.html-1f").touch()
    found = faults(tmp_path / "out", tmp_path / "temporary", frozenset(["a.html"]))
    assert found == ["left .a.html-1f in the folder for temporary files", "left .a.html-1f"]
