"""Bind the arguments of a public function. An error names the function, and the argument that was probably meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def bind(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Return the arguments of a call by name. Raises TypeError, as Python does, with the name of the function."""
    refuse_unknown(name, signature, options)
    try:
        return signature.bind(*args, **options)
    except TypeError as error:
        raise TypeError(
            f"{name}() got wrong arguments: {error}. Fix: call {name}{_shown(signature)}"
        ) from None


def refuse_unknown(name: str, signature: inspect.Signature, options: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword that the function does not have, with the one that is near."""
    parameters = signature.parameters.values()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            fix = f"write {near[0]}=…" if near else f"choose from {', '.join(known)}"
            raise TypeError(f"{name}() got an unexpected argument {option!r}. {meant}Fix: {fix}")


def named_arguments(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function so that a wrong keyword is answered with the one that was probably meant."""
    signature = inspect.signature(function)

    @wraps(function)
    def run(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        refuse_unknown(function.__name__, signature, options)
        return function(*args, **options)

    return run


def _shown(signature: inspect.Signature) -> str:
    """The parameters without a default, and "…" for the others."""
    needed = [one.name for one in signature.parameters.values() if one.default is inspect.Parameter.empty]
    return f"({', '.join([*needed, '…'])})"
