"""The one error for files that are not loaded without trust."""

from __future__ import annotations

from converters.errors import UntrustedModel

FIX = "Fix: if you trust the origin of the file, pass trust=True (--trust on the command line)"


def untrusted(path: str, finding: str) -> UntrustedModel:
    """Return the error for a file. finding: a predicate of the file, such as "holds the op WriteFile"."""
    return UntrustedModel(f"{path} {finding}. {FIX}")
