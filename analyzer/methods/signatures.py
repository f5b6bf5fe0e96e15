"""Read the parameters of a public function: their types from the signature, their help from the docstring.

A docstring describes a parameter in a paragraph that begins with its name and a colon: `steps: points on the path.`
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from analyzer.types import Names, Rng

NAMES_KIND, RNG_KIND = "names", "rng"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method. kind: int, float, bool, str, "choice", "names", "rng", or "other" for other types.

    choices: of a "choice". help: its first sentences, from the docstring. default: None where there is none.
    """

    name: str
    kind: type | str
    choices: tuple[str, ...]
    default: Any
    help: str


def parameters_of(
    function: Callable[..., Any], like: Callable[..., Any] | None, *, leave_out: Collection[str]
) -> dict[str, Parameter]:
    """Return the parameters of a function by name. like: a function that documents those which this one does not."""
    signature = inspect.signature(function)
    names = [name for name in signature.parameters if name not in leave_out]
    helps = {**(described(like, names) if like is not None else {}), **described(function, names)}
    hints = typing.get_type_hints(function)
    found = {}
    for name in names:
        default = signature.parameters[name].default
        kind, choices = kind_of(hints.get(name, Any))
        default = None if default is inspect.Parameter.empty else default
        found[name] = Parameter(name, kind, choices, default, helps.get(name, ""))
    return found


def kind_of(hint: Any) -> tuple[type | str, tuple[str, ...]]:
    """Return the kind of a type hint, and its choices. Of a union, the first plain member counts; None is ignored."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = [one for one in typing.get_args(hint) if one is not type(None)] if union else [hint]
    for one in members:
        if typing.get_origin(one) is Literal:
            return "choice", tuple(str(choice) for choice in typing.get_args(one))
    for names, kind in ((Names, NAMES_KIND), (Rng, RNG_KIND)):
        if set(members) == set(typing.get_args(names)):
            return kind, ()
    if len(members) == 1 and members[0] in (int, float, bool, str):
        return members[0], ()
    return "other", ()


def described(function: Callable[..., Any], names: Collection[str]) -> dict[str, str]:
    """Return what the docstring of a function says of its parameters."""
    text = inspect.getdoc(function) or ""
    known = [*names, *inspect.signature(function).parameters]
    found: dict[str, str] = {}
    current: list[str] = []
    for line in text.splitlines():
        start = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if start and all(name in known for name in start[1].split(", ")):
            current = start[1].split(", ")
            found |= dict.fromkeys(current, start[2])
        elif current and line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        else:
            current = []
    return {name: " ".join(help.split()) for name, help in found.items() if name in names}
