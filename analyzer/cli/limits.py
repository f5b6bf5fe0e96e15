"""The option --limits: what preparing a model may take. It stands anywhere on the command line, as --debug does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from analyzer.cli.terminal import UserError

OPTION = "--limits"
_FORM = f"Fix: write {OPTION} seconds=60,bytes=4GiB,nodes=500000, or some of these"


def taken(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the text of the option, None where it is not given, and the other arguments."""
    found, others, items = None, list[str](), iter(arguments)
    for item in items:
        if item == "--":
            others += [item, *items]
        elif item == OPTION:
            found = next(items, "")
        elif item.startswith(f"{OPTION}="):
            found = item.partition("=")[2]
        else:
            others.append(item)
    return found, others


@contextlib.contextmanager
def within(text: str | None) -> Iterator[None]:
    """Set the limits of the models that are prepared inside. Raises UserError for a malformed text."""
    if text is None:
        yield
        return
    from analyzer.backends.batching.memory import as_bytes
    from analyzer.errors import AnalysisError
    from converters.budget import Limits, limited
    from converters.errors import ConversionError

    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        given[name.strip()] = value.strip()
    if not given.keys() <= {"seconds", "bytes", "nodes"}:
        raise UserError(f"expected other limits than {text!r}. {_FORM}")
    try:
        limits = Limits(
            seconds=float(given["seconds"]) if "seconds" in given else None,
            bytes=as_bytes(given["bytes"]) if "bytes" in given else None,
            nodes=int(given["nodes"]) if "nodes" in given else None,
        )
    except (ValueError, AnalysisError, ConversionError) as error:
        raise UserError(f"expected numbers in {text!r} ({error}). {_FORM}") from error
    with limited(limits):
        yield
