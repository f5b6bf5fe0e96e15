"""One call of a method with the samples along axis 0: tables, pictures and files have a row for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyzer.types import Arrays

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.graph.samples.arrangement import Arrangement
    from analyzer.target.target import TargetLike
    from analyzer.types import Inputs


@dataclass(frozen=True)
class SamplesFirst:
    """A model, inputs and a target with the samples along axis 0. raw: the inputs, {name: array}, as they were given.

    moved: whether they differ from what was given. whole: the model as it was given.
    """

    whole: Differentiable
    fn: Differentiable
    inputs: Inputs
    target: TargetLike
    raw: Arrays
    moved: bool

    @classmethod
    def of(cls, fn: Differentiable, inputs: Inputs, target: TargetLike = None) -> SamplesFirst:
        """Decide how the samples lie; see analyzer/backends/batching/settling.py."""
        from analyzer.backends.batching.arranging import moved_target
        from analyzer.backends.batching.settling import arranged_to_move

        feeds = fn.check_inputs(inputs)
        view = arranged_to_move(fn, feeds, target, fn.differentiable_inputs)
        assert view.arrangement is not None
        if view.arrangement.plain or fn.arrangement is not None:
            return cls(fn, view, inputs, target, feeds, False)
        wanted = moved_target(fn.graph, view.arrangement, target)
        stacked = view.arrangement.all_first(feeds)
        single = not isinstance(inputs, Mapping)
        return cls(fn, view, next(iter(stacked.values())) if single else stacked, wanted, feeds, True)

    @property
    def arrangement(self) -> Arrangement:
        """How the model holds the samples."""
        assert self.fn.arrangement is not None
        return self.fn.arrangement

    def options(self, given: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """A method's options, their arrays moved along with the inputs. path: see `by_sample`."""
        from analyzer.methods.arranged import moved_options

        if not self.moved:
            return dict(given)
        return moved_options(self.whole, self.arrangement, self.raw, given, path)
