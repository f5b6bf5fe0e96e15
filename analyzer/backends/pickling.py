"""Pickle a Differentiable: its model, and the options of `differentiate`, which bind it to a backend again.

From a Differentiable to bytes, and from these to an equal one, in another process or on another machine. The backend is
made at the first use: reading the bytes imports no framework. Refuses the backend "source", whose network is in this
process alone, and parts of a model that a method made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analyzer.errors import AnalysisError
from converters.model import Model

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable

UNBOUND = "_unbound"
"""The attribute with the options of a backend that is not made yet."""


OF_ENGINE = ("backend", "precision", "providers", "device", "threads")
OF_CALLS = ("max_memory", "batch_size", "verify", "samples", "checkpoint")
"""The options of `differentiate` that its backend keeps, and those that the Differentiable keeps."""


def reduced(fn: Differentiable) -> tuple[Any, ...]:
    """Return what pickle stores of a Differentiable: a function of this module, the model and the options."""
    options = {name: getattr(fn, name) for name in OF_CALLS}
    unbound = fn.__dict__.get(UNBOUND)
    if unbound is not None and "engine" not in fn.__dict__:
        return restored, (fn.model, {**unbound, **options})
    if fn.backend == "source":
        raise AnalysisError(
            'backend="source" runs the original network, which is in this process alone and is not pickled. Fix: use '
            'backend="torch" or "onnxruntime", or convert the network in each process'
        )
    if fn.engine.options is None or (fn.arrangement is not None and not fn.arrangement.plain):
        raise AnalysisError(
            "expected what `differentiate` returned, got a part or another form of a model, which is not pickled. "
            "Fix: pickle the result of onnxplain.differentiate(model)"
        )
    return restored, (fn.model, {**fn.engine.options, **options})


def restored(model: Model, options: Mapping[str, Any]) -> Differentiable:
    """Return the Differentiable of a pickle, without its backend."""
    from analyzer.backends.differentiable import Differentiable

    found = object.__new__(Differentiable)
    given = {name: options[name] for name in OF_CALLS}
    unbound = {name: options[name] for name in OF_ENGINE}
    found.__dict__.update(model=model, caches={}, arrangement=None, **given, **{UNBOUND: unbound})
    return found


def bind(fn: Differentiable) -> None:
    """Make the backend of a Differentiable that was read from a pickle."""
    from analyzer.backends import differentiate

    options = {name: getattr(fn, name) for name in OF_CALLS}
    fn.__dict__["engine"] = differentiate(fn.model, **fn.__dict__[UNBOUND], **options).engine
