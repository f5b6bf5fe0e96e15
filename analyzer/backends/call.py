"""Compare the inputs of a user's call with the model's file, and warn once for each call.

A method also evaluates other inputs, such as the points of a path. Only the user's inputs are compared with the file.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from analyzer.backends.at_sizes import at_sizes
from analyzer.backends.inputs import calling
from analyzer.target.saturation import note_saturated

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Inputs


@dataclass
class _Batch:
    """The inputs of an analysis; done: whether its target, which a method computes first, was compared."""

    key: bytes
    done: bool = False


# The batch that is being explained, of every model: other inputs, such as the points of a path, are not compared.
EXPLAINED: ContextVar[Mapping[int, _Batch] | None] = ContextVar("explained", default=None)
# The remarks that were made in this call, by kind.
_MADE: ContextVar[set[str] | None] = ContextVar("made", default=None)
MOVES = ("along", "wrt")
"""Options that name the tensors in place of the inputs; with `along`, `wrt` names others."""
_Method = TypeVar("_Method", bound=Callable[..., Any])


def key_of(feeds: Mapping[str, np.ndarray]) -> bytes:
    """A hash of a batch."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(feeds):
        array = np.ascontiguousarray(feeds[name])
        found.update(f"{name}{array.dtype}{array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return found.digest()


@contextmanager
def explaining(*batches: tuple[Differentiable, Inputs]) -> Iterator[None]:
    """Within the block, compare only these batches with the file, not the other inputs that a method evaluates."""
    if EXPLAINED.get() is not None:
        yield
        return
    given = [(fn, fn.file, fn.feeds_of(inputs)) for fn, inputs in batches if fn.file is not None]
    batches_of = {id(file): _Batch(key_of(feeds)) for _, file, feeds in given}
    token, made = EXPLAINED.set(batches_of), _MADE.set(set())
    try:
        yield
        for fn, file, feeds in given:
            if file is not None and not file.drawn and not batches_of[id(file)].done:
                batches_of[id(file)].done = True
                file.compare_values(feeds, fn.forward(feeds, fn.graph.outputs))
    finally:
        EXPLAINED.reset(token)
        _MADE.reset(made)


def first_time(remark: str) -> bool:
    """Return whether a kind of remark was not made in this call; it counts as made from then on."""
    made = _MADE.get()
    if made is None:
        return True
    is_new = remark not in made
    made.add(remark)
    return is_new


def within_call() -> bool:
    """Return whether a method, or a check, that the user called is running."""
    return EXPLAINED.get() is not None


def explains(method: _Method) -> _Method:
    """Let a method, method(model, inputs, …, verify=True), explain the user's file and nothing else.

    The method is given a model at the sizes of the inputs. These are checked, once for all that it binds.
    """
    signature = inspect.signature(method)

    @wraps(method)
    def explained(*args: Any, **options: Any) -> Any:
        from analyzer.backends import differentiate

        given = signature.bind(*args, **options).arguments
        verify = given.get("verify", True)
        whole = differentiate(given["model"], verify=verify, example=given["inputs"])
        feeds = whole.feeds_of(given["inputs"])
        fn = at_sizes(whole, feeds)
        given["model"], feeds = fn, feeds.of(fn.graph)
        if "target" in given:
            given["target"] = fn.indexed(given["target"])
        # A model without a floating input is explained from the vectors of its tokens.
        moves = next((name for name in MOVES if name in signature.parameters), None)
        if moves is not None and given.get(moves) is None and fn.default_wrt is not None:
            given[moves] = fn.default_wrt
        called = inspect.BoundArguments(signature, cast("OrderedDict[str, Any]", given))
        outermost = not within_call()
        with calling(given["inputs"], feeds), explaining(*([(fn, feeds)] if verify else [])):
            found = method(*called.args, **called.kwargs)
        if outermost:
            note_saturated(fn.graph, found.output, found.target)
        return found

    return cast(_Method, explained)
