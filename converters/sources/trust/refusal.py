"""The one error for files that are not loaded without trust."""

from __future__ import annotations

from converters.errors import UntrustedModel

FIX = (
    "Fix: if you trust the origin of the file, load it with onnxplain.convert(path, trust=True), "
    "or pass --trust on the command line"
)


def shown(value: object) -> str:
    """Return a value of the file for a message, without control characters and cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def untrusted(path: str, finding: str) -> UntrustedModel:
    """Return the error for a file. finding: a predicate of the file, such as "holds the op WriteFile"."""
    return UntrustedModel(f"{path} {finding}. {FIX}")
