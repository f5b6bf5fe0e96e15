"""Show a benchmark's results in the terminal and as a section of docs/benchmarks.md with versions and machine.

A page has one section per benchmark, with its own heading. Writing one section does not change the others.
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

This page compares times and memory as ratios. Each ratio is measured in one run, with alternating calls. The command
in a section writes that section.
"""


@dataclass(frozen=True)
class Results:
    """Hold a table: its title, its columns and its rows of text. The first column is the name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """Return the table for the terminal."""
        table = Table(title=self.title, box=None)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"{self.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


def machine(packages: Sequence[str]) -> str:
    """Return the versions of packages and the type of machine in one line."""
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    python = f"Python {platform.python_version()}"
    return ", ".join([f"{os.cpu_count()} cores ({platform.machine()})", python, *versions])


def write_section(path: Path, title: str, text: str) -> None:
    """Replace a section of a page, or append it. Create the page if it does not exist."""
    page = path.read_text() if path.exists() else _HEAD
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    written = f"## {title}\n\n{text.strip()}\n"
    places = [i for i, section in enumerate(sections) if section.startswith(f"## {title}\n")]
    if places:
        sections[places[0]] = written
    else:
        sections.append(written)
    path.write_text("\n".join(part.strip() + "\n" for part in [head, *sections]))
