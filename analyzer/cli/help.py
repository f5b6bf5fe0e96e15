"""Help that fits a narrow terminal.

Below 100 columns, as in a pipe, the help of a command is plain text: every option on a line of its own, its description
indented below it, broken between words only. Wider terminals show Typer's tables.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup

# Columns from which the tables have room for every name.
WIDE = 100
INDENT = 4


class Command(TyperCommand):
    """A command whose help fits the terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, as plain text where tables have no room."""
        if _columns() < WIDE:
            formatter.write("\n".join(plain_help(self, ctx, _columns())) + "\n")
        else:
            super().format_help(ctx, formatter)


class CommandGroup(TyperGroup):
    """A group of commands whose help fits the terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, as plain text where tables have no room."""
        if _columns() < WIDE:
            formatter.write("\n".join(plain_help(self, ctx, _columns())) + "\n")
        else:
            super().format_help(ctx, formatter)


def plain_help(command: Any, ctx: Any, width: int) -> Iterator[str]:
    """The lines of a command's help."""
    usage = " ".join(["Usage:", ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield from _wrapped(usage, width, 0, 2)
    yield ""
    yield from _wrapped(command.help or "", width, 0)
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = None if getattr(parameter, "hidden", False) else parameter.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or kind
            groups.setdefault(panel, []).append((record[0], record[1] or ""))
    for name in getattr(command, "commands", {}):
        found = command.get_command(ctx, name)
        if not found.hidden:
            groups.setdefault("Commands", []).append(
                (name, " ".join((found.help or "").split("\n\n")[0].split()))
            )
    for title, rows in groups.items():
        yield from ("", f"{title}:")
        for names, text in rows:
            yield from _wrapped(names, width, 2, 6)
            yield from _wrapped(text, width, 2 + INDENT)


def _wrapped(text: str, width: int, indent: int, further: int | None = None) -> list[str]:
    """The lines of a text, broken between words."""
    return textwrap.wrap(
        " ".join(text.split()),
        max(width, 20),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if further is None else further),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns() -> int:
    return shutil.get_terminal_size().columns
