"""check and compare say on standard error what they do, unless the caller listens or asks for silence."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from analyzer import check, compare
from analyzer.checks import announce


class Listening(io.StringIO):
    """A stream that knows when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if "torch" in self.getvalue():
            self.told.set()
        return written


def test_a_long_step_is_named_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Listening()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(announce, "PATIENCE", 0.01)

    @announce.announces("checking")
    def work(progress=None):
        progress("torch")
        return stream.told.wait(60)

    assert work()
    assert "onnxplain: checking: torch …\n" in stream.getvalue()


def test_a_caller_that_listens_or_wants_silence_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "ProgressLines", None)

    @announce.announces("checking")
    def work(model, *, progress=None):
        return progress

    assert work(1, progress=False) is None
    assert work(1, progress=print) is print
    assert {function.__wrapped__.__name__ for function in (check, compare)} == {"check", "compare"}
