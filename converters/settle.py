"""Repeat a rewriting of a graph until it changes nothing, and no more often than a bound.

Every rewriting has a measure that decreases: nodes that are left to expand, to unroll or to fold, or axes whose size is
open. The bound turns a rewriting that breaks this rule into an error, where it would run forever.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.errors import UnsupportedModel

ROUNDS = 128
"""Real models settle within three rounds; each nested function, branch or loop takes one more."""


def settle(rewrite: Callable[[], bool], rounds: int = ROUNDS) -> None:
    """Call `rewrite` until it returns False.

    Raises UnsupportedModel where it still returns True after `rounds` calls.
    """
    for _ in range(rounds):
        if not rewrite():
            return
    raise UnsupportedModel(
        f"the graph still changes after {rounds} rounds of simplification: its functions, branches or loops are "
        "nested deeper than that. Fix: simplify the model before it is converted"
    )
