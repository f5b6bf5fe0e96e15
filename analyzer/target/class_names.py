"""Find classes by their names: in targets of the API, and for the command line.

From names, and the names that a model stores in the order of its classes, to indices. A name is met exactly, then
whatever its case, blanks, dashes and underscores, then as one of its synonyms ("tabby, tabby cat"). Refuses, with the
names that are near: unknown names, names of several classes, and outputs whose classes are not those that are named.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph.graph import Graph
from analyzer.target.target import Target, TargetLike, target_array

_LISTED = 8
_STORE = (
    "give an index, an int such as 3, or store names with onnxplain.convert(…, class_names=[…]) "
    "(onnxplain convert --class-names)"
)


def with_indices(target: Any, names: Sequence[str] | None, graph: Graph) -> TargetLike:
    """Return a target of the API whose class names are replaced by indices; others are returned as they are.

    names: those that the model stores. Raises TargetError.
    """
    if isinstance(target, Target):
        if target.parts is not None:
            parts: Any = tuple((k, with_indices(one, names, graph)) for k, one in target.parts)
            same = all(new is old for (_, new), (_, old) in zip(parts, target.parts, strict=True))
            return target if same else replace(target, parts=parts)
        unknown = target.output if target.output not in graph.tensors else None
        if unknown and target.highest and names and find_class(unknown, names) is not None:
            # A class first, as in Target("dog"): the text is not the name of an output.
            return with_indices(replace(target, output=None, index=unknown), names, graph)
        for field in ("index", "each"):
            given = getattr(target, field)
            if _holds_text(given):
                axis = axis_of_names(graph, target.output, target.axis, names, field)
                indices: Any = _indices(given, names)
                found: Any = indices if isinstance(indices, int) else target_array(indices)
                own: dict[str, Any] = {"axis": axis} if field == "index" and axis is not None else {}
                return replace(target, **{field: found}, **own)
        return target
    if not _holds_text(target):
        return target  # type: ignore[no-any-return]
    axis = axis_of_names(graph, None, None, names, "index")
    indices = _indices(target, names)
    found = indices if isinstance(indices, int) else target_array(indices)
    return found if axis is None else Target(index=found, axis=axis)


def find_class(text: str, names: Sequence[str] | None) -> int | None:
    """Return the class that a text means, None where there is none; digits are an index. Raises TargetError."""
    wanted = text.strip()
    if wanted.removeprefix("-").isdigit():
        return int(wanted)
    if names is None:
        return None
    alike = _plain(wanted)
    kinds: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: _plain(name) == alike,
        lambda name: alike in {_plain(part) for part in name.split(",")},
    )
    for fits in kinds:
        found = [index for index, name in enumerate(names) if fits(name)]
        if len(found) > 1:
            listed = ", ".join(f"{index} ({names[index]})" for index in found[:_LISTED])
            raise TargetError(f"several classes have that name, {listed}. Fix: give an index")
        if found:
            return found[0]
    return None


def unknown_class(text: str, names: Sequence[str] | None) -> TargetError:
    """Return the error for a name that no class has: the classes with that word, or the nearest names."""
    if not names:
        return TargetError(f"the model stores no class names. Fix: {_STORE}")
    near = near_classes(text, names)
    if not near:
        return TargetError(
            f"the model has no class of that name. Fix: give one of its class names, such as {names[0]!r}, or an index"
        )
    shown = ", ".join(f"{names[index]!r} ({index})" for index in near[:_LISTED])
    rest = f" and {len(near) - _LISTED} more" if len(near) > _LISTED else ""
    return TargetError(
        f"the model has no class of that name; did you mean {shown}{rest}? Fix: give one of them"
    )


def near_classes(text: str, names: Sequence[str]) -> list[int]:
    """Return the classes whose names have all words of a text, else those whose spelling is near; best first."""
    words = set(_plain(text).split())
    found = [i for i, name in enumerate(names) if words and words <= set(re.split(r"[\s,]+", _plain(name)))]
    if found:
        return found
    parts = {
        part.strip(): i for i, name in reversed(list(enumerate(names))) for part in _plain(name).split(",")
    }
    close = difflib.get_close_matches(_plain(text), parts, n=3)
    within = [i for i, name in enumerate(names) if len(_plain(text)) > 2 and _plain(text) in _plain(name)]
    return list(dict.fromkeys([*(parts[one] for one in close), *within]))


def names_of_output(graph: Graph, output: str | None, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of the classes of an output (N, classes); None where it has another number of them, or axes."""
    tensor = graph.tensors.get(output or graph.default_output)
    if names is None or tensor is None or tensor.shape is None or len(tensor.shape) != 2:
        return None
    size = tensor.shape[1]
    return tuple(names) if not isinstance(size, int) or size == len(names) else None


def axis_of_names(
    graph: Graph, output: str | None, axis: int | None, names: Sequence[str] | None, field: str = "index"
) -> int | None:
    """Return the axis of an output of more axes than two that has as many classes as names; None where none is needed.

    axis: the one that the target states. field: "index" or "each". Raises TargetError where no axis has as many.
    """
    tensor = graph.tensors.get(output or graph.default_output)
    if not names or tensor is None or tensor.shape is None:
        return axis
    rank, sizes = len(tensor.shape), tensor.shape
    candidates = [axis] if axis is not None else sorted({1, rank - 1} & set(range(1, rank)))
    known = [one for one in candidates if -rank <= one < rank and isinstance(sizes[one], int)]
    fitting = [one for one in known if sizes[one] == len(names)]
    if fitting:
        return fitting[0] if axis is None and rank > 2 and len(fitting) == 1 and field == "index" else axis
    # Of several axes, an open one may be that of boxes or of pixels.
    told = rank <= 2 or axis is not None
    if told and len(known) < len(candidates) and output in (None, graph.default_output):
        return axis
    raise TargetError(
        f"the {len(names)} class names that the model stores do not name the elements of {tensor.name!r} {sizes}. "
        "Fix: give an index or a position"
    )


def _holds_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "US" or (
            value.dtype == object and any(isinstance(one, str) for one in value.flat)
        )
    return isinstance(value, (list, tuple)) and any(_holds_text(one) for one in value)


def _indices(value: Any, names: Sequence[str] | None) -> Any:
    """Indices in the place of names, of one name or nested lists of them."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_indices(one, names) for one in value]
    if not isinstance(value, str):
        return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else value
    try:
        found = find_class(value, names)
    except TargetError as error:
        raise TargetError(f"target {value!r}: {error}") from error
    if found is None:
        raise TargetError(f"target {value!r}: {unknown_class(value, names)}")
    return found


def _plain(text: str) -> str:
    """A text in small letters, with single blanks in place of dashes and underscores."""
    return " ".join(re.sub(r"[\s_-]+", " ", text.lower()).split())
