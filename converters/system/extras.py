"""Say how an optional part of onnxplain is installed: the one place that writes this command into messages."""

from __future__ import annotations


def install(extra: str) -> str:
    """Return the command that installs an extra, from an index and from a checkout."""
    return f'pip install "onnxplain[{extra}]" (in a checkout: python -m pip install ".[{extra}]")'
