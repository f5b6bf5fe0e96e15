"""The settings of methods on the command line, from the signatures and docstrings of the registered methods.

An option that is not given is None, which leaves each method its own default. An option that none of the chosen methods
takes is refused. `analyze --method NAME --help` lists the options of that method.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from analyzer.cli.help import Command
from analyzer.cli.options import split_list
from analyzer.cli.terminal import UserError
from analyzer.methods import METHODS
from analyzer.methods.names import suggested
from analyzer.methods.paths.baselines import NAMES
from analyzer.methods.signatures import NAMES_KIND, RNG_KIND, Parameter

DEFAULT_METHOD = "full-grad"
PANEL = "Settings of methods"

# Settings whose option has another name: --tolerance means a relative L2 in check and compare.
OPTION_NAMES = {"tolerance": "--max-error", "map_tolerance": "--max-map-error"}
# Spellings of earlier releases, which warn.
OLD_OPTIONS = {
    "--at": "--wrt",
    "--seed": "--rng",
    "--tolerance": "--max-error",
    "--map-tolerance": "--max-map-error",
}
# Settings that Python takes as arrays or other objects, and the command line as text or files.
FROM_TEXT: Mapping[str, tuple[type, str, str]] = {
    "baseline": (
        str,
        "BASELINE",
        f"Where the path begins: {', '.join(NAMES)}, a number in the model's units, or a .npy file; several separated "
        "by commas, over which the attributions are averaged.",
    ),
    "baseline_inputs": (
        Path,
        "FILE",
        "Inputs, such as padding tokens, whose values at the tensors of --wrt (of conductance, --along) are the "
        "baseline: a .npy or an .npz file.",
    ),
    "background": (
        Path,
        "FILE|FOLDER",
        "Baselines to draw from: a .npy or an .npz file, or a folder of images.",
    ),
}

MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help=f"{', '.join(METHODS)}. Several: separated by commas, or the option again. Default: {DEFAULT_METHOD}. "
        "`onnxplain methods` lists them with their cost. With --help: the options of that method.",
    ),
]


def option_of(setting: str) -> str:
    """Return the option of a setting, "--max-sigma" of "max_sigma"."""
    return OPTION_NAMES.get(setting, f"--{setting.replace('_', '-')}")


def settings_on_command_line() -> dict[str, dict[str, Parameter]]:
    """Return {setting: {method: its parameter}} of all settings that have an option, in the order of the methods."""
    found: dict[str, dict[str, Parameter]] = {}
    for name, method in METHODS.items():
        for setting, parameter in method.parameters.items():
            if parameter.kind != "other" or setting in FROM_TEXT:
                found.setdefault(setting, {})[name] = parameter
    return found


def with_method_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting to a command (…, **settings), which Typer reads from its signature."""
    own = inspect.signature(command, eval_str=True)
    fixed = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            setting, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(setting, takers)
        )
        for setting, takers in settings_on_command_line().items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        command(**given)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in fixed] + added
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    del run.__wrapped__
    run.command_class = MethodCommand  # type: ignore[attr-defined]
    return run


def _option(setting: str, takers: Mapping[str, Parameter]) -> Any:
    """Return the annotation from which Typer makes an option."""
    first = next(iter(takers.values()))
    kind: Any = first.kind
    metavar: str | None = None
    if setting in FROM_TEXT:
        kind, metavar, _ = FROM_TEXT[setting]
    elif first.kind == "choice":
        choices = dict.fromkeys(choice for one in takers.values() for choice in one.choices)
        kind = enum_of(setting, {choice.upper().replace("-", "_"): choice for choice in choices})
    elif first.kind == NAMES_KIND:
        kind, metavar = list[str], "NAME"
    elif first.kind == RNG_KIND:
        kind, metavar = int, "SEED"
    named = option_of(setting)
    names = [f"{named}/--no-{named[2:]}"] if kind is bool else [named]
    text = f"{_help(setting, takers)}{_whose(takers)}"
    return Annotated[kind | None, typer.Option(*names, metavar=metavar, help=text, rich_help_panel=PANEL)]


def enum_of(name: str, members: Mapping[str, str]) -> Any:
    """Return a type whose values are a fixed set of words, which Typer reads as choices."""
    return StrEnum(name, dict(members))


def _help(setting: str, takers: Mapping[str, Parameter]) -> str:
    """Return the help of a setting for these methods, with its default."""
    first = next(iter(takers.values()))
    if setting in FROM_TEXT:
        text = FROM_TEXT[setting][2]
    elif first.kind == RNG_KIND:
        text = "Seed for noise, draws and random baselines."
    else:
        text = _sentence(first.help)
        text += " Repeat for more." if first.kind == NAMES_KIND else ""
    return " ".join(filter(None, [text, _defaults(takers)]))


def _sentence(text: str) -> str:
    """Return a parameter's description as help: with a capital, and options in place of Python's names."""
    for setting in settings_on_command_line():
        text = text.replace(f"`{setting}`", option_of(setting))
    text = text.replace("`converged`", "The result").replace("`", "").partition(" Default: ")[0]
    return f"{text[:1].upper()}{text[1:]}" if text[:1].isascii() else text


def _whose(takers: Mapping[str, Parameter]) -> str:
    """Return a sentence that names the methods of a setting, where they are few."""
    return f" Only for {', '.join(takers)}." if len(takers) <= 3 else ""


def _defaults(takers: Mapping[str, Parameter]) -> str:
    """Return the default, and the methods with another one; empty where there is none."""
    by_value: dict[str, list[str]] = {}
    for name, parameter in takers.items():
        if parameter.default is not None and parameter.default is not False:
            by_value.setdefault(_shown(parameter.default), []).append(name)
    if not by_value:
        return ""
    (first, _), *others = by_value.items()
    rest = "".join(f"; {', '.join(names)}: {value}" for value, names in others)
    return f"Default: {first}{rest}."


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if value is True:
        return "yes"
    return f"{value:g}" if isinstance(value, float) else str(value)


class MethodCommand(Command):
    """A command with the options of methods: it takes old spellings, and its help is that of the methods named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Translate old spellings, and hide the options that the methods named do not take from the help."""
        args = list(_translated(args))
        named = [method for method in _named_methods(args) if method in METHODS]
        for parameter in self.params:
            if getattr(parameter, "rich_help_panel", None) == PANEL:
                _narrow(parameter, named)
        return super().parse_args(ctx, args)


def _narrow(option: Any, methods: Sequence[str]) -> None:
    """Let an option speak of these methods alone, and hide it where none of them takes it; of none, speak of all."""
    takers = settings_on_command_line()[option.name]
    own = {name: takers[name] for name in methods if name in takers}
    option.hidden = bool(methods) and not own
    if own or not methods:
        option.help = _help(option.name, own) if own else f"{_help(option.name, takers)}{_whose(takers)}"


def _named_methods(args: Sequence[str]) -> list[str]:
    following = [args[k + 1] for k, one in enumerate(args[:-1]) if one == "--method"]
    given = following + [one.partition("=")[2] for one in args if one.startswith("--method=")]
    return [name for one in given for name in split_list(one)]


def _translated(args: Sequence[str]) -> Iterable[str]:
    """Yield the arguments in the present spelling. A warning on stderr names each old one."""
    items = iter(args)
    for item in items:
        head, equals, value = item.partition("=")
        if item == "--":
            yield item
            yield from items
        elif head not in OLD_OPTIONS:
            yield item
        else:
            new = OLD_OPTIONS[head]
            print(f"onnxplain: {head} is now {new}, and ends with the next release", file=sys.stderr)
            value = value if equals else next(items, "")
            for one in value.split(",") if new == "--wrt" else [value]:
                yield new
                yield one


def settings_of(methods: Sequence[str] | None, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {method: its settings}, in the order of the methods. given: {setting: value}, None where it is not given.

    Raises UserError for an unknown method, and for a setting that none of the methods takes, or not with that value.
    """
    given_names = [name for one in methods or [DEFAULT_METHOD] for name in split_list(one) or [one]]
    chosen = list(dict.fromkeys(known_method(name) for name in given_names))
    stated = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in given.items()
        if value is not None and value != []
    }
    known = settings_on_command_line()
    for name, value in stated.items():
        takers = [method for method in chosen if method in known[name]]
        if not takers:
            others, option = list(known[name]), option_of(name)
            raise UserError(
                f"{option} is a setting of {', '.join(others)}; --method names none of them. Fix: omit {option}, or "
                f"give --method {others[0]}"
            )
        for method in takers:
            _refuse_choice(method, name, value, known[name][method].choices)
    if "baseline" in stated:
        stated["baseline"] = read_baseline(stated["baseline"])
    return {
        method: {name: value for name, value in stated.items() if method in known[name]} for method in chosen
    }


def known_method(name: str, what: str = "--method") -> str:
    """Return the name of a method. Raises UserError with the method that is probably meant."""
    if name in METHODS:
        return name
    meant = suggested(name, METHODS)
    guess = f" Did you mean {meant}?" if meant else ""
    choice = f"give {what} {meant}" if meant else f"choose from {', '.join(METHODS)}"
    raise UserError(f"{what} {name}: no such method.{guess} Fix: {choice}; onnxplain methods lists all")


def _refuse_choice(method: str, name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise UserError for a choice that only other methods have, such as a quadrature rule."""
    if choices and value not in choices:
        raise UserError(
            f"{option_of(name)} {value}: {method} has no such choice. Fix: choose from {', '.join(choices)}"
        )


def read_baseline(text: str) -> Any:
    """A baseline as the API takes it: a name, a number or an array, or a list of them."""
    several = [_one_baseline(part, text) for part in split_list(text)]
    return several if len(several) > 1 else _one_baseline(text, text)


def _one_baseline(text: str, whole: str) -> Any:
    from analyzer.cli.models import read_array

    if text in NAMES:
        return text
    if text.lower().endswith(".npy"):
        return read_array(Path(text))
    try:
        return float(text)
    except ValueError as error:
        raise UserError(
            f"--baseline {whole}: no such baseline. Fix: give {', '.join(NAMES)}, a number or a .npy file"
        ) from error
