"""The errors of `converters`.

ConversionError
├── InvalidModel        the file or object is no model, or a damaged one
│   └── UntrustedModel  loading the file could run code or write files
├── LimitExceeded       preparing the model would take more time, memory or nodes than its limits
├── UnsupportedModel    a model, but one that cannot be brought to the canonical graph
├── ExampleNeeded       a network that does not state its inputs was given without an example
├── VerificationFailed  the converted graph computes something else than the original
│   └── NoFiniteOutput  an output has no finite value on any test input: nothing was compared
└── MissingFramework    a framework that the model needs is not installed (also an ImportError)
"""

from __future__ import annotations

import re

from converters.system.text import printable

# Terminal colours, which Keras puts into its messages.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Note(UserWarning):
    """A remark on a correct result, such as another name of a tensor. The command line shows it."""


class ConversionError(Exception):
    """Base of every error that `converters` raises for a user's model."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class InvalidModel(ConversionError):
    """The file or object is no model, or a damaged one."""


class UntrustedModel(InvalidModel):
    """Loading the file could run code of the file, or read and write other files; `trust=True` loads it."""


class LimitExceeded(ConversionError):
    """Preparing the model would take more than its limits allow; the message names the limit and how to raise it."""


class UnsupportedModel(ConversionError):
    """The model cannot be brought to the canonical graph; the message names the part."""


class ExampleNeeded(ConversionError):
    """The network does not state its inputs, and no example was given to trace it from."""


class VerificationFailed(ConversionError):
    """The converted graph does not compute what the original computes."""


class NoFiniteOutput(VerificationFailed):
    """An output has no finite value on any test input: nothing was compared."""


class MissingFramework(ConversionError, ImportError):
    """A framework that the model needs is not installed; the message names the extra."""


def with_fix(message: str, fix: str) -> str:
    """Return a message that ends in a fix; one that names a fix already stays as it is."""
    return message if "Fix: " in message else f"{message.rstrip('.')}. Fix: {fix}"


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception's message on one line."""
    text = " ".join(_COLOURS.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
