"""Watch a PyTorch module run, and change how gradients pass the places that an export does not keep.

A passage is a call of an autograd.Function, a `detach` (or `.data`), a block under `no_grad`, or a gradient hook, each
with a tensor that has a gradient. A passage that is kept runs as it is; any other one is differentiated as it is
exported: a Function by the ops of its forward pass, the others as if they were not there. Passages of one line and
one module, such as those of a loop, count as one.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest.mock import patch

SourceLine = tuple[str, int]

FUNCTION, DETACH, NO_GRAD, HOOK = "autograd.Function", "detach", "torch.no_grad", "gradient hook"
# An export keeps the frames of functions called `forward` alone.
_FRAME = re.compile(r'File "(.+?)", line (\d+), in forward\b')


@dataclass(frozen=True)
class Passage:
    """A place that an export does not keep. name: of the Function or hook; module: its path, "" for the whole."""

    kind: str
    name: str
    module: str
    lines: tuple[SourceLine, ...]

    def __str__(self) -> str:
        named = f"{self.kind} {self.name!r}" if self.name else self.kind
        module = f" of module {self.module!r}" if self.module else ""
        line = f" ({os.path.basename(self.lines[-1][0])}:{self.lines[-1][1]})" if self.lines else ""
        return f"{named}{module}{line}"


@dataclass(frozen=True)
class PassageOp:
    """An op of a passage. lines: of the functions called `forward` that lead to it; count: of the same name on these
    lines before it; order: among all of its name.
    """

    module: str
    lines: tuple[SourceLine, ...]
    name: str
    count: int
    order: int


@dataclass
class Watch:
    """A run of a module. kept: the passages whose own backward pass counts; leaves: the embedding lookups."""

    torch: Any
    paths: Mapping[Any, str]
    kept: frozenset[Passage]
    embedded: bool
    passages: dict[Passage, dict[PassageOp, None]] = field(default_factory=dict)
    leaves: dict[str, Any] = field(default_factory=dict)
    inside: list[Passage] = field(default_factory=list)
    entered: tuple[SourceLine, ...] = ()
    counts: dict[tuple[str, tuple[SourceLine, ...], str], int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensor, aten = self.torch.Tensor, self.torch.ops.aten
        self._detaching = {
            *(tensor.detach, tensor.detach_, tensor.data.__get__, self.torch.detach),
            *(aten.detach.default, aten.detach_.default, self.torch.detach_copy),
        }

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """Run one op."""
        torch = self.torch
        if function is torch._C._set_grad_enabled:
            self.entered = self.entered if arguments[0] else _place(self.paths).lines
            return function(*arguments, **keywords)
        name = _op_name(function)
        if name == "__get__" and function not in self._detaching:
            return function(*arguments, **keywords)
        place = _place(self.paths)
        like = (place.module, place.forward, name)
        self.counts[like] = self.counts.get(like, 0) + 1
        self.totals[name] = self.totals.get(name, 0) + 1
        if self.inside:
            self._note(self.inside[-1], function)
        if function is torch.nn.functional.embedding and self.embedded:
            return self._looked_up(function(*arguments, **keywords))
        if function in self._detaching:
            if not _has_gradient(torch, arguments[:1]):
                return function(*arguments, **keywords)
            return arguments[0] if self.neutral(DETACH, function) else function(*arguments, **keywords)
        hooked = function is torch.Tensor.register_hook and _has_gradient(torch, arguments[:1])
        if hooked and self.neutral(HOOK, function, _name(arguments[1])):
            return torch.utils.hooks.RemovableHandle(OrderedDict())
        held = not torch.is_grad_enabled() and _has_gradient(torch, (arguments, keywords))
        if held and self.neutral(NO_GRAD, function):
            with torch.enable_grad():
                return function(*arguments, **keywords)
        return function(*arguments, **keywords)

    def neutral(self, kind: str, function: Any, name: str = "") -> bool:
        """Note a passage; return whether it is differentiated as exported."""
        place = _place(self.paths)
        # A block is one passage, whichever modules run in it.
        block = kind == NO_GRAD and self.entered
        passage = Passage(kind, name, "" if block else place.module, self.entered if block else place.lines)
        self._note(passage, function)
        return passage not in self.kept

    def apply(self, function: Any, original: Any, arguments: tuple[Any, ...]) -> Any:
        """Run an autograd.Function. PyTorch's own are trusted."""
        torch = self.torch
        if function.__module__.startswith("torch.") or not _has_gradient(torch, arguments):
            with torch._C.DisableTorchFunction():
                return original(*arguments)
        place = _place(self.paths)
        passage = Passage(FUNCTION, function.__name__, place.module, place.lines)
        self.passages.setdefault(passage, {})
        self.inside.append(passage)
        try:
            if passage in self.kept:
                with torch._C.DisableTorchFunction():
                    return original(*arguments)
            return _as_exported(torch, function, arguments)
        finally:
            self.inside.pop()

    def _note(self, passage: Passage, function: Any) -> None:
        place = _place(self.paths)
        name = _op_name(function)
        count = self.counts.get((place.module, place.forward, name), 0)
        op = PassageOp(place.module, place.forward, name, count - 1, self.totals[name] - 1)
        self.passages.setdefault(passage, {})[op] = None

    def _looked_up(self, found: Any) -> Any:
        if found.requires_grad or not found.is_floating_point():
            return found
        leaf = found.detach().requires_grad_()
        self.leaves[f"embedding {len(self.leaves) + 1}"] = leaf
        return leaf.clone()


class _Context:
    """What a Function keeps for its backward pass, which is not run."""

    def __init__(self, count: int) -> None:
        self.needs_input_grad = (True,) * count
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def _ignore(self, *arguments: Any) -> None:
        """Nothing depends on it."""

    mark_dirty = mark_non_differentiable = set_materialize_grads = save_for_forward = _ignore


def _as_exported(torch: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    """The ops of a Function's forward pass, under autograd."""
    separate = function.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context
    with torch.enable_grad():
        return (
            function.forward(*arguments)
            if separate
            else function.forward(_Context(len(arguments)), *arguments)
        )


@contextlib.contextmanager
def watching(torch: Any, module: Any, kept: Sequence[Passage], *, embedded: bool) -> Iterator[Watch]:
    """Watch what runs inside. embedded: whether embedding lookups are leaves."""
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return watch.call(func, args, kwargs or {})

    level = torch.autograd.function._SingleLevelFunction

    def apply(cls: Any, *arguments: Any, **keywords: Any) -> Any:
        def original(*given: Any) -> Any:
            return super(level, cls).apply(*given, **keywords)

        return watch.apply(cls, original, arguments)

    watch = Watch(torch, {part: path for path, part in module.named_modules()}, frozenset(kept), embedded)
    inference = torch.autograd.grad_mode.inference_mode
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(level, "apply", classmethod(apply), create=True))
        # A tensor of inference mode has no gradient at all; under no_grad it has the same, zero.
        for method in ("__init__", "__enter__", "__exit__"):
            stack.enter_context(patch.object(inference, method, getattr(_no_grad(torch), method)))
        for part, path in watch.paths.items():
            stack.enter_context(_hooks(watch, part, path))
        stack.enter_context(Mode())
        yield watch


def _no_grad(torch: Any) -> Any:
    """torch.no_grad under the signature of inference_mode."""

    class NoGrad:
        def __init__(self, mode: bool = True) -> None:
            self.mode = mode

        def __enter__(self) -> None:
            self.prev = torch.is_grad_enabled()
            torch._C._set_grad_enabled(self.prev and not self.mode)

        def __exit__(self, *error: object) -> None:
            torch._C._set_grad_enabled(self.prev)

    return NoGrad


@contextlib.contextmanager
def _hooks(watch: Watch, part: Any, path: str) -> Iterator[None]:
    """Leave out the backward hooks of a module, unless they are kept."""
    names = [name for name in ("_backward_hooks", "_backward_pre_hooks") if getattr(part, name, None)]
    if not names:
        yield
        return
    first = next(iter(getattr(part, names[0]).values()))
    passage = Passage(HOOK, _name(first), path, ())
    watch.passages[passage] = {}
    with contextlib.ExitStack() as stack:
        for name in names if passage not in watch.kept else ():
            stack.enter_context(patch.object(part, name, OrderedDict()))
        yield


def nodes_of(program: Any, watch: Watch) -> dict[Passage, dict[str, str]]:
    """Return the nodes of an exported program that come from each passage, by the lines of code they come from.

    Each node has the name of the node that it reads first.
    """
    # Constants of an op are nodes without inputs.
    nodes = [node for node in program.graph.nodes if node.op == "call_function" and node.all_input_nodes]
    at_lines: dict[tuple[str, tuple[SourceLine, ...]], list[Any]] = {}
    by_name: dict[str, list[Any]] = {}
    for node in nodes:
        stack = node.meta.get("nn_module_stack") or {"": ("",)}
        lines = [(name, int(line)) for name, line in _FRAME.findall(node.meta.get("stack_trace") or "")]
        at_lines.setdefault((str(list(stack.values())[-1][0]), _own(lines)), []).append(node)
        by_name.setdefault(_target(node), []).append(node)

    def near(op: PassageOp, kind: str) -> Sequence[Any]:
        here = at_lines.get((op.module, op.lines), [])
        if kind == FUNCTION:
            return here
        alike = [node for node in here if _target(node) == op.name]
        if alike:
            return alike[op.count : op.count + 1] if op.count < len(alike) else alike
        # The program of a file runs from lines of its own: the same ops come in the same order.
        alike = by_name.get(op.name, [])
        return alike[op.order : op.order + 1] if len(alike) == watch.totals[op.name] else []

    found = {
        passage: [n for op in ops for n in near(op, passage.kind)] for passage, ops in watch.passages.items()
    }
    for passage in found:
        if passage.kind == HOOK and not passage.lines:
            inside = [
                node for (path, _), nodes in at_lines.items() if path == passage.module for node in nodes
            ]
            found[passage] = inside[-1:]
    return {
        passage: {node.name: node.all_input_nodes[0].name for node in nodes}
        for passage, nodes in found.items()
    }


def _target(node: Any) -> str:
    """The name of a node's op, such as "tanh"."""
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]


def _has_gradient(torch: Any, values: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves(values)
    return any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)


def _op_name(function: Any) -> str:
    """The name of an op, such as "tanh" of torch.tanh_ or aten.tanh.default."""
    return str(getattr(function, "__name__", "")).partition(".")[0].removesuffix("_")


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


@dataclass(frozen=True)
class _Place:
    """The innermost module that runs, the lines of the user's code that lead to it, and those in `forward` alone."""

    module: str
    lines: tuple[SourceLine, ...]
    forward: tuple[SourceLine, ...]


def _place(paths: Mapping[Any, str]) -> _Place:
    frame: FrameType | None = sys._getframe(1)
    lines, forward, module = list[SourceLine](), list[SourceLine](), None
    while frame is not None and frame.f_code.co_filename != _RUNNER:
        lines.append((frame.f_code.co_filename, frame.f_lineno))
        if frame.f_code.co_name == "forward":
            forward.append(lines[-1])
        # PyTorch calls every module by this function.
        elif frame.f_code.co_name == "_call_impl" and module is None:
            module = paths.get(frame.f_locals.get("self"))
        frame = frame.f_back
    return _Place(module or "", _own(reversed(lines)), _own(reversed(forward)))


_HERE = os.path.dirname(os.path.abspath(__file__))
_RUNNER = os.path.join(_HERE, "torch_backward.py")


def _own(lines: Iterable[SourceLine]) -> tuple[SourceLine, ...]:
    """The lines outside of PyTorch and of this package."""
    outside = (os.path.join("torch", ""), _HERE)
    return tuple(line for line in lines if not _within(line[0], outside))


def _within(name: str, folders: tuple[str, ...]) -> bool:
    return f"{os.sep}{folders[0]}" in name or name.startswith(folders[1])
