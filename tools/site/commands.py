"""The command reference: every command of `onnxplain` with its arguments and options, as Markdown.

Reads the typer application, so the page is current.
"""

from __future__ import annotations

from typing import Any


def command_reference() -> str:
    """Return the Markdown of all commands."""
    return "".join(_section(title, command, context) for title, command, context in commands())


def commands() -> list[tuple[str, Any, Any]]:
    """Return (title, command, context) of `onnxplain` and of each of its commands."""
    import typer

    from analyzer.cli.app import app

    group: Any = typer.main.get_command(app)
    root = group.make_context("onnxplain", [], resilient_parsing=True)
    found = [("onnxplain", group, root)]
    for name in group.commands:
        context = group.get_command(root, name).make_context(name, [], parent=root, resilient_parsing=True)
        found.append((f"onnxplain {name}", context.command, context))
    return found


def _section(title: str, command: Any, context: Any) -> str:
    usage = " ".join([title, *command.collect_usage_pieces(context)])
    parameters = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
    tables = (
        _table(kind, [p for p in parameters if p.param_type_name == kind], context)
        for kind in ("argument", "option")
    )
    return f"\n## {title}\n\n```text\n{usage}\n```\n\n{_text(command.help or '')}\n" + "".join(tables)


def _table(kind: str, parameters: list[Any], context: Any) -> str:
    """Return a table of parameters. Their help is that of the terminal, with the default at its end."""
    records = [record for p in parameters if (record := p.get_help_record(context))]
    if not records:
        return ""
    rows = [f"| {kind} | description |", "|---|---|"]
    rows += [f"| {_code(names)} | {_text(text)} |" for names, text in records]
    return "\n" + "\n".join(rows) + "\n"


def _code(names: str) -> str:
    return "`" + names.replace("|", "\\|") + "`"


def _text(text: str) -> str:
    """Return help text as one paragraph of Markdown, also in a cell of a table."""
    plain = " ".join(text.replace("\b", "").split())
    for character in "\\|*<[_":
        plain = plain.replace(character, f"\\{character}")
    return plain
