"""Write the standard nodes that take the place of one fused node, as if calling functions: `op.Add(x, bias)`.

An expansion is a function `(op, *inputs, **attributes) -> tensor name, or a tuple of them`. Inputs are
tensor names, None where omitted; attributes are keywords, those that the node states. What an expansion's
signature does not take is refused by name, and so is an output that it does not return.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from converters.errors import InvalidModel, UnsupportedModel
from converters.graph.builder import NodeBuilder
from converters.graph.mutable import MutableGraph

Expansion = Callable[..., Any]

EXPANSIONS: dict[tuple[str, str], Expansion] = {}
"""The expansion of each fused op, by (domain, op type)."""

MICROSOFT = "com.microsoft"
_CUT = "Fix: export the model without this step, and explain the tensor before it"
# How to fix a node that has no standard form, by its domain.
_FIXES = {MICROSOFT: "Fix: give the model as it was before ONNX Runtime or a quantizer rewrote it"}


class Undetermined(Exception):
    """A type or rank that the expansion depends on is not inferred yet."""


def expands(op_type: str, domain: str = MICROSOFT) -> Callable[[Expansion], Expansion]:
    """Enter the expansion of an op. A second one is refused."""

    def enter(expansion: Expansion) -> Expansion:
        if (domain, op_type) in EXPANSIONS:
            raise ValueError(f"{domain}.{op_type} is expanded twice")
        EXPANSIONS[domain, op_type] = expansion
        return expansion

    return enter


class Expander(NodeBuilder[str]):
    """Collects the nodes of one expansion. Tensors are names; numbers take the type of the first tensor."""

    def __init__(self, draft: MutableGraph, node: onnx.NodeProto) -> None:
        super().__init__()
        self.draft = draft
        self.node = node

    def is_tensor(self, value: Any) -> bool:
        """Return whether an argument is the name of a tensor."""
        return isinstance(value, str)

    def like(self, arguments: Sequence[Any]) -> str | None:
        """Return the first tensor among the arguments."""
        return next((argument for argument in arguments if isinstance(argument, str)), None)

    def number(self, value: float, like: Any) -> str:
        """Return a Python number in the type of the tensor `like`, which may not be known yet."""
        assert like is not None, "a number takes the type of a tensor among the arguments"
        return str(self.CastLike(self.constant(np.asarray(value, np.float32)), like))

    def constant(self, array: np.ndarray) -> str:
        """Enter a constant into the mutable graph."""
        name = self.fresh("constant")
        self.draft.constants[name] = array
        return name

    def fresh(self, stem: str) -> str:
        """Return a name that the mutable graph does not have yet."""
        return self.draft.fresh(f"{self.node.output[0]}.{stem}")

    def name_of(self, tensor: str) -> str:
        """Return the name itself."""
        return tensor

    def results(
        self, op_type: str, inputs: Sequence[str | None], names: Sequence[str], attributes: dict[str, Any]
    ) -> Sequence[str]:
        """Return the names of the outputs."""
        return names

    def value(self, name: str) -> np.ndarray | None:
        """The value of a constant input."""
        return self.draft.constants.get(name)

    def rank(self, name: str) -> int:
        """The number of axes. Raises Undetermined."""
        shape = self.draft.shape(name)
        if shape is None:
            raise Undetermined(f"the rank of {name!r} is unknown")
        return len(shape)

    def size(self, name: str, axis: int) -> int:
        """The size of one axis. Raises Undetermined."""
        shape = self.draft.shape(name)
        if shape is not None and not -len(shape) <= axis < len(shape):
            raise InvalidModel(
                f"node {self.node.name or self.node.output[0]!r} ({self.node.op_type}): expected an axis of a tensor "
                f"of {len(shape)} axes, got {axis}. Fix: export the model again"
            )
        size = None if shape is None else shape[axis]
        if not isinstance(size, int):
            raise Undetermined(f"axis {axis} of {name!r} has no known size")
        return size

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of a tensor. Raises Undetermined."""
        constant, known = self.draft.constants.get(name), self.draft.type_of(name)
        if constant is not None:
            return constant.dtype
        if known is None or not known.tensor_type.elem_type:
            raise Undetermined(f"the type of {name!r} is unknown")
        return np.dtype(helper.tensor_dtype_to_np_dtype(known.tensor_type.elem_type))

    def refuse(self, what: str) -> UnsupportedModel:
        """Return the error that names the node, what it holds that has no standard form, and a fix."""
        fix = "" if "Fix: " in what else f". {_FIXES.get(self.node.domain, _CUT)}"
        return UnsupportedModel(f"{describe(self.node)} {what}{fix}")


def describe(node: onnx.NodeProto) -> str:
    """A node, by name and op, for messages."""
    op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"node {(node.name or node.output[0])!r} ({op_type})"


def expand(draft: MutableGraph, node: onnx.NodeProto, expansion: Expansion) -> list[onnx.NodeProto]:
    """Return the nodes that compute what `node` computes, under the names of its outputs that are read.

    Raises UnsupportedModel for a form that the expansion does not take, Undetermined where it must wait.
    """
    op = Expander(draft, node)
    inputs = [name or None for name in node.input]
    while inputs and inputs[-1] is None:
        inputs.pop()
    attributes = {entry.name: _plain(entry) for entry in node.attribute}
    _check(op, expansion, inputs, attributes)
    results = expansion(op, *inputs, **attributes)
    results = (results,) if isinstance(results, str) else results
    sources = {}
    for index, name in enumerate(node.output):
        if name and draft.use_count(name):
            if index >= len(results) or results[index] is None:
                raise op.refuse(f"has output {index} ({name!r}), which has no standard form")
            sources[name] = results[index]
    return _under_own_names(op, sources)


def _under_own_names(op: Expander, sources: Mapping[str, str]) -> list[onnx.NodeProto]:
    """Return the emitted nodes, with the names of the fused node's outputs instead of those of their `sources`."""
    made = {name for new in op.nodes for name in new.output}
    renamed: dict[str, str] = {}
    for name, source in sources.items():
        if source in made and source not in renamed:
            renamed[source] = name
        else:
            op.write("Identity", [source], [name])
    for new in op.nodes:
        for field in (new.input, new.output):
            for position, tensor in enumerate(field):
                field[position] = renamed.get(tensor, tensor)
        new.metadata_props.extend(op.node.metadata_props)
        new.name = op.draft.fresh(f"{op.node.name}/{new.op_type}") if op.node.name else ""
    return op.nodes


def _check(
    op: Expander, expansion: Expansion, inputs: list[str | None], attributes: Mapping[str, Any]
) -> None:
    parameters = list(inspect.signature(expansion).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        named = set(attributes)
    else:
        named = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    strange = sorted(attributes.keys() - named)
    if strange:
        raise op.refuse(
            f"has the attribute {strange[0]}={attributes[strange[0]]!r}, which has no standard form"
        )
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(inputs) > len(positional) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        extra = next(name for name in inputs[len(positional) :] if name)
        raise op.refuse(f"has the input {inputs.index(extra)} ({extra!r}), which has no standard form")
    try:
        inspect.signature(expansion).bind(op, *inputs, **attributes)
    except TypeError as error:
        raise op.refuse(f"is incomplete: {error}") from error


def _plain(entry: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if entry.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
