"""What an import loads, and what the core install can do alone. Each claim is tried in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from onnx import helper, numpy_helper, save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BLOCKER = """
import sys
from importlib import metadata
allowed = set({allowed!r})
owners = metadata.packages_distributions()
class OnlyCore:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        distributions = {{d.lower().replace("_", "-") for d in owners.get(top, ())}}
        if distributions and not distributions & allowed:
            raise ModuleNotFoundError(f"not in the core install: {{top}}", name=top)
sys.meta_path.insert(0, OnlyCore())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def core_distributions() -> set[str]:
    """The distributions that `pip install onnxplain` brings, extras left out."""
    found: set[str] = set()
    stack = ["onnxplain"]
    while stack:
        name = canonicalize_name(stack.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # A requirement of another platform.
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                stack.append(requirement.name)
    return found


@pytest.mark.parametrize(
    "package", ["converters", "analyzer", "onnxplain", "analyzer.cli", "analyzer.testing"]
)
def test_import_loads_no_framework(package):
    loaded = run(f"import sys, json, {package}; print(json.dumps(sorted(sys.modules)))")
    assert loaded.returncode == 0, loaded.stderr
    modules = {name.partition(".")[0] for name in json.loads(loaded.stdout)}
    assert not modules & {"torch", "tensorflow", "keras", "tf2onnx", "ray", "pyarrow", "pyspark", "pandas"}


@pytest.fixture
def onnx_file(tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(size=4).astype(np.float32),
        "d": rng.normal(size=(4, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["batch", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "classifier.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


ANALYZE = """
import numpy as np
from analyzer import full_grad, integrated_gradients
x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32")
fg = full_grad(sys.argv[1], x, target=3)
ig = integrated_gradients(sys.argv[1], x, target=3, steps=50)
assert fg.map.shape == (2, 8, 8), fg.map.shape
assert fg.completeness.error.max() < 1e-4, fg.completeness
assert abs(ig.delta).max() < 0.05 * abs(ig.completeness.output).max(), ig.delta
assert not {"torch", "tensorflow"} & set(sys.modules)
print("analyzed")
"""


def test_core_install_analyzes_an_onnx_file(onnx_file):
    result = run(BLOCKER.format(allowed=sorted(core_distributions())) + ANALYZE, str(onnx_file))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "analyzed"


def test_missing_framework_names_its_extra(onnx_file):
    code = BLOCKER.format(allowed=sorted(core_distributions())) + (
        "from analyzer import AnalysisError, differentiate\n"
        "for name in ('torch', 'tensorflow'):\n"
        "    try: differentiate(sys.argv[1], backend=name)\n"
        "    except AnalysisError as error: print(error)\n"
    )
    result = run(code, str(onnx_file))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert 'pip install "onnxplain[torch]"' in lines[0]
    assert 'pip install "onnxplain[tensorflow]"' in lines[1]


def test_onnxplain_has_the_public_names_of_both_packages():
    import analyzer
    import converters
    import onnxplain as ox

    for package in (analyzer, converters):
        for name in package.__all__:
            assert getattr(ox, name) is getattr(package, name)
            assert name in ox.__all__
    assert not set(analyzer.__all__) & set(converters.__all__)
    assert ox.__version__ == metadata.version("onnxplain")


def test_python_m_onnxplain_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "onnxplain", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "inspect" in done.stdout
