"""--limits bounds the preparation of a model, from anywhere on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.cli.app import main
from converters.budget import current
from tests.converters.test_budget import doubling


@pytest.fixture
def functions(tmp_path: Path) -> str:
    """A file whose functions stand for 256 nodes."""
    path = tmp_path / "functions.onnx"
    path.write_bytes(doubling(8).SerializeToString())
    return str(path)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("given", [["--limits", "nodes=254"], ["--limits=nodes=254, seconds=60"]])
def test_a_limit_ends_a_command_with_one_line(
    given: list[str], first: bool, functions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", functions]
    assert main([*given, *command] if first else [*command, *given]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and functions in line
    assert (
        "254 nodes" in line
        and "the functions of the model; 255 are needed" in line
        and "--limits nodes=255" in line
    )


def test_a_larger_limit_lets_the_command_pass_and_ends_with_it(functions: str) -> None:
    assert main(["inspect", functions, "--limits", "nodes=255,bytes=1MiB,seconds=60"]) == 0
    assert current().nodes_left == 100_000


@pytest.mark.parametrize("text", ["", "nodes", "nodes=-1", "nodes=many", "hours=2", "bytes=x", "seconds=nan"])
def test_a_text_that_is_no_limits_is_refused(
    text: str, functions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", functions, "--limits", text]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "Fix: write --limits seconds=60,bytes=4GiB,nodes=500000" in line
