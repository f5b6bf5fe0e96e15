"""Old names of arguments, which work for one release and warn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from analyzer.errors import AnalysisError

_Function = TypeVar("_Function", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[_Function], _Function]:
    """Decorate a function some of whose keyword arguments had other names: old=new.

    The function then takes the old ones with a DeprecationWarning. It raises AnalysisError where both are given.
    """

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            for old in names.keys() & options.keys():
                new, title = names[old], function.__name__
                if new in options:
                    raise AnalysisError(f"{title} got {new}= and its old name {old}=. Fix: give {new}= alone")
                warnings.warn(f"{title}({old}=…) is now {title}({new}=…)", DeprecationWarning, stacklevel=2)
                options[new] = options.pop(old)
            return function(*args, **options)

        return cast("_Function", run)

    return decorate
