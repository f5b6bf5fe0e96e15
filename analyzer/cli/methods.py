"""`onnxplain methods`: every attribution method with a line, its cost and its paper."""

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
    """List the attribution methods: what each computes, its cost in gradients, and its paper."""
    from analyzer.cli.method_options import known_method, option_of
    from analyzer.methods import METHODS

    terminal = Terminal(as_json)
    chosen = list(METHODS.values()) if name is None else [METHODS[known_method(name, "methods")]]
    if terminal.out.width < NARROW:
        for one in chosen:
            terminal.out.print(one.name, style="bold")
            for text in (one.summary, f"cost: {one.cost}", one.source):
                terminal.paragraph(text)
    else:
        cells = [(one.name, one.summary, one.cost, one.source) for one in chosen]
        terminal.table(("method", "computes", "cost", "paper"), cells, fixed=(0,))
    if name is not None:
        for setting, parameter in chosen[0].parameters.items():
            terminal.out.print(option_of(setting), style="bold")
            terminal.paragraph(parameter.help)
    else:
        terminal.remark(
            "Costs are per sample. The settings of a method: onnxplain analyze --method NAME --help"
        )
    terminal.document(
        {
            "command": "methods",
            "methods": [
                {
                    "name": one.name,
                    "caption": one.caption,
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
