"""Commands that are refused: exit status 2, one line, a fix; the command that follows the fix succeeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from analyzer.cli import main
from tests.refusals.setting import CONV, DENSE, IDS, LAST, NAN, QUANTIZED, TOKENS, TWO, X


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the commands name."""
    path = tmp_path_factory.mktemp("refusals")
    for name, model in {
        "dense": DENSE,
        "two": TWO,
        "conv": CONV,
        "tokens": TOKENS,
        "quantized": QUANTIZED,
    }.items():
        onnx.save(model, path / f"{name}.onnx")
    arrays = {"x": X, "nan": NAN, "wide": np.ones((2, 9)), "text": np.array(["a"]), "ids": IDS, "last": LAST}
    for name, array in arrays.items():
        np.save(path / name, array)
    np.savez(path / "pair", a=X, b=X)
    np.savez(path / "half", a=X)
    for name, content in {"junk.png": "x", "names.txt": "a\nb\nc", "five.txt": "a\nb\nc\nd\ne"}.items():
        (path / name).write_text(content)
    (path / "empty").mkdir()
    return path


# A command, words of its fix, and the command that follows it.
COMMANDS = [
    ("analyze nowhere.onnx x.npy", "an existing .onnx file", "analyze dense.onnx x.npy"),
    ("analyze no_module:make x.npy", "package.module:factory", None),
    ("analyze empty x.npy", "a model file", None),
    ("analyze dense.onnx nowhere.npy", "an existing file", None),
    ("analyze dense.onnx nan.npy", "numpy.nan_to_num", None),
    ("analyze dense.onnx wide.npy", "to the shape (batch, 4)", None),
    ("analyze dense.onnx text.npy", "an array of numbers", None),
    ("analyze dense.onnx junk.png", "give a .npy array", None),
    ("analyze conv.onnx junk.png", "convert it to one of", None),
    ("analyze conv.onnx last.npy", "inputs.transpose(0, 3, 1, 2)", None),
    ("analyze two.onnx x.npy", "one .npz with an array for each", "analyze two.onnx pair.npz"),
    ("analyze two.onnx half.npz", "np.savez(path, b=array)", None),
    ("analyze dense.onnx x.npy --target 9", "from 0 to 2", "analyze dense.onnx x.npy --target 2"),
    ("analyze dense.onnx x.npy --target cat", "give an index", None),
    ("analyze dense.onnx x.npy --target 1,2,0", "one for each", "analyze dense.onnx x.npy --target 1,2"),
    ("analyze dense.onnx x.npy --target z=1", "choose from y", "analyze dense.onnx x.npy --target y=1"),
    (
        "analyze dense.onnx x.npy --target top2",
        "integrated-gradients",
        "analyze dense.onnx x.npy --target top2 --method integrated-gradients",
    ),
    ("analyze dense.onnx x.npy --target each:", "each:3,7", None),
    ("analyze dense.onnx x.npy --method lime", "choose from full-grad", None),
    (
        "analyze dense.onnx x.npy --steps 9",
        "--method integrated-gradients",
        "analyze dense.onnx x.npy --steps 9 --method integrated-gradients",
    ),
    (
        "analyze dense.onnx x.npy --method grad-cam",
        "--method full-grad",
        "analyze dense.onnx x.npy --method full-grad",
    ),
    ("analyze dense.onnx x.npy --method blur-ig", "--method integrated-gradients", None),
    (
        "analyze dense.onnx x.npy --method conductance",
        "--wrt layer1",
        "analyze dense.onnx x.npy --method conductance --wrt h",
    ),
    (
        "analyze dense.onnx x.npy --method expected-gradients",
        "--background FILE",
        "analyze dense.onnx x.npy --method expected-gradients --background x.npy",
    ),
    (
        "analyze dense.onnx x.npy --method integrated-gradients --baseline grey",
        "black, white",
        "analyze dense.onnx x.npy --method integrated-gradients --baseline white",
    ),
    ("analyze dense.onnx x.npy --backend source", "--backend onnxruntime", None),
    (
        "analyze dense.onnx x.npy --precision float64",
        'backend="torch"',
        "analyze dense.onnx x.npy --precision float64 --backend torch",
    ),
    ("analyze dense.onnx x.npy --max-memory 1", "--max-memory", "analyze dense.onnx x.npy --max-memory 1MiB"),
    ("analyze quantized.onnx x.npy", "--straight-through", "analyze quantized.onnx x.npy --straight-through"),
    ("analyze dense.onnx x.npy -o names.txt", "a folder", None),
    ("analyze dense.onnx x.npy --wrong", "onnxplain analyze --help", "analyze --help"),
    ("analyze dense.onnx", "onnxplain analyze --help", None),
    ("check dense.onnx x.npy --backends jax", "choose from onnxruntime", None),
    (
        "check dense.onnx x.npy --tolerance big",
        "layer=1e-5",
        "check dense.onnx x.npy --backends onnxruntime --tolerance layer=1e-5",
    ),
    ("check dense.onnx x.npy --html empty", "the path of the file", None),
    (
        "check dense.onnx x.npy --source dense.onnx",
        "onnxplain compare",
        "compare dense.onnx dense.onnx x.npy",
    ),
    ("compare dense.onnx two.onnx x.npy", "as many inputs", None),
    (
        "compare dense.onnx dense.onnx x.npy --names a",
        "before,after",
        "compare dense.onnx dense.onnx x.npy --names before,after",
    ),
    (
        "compare dense.onnx dense.onnx x.npy --pair a",
        "--pair x=image",
        "compare dense.onnx dense.onnx x.npy --pair x=x",
    ),
    ("convert dense.onnx -o out.txt", "ends in .onnx", "convert dense.onnx -o out.onnx"),
    (
        "convert dense.onnx -o out.onnx --class-names five.txt",
        "one name for each",
        "convert dense.onnx -o out.onnx --class-names names.txt",
    ),
    ("convert dense.onnx -o out.onnx --mean 0.5", "--size", None),
    ("inspect nowhere.onnx", "an existing .onnx file", "inspect dense.onnx"),
]


@pytest.mark.parametrize(("refused", "words", "followed"), COMMANDS, ids=[command[0] for command in COMMANDS])
def test_a_command_is_refused_in_one_line_with_a_fix_that_works(
    refused, words, followed, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    assert main(refused.split()) == 2
    out, errors = capsys.readouterr()
    what, _, fix = errors.partition("Fix: ")
    assert what.startswith("onnxplain: ") and words in fix and errors.count("\n") == 1 and not out, errors
    if followed is not None:
        assert main(followed.split()) == 0, capsys.readouterr().err
