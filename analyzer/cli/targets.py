"""Read --target: classes by index or name, over masks, elements by position, weights; of any output, and sums of these.

From the option's text and what the model is known to have to what the API takes. Refuses, with the way out, a class, an
output or a file that is not there; shapes are checked by the API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analyzer.cli.options import split_list
from analyzer.cli.terminal import Terminal, UserError
from analyzer.errors import TargetError
from analyzer.graph.graph import Graph
from analyzer.target.before import logits
from analyzer.target.class_names import axis_of_names, find_class, unknown_class
from analyzer.target.target import ACTIVATION, PREDICTED, Target, TargetLike, as_target

if TYPE_CHECKING:
    from converters.model import Model
from converters.system.text import counted

CHANNELS_LAST = "last"
ALL = "all"
# 2:17, -1:7, and -1: for the highest there.
_POSITION = re.compile(r"-?\d+(:-?\d+)*:?")
_TOP = re.compile(r"top(\d+)")
_EACH = "each:"
# Names have dashes: a minus stands between blanks.
_SIGNS = re.compile(r"\s*(\+|(?<=\s)-(?=\s))\s*")
_FACTOR = re.compile(r"(?:(-?(?:\d+\.?\d*|\.\d+))\s*\*)?\s*(.*)", re.DOTALL)


def parse_target(
    text: str | None,
    samples: int,
    classes: int | None,
    names: Sequence[str] | None,
    graph: Graph | None = None,
) -> TargetLike:
    """None, an int, an array (N,) of ints, or a Target whose arrays have a row for each sample.

    classes: how many the first output has, where the model's shape says so. A name is met whole ("tabby, tabby cat")
    or by one of its synonyms ("tabby cat"), whatever its case. Raises UserError.

    CLASS, or CLASS,CLASS,…      a class, or one for each sample
    CLASS@FILE.npy               a class summed over a mask; @FILE.npy@last where channels come last
    CLASS@predicted              a class summed where it is the highest; @predicted@last
    CLASS@all                    a class summed over all other axes; @all@last where channels come last
    2:17, or 2:17,0:4,…          an element by its coordinates, negative ones from the end
    -1:, or 3:,5:,…              the highest at a position
    FILE.npy                     weights over the output
    top3                         the three highest classes, each by itself
    each:CLASS,CLASS,…           these classes of every sample, each by itself
    OUTPUT=…                     any of these, of another output, or of a tensor within the model
    FILE.npz                     weights by output name, over several outputs
    …+…, … - …, NUMBER*…         a sum of these, but for top3 and each:, of one or several outputs
    """
    if text is None:
        return None
    if not text.strip():
        raise UserError("--target is empty. Fix: give a class index or name")
    names = _usable(names, graph)
    if (whole := _index(text, names)) is not None:
        return _in_range(whole, classes)
    terms = _terms(text, graph)
    targets = [_one(term, samples, classes, names, graph) for _, term in terms]
    if len(terms) == 1 and terms[0][0] == 1:
        return targets[0]
    factors = [factor for factor, _ in terms]
    return Target(parts=tuple(zip(factors, map(as_target, targets), strict=True)))


def explained_target(
    text: str | None, samples: int, model: Model, graph: Graph, *, logit: bool, terminal: Terminal
) -> TargetLike:
    """The target of --target and --logit; see `parse_target`. A note names the tensor of the logits."""
    chosen = parse_target(text, samples, class_count(graph), model.class_names, graph)
    if not logit:
        return chosen
    target = _before(as_target(chosen))
    for name, (output, _) in logits(graph, target).items():
        terminal.note(f"Note: explains {name!r}, the logits of the output {output!r}.")
    return target


def class_count(graph: Graph) -> int | None:
    """Return the number of classes of the default output, where its shape says so."""
    shape = graph.tensors[graph.default_output].shape
    return shape[1] if shape and len(shape) > 1 and isinstance(shape[1], int) else None


def _before(target: Target) -> Target:
    """The target at the logits of each of its outputs."""
    if target.parts is not None:
        return Target(parts=tuple((factor, _before(part)) for factor, part in target.parts))
    if isinstance(target.weights, Mapping):
        raise UserError(
            "--logit explains the logit of one output, and --target names several by an .npz file. Fix: name the "
            "tensors of the logits in the file, and omit --logit"
        )
    return replace(target, before=ACTIVATION)


def refuse_several(target: TargetLike, what: str) -> None:
    """Raise UserError where several classes are explained one by one. what: explains one scalar of each sample."""
    from analyzer.methods.registry import METHODS

    if isinstance(target, Target) and target.several:
        takers = " and ".join(name for name, entry in METHODS.items() if entry.ranked)
        raise UserError(
            f"--target {'each' if target.top is None else f'top{target.top}'}: {what} explains one scalar of each "
            f"sample. Fix: give --target one class; only analyze --method {takers} takes several"
        )


def _terms(text: str, graph: Graph | None) -> list[tuple[float, str]]:
    """The terms of a sum, each with its factor."""
    output, equals, rest = text.partition("=")
    named = bool(equals) and graph is not None and output.strip() in graph.tensors
    head, said = (output + equals, rest) if named else ("", text)
    # The name of a tensor or of a file may hold a sign itself.
    path = said.removesuffix(f"@{CHANNELS_LAST}").rpartition("@")[2]
    first, *more = [said] if Path(path.strip()).is_file() else _SIGNS.split(said)
    found = []
    for sign, part in zip(("+", *more[::2]), (head + first, *more[1::2]), strict=True):
        read = _FACTOR.fullmatch(part.strip())
        assert read is not None
        factor, term = read.groups()
        if not term:
            raise UserError(
                f"--target {text}: a sign or a factor is before nothing. Fix: give a class after it, as in '3 - 0.5*7'"
            )
        found.append(((-1 if sign == "-" else 1) * float(factor or 1), term))
    return found


def _one(
    text: str, samples: int, classes: int | None, names: Sequence[str] | None, graph: Graph | None
) -> TargetLike:
    """A target that is no sum."""
    output, said = _output_in(text, graph)
    first = graph.default_output if graph is not None else None
    # The classes of another output are counted where its shape is known: by the API.
    counted, known = (classes, names) if output in (None, first) else (None, None)
    rank = _rank(graph, output or first)
    if output is not None and not said:
        return Target(output)
    if said.lower().endswith(".npy") and "@" not in said:
        return Target(output, weights=_rows_of(Path(said), samples, rank))
    if said.lower().endswith(".npz") and output is None:
        return _over_outputs(Path(said), samples, graph)
    if highest := _TOP.fullmatch(said):
        return Target(output, top=int(highest[1]))
    if said.startswith(_EACH):
        return Target(output, each=_each(said.removeprefix(_EACH), samples, counted, known))
    if (parts := split_list(said)) and ":" in said and all(_POSITION.fullmatch(part) for part in parts):
        return _positions(output, parts, samples)
    if "@" in said:
        return _masked(output, said, samples, counted, known, rank)
    chosen = _classes(said, samples, counted, known)
    return chosen if output is None else Target(output, index=chosen)


def _output_in(text: str, graph: Graph | None) -> tuple[str | None, str]:
    """The output, or inner tensor, that a text begins with, and the rest."""
    output, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or graph is None:
        return None, text.strip()
    if output not in graph.tensors:
        has = ", ".join(graph.outputs)
        raise UserError(
            f"--target {text}: the model has no output {output!r}. Fix: choose from {has}, or name a tensor within it"
        )
    return output, rest


def _rank(graph: Graph | None, output: str | None) -> int | None:
    """The number of axes of an output, where the model says so."""
    tensor = graph.tensors.get(output) if graph is not None and output is not None else None
    return None if tensor is None or tensor.shape is None else len(tensor.shape)


def _classes(text: str, samples: int, classes: int | None, names: Sequence[str] | None) -> int | np.ndarray:
    """One class for all samples, or one for each."""
    if (whole := _index(text, names)) is not None:
        return _in_range(whole, classes)
    parts = split_list(text)
    if len(parts) == 1:
        return _in_range(_known(parts[0], names), classes)
    _one_each(parts, samples, "classes")
    return np.asarray([_in_range(_known(part, names), classes) for part in parts])


def _each(text: str, samples: int, classes: int | None, names: Sequence[str] | None) -> np.ndarray:
    """Several classes of every sample, (N, k)."""
    found = [_in_range(_known(part, names), classes) for part in split_list(text)]
    if not found:
        raise UserError("--target each: names no class. Fix: list classes after it, as in each:3,7")
    return np.tile(np.asarray(found), (samples, 1))


def _positions(output: str | None, parts: Sequence[str], samples: int) -> Target:
    """One element for all samples, or one for each."""
    rows = [[int(number) for number in part.split(":") if number] for part in parts]
    if len(rows) > 1:
        _one_each(parts, samples, "positions")
    if len({(len(row), part.endswith(":")) for row, part in zip(rows, parts, strict=True)}) > 1:
        raise UserError(
            f"--target {','.join(parts)}: the positions have different numbers of coordinates. Fix: give as many for "
            "each, as in 2:17,0:4"
        )
    each = np.asarray(rows if len(rows) > 1 else rows * samples)
    return Target(output, position=each)


def _masked(
    output: str | None,
    text: str,
    samples: int,
    classes: int | None,
    names: Sequence[str] | None,
    rank: int | None,
) -> Target:
    """A class summed over a mask."""
    last = text.endswith(f"@{CHANNELS_LAST}")
    named, _, mask = (part.strip() for part in text.removesuffix(f"@{CHANNELS_LAST}").rpartition("@"))
    index = _classes(named, samples, None if last else classes, names)
    each = np.full(samples, index) if isinstance(index, int) else index
    if mask == ALL:
        return Target(output, index=each, axis=-1 if last else 1)
    # A mask has no axis of classes.
    axes = None if rank is None else rank - 1
    over = PREDICTED if mask == PREDICTED else _rows_of(Path(mask), samples, axes)
    return Target(output, index=each, mask=over, axis=-1 if last else 1)


def _over_outputs(path: Path, samples: int, graph: Graph | None) -> Target:
    """Weights by output name."""
    from analyzer.cli.models import read_arrays

    weights = {
        name: _repeated(array, samples, _rank(graph, name)) for name, array in read_arrays(path).items()
    }
    return Target(weights=weights)


def _rows_of(path: Path, samples: int, axes: int | None) -> np.ndarray:
    """An array of a file with a row for each sample."""
    from analyzer.cli.models import read_array

    return _repeated(read_array(path), samples, axes)


def _repeated(array: np.ndarray, samples: int, axes: int | None) -> np.ndarray:
    """An array with a row for each sample; one for all, which has an axis less, is repeated."""
    return np.stack([array] * samples) if axes is None or array.ndim < axes else array


def _one_each(parts: Sequence[str], samples: int, what: str) -> None:
    if len(parts) != samples:
        raise UserError(
            f"--target names {len(parts)} {what} for {counted(samples, 'sample')}. Fix: give one, or one for each"
        )


class _OfOther(tuple[str, ...]):
    """No names, since those that the model stores are not of the elements of its output; `reason` says so."""

    reason: str


def _usable(names: Sequence[str] | None, graph: Graph | None) -> Sequence[str] | None:
    """The names, where the output has as many classes."""
    if not names or graph is None:
        return names
    try:
        axis_of_names(graph, None, None, names)
    except TargetError as error:
        unusable = _OfOther()
        unusable.reason = str(error)
        return unusable
    return names


def _known(text: str, names: Sequence[str] | None) -> int:
    index = _index(text, names)
    if index is None:
        reason = names.reason if isinstance(names, _OfOther) else unknown_class(text, names)
        raise UserError(f"--target {text}: {reason}")
    return index


def _index(text: str, names: Sequence[str] | None) -> int | None:
    """The class that a text names, or None."""
    try:
        return find_class(text, names)
    except TargetError as error:
        raise UserError(f"--target {text}: {error}") from error


def _in_range(index: int, classes: int | None) -> int:
    """A class, a negative one counted from the last."""
    if classes is not None and not -classes <= index < classes:
        raise UserError(
            f"--target {index} is out of range: the model has {classes} classes. Fix: give one from 0 to "
            f"{classes - 1}, or a negative one from the last"
        )
    return index
