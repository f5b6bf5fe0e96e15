"""What `check` and `compare` have in common as gates: the files they write, and how they end.

From a Report to files, one JSON document, and the exit status: 0 where it passed, 1 where it did not, with the reason
as the last line of stderr. Refuses destinations that cannot be written, before anything is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.checks import Report

FAILED = 1


@dataclass(frozen=True)
class Destinations:
    """Where a report goes besides the terminal."""

    html: Path | None = None
    junit: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.html, self.junit):
            if path is not None and path.is_dir():
                raise UserError(f"{path}: a folder, not a file. Fix: give the path of the file to write")
            if path is not None and not path.parent.is_dir():
                raise UserError(f"{path}: its folder does not exist. Fix: make it first, or choose another")
            if path is not None:
                refuse_unwritable(path)

    def write(self, report: Report, title: str) -> list[Path]:
        """Write what was asked for, the page under a title; return the paths."""
        if self.html is not None:
            report.to_html(self.html, title)
        if self.junit is not None:
            report.to_junit(self.junit)
        return [path for path in (self.html, self.junit) if path is not None]


def finish(terminal: Terminal, report: Report, files: list[Path], facts: Mapping[str, Any]) -> None:
    """Name the files, write the JSON document, and exit with status 1 unless the report passed.

    facts: what the document says before the report: the command and its models.
    """
    if facts.get("tolerances_from"):
        terminal.remark(f"tolerances: {facts['tolerances_from']}; the defaults for the rest")
    for path in files:
        terminal.remark(f"written: {path}")
    terminal.document({**facts, "headline": report.headline, **json.loads(report.to_json())})
    if not report.passed:
        terminal.failure(report.reason)
        raise typer.Exit(FAILED)
