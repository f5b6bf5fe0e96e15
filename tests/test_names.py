"""One word per concept: no two modules define a public class or type of the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx.defs
import pytest

from analyzer import errors

PACKAGES = ("analyzer", "converters", "onnxplain")
ROOT = Path(__file__).parents[1]

# The class of an op has the op's name, whatever else has it: analyzer/ops, and the kernels of converters/graph.
OPS = {schema.name for schema in onnx.defs.get_all_schemas()}

ALLOWED: dict[str, str] = {}
"""{name: the reason why two modules define it}."""


def defined(source: str) -> Iterator[str]:
    """Yield the public classes and type aliases of a module. A type's name is in CapWords, a constant's is not."""
    for node in ast.parse(source).body:
        names: list[str] = []
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def homonyms(modules: dict[str, str]) -> dict[str, list[str]]:
    """Return {name: modules} of every name that several of the modules, {path: source}, define."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, source in modules.items():
        for name in defined(source):
            if name not in OPS:
                found[name].append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_two_modules_define_the_same_name():
    modules = {
        path: (ROOT / path).read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted(str(file.relative_to(ROOT)) for file in (ROOT / package).rglob("*.py"))
    }
    assert len(modules) > 200

    found = homonyms(modules)
    assert found.keys() == ALLOWED.keys(), {
        name: found.get(name, "one module alone") for name in found.keys() ^ ALLOWED
    }


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("class Axis: ...", "class Axis: ...", {"Axis"}),
        ("class Axis: ...", "Axis = tuple[str, int]", {"Axis"}),
        ("Arrays = dict", "Arrays: TypeAlias = dict", {"Arrays"}),
        ("class _Axis: ...", "class _Axis: ...", set()),
        ("class Axis: ...", "from a import Axis", set()),
        ("MOST = 1", "MOST = 2", set()),
        ("class Shape: ...", "Shape = tuple", set()),
    ],
)
def test_homonyms_are_found_in_whatever_way_they_are_defined(a, b, same):
    assert homonyms({"a": a, "b": b}).keys() == same


def test_the_error_that_had_a_homonym_keeps_its_old_name_for_one_release():
    with pytest.warns(DeprecationWarning, match="MissingDependency"):
        old = errors.MissingFramework
    assert old is errors.MissingDependency
    with pytest.raises(AttributeError, match="NoSuchError"):
        _ = errors.NoSuchError
