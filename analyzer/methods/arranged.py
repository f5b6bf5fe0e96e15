"""Run a method on a view of the model that has the samples first, and give its results as the user's model has them.

`by_sample` decides, before a method stacks or divides samples, how these lie in the inputs and outputs and whether they
depend on one another (analyzer/backends/batching/arranging.py). Arrays of options are moved along; results are moved
back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from analyzer.backends import Differentiable, differentiate
from analyzer.backends.batching.arranging import moved_target
from analyzer.backends.batching.settling import arranged_to_move
from analyzer.backends.inputs import Feeds, calling
from analyzer.graph.samples.arrangement import JOINT, Arrangement
from analyzer.methods.result import Attribution
from analyzer.target.class_names import names_of_output
from analyzer.target.target import Chosen

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result", bound=Attribution)


def by_sample(
    method: Callable[_Parameters, _Result], path: str | None = None
) -> Callable[_Parameters, _Result]:
    """Let a method (model, inputs, target, …) run on a model whose samples lie along axis 0.

    A model whose samples are arranged already is taken as it is, and its results are left as they are.
    path: the option of a path method that names the tensors which move in place of the inputs.
    """
    signature = inspect.signature(method)

    @wraps(method)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        given = signature.bind(*args, **kwargs).arguments
        fn, inputs = differentiate(given.pop("model")), given.pop("inputs")
        target = given.pop("target", None)
        call = cast("Callable[..., _Result]", method)
        if fn.arrangement is not None:
            found = call(fn, inputs, target, **given)
            return _stated(found, fn.arrangement, fn)
        feeds = fn.feeds_in_call(inputs)
        view = arranged_to_move(fn, feeds, target, attributed(fn, given, path))
        assert view.arrangement is not None
        if view.arrangement.plain:
            found = call(view, inputs, target, **given)
            if found.arrangement is not None:
                found = found.restored(view.arrangement, next(iter(feeds)))
            return _stated(found, view.arrangement, fn)
        moved = Feeds(view.graph, view.arrangement.all_first(feeds), single=feeds.single)
        single = view.roots(None)[0] if view.differentiable_inputs else next(iter(feeds))
        target = moved_target(fn.graph, view.arrangement, target)
        options = moved_options(fn, view.arrangement, feeds, given, path)
        # Of a single input an array was given, and an array is the answer.
        stacked = moved.form(moved)
        with calling(stacked, moved):
            found = call(view, stacked, target, **options)
        return _stated(found.restored(view.arrangement, single), view.arrangement, fn)

    return run


def attributed(fn: Any, given: Mapping[str, Any], path: str | None = None) -> tuple[str, ...]:
    """The inputs that a method with these options attributes. path: see `by_sample`."""
    if path is not None and (given.get(path) is not None or given.get("wrt") is not None):
        return ()
    wrt = given.get("wrt")
    return fn.roots(wrt) if wrt is not None or fn.differentiable_inputs else ()


def _stated(found: _Result, arrangement: Arrangement, fn: Differentiable) -> _Result:
    """The result with what is known of its samples and classes."""
    output = found.target.output if isinstance(found.target, Chosen) else None
    names = names_of_output(fn.graph, output, fn.model.class_names)
    counts = isinstance(found.samples, int)
    return replace(
        found,
        samples=found.samples if counts else arrangement.samples,
        joint=arrangement.samples == JOINT,
        note=arrangement.note,
        class_names=names,
    )


def moved_options(
    fn: Any,
    arrangement: Arrangement,
    feeds: Mapping[str, np.ndarray],
    given: Mapping[str, Any],
    path: str | None = None,
) -> dict[str, Any]:
    """A method's options with arrays like the inputs moved along with them."""
    found = dict(given)
    within = given.get(path) if path is not None else None
    if found.get("baseline_inputs") is not None:
        found["baseline_inputs"] = arrangement.all_first(fn.check_inputs(found["baseline_inputs"]))
    if "baseline" in found and within is None:
        found["baseline"] = _moved(found["baseline"], arrangement, feeds, like=True)
    if "background" in found:
        found["background"] = _moved(found["background"], arrangement, feeds, like=False)
    return found


def _moved(
    value: Any,
    arrangement: Arrangement,
    feeds: Mapping[str, np.ndarray],
    *,
    like: bool,
    name: str | None = None,
) -> Any:
    """like: whether an array broadcasts to the input; else it holds several of them, as a data set does."""
    if isinstance(value, Mapping):
        return {
            key: _moved(one, arrangement, feeds, like=like, name=key) if key in feeds else one
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_moved(one, arrangement, feeds, like=like, name=name) for one in value]
    name = name or next(iter(feeds))
    array = value if isinstance(value, np.ndarray) else getattr(value, "samples", None)
    if not isinstance(array, np.ndarray) or (not like and name in arrangement.wrapped):
        return value
    if array is not value:
        return (
            value if name in arrangement.wrapped else replace(value, samples=arrangement.first(name, array))
        )
    if like:
        try:
            array = np.broadcast_to(array, feeds[name].shape)
        except ValueError:
            return value
    return arrangement.first(name, array)
