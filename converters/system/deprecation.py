"""Old names of arguments, which work for one release and warn."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from converters.system.arguments import refuse_unknown

_Function = TypeVar("_Function", bound=Callable[..., Any])


def renaming(error: type[Exception]) -> Callable[..., Callable[[_Function], _Function]]:
    """Return a decorator for functions some of whose keyword arguments had other names: old=new.

    The function then takes the old ones with a DeprecationWarning. It raises `error` where both are given.
    """

    def renamed(**names: str) -> Callable[[_Function], _Function]:
        return lambda function: _renamed(function, names, error)

    return renamed


def _renamed(function: _Function, names: dict[str, str], error: type[Exception]) -> _Function:
    signature = inspect.signature(function)

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        for old in names.keys() & options.keys():
            new, title = names[old], function.__name__
            if new in options:
                raise error(f"{title} got {new}= and its old name {old}=. Fix: give {new}= alone")
            warnings.warn(f"{title}({old}=…) is now {title}({new}=…)", DeprecationWarning, stacklevel=2)
            options[new] = options.pop(old)
        refuse_unknown(function.__name__, signature, options)
        return function(*args, **options)

    return cast("_Function", run)
