"""check and compare as gates: exit statuses of real processes, tolerances, files for CI servers, the terminal."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

from analyzer.checks import compare
from analyzer.cli.check_view import show_comparison
from analyzer.cli.compare import two_names
from analyzer.cli.settings import ProjectSettings, allowed, read_settings
from analyzer.cli.terminal import MOST_ROWS, Terminal, UserError
from tests.analyzer.cli.conftest import build, classifier
from tests.analyzer.cli.test_process import onnxplain

WRONG = 1.05
# What a slow machine adds to the standard error of a command.
PROGRESS = re.compile(r"^(reading|checking|comparing).*…( \d+ s)?\n", re.MULTILINE)


def said(done):
    """The standard error of a process without its lines of progress."""
    return PROGRESS.sub("", done.stderr)


def channels_last(scale: float = 1.0) -> onnx.ModelProto:
    """The classifier for images (N, 16, 16, 3), its tensors called otherwise; its kernel scaled."""
    proto = classifier()
    weights = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    nodes = [onnx.helper.make_node("Transpose", ["picture"], ["image"], name="move", perm=[0, 3, 1, 2])]
    for node in proto.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"twin/{node.name}"
        nodes.append(copy)
    weights["k"] = weights["k"] * np.float32(scale)
    return build(nodes, [("picture", ["N", 16, 16, 3])], [("logits", ["N", 5])], weights)


@pytest.fixture(scope="module", autouse=True)
def twins(files):
    onnx.save(channels_last(), files / "twin.onnx")
    onnx.save(channels_last(WRONG), files / "wrong.onnx")
    feeds = {"a": np.ones((2, 4), np.float32), "b": np.full((2, 4), 2, np.float32)}
    np.savez(files / "two.npz", **feeds)


def test_twins_pass_and_a_wrong_weight_fails_with_its_reason_last(files):
    done = onnxplain("compare", "plain.onnx", "twin.onnx", "batch.npy", cwd=files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("✓ ") and "all agree" in done.stdout.splitlines()[0]
    assert said(done) == ""
    done = onnxplain("compare", "plain.onnx", "wrong.onnx", "batch.npy", "--junit", "gate.xml", cwd=files)
    assert done.returncode == 1
    assert done.stdout.startswith("✗ ")
    assert said(done).startswith("onnxplain: failed: layer 'h'") and said(done).count("\n") == 1
    assert "Conv 'stem'" in done.stderr and "Conv 'twin/stem'" in done.stderr
    assert "batch.npy[2]" in done.stdout
    assert ElementTree.parse(files / "gate.xml").getroot().get("failures") != "0"


def test_a_check_without_a_second_side_is_not_green(command, monkeypatch, tmp_path):
    monkeypatch.setattr("analyzer.checks.agreement.find_spec", lambda name: None)
    junit = tmp_path / "check.xml"
    status, out, err = command("check", "plain.onnx", "batch.npy", "--junit", junit)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "nothing was compared" in err and 'pip install "onnxplain[torch]"' in err
    assert 'python -m pip install ".[torch]"' in err and "--backends onnxruntime" in err
    assert not junit.exists()
    status, _, _ = command("check", "plain.onnx", "batch.npy", "--backends", "onnxruntime")
    assert status == 0


def test_check_passes_and_fails_by_a_tolerance_of_the_project(files, tmp_path):
    command = (
        "check",
        files / "plain.onnx",
        files / "batch.npy",
        "--backends",
        "onnxruntime,torch",
        "--json",
    )
    done = onnxplain(*command, cwd=tmp_path)
    assert (done.returncode, said(done)) == (0, "")
    (tmp_path / "pyproject.toml").write_text("[tool.onnxplain.tolerances]\nlayer = 1e-12\n")
    done = onnxplain(*command, "--junit", "gate.xml", cwd=tmp_path)
    assert done.returncode == 1
    assert said(done).startswith("onnxplain: failed: layer") and "> 1e-12" in done.stderr
    found = json.loads(done.stdout)
    assert {row["quantity"] for row in found["rows"] if not row["passed"]} == {"layer"}
    cases = ElementTree.parse(tmp_path / "gate.xml").getroot().iter("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    # The backends differ from one another, and each may from the file.
    assert set(failed) == {"layer"} and 1 <= len(failed) <= 3


def test_the_verdict_says_that_it_is_weak(files):
    command = ("compare", "plain.onnx", "wrong.onnx", "batch.npy", "--json")
    done = onnxplain(*command, "--tolerance", "10", cwd=files)
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["tolerances_from"] == "--tolerance 10"
    assert "the tolerance of layer is 10" in document["headline"]
    assert "the tolerance of" not in json.loads(onnxplain(*command, cwd=files).stdout)["headline"]


def test_the_document_of_compare_holds_both_models_and_the_drift(json_of):
    status, found = json_of("compare", "plain.onnx", "wrong.onnx", "batch.npy", "--names", "before,after")
    assert status == 1
    assert (found["command"], found["models"]) == ("compare", ["plain.onnx", "wrong.onnx"])
    assert found["backends"] == ["before", "after"]
    assert found["samples"] == ["batch.npy[0]", "batch.npy[1]", "batch.npy[2]"]
    assert sorted(row["sample"] for row in found["drift"]) == [0, 1, 2]
    assert found["headline"].endswith(found["reason"])
    # The kernel is wrong by 5 %, in float64 as well.
    assert max(row.get("float64", 0) for row in found["rows"]) > 1e-2
    _, found = json_of("compare", "plain.onnx", "wrong.onnx", "batch.npy", "--no-referee")
    assert found["referee"] == "not asked"


def test_wrt_steps_and_backend_reach_the_comparison(json_of):
    command = ("compare", "plain.onnx", "twin.onnx", "batch.npy", "--backend", "torch", "--steps", "2")
    status, found = json_of(*command)
    assert status == 0
    status, found = json_of(*command, "--wrt", "r")
    assert status == 0
    assert [row["tensor"] for row in found["rows"] if row["quantity"] == "input gradient"] == ["r"]
    assert not [row for row in found["rows"] if row["quantity"] == "integrated gradients"]


def test_check_takes_wrt_and_no_referee(json_of):
    command = ("check", "plain.onnx", "batch.npy", "--backends", "onnxruntime,torch", "--tolerance", "1e-12")
    status, found = json_of(*command, "--wrt", "r", "--no-referee")
    assert status == 1 and found["referee"] == "not asked"
    assert {row["tensor"] for row in found["rows"] if row["quantity"] == "input gradient"} == {"r"}
    _, found = json_of(*command, "--referee")
    assert found["referee"] == "torch, float64"
    assert any(row.get("nearer") for row in found["rows"])


def test_inputs_are_paired_as_told(json_of, files):
    difference = build(
        [onnx.helper.make_node("Sub", ["a", "b"], ["y"], name="minus")],
        [("a", ["N", 4]), ("b", ["N", 4])],
        [("y", ["N", 4])],
        {},
    )
    onnx.save(difference, files / "minus.onnx")
    command = ("compare", "minus.onnx", "minus.onnx", "two.npz", "--target", "0")
    status, found = json_of(*command)
    assert status == 0 and found["backends"] == ["minus (a)", "minus (b)"]
    status, _ = json_of(*command, "--pair", "a=b", "--pair", "b=a")
    assert status == 1


def test_names_are_those_of_the_files_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert two_names(None, "nets/first.onnx", "nets/second.keras") == ("first", "second")
    assert two_names(None, "old/model.onnx", "new/model.onnx") == ("old/model", "new/model")
    assert two_names(None, "nets:make_torch", "nets:make_keras") == ("make_torch", "make_keras")
    assert two_names(None, "one.onnx", "./one.onnx") == ("one (a)", "one (b)")
    assert two_names("x, y", "a.onnx", "b.onnx") == ("x", "y")
    for wrong in ("x", "x,x", "x,y,z"):
        with pytest.raises(UserError, match="two different names"):
            two_names(wrong, "a.onnx", "b.onnx")


def test_the_command_line_goes_over_the_project_and_that_over_the_default(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.onnxplain]\nsteps = 3\nbackends = ["torch"]\nreferee = false\n'
        '[tool.onnxplain.tolerances]\nlayer = 1e-2\n"full grad" = 1e-3\ncompleteness = 1e-5\n'
    )
    inner = tmp_path / "package" / "models"
    inner.mkdir(parents=True)
    # A pyproject.toml that says nothing of onnxplain is another tool's.
    (tmp_path / "package" / "pyproject.toml").write_text("[tool.other]\nlayer = 1\n")
    settings = read_settings(inner)
    assert (settings.steps, settings.backends, settings.referee) == (3, ("torch",), False)
    found = allowed(["layer=1e-6"], settings)
    assert (found["layer"], found["full grad"], found["completeness"]) == (1e-6, 1e-3, 1e-5)
    assert found["output"] == 1e-4
    # A number stands for all that is compared, wherever it is given; what is named goes over it.
    found = allowed(["input-gradient=1e-7", "1e-5"], settings)
    assert (found["layer"], found["full grad"], found["input gradient"]) == (1e-5, 1e-5, 1e-7)
    assert found["completeness"] == 1e-5
    assert allowed([], ProjectSettings(tolerances=1e-3))["layer"] == 1e-3
    assert allowed([], ProjectSettings()) == dict.fromkeys(found, 1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tool.onnxplain]\ntolerence = 1", "no tool.onnxplain.tolerence"),
        ("[tool.onnxplain.tolerances]\nleyer = 1e-3", "no quantity 'leyer'"),
        ("[tool.onnxplain.tolerances]\nlayer = 'small'", "a tolerance above 0, got 'small'"),
        ("[tool.onnxplain]\nsteps = 0", "steps to be a whole number above 0, got 0"),
        ("[tool.onnxplain]\nbackends = 'torch'", "backends to be a list of names"),
        ("[tool.onnxplain]\nreferee = 1", "referee to be true or false"),
        ("[tool]\nonnxplain = 3", "is a table"),
        ("[tool.onnxplain", "no readable TOML"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_file(command, files, text, expected):
    path = files / "pyproject.toml"
    path.write_text(text)
    try:
        status, out, err = command("check", "plain.onnx", "batch.npy")
    finally:
        path.unlink()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{path}: " in err and expected in err


BAD = {
    "a number": (("check", "plain.onnx", "batch.npy", "--tolerance", "small"), "--tolerance small"),
    "a quantity": (("check", "plain.onnx", "batch.npy", "--tolerance", "leyer=1"), "no quantity 'leyer'"),
    "zero": (("check", "plain.onnx", "batch.npy", "--tolerance", "layer=0"), "above 0"),
    "a folder": (("check", "plain.onnx", "batch.npy", "--junit", "."), "a folder"),
    "no folder": (("compare", "plain.onnx", "twin.onnx", "batch.npy", "--junit", "no/x.xml"), "no/x.xml"),
    "no model": (("compare", "plain.onnx", "absent.onnx", "batch.npy"), "absent.onnx"),
    "no such input": (("compare", "plain.onnx", "twin.onnx", "batch.npy", "--pair", "x=y"), "no input"),
    "half a pair": (("compare", "plain.onnx", "twin.onnx", "batch.npy", "--pair", "x"), "--pair x"),
    "a pair twice": (
        ("compare", "two.onnx", "two.onnx", "two.npz", "--pair", "a=b", "--pair", "a=a"),
        "twice",
    ),
    "another shape": (("compare", "plain.onnx", "two.onnx", "batch.npy"), "inputs"),
    "one name": (("compare", "plain.onnx", "twin.onnx", "batch.npy", "--names", "x"), "--names x"),
    "no tensor": (
        ("check", "plain.onnx", "batch.npy", "--backends", "onnxruntime", "--wrt", "nothing"),
        "nothing",
    ),
    "no steps": (("compare", "plain.onnx", "twin.onnx", "batch.npy", "--steps", "0"), "steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_and_status_2(command, name):
    arguments, expected = BAD[name]
    status, out, err = command(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("onnxplain: ") and expected in err and "internal error" not in err


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_fits_the_terminal(width, files):
    report = compare(
        files / "plain.onnx", files / "wrong.onnx", np.load(files / "batch.npy"), names=("a", "b")
    )
    terminal, stream = Terminal(as_json=False), io.StringIO()
    terminal.out = Console(file=stream, width=width, force_terminal=True, color_system=None)
    show_comparison(terminal, report, ["a photograph of a tabby cat.png", "b", "c"])
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    assert lines[0].startswith("✗ ") and any("node at fault: Conv 'stem'" in line for line in lines)
    order = ["first part at", "Layers", "Agreement", "Drift", "Completeness"]
    places = [next(number for number, line in enumerate(lines) if text in line) for text in order]
    assert places == sorted(places)


def test_the_help_names_where_the_defaults_stand(command):
    for name in ("check", "compare"):
        status, out, _ = command(name, "--help")
        words = " ".join(out.replace("│", " ").split())
        assert status == 0 and "Default: as pyproject.toml says, else 1e-4." in words


def test_a_long_table_is_cut_and_says_so():
    terminal, stream = Terminal(as_json=False), io.StringIO()
    terminal.out = Console(file=stream, width=80)
    terminal.table(("name",), [(f"row{index}",) for index in range(MOST_ROWS + 3)])
    lines = [line.strip() for line in stream.getvalue().splitlines()]
    assert f"row{MOST_ROWS - 1}" in lines and f"row{MOST_ROWS}" not in lines
    assert lines[-1] == "and 3 more rows, in --json"
