"""The pytest plugin: models that differ and explanations that changed fail a test, and nothing is imported before."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# pytester forgets the modules that a run imports; NumPy refuses to be imported twice.
import analyzer.stored
import analyzer.testing  # noqa: F401

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
MODELS = """
import numpy as np
import onnx
from onnx import helper, numpy_helper

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)

def model(scale=1.0):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    info = lambda name, size: helper.make_tensor_value_info(name, 1, ["n", size])
    weights = numpy_helper.from_array(W * np.float32([scale, 1, 1]), "w")
    graph = helper.make_graph(nodes, "g", [info("x", 4)], [info("y", 3)], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "onnxplain_pytest", "-p", "no:cacheprovider", *arguments)


def test_two_models_that_differ_fail_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        MODELS
        + """
def test_same(assert_equivalent):
    assert assert_equivalent(model(), model(), X, target=0).passed

def test_other(assert_equivalent):
    assert_equivalent(model(), model(1.5), X, target=0, names=("before", "after"), referee=False)
"""
    )
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*before against after: disagree*", "*differs: weights scaled by 1.5 in slice 0*"]
    )


def test_an_explanation_is_stored_compared_and_accepted(pytester: pytest.Pytester) -> None:
    test = """
import pytest

@pytest.mark.parametrize("method", ["full-grad", "gradient"])
def test_reasons(assert_explanation, method):
    assert_explanation(model({scale}), X, method, target=0)

def test_twice(assert_explanation):
    for target in (1, 2):
        assert_explanation(model({scale}), X, "input-x-gradient", target=target, name=f"class {{target}}")
"""
    path = pytester.makepyfile(test_reasons=MODELS + test.format(scale=1.0))
    missing = run(pytester)
    missing.assert_outcomes(failed=3)
    missing.stdout.fnmatch_lines(["*no explanation is stored at*Fix: run pytest*--onnxplain-update*"])
    assert str(missing.stdout).count("no explanation is stored at") <= 2 * 3  # once more in the summary
    missing.stdout.no_fnmatch_line("*During handling of the above exception*")
    missing.stdout.no_fnmatch_line("*traceback entries are hidden*")
    stored = run(pytester, "--onnxplain-update")
    stored.assert_outcomes(passed=3)
    folder = path.parent / "explanations" / "test_reasons"
    names = {"test_reasons-full-grad.npz", "test_reasons-gradient.npz", "class-1.npz", "class-2.npz"}
    assert {one.name for one in folder.iterdir()} == names
    stored.stdout.fnmatch_lines([f"onnxplain stored {folder}*"])
    run(pytester).assert_outcomes(passed=3)
    # A model that was trained again: its first class has other weights, and so other reasons.
    path.write_text(MODELS + test.format(scale=1.5), encoding="utf-8")
    changed = run(pytester)
    changed.assert_outcomes(passed=1, failed=2)
    changed.stdout.fnmatch_lines(
        [
            "*the explanation is not the stored one*",
            "*sample 0: output, relative L2*is stored, now*",
            "*--onnxplain-update*",
        ]
    )
    run(pytester, "--onnxplain-update").assert_outcomes(passed=3)
    run(pytester).assert_outcomes(passed=3)


def test_the_plugin_imports_nothing_until_it_is_used() -> None:
    code = "import onnxplain_pytest, sys; print(sorted({'onnx', 'numpy', 'analyzer', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["pytest11"] == {"onnxplain_pytest": "onnxplain_pytest"}
    assert settings["tool"]["setuptools"]["py-modules"] == ["onnxplain_pytest"]
