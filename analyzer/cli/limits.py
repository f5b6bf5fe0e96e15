"""The option --limits: what preparing a model may take. It stands anywhere on the command line, as --debug does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from analyzer.cli.terminal import UserError

OPTION = "--limits"
_FORM = f"{OPTION} takes seconds=60,bytes=4GiB,nodes=500000, or some of these"


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
    """Set the limits of the models that are prepared inside. Raises UserError for a text that is no limits."""
    if text is None:
        yield
        return
    from analyzer.errors import AnalysisError
    from analyzer.memory import as_bytes
    from converters.budget import Limits, limited

    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        given[name.strip()] = value.strip()
    if not given.keys() <= {"seconds", "bytes", "nodes"}:
        raise UserError(f"{_FORM}, not {text!r}")
    try:
        limits = Limits(
            seconds=float(given["seconds"]) if "seconds" in given else None,
            bytes=as_bytes(given["bytes"]) if "bytes" in given else None,
            nodes=int(given["nodes"]) if "nodes" in given else None,
        )
    except (ValueError, AnalysisError) as error:
        raise UserError(f"{_FORM}, not {text!r}: {error}") from error
    with limited(limits):
        yield
