"""The commands of `onnxplain`: command `x` is the function `x` in analyzer/cli/x.py. They are found in any case.

A command is imported when it is run. The list of commands reads only the docstrings of their files.
"""

from __future__ import annotations

import ast
import importlib
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from analyzer.cli.help import Command, CommandGroup

NAMES = (
    "demo",
    "convert",
    "inspect",
    "analyze",
    "check",
    "compare",
    "run",
    "report",
    "export",
    "web",
    "serve",
    "methods",
)
"""The commands in the order of the help."""


class Deferred(Command):
    """A command that is imported when it is run. Its help is the docstring of its function."""

    @property
    def help(self) -> str | None:
        """The docstring, which is read when the list of commands is shown."""
        return None if self.name is None else _docstring(self.name)

    @help.setter
    def help(self, text: str | None) -> None:
        """Leave out what the base class sets."""

    @cached_property
    def loaded(self) -> Any:
        """The command with its options."""
        assert self.name is not None
        function = getattr(importlib.import_module(f"{__package__}.{self.name}"), self.name)
        single = typer.Typer(add_completion=False)
        single.command(self.name, cls=getattr(function, "command_class", Command))(function)
        return typer.main.get_command(single)

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Import the command, and read its arguments."""
        return self.loaded.make_context(*arguments, **settings)


class Commands(CommandGroup):
    """All commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: Deferred(name) for name in NAMES}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name, `METHODS` as `methods`."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, cmd_name.lower())


def _docstring(name: str) -> str:
    """Return the docstring of a command, from its source."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(one) or "" for one in functions if one.name == name)
