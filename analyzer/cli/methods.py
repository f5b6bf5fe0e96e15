"""`onnxplain methods`: every attribution method with a line and its cost; of one method its paper and settings."""

from __future__ import annotations

from typing import Annotated

import typer

from analyzer.cli.options import JsonOption
from analyzer.cli.terminal import Terminal

NARROW = 100


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A method, for its settings. Default: all methods.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the attribution methods, with a line and the cost in gradients of each; of one method all settings."""
    from analyzer.cli.method_options import known_method, option_of
    from analyzer.methods import METHODS

    terminal = Terminal(as_json)
    chosen = list(METHODS.values()) if name is None else [METHODS[known_method(name, "methods")]]
    if terminal.out.width < NARROW:
        for one in chosen:
            terminal.out.print(one.name, style="bold")
            for text in (one.line or one.summary, f"cost: {one.cost}"):
                terminal.paragraph(text)
    else:
        cells = [(one.name, one.line or one.summary, one.cost) for one in chosen]
        terminal.table(("method", "finds out", "cost"), cells, fixed=(0,))
    if name is not None:
        terminal.out.print()
        terminal.paragraph(chosen[0].summary)
        terminal.paragraph(chosen[0].source)
        for setting, parameter in chosen[0].parameters.items():
            terminal.out.print(option_of(setting), style="bold")
            terminal.paragraph(parameter.help)
    else:
        terminal.out.print()
        terminal.remark(
            "Costs are per sample. onnxplain methods NAME: the paper and the settings of a method."
        )
    terminal.document(
        {
            "command": "methods",
            "methods": [
                {
                    "name": one.name,
                    "caption": one.caption,
                    "line": one.line,
                    "summary": one.summary,
                    "cost": one.cost,
                    "source": one.source,
                    "signed": one.signed,
                    "settings": {option_of(key): value.help for key, value in one.parameters.items()},
                }
                for one in chosen
            ],
        }
    )
