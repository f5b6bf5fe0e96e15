"""Every error of both packages names a fix: its message holds "Fix: ", whichever way it is built.

Walks the syntax trees. The message of a raise is followed through the literals, constants, variables and functions that
it is built from. Where it has several forms, as in a conditional expression, each form must name a fix.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("converters", "analyzer")
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
FIX = "Fix: "

# Exceptions that another part of the package catches: no user sees their message.
INTERNAL = {
    "Opaque": "a pattern of converters/passes/joins does not match",
    "Undetermined": "an expansion of converters/passes/fused waits for a shape",
    "Unknown": "analyzer/graph/samples has no rule that follows the samples",
    "UnknownSize": "analyzer/placement has no rule that follows the positions",
    "Unread": "HubFolder stores it as the reason, and load_images adds a fix",
    "Stopped": "a trial on noise ends, and its question stays open",
    "RuntimeFailure": "the callers of converters/graph/runtime.py raise an error with a fix",
    "WorkerEnded": "ProcessEngine starts another worker, and raises WorkerLost in the end",
    "Exit": "typer: the exit status, after the message",
    "_Ended": "analyzer/cli: a signal",
    "KeyboardInterrupt": "an interrupt, which the command line tells",
    "BlockingIOError": "explain of analyzer/data/dataset.py says that another run holds the lock",
    "KeyError": "the protocol of a mapping",
    "OSError": "an error of the system; the command line adds a fix",
}
# Modules whose built-in errors do not reach a user: who catches them.
CAUGHT = {
    "analyzer/explainer/description.py": "the same module",
    "analyzer/data/array_files.py": "read_array and read_arrays of the command line",
    "analyzer/data/parts.py": "the same module",
    "analyzer/graph/samples/follow.py": "the same module",
    "analyzer/ops/registry.py": "a developer, when the package is imported",
    "converters/validation/fields.py": "the same module",
    "converters/graph/builder.py": "a developer, who writes a rule or an expansion",
    "converters/graph/expansion.py": "a developer, when the package is imported",
    "converters/metadata.py": "Model.preprocessing and set_metadata",
}
BUILTIN = frozenset({"AttributeError", "TypeError", "ValueError"})
# (module, function): why its raise names no fix.
EXEMPT = {
    ("analyzer/backends/differentiable.py", "__getattr__"): "the words of Python for an unknown attribute",
    ("analyzer/data/engines/ordered.py", "in_order"): "an error of the source again",
    ("analyzer/data/engines/ray.py", "_taken"): "an error of the explainer again",
    ("analyzer/data/engines/reading.py", "next"): "an error of the source again",
    ("analyzer/data/engines/worker.py", "explain"): "an error of the explainer again",
    ("analyzer/data/job.py", "_take"): "the reason of a failed sample, which names a fix",
    ("analyzer/data/job.py", "run"): "an interrupt, which says how to continue",
    ("analyzer/images/load.py", "sample"): "the message of read_pixels or preprocess, which names a fix",
    ("analyzer/cli/targets.py", "_known"): "the message of a TargetError, which names a fix",
    ("analyzer/backends/networks.py", "model_in_layout_of"): "an error of `convert` again",
    ("analyzer/__init__.py", "__getattr__"): "the words of Python for an unknown attribute",
    ("analyzer/checks/report.py", "raise_for_disagreement"): "the verdict of a check",
    ("analyzer/testing.py", "_candidates"): "an error of `convert` again",
    ("analyzer/testing.py", "assert_equivalent"): "the verdict of a check, as a table",
    ("converters/sources/files.py", "read_onnx"): "the message of Budget.exceeded, which names a fix",
    ("converters/graph/runtime.py", "run"): "an error of the runtime again",
    ("converters/sources/torch_backward.py", "compared"): "caught by own_backward",
    (
        "converters/sources/torch_backward.py",
        "own_backward",
    ): "a report states it as the reason why a side is left out",
}
# An error of these holds a fix already, and so does one that repeats its message.
OURS = frozenset(
    {"AnalysisError", "ConversionError", "InputError", "TargetError", "UnsupportedOp", "VerificationFailed"}
)


class Source:
    """The syntax tree of a module, and its names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        self.functions = {
            node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)
        }
        parts = Path(name).with_suffix("").parts
        self.module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))

    def raises(self) -> Iterator[tuple[ast.FunctionDef | None, ast.Raise]]:
        """Every raise of an exception, with the innermost function around it."""
        waiting: list[tuple[ast.AST, ast.FunctionDef | None]] = [(self.tree, None)]
        while waiting:
            node, function = waiting.pop()
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield function, node
            inner = node if isinstance(node, ast.FunctionDef) else function
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]

    def has_fix(self, node: ast.AST | None, function: ast.FunctionDef | None, depth: int = 0) -> bool:
        """Whether a text, or an error that holds it, names a fix in each of its forms."""
        if depth > 8:
            return False
        match node:
            case ast.Constant(value=str(text)):
                return FIX in text
            case ast.JoinedStr(values=parts):
                return any(self.has_fix(part, function, depth) for part in parts)
            case ast.FormattedValue(value=value) | ast.Starred(value=value) | ast.NamedExpr(value=value):
                return self.has_fix(value, function, depth)
            case ast.BinOp(left=left, right=right):
                return self.has_fix(left, function, depth) or self.has_fix(right, function, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return self.has_fix(body, function, depth) and self.has_fix(orelse, function, depth)
            case ast.Name(id=name):
                return self._variable(name, function, depth)
            case ast.Call(func=called, args=arguments):
                given = any(self.has_fix(argument, function, depth) for argument in arguments)
                return given or self._made(called, function, depth)
        return False

    def _variable(self, name: str, function: ast.FunctionDef | None, depth: int) -> bool:
        """The same of a variable of the function, else of a constant of the module."""
        values = [
            node.value
            for node in ast.walk(function or ast.Module([], []))
            if isinstance(node, ast.Assign | ast.NamedExpr)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and target.id == name
        ]
        if values:
            return all(self.has_fix(value, function, depth + 1) for value in values)
        return _states_fix(getattr(self.module, name, None))

    def _made(self, called: ast.expr, function: ast.FunctionDef | None, depth: int) -> bool:
        """The same of what a function of the packages returns, or a dict of texts holds."""
        match called:
            case ast.Name(id="with_fix") | ast.Attribute(attr="refuse" | "with_fix"):
                return True  # They add one: see the test below.
            case ast.Attribute(value=ast.Name(id=owner), attr="get"):
                return _states_fix(getattr(self.module, owner, None))
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if isinstance(
                getattr(self.module, owner, None), ModuleType
            ):
                return _returns_fix(getattr(getattr(self.module, owner), name), depth)
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in self.functions:
                return self.returns_fix(self.functions[name], depth)
            case ast.Name(id=name):
                return _returns_fix(getattr(self.module, name, None), depth)
        return False

    def returns_fix(self, function: ast.FunctionDef, depth: int) -> bool:
        """Whether every text or error that a function returns names a fix."""
        values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
        texts = [value for value in values if not (isinstance(value, ast.Constant) and value.value is None)]
        return bool(texts) and all(self.has_fix(value, function, depth + 1) for value in texts)


def _states_fix(known: object) -> bool:
    values = list(known.values()) if isinstance(known, Mapping) else [known]
    return all(isinstance(value, str) and FIX in value for value in values)


def _returns_fix(known: object, depth: int) -> bool:
    home = getattr(known, "__module__", None) or ""
    if isinstance(known, type) or home.partition(".")[0] not in PACKAGES:
        return False
    path = ROOT.joinpath(*home.split("."))
    source = source_of(
        (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).relative_to(ROOT).as_posix()
    )
    function = source.functions.get(getattr(known, "__name__", ""))
    return function is not None and source.returns_fix(function, depth)


@cache
def source_of(name: str) -> Source:
    """The source of a module, read once."""
    return Source(name)


def name_of(raised: ast.expr) -> str:
    """The name of the exception, or of the function that makes it."""
    called = raised.func if isinstance(raised, ast.Call) else raised
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def repeats(tree: ast.AST, raised: ast.Raise) -> bool:
    """Whether a raise repeats the message of the error of ours that it catches."""
    handlers = [
        node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and raised in ast.walk(node)
    ]
    caught = {
        n.id
        for handler in handlers
        if handler.type
        for n in ast.walk(handler.type)
        if isinstance(n, ast.Name)
    }
    read = {node.id for node in ast.walk(raised.exc) if isinstance(node, ast.Name)}
    return bool(caught) and caught <= OURS and not read.isdisjoint(handler.name for handler in handlers)


@pytest.mark.parametrize("name", MODULES)
def test_every_raise_names_a_fix(name):
    source, missing = source_of(name), []
    for function, raised in source.raises():
        kind, where = name_of(raised.exc), function.name if function else ""
        if kind in INTERNAL or (name, where) in EXEMPT or (kind in BUILTIN and name in CAUGHT):
            continue
        if not source.has_fix(raised.exc, function) and not repeats(source.tree, raised):
            missing.append(f"{name}:{raised.lineno}: {ast.unparse(raised)[:160]}")
    assert not missing, "\n".join(["name a fix, as in 'expected X, got Y. Fix: do Z':", *missing])
