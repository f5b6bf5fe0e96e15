"""Every command that takes a model refuses a file that can run code, in one line, and takes `--trust`."""

from __future__ import annotations

import pytest

FILE = "program.pt2"
COMMANDS = {
    "inspect": ("inspect", FILE),
    "analyze": ("analyze", FILE, "photo.png"),
    "check": ("check", FILE, "photo.png"),
    "check --source": ("check", "plain.onnx", "photo.png", "--source", FILE),
    "compare": ("compare", FILE, "plain.onnx", "photo.png"),
    "compare, the second": ("compare", "plain.onnx", FILE, "photo.png"),
    "convert": ("convert", FILE, "-o", "made.onnx"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_needs_trust(command, files, name):
    (files / FILE).write_bytes(b"trusted, but damaged")
    status, out, err = command(*COMMANDS[name])
    assert (status, out) == (2, "")
    assert FILE in err and "--trust" in err and err.count("\n") == 1
    status, out, err = command(*COMMANDS[name], "--trust")
    assert (status, out) == (2, "")
    assert "not a .pt2 file" in err and err.count("\n") == 1
    assert not (files / "made.onnx").exists()
