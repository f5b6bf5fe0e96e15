"""The command line `onnxplain`. Frameworks and matplotlib are imported by the command that uses them."""

from __future__ import annotations

from analyzer.cli.app import app, main

__all__ = ["app", "main"]
