"""What a user installs: bounds of versions, extras that messages name, files for GitHub, pre-commit and citations."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from analyzer.cli.commands import NAMES, Deferred
from converters.system.extras import install
from tests.analyzer.cli.conftest import classifier

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = set(NAMES)
OPTIONS = {
    name: {option for parameter in Deferred(name).loaded.params for option in parameter.opts}
    for name in NAMES
}


def test_no_dependency_of_users_has_an_upper_bound() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["torch"], *extras["tensorflow"], *extras["segments"]]
    assert needed and not [one for one in needed if re.search(r"<|==|~=|!=", one)]


def test_the_oldest_versions_are_those_of_the_project() -> None:
    bounds = runpy.run_path(str(ROOT / ".ci" / "lower_bounds.py"))["lower_bounds"]()
    assert [one.replace("==", ">=") for one in bounds] == PROJECT["dependencies"]
    listed = (ROOT / ".ci" / "core_tests.txt").read_text(encoding="utf-8").split()
    assert listed and all((ROOT / path).is_file() for path in listed)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("constraints.txt", "lower_bounds.py", "core_tests.txt"):
        assert f".ci/{name}" in script and (ROOT / ".ci" / name).is_file()


def test_every_extra_that_a_message_names_exists() -> None:
    named = set()
    for path in [*(ROOT / "analyzer").rglob("*.py"), *(ROOT / "converters").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert path.name == "extras.py" or "onnxplain[" not in text, f"{path} writes the command itself"
        named |= set(re.findall(r"\binstall\([\"'](\w+)[\"']\)", text))
    assert {"torch", "demo", "segments"} <= named <= set(PROJECT["optional-dependencies"])
    assert (
        install("torch") == 'pip install "onnxplain[torch]" (in a checkout: python -m pip install ".[torch]")'
    )


def test_the_action_runs_commands_that_exist() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite" and action["inputs"]["model"]["required"]
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert scripts and not any("${{" in script for script in scripts)
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    used = {name for script in scripts for name in re.findall(r"\b(check|compare)\b", script)}
    assert used == {"check", "compare"} <= COMMANDS
    given = {name.replace("-", "_") for name in action["inputs"]}
    asked = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert {name.replace("-", "_") for name in asked} == given


@pytest.mark.parametrize(("scale", "status"), [(1.0, 0), (1.5, 1)])
def test_the_action_gates_a_port(tmp_path: Path, scale: float, status: int) -> None:
    onnx.save(classifier(), tmp_path / "a.onnx")
    port = classifier()
    (bias,) = (one for one in port.graph.initializer if one.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * scale, "b"))
    onnx.save(port, tmp_path / "b.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((1, 3, 16, 16), np.float32))
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = (step for step in action["runs"]["steps"] if step.get("name") == "Compare")
    head = f"""
set -e
onnxplain() {{ "{sys.executable}" -c "import sys; sys.path.insert(0, '{ROOT}'); from analyzer.cli.app import main; \\
sys.exit(main())" "$@"; }}
MODEL=a.onnx PORT=b.onnx INPUTS=x.npy ARGUMENTS="--steps 1 --no-referee"
RUNNER_TEMP="{tmp_path}" GITHUB_STEP_SUMMARY="{tmp_path}/summary.md"
"""
    done = subprocess.run(["bash", "-c", head + step["run"]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("### onnxplain compare") and ("bias scaled by 1.5" in summary) == bool(status)
    assert {path.name for path in (tmp_path / "onnxplain").iterdir()} == {
        "onnxplain.xml", "onnxplain.html", "onnxplain.txt",
    }  # fmt: skip


def test_the_hook_runs_a_command_that_exists_on_onnx_files() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    program, command, *options = hook["entry"].split()
    assert program in PROJECT["scripts"] and command in COMMANDS and hook["language"] == "python"
    assert all(option in OPTIONS[command] for option in options)
    assert re.search(hook["files"], "models/a.onnx") and not re.search(hook["files"], "a.onnx.md")


def test_the_citation_names_this_release() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert all((ROOT / package / "py.typed").is_file() for package in ("analyzer", "converters", "onnxplain"))
