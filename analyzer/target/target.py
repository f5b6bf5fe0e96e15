"""Say which scalar is explained: a class per sample, the highest logit, one element, weights over outputs, or a sum.

A Target is what users write; analyzer/target/resolve.py resolves it against a model's outputs to a Seed: a class index
per sample (−1 for the highest), several of them to be explained one by one, or weights shaped like the outputs, whose
inner product with them is the scalar.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph.fixes import INDICES
from analyzer.target.moves import Moves
from analyzer.types import as_array

HIGHEST = -1
PREDICTED = "predicted"
ACTIVATION = "activation"
BEFORE = ("softmax", "sigmoid", ACTIVATION)
AFTER = ("softmax", "log-softmax")

Index = int | str | tuple[int, ...] | Sequence[int] | Sequence[str] | np.ndarray


class Chosen(np.ndarray):
    """The classes that a result explains, (N,) or (N, k), which may be given back as a target.

    Where the output has more axes than (N, classes), the positions of the elements in each flattened sample.
    output: the name of the output.
    """

    output: str | None = None

    def __array_finalize__(self, obj: Any) -> None:
        self.output = getattr(obj, "output", None)


def chosen_classes(classes: np.ndarray, output: str) -> Chosen:
    """Return classes of an output as a result states them."""
    view = np.asarray(classes).view(Chosen)
    view.output = output
    return view


class Bare(tuple[int, ...]):
    """A tuple given as a target: coordinates, or a class per sample. The output's shape decides, or it is refused."""


@dataclass(frozen=True)
class Target:
    """The scalar to explain, per sample.

    output: the name of a model output, or of any float tensor; None is the first float output that
        depends on the input.
    index: an int is a class, the same for every sample; an array (N,) a class per sample; an array (N, k)
        the sum of k classes per sample; a tuple the coordinates of one element, without the batch axis, negative ones
        from the end. Names of classes that the model stores may be given for ints. On an output with more axes than
        (N, classes) a class is summed over the remaining axes.
    axis: the axis of the classes: 1, or -1 where channels come last. Required where an output has more axes than
        (N, classes), unless all but one have size 1 or the shape of the mask decides; 1 where the mask is "predicted".
    mask: (*remaining axes) or (N, *remaining axes), booleans or weights: where a class is summed; "predicted" is
        where it is the highest.
    position: the coordinates of one element, as a tuple or an array (N, k), one row a sample. Where they are fewer
        than the axes, the highest of the elements there: Target(position=-1) is the last step's highest logit.
    weights: an array shaped like one sample of the output, or like the whole output; {output: array} sums over
        several outputs.
    top: the k highest classes of each sample are explained one by one, over one forward pass. each: an array (N, k)
        of classes, likewise. `fn.gradients` then gives (N, k) outputs and gradients (N, k, *shape).
    before: "softmax" or "sigmoid" explains the logit: the input of the last Softmax (LogSoftmax included) or Sigmoid,
        which computes the output; "activation", or True, takes either. Indices, masks and weights count as in the
        output. TargetError where the output is not computed by it. Default: the output as the model gives it.
    after: "softmax" or "log-softmax" explains the probability, or its logarithm, of an output that holds logits, as
        Target(3, after="log-softmax") does. Indices, masks and weights count as in the output. Of an output with more
        axes than (N, classes), axis is required: -1 for the tokens of a language model.
    parts: (factor, Target) of every term of a sum, of one or of several outputs. Written with operators:
        Target("logits", index=3) + 0.5 * Target("box", position=(0, 2)), Target(index=3) - Target(index=5).
    With none of them, the highest element of each sample.
    A class may come first: Target(285, before="softmax") is Target(index=285, before="softmax").
    """

    output: str | None = None
    index: Index | None = None
    weights: np.ndarray | Mapping[str, np.ndarray] | None = None
    mask: np.ndarray | str | None = None
    axis: int | None = None
    position: Index | None = None
    top: int | None = None
    each: np.ndarray | Sequence[Sequence[int]] | Sequence[Sequence[str]] | None = None
    parts: tuple[tuple[float, Target], ...] | None = None
    before: str | bool | None = None
    after: str | None = None
    moved: Moves | None = field(default=None, repr=False)
    """From the output to the tensor in whose shape elements are counted, where it is another. Set for a logit."""

    def __post_init__(self) -> None:
        self._read_class_first()
        object.__setattr__(self, "before", _before(self.before, self))
        object.__setattr__(self, "after", _after(self.after, self))
        said = [name for name in _SAYS if getattr(self, name) is not None]
        if len(said) > 1:
            raise TargetError(f"a Target takes {' or '.join(said)}, not both. Fix: give one of them")
        axis = None if self.after is not None else self.axis
        if (self.mask is not None or axis is not None) and self.index is None:
            raise TargetError("a mask, or the axis of the classes, goes with a class. Fix: give index=, too")
        if isinstance(self.weights, Mapping) and self.output is not None:
            raise TargetError("weights by output name their outputs themselves. Fix: omit `output`")
        if self.parts is not None:
            _check_parts(self.parts, self.output)

    def _read_class_first(self) -> None:
        """Take a class, or classes, that were given in the place of the output's name for the index."""
        given: object = self.output
        if given is None or isinstance(given, str):
            return
        if self.index is not None:
            raise TargetError(
                f"expected the name of an output, got {given!r}. Fix: Target(index={given!r}), or give a string"
            )
        wanted = as_target(cast("TargetLike", given))
        object.__setattr__(self, "output", wanted.output)
        object.__setattr__(self, "index", wanted.index)

    def __add__(self, other: Target) -> Target:
        return Target(parts=(*self._terms, *other._terms)) if isinstance(other, Target) else NotImplemented

    def __sub__(self, other: Target) -> Target:
        return self + -other if isinstance(other, Target) else NotImplemented

    def __neg__(self) -> Target:
        return -1.0 * self

    def __rmul__(self, factor: float) -> Target:
        if not isinstance(factor, (int, float, np.integer, np.floating)):
            return NotImplemented
        return Target(parts=tuple((float(factor) * own, part) for own, part in self._terms))

    @property
    def _terms(self) -> tuple[tuple[float, Target], ...]:
        return ((1.0, self),) if self.parts is None else self.parts

    @property
    def highest(self) -> bool:
        """Whether nothing is named: the highest element of each sample is explained."""
        return all(getattr(self, name) is None for name in _SAYS)

    @property
    def first_output(self) -> str | None:
        """The first output that is named; None where none is."""
        if self.parts is not None:
            return self.parts[0][1].first_output
        return next(iter(self.weights), None) if isinstance(self.weights, Mapping) else self.output

    @property
    def several(self) -> bool:
        """Whether several classes of each sample are explained, one by one."""
        return self.top is not None or self.each is not None


def _before(before: object, target: Target) -> str | None:
    """The activation that a target names. Raises TargetError."""
    if before is None or before is False:
        return None
    named = ACTIVATION if before is True else before
    named = named.lower().replace("_", "").removeprefix("log") if isinstance(named, str) else named
    if named not in BEFORE:
        raise TargetError(f"unknown before={before!r}. Fix: give one of {', '.join(map(repr, BEFORE))}")
    if target.parts is not None or isinstance(target.weights, Mapping):
        raise TargetError(
            "before= goes with one output. Fix: give it in the parts of the sum, each of one output, as in "
            'Target("probabilities", index=3, before="softmax") + Target("score", index=0)'
        )
    return named


def _after(after: object, target: Target) -> str | None:
    """The activation that is appended to an output. Raises TargetError."""
    if after is None:
        return None
    named = (
        after.lower().replace("_", "-").replace("logsoftmax", "log-softmax") if isinstance(after, str) else ""
    )
    if named not in AFTER:
        raise TargetError(f"unknown after={after!r}. Fix: give one of {', '.join(map(repr, AFTER))}")
    if target.parts is not None or isinstance(target.weights, Mapping):
        raise TargetError(
            "after= goes with one output. Fix: give it in the parts of the sum, each of one output, as in "
            'Target("logits", index=3, after="log-softmax") - Target("logits", index=5, after="log-softmax")'
        )
    return named


_SAYS = ("index", "weights", "position", "top", "each", "parts")


def _check_parts(parts: Sequence[tuple[float, Target]], output: str | None) -> None:
    if output is not None:
        raise TargetError(
            "the parts of a sum name their outputs themselves. Fix: omit `output`, and give it in the parts"
        )
    if not parts or any(part.several for _, part in parts):
        raise TargetError(
            "a sum is of targets that are one scalar of each sample. Fix: give index=, weights= or position= in each"
        )
    if not np.isfinite([factor for factor, _ in parts]).all():
        raise TargetError("the factors of a sum hold NaN or infinity. Fix: give finite factors")


TargetLike = Target | int | str | Sequence[int] | Sequence[str] | np.ndarray | None


@dataclass(frozen=True)
class Seed:
    """A resolved target: `index` (N,) into a (N, classes) output, or `weights` like the output.

    index (N, k) explains k classes of each sample one by one. more: weights over further outputs, {output: array},
    whose scalars are added. With none of these, the highest element of each sample.
    """

    output: str
    index: np.ndarray | None = None
    weights: np.ndarray | None = None
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every output that the scalar is made of."""
        return (self.output, *self.more)

    @property
    def ranks(self) -> int | None:
        """How many classes of each sample are explained one by one; None for one scalar."""
        return self.index.shape[1] if self.index is not None and self.index.ndim == 2 else None

    @property
    def form(self) -> Hashable:
        """What seeds share for which one program computes."""
        return (self.outputs, self.weights is not None, self.ranks)

    def fed(self, rows: int) -> tuple[np.ndarray, ...]:
        """What a program is fed for the outputs, in their order; rows: how many samples the first has."""
        if self.weights is not None:
            return (self.weights, *self.more.values())
        return (np.full(rows, HIGHEST, np.int64) if self.index is None else self.index,)

    def cotangents(self, ys: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The weights over every output, {output: array}, for each scalar that is explained of a sample."""
        if self.weights is not None:
            return [{self.output: self.weights, **self.more}]
        y = ys[self.output]
        chosen = self.chosen(y)
        assert chosen is not None
        found = []
        for classes in chosen.reshape(len(chosen), -1).T:
            weights = np.zeros_like(rows_of(y))
            np.put_along_axis(weights, classes[:, None], 1, axis=1)
            found.append({self.output: weights.reshape(y.shape)})
        return found

    def chosen(self, y: np.ndarray) -> np.ndarray | None:
        """The class of each sample, (N,), or its classes, (N, k); None where weights are explained."""
        if self.weights is not None:
            return None
        flat = rows_of(y)
        if self.index is None:
            return np.asarray(flat.argmax(axis=1))
        if self.ranks is None:
            return self.index
        # Of equals the first ranks higher, as in ONNX.
        highest = np.argsort(-flat, axis=1, kind="stable")[:, : self.ranks]
        return np.where(self.index < 0, highest, self.index)

    def explained(self, ys: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scalar of each sample, (N,), or its scalars, (N, k)."""
        chosen = self.chosen(ys[self.output])
        if chosen is not None:
            flat = rows_of(ys[self.output])
            return np.take_along_axis(flat, chosen.reshape(len(flat), -1), 1).reshape(chosen.shape)
        parts = []
        (weighted,) = self.cotangents(ys)
        for name, weights in weighted.items():
            y = ys[name]
            # The mask of an attention may put −∞ where the weight is 0.
            terms = np.multiply(y, weights, out=np.zeros_like(y), where=weights != 0)
            parts.append(rows_of(terms).sum(axis=1, dtype=y.dtype))
        return np.asarray(sum(parts[1:], parts[0]))

    def rows(self, chosen: np.ndarray) -> Seed:
        """The seed of some of the samples."""
        return Seed(
            self.output,
            None if self.index is None else self.index[chosen],
            None if self.weights is None else self.weights[chosen],
            {name: weights[chosen] for name, weights in self.more.items()},
        )


ONE_SCALAR = (
    "one scalar of each sample is explained at a time here, not Target(top=…) or Target(each=…). Fix: give one "
    "class, or use fn.gradients, integrated_gradients or conductance, which take several"
)


def one_scalar(target: TargetLike) -> Target:
    """The Target, where it is one scalar a sample. Raises TargetError."""
    wanted = as_target(target)
    if wanted.several:
        raise TargetError(ONE_SCALAR)
    return wanted


def rows_of(y: np.ndarray) -> np.ndarray:
    """An output as (N, elements of a sample)."""
    return y.reshape(y.shape[0] if y.ndim else 1, math.prod(y.shape[1:]))


def target_array(value: object) -> np.ndarray:
    """Return the numbers of a target as an array. Raises TargetError for rows of different lengths."""
    try:
        return as_array(value)
    except ValueError as error:
        raise TargetError(
            "the target has rows of different lengths. Fix: give each sample as many classes"
        ) from error


def as_target(target: TargetLike) -> Target:
    """A Target from what the API takes: None, an int, an array of ints, or a Target."""
    if isinstance(target, Target):
        if isinstance(target.weights, Mapping) and len(target.weights) == 1:
            ((output, weights),) = target.weights.items()
            return Target(output, weights=weights)
        return target
    if target is None:
        return Target()
    if isinstance(target, Chosen) and target.ndim:
        return Target(target.output, index=target) if target.ndim == 1 else Target(target.output, each=target)
    if isinstance(target, Mapping):
        raise TargetError("got a dict as the target. Fix: give Target(weights={output: array})")
    if isinstance(target, (bool, float, str)):
        raise TargetError(
            f"got the target {target!r}. Fix: give None, an int, an array (N,) of ints, or a Target"
        )
    if isinstance(target, (int, np.integer)):
        return Target(index=int(target))
    array = target_array(target)
    if array.dtype.kind not in "iu":
        raise TargetError(f"target indices are ints, got {array.dtype}. {INDICES}")
    if array.ndim > 1:
        raise TargetError(
            f"a target of shape {array.shape} has two readings. Fix: Target(index=array) sums the classes of a sample, "
            "Target(each=array) explains them one by one"
        )
    if isinstance(target, tuple):
        return Target(index=Bare(array.tolist()))
    return Target(index=array if array.ndim else int(array))
