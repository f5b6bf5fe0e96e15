"""The registry of attribution methods. Adding a method touches one file: the one with its public function.

`@method("blur-ig", caption=…, note=…, source=…)` registers a public function. It then runs on a model whose samples lie
along axis 0, its file is compared with what is explained, and the result knows its method, its settings and the time
that it took. The options of the command line, with their help, come from the function's signature and docstring.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from analyzer.backends import explains
from analyzer.methods.arranged import by_sample
from analyzer.methods.exporting import Exported, Hosted
from analyzer.methods.result import Attribution
from analyzer.methods.signatures import Parameter, parameters_of
from converters.system.arguments import bind

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result", bound=Attribution)

# Parameters of the public functions that are not settings of the method.
NOT_SETTINGS = frozenset({"model", "inputs", "target", "progress", "verify", "batch_size"})
Exporter = Callable[..., Exported] | Hosted
"""The function that emits a method as ONNX, or the reason why there is none."""
WITHOUT_EXPORTER = Hosted("it has no exporter", "choose another method")


@dataclass(frozen=True)
class Method:
    """A registered method.

    name: on the command line and in results. run: the public function. caption: the name that its paper writes. note:
    how its picture is read, in a few words. signed: whether its map has a sign. source: the paper. path: the parameter
    that names the tensors which move along a path, in place of the inputs. ranked: whether it explains several classes
    of each sample. parameters: its settings, from the signature and the docstring. cost: of one sample, in gradients,
    each a forward and a backward pass. line: what it finds out, in a few words. export: the function that
    emits it as ONNX (exporting.py), or the reason why there is none.
    """

    name: str
    run: Callable[..., Attribution]
    caption: str
    note: str
    signed: bool
    source: str
    path: str | None
    ranked: bool
    parameters: Mapping[str, Parameter]
    cost: str = ""
    line: str = ""
    export: Exporter = WITHOUT_EXPORTER

    @property
    def summary(self) -> str:
        """What it computes: the first line of the docstring of its function."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]


METHODS: dict[str, Method] = {}
"""All methods by name, in the order in which they were registered."""


def method(
    name: str,
    *,
    caption: str,
    note: str,
    source: str,
    line: str = "",
    cost: str = "not stated",
    signed: bool = False,
    path: str | None = None,
    ranked: bool = False,
    like: Callable[..., Any] | None = None,
    export: Exporter = WITHOUT_EXPORTER,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Register a function (model, inputs, target, …) as an attribution method. See `Method` for the arguments.

    cost: may name parameters, such as "{steps} gradients", in place of which their defaults are written.
    like: a function whose docstring describes the parameters that this function's docstring leaves out.
    Raises AssertionError for a name that is taken.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        assert name not in METHODS, name
        arranged = explains(by_sample(function, path))
        signature = inspect.signature(function)
        known = parameters_of(function, like, leave_out=NOT_SETTINGS)

        @wraps(function)
        def run(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
            start = time.perf_counter()
            given = bind(function.__name__, signature, args, options)
            found = arranged(*args, **options)
            given.apply_defaults()
            settings = {key: shown(given.arguments[key]) for key in known}
            seconds = time.perf_counter() - start
            return replace(
                found, method=name, settings={**settings, **_used(found, settings)}, seconds=seconds
            )

        costs = cost.format_map({key: one.default for key, one in known.items()})
        found = cast("Callable[..., Attribution]", run)
        METHODS[name] = Method(
            name, found, caption, note, signed, source, path, ranked, known, costs, line, export
        )
        return run

    return decorate


def _used(found: Attribution, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the method chose itself, such as the layer of a class activation map: fields of those names."""
    own = {key: getattr(found, key, None) for key in settings if key in ("layer", "steps", "rule")}
    return {key: shown(value) for key, value in own.items() if value is not None}


def shown(value: Any) -> Any:
    """Return a setting as results tell it: numbers and names as they are, lists of these, else a word for its kind."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): shown(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(one) for one in value]
    return "array" if isinstance(value, np.ndarray) else type(value).__name__
