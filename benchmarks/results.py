"""A benchmark's results: tables for the terminal, and a section of docs/benchmarks.md with versions and machine.

A page has one section per benchmark, under a heading of its own; writing one leaves the others as they are.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.table import Table

_HEAD = """# Benchmarks

Ratios, each measured in one run, the calls taking turns. Every section is written by the command in it.
"""


@dataclass(frozen=True)
class Results:
    """A table: its title, its columns, and rows of text, the first column being the name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, box=None)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"{self.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


def machine(packages: Sequence[str]) -> str:
    """The versions of packages and the kind of machine, in one line."""
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    python = f"Python {platform.python_version()}"
    return ", ".join([f"{os.cpu_count()} cores ({platform.machine()})", python, *versions])


def write_section(path: Path, title: str, text: str) -> None:
    """Put a section in its place on a page of sections, or at its end; the page is made where there is none."""
    page = path.read_text() if path.exists() else _HEAD
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    written = f"## {title}\n\n{text.strip()}\n"
    places = [i for i, section in enumerate(sections) if section.startswith(f"## {title}\n")]
    if places:
        sections[places[0]] = written
    else:
        sections.append(written)
    path.write_text("\n".join(part.strip() + "\n" for part in [head, *sections]))
