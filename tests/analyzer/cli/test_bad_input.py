"""Every bad usage and bad input is one line on stderr, exit status 2, and nothing written."""

from __future__ import annotations

import os
import sys

import pytest

from analyzer.cli.targets import parse_target
from analyzer.cli.terminal import UserError

ANALYZE = ("analyze", "stored.onnx")

BAD = {
    "no such model": (("analyze", "absent.onnx", "photo.png"), "absent.onnx"),
    "a truncated model": (("analyze", "truncated.onnx", "photo.png"), "truncated.onnx"),
    "a text file named .onnx": (("analyze", "text.onnx", "photo.png"), "text.onnx"),
    "a folder for a model": (("inspect", "."), "."),
    "a picture for a model": (("inspect", "photo.png"), "photo.png"),
    "an op without a rule": (("analyze", "det.onnx", "det.npy"), "Det"),
    "no such input": ((*ANALYZE, "absent.png"), "absent.png: no such file"),
    "an empty folder for an input": ((*ANALYZE, "nothing"), "the folder is empty"),
    "a pattern without a match": ((*ANALYZE, "nothing/*.png"), "it matches no file"),
    "a text for an image": ((*ANALYZE, "notes.png"), "notes.png: not a readable image"),
    "a broken archive": (("analyze", "two.onnx", "broken.npz"), "broken.npz"),
    "a wrong shape": ((*ANALYZE, "wrong.npy"), "wrong.npy: has shape (3, 3, 8, 16)"),
    "NaN": ((*ANALYZE, "nan.npy"), "nan.npy: holds NaN"),
    "infinity": ((*ANALYZE, "infinite.npy"), "infinite.npy: holds NaN or infinity"),
    "pickled objects": ((*ANALYZE, "objects.npy"), "objects.npy"),
    "texts": ((*ANALYZE, "texts.npy"), "texts.npy"),
    "no samples": ((*ANALYZE, "empty.npy"), "empty.npy: holds no sample"),
    "an archive without an input": (("analyze", "two.onnx", "half.npz"), "half.npz"),
    "an archive of unequal batches": (("analyze", "two.onnx", "uneven.npz"), "uneven.npz"),
    "one array for two inputs": (("analyze", "two.onnx", "single.npy"), "2 inputs"),
    "an image for features": (("analyze", "det.onnx", "photo.png"), "does not take an image"),
    "an index out of range": (
        (*ANALYZE, "photo.png", "--target", "5"),
        "out of range: the model has 5 classes",
    ),
    "a negative index": ((*ANALYZE, "photo.png", "--target", "-6"), "out of range"),
    "an unknown class": ((*ANALYZE, "photo.png", "--target", "tabby kat"), "no class of that name"),
    "a class without names": (
        ("analyze", "plain.onnx", "photo.png", "--target", "cat"),
        "stores no class names",
    ),
    "too many targets": ((*ANALYZE, "photo.png", "--target", "1,2"), "2 classes for 1 sample."),
    "an empty target": ((*ANALYZE, "photo.png", "--target", ""), "--target is empty"),
    "an unknown method": ((*ANALYZE, "photo.png", "--method", "magic"), "magic"),
    "an unknown backend": ((*ANALYZE, "photo.png", "--backend", "jax"), "jax"),
    "an unknown backend to check": (("check", "stored.onnx", "photo.png", "--backends", "jax"), "jax"),
    "a source that is none": ((*ANALYZE, "photo.png", "--backend", "source"), "source"),
    "a precision it has not": ((*ANALYZE, "photo.png", "--precision", "float64"), "float64"),
    "an unknown baseline": (
        (*ANALYZE, "photo.png", "--method", "integrated-gradients", "--baseline", "green"),
        "--baseline green",
    ),
    "a baseline of another shape": (
        (*ANALYZE, "photo.png", "--method", "integrated-gradients", "--baseline", "wrong.npy"),
        "baseline",
    ),
    "no steps": ((*ANALYZE, "photo.png", "--steps", "0"), "steps"),
    "a bad size": ((*ANALYZE, "photo.png", "--size", "big"), "--size big"),
    "a size the model does not take": ((*ANALYZE, "photo.png", "--size", "8"), "(1, 3, 8, 8)"),
    "a mean of bytes": ((*ANALYZE, "photo.png", "--mean", "127"), "divide by 255"),
    "a mean that is no number": ((*ANALYZE, "photo.png", "--mean", "a,b,c"), "--mean a,b,c"),
    "a divisor of zero": ((*ANALYZE, "photo.png", "--std", "0"), "above 0"),
    "a file for the folder": ((*ANALYZE, "photo.png", "-o", "photo.png"), "photo.png: a file"),
    "a converted name that is a folder": (("convert", "plain.onnx", "-o", "."), "a folder"),
    "a folder that is not there": (("convert", "plain.onnx", "-o", "none/made.onnx"), "none: no such folder"),
    "too few class names": (
        ("convert", "plain.onnx", "-o", "made.onnx", "--class-names", "text.onnx"),
        "20 names, but the model has 5",
    ),
    "a mean without a size": (("convert", "plain.onnx", "-o", "made.onnx", "--mean", "0.5"), "--size"),
    "a module that is not there": (("convert", "absent_module:make", "-o", "made.onnx"), "absent_module"),
    "a factory that is not there": (("convert", "json:make_model", "-o", "made.onnx"), "json:make_model"),
    "a factory that fails": (
        ("convert", "failing_factory:make", "-o", "made.onnx"),
        "RuntimeError: no weights",
    ),
    "a factory of no model": (("convert", "failing_factory:text", "-o", "made.onnx"), "made.onnx"),
    "an unknown command": (("explode",), "explode"),
    "an unknown option": ((*ANALYZE, "photo.png", "--fast"), "--fast"),
    "no input": (ANALYZE, "INPUT"),
}


@pytest.fixture(autouse=True)
def scene(files):
    import numpy as np

    np.save(files / "det.npy", np.eye(3, dtype=np.float32))
    (files / "nothing").mkdir(exist_ok=True)
    (files / "failing_factory.py").write_text(
        "def make():\n    raise RuntimeError('no\\n weights')\n\ndef text():\n    return 'a path made.onnx'\n"
    )


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_bad_input_is_one_line_and_status_2(command, files, name, as_json):
    arguments, expected = BAD[name]
    before = sorted(os.listdir(files))
    status, out, err = command(*arguments, *(["--json"] if as_json and arguments[0] != "explode" else []))
    assert status == 2, err
    assert out == ""
    assert err.startswith("onnxplain: ") and err.count("\n") == 1, err
    assert expected in err
    assert "Traceback" not in err and "internal error" not in err
    assert [item for item in sorted(os.listdir(files)) if item != "__pycache__"] == [
        item for item in before if item != "__pycache__"
    ]


def test_a_missing_framework_names_its_extra(command, monkeypatch):
    # None in sys.modules makes an import fail as if the package were not installed.
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    status, out, err = command("analyze", "stored.onnx", "photo.png", "--backend", "torch")
    assert (status, out) == (2, "") and "onnxplain[torch]" in err and err.count("\n") == 1


def test_a_missing_demo_package_names_its_extra(command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)
    status, out, err = command("demo", "-o", tmp_path / "out")
    assert (status, out) == (2, "") and "onnxplain[demo]" in err
    assert not (tmp_path / "out").exists()


def test_analysis_that_fails_writes_nothing(command, tmp_path):
    status, _, _ = command("analyze", "det.onnx", "det.npy", "-o", tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()


def test_an_ambiguous_class_name_asks_for_an_index():
    with pytest.raises(UserError, match=r"several classes have that name, 0 \(crane\), 2 \(crane\)"):
        parse_target("crane", 1, 3, ["crane", "owl", "crane"])


def test_an_exact_name_wins_over_a_synonym():
    assert parse_target("cup", 1, 2, ["tea, cup", "cup"]) == 1


def test_a_close_name_is_suggested():
    with pytest.raises(UserError, match="did you mean 'espresso'"):
        parse_target("expresso", 1, 2, ["espresso", "owl"])
