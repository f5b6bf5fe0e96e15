"""Help and messages: methods are listed and suggested, and nothing is cut or broken inside a word when it is narrow."""

from __future__ import annotations

import io
import re

import pytest

import analyzer.cli.help
import converters.system.text
from analyzer.methods import METHODS
from analyzer.methods.names import suggested
from converters.system.text import fitted


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ig", "integrated-gradients"),
        ("IG", "integrated-gradients"),
        ("integrated_gradient", "integrated-gradients"),
        ("gradcam", "grad-cam"),
        ("Grad-CAM++", "grad-cam-plus-plus"),
        ("shap", "expected-gradients"),
        ("saliency", "gradient"),
        ("fullgrad", "full-grad"),
        ("ful-grad", "full-grad"),
        ("smoothgrad", "smooth-grad"),
        ("smoothgrd", "smooth-grad"),
        ("layercam", "layer-cam"),
        ("lime", None),
        ("", None),
    ],
)
def test_another_name_of_a_method_is_recognised(given: str, meant: str | None) -> None:
    assert suggested(given, METHODS) == meant


def test_an_unknown_method_suggests_the_one_that_is_meant(command) -> None:
    status, out, err = command("analyze", "plain.onnx", "batch.npy", "--method", "full-grad,gradcam")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "--method gradcam" in err and "Did you mean grad-cam?" in err and "onnxplain methods" in err


def test_methods_may_be_a_list(json_of) -> None:
    status, found = json_of("analyze", "plain.onnx", "batch.npy", "--method", "gradient, full-grad")
    assert status == 0
    assert list(found["samples"][0]["methods"]) == ["gradient", "full-grad"]


def test_every_method_is_listed_with_its_cost_and_paper(command, json_of) -> None:
    status, found = json_of("METHODS")
    assert status == 0 and [one["name"] for one in found["methods"]] == list(METHODS)
    assert all(one["summary"] and one["source"] and "gradient" in one["cost"] for one in found["methods"])
    costs = {one["name"]: one["cost"] for one in found["methods"]}
    assert costs["full-grad"] == "1 gradient" and costs["smooth-grad"].startswith("25 gradients")
    status, out, _ = command("methods")
    assert status == 0 and all(name in out for name in METHODS)
    status, out, _ = command("methods", "ig")
    assert (status, out) == (2, "")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_help_and_lists_fit_a_narrow_terminal(command, monkeypatch, width: int) -> None:
    monkeypatch.setattr(analyzer.cli.help, "_columns", lambda: width)
    for arguments in (["--help"], ["analyze", "--help"], ["analyze", "--method", "grad-cam", "--help"]):
        status, out, _ = command(*arguments)
        assert status == 0
        long = [line for line in out.splitlines() if len(line) > width and len(line.split()) > 1]
        assert not long and not re.search(r"\w…", out)
    status, out, _ = command("analyze", "--help")
    words = set(re.split(r"[\s,.]+", out))
    assert set(METHODS) <= words and "SavedModel" in out
    # An option that the named method does not take is left out, as in the wide help.
    status, out, _ = command("analyze", "--method", "full-grad,grad-cam", "--help")
    assert "--layer" in out and "--max-sigma" not in out


def test_a_message_is_broken_between_words_on_a_terminal_alone(monkeypatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(
        converters.system.text.shutil, "get_terminal_size", lambda: __import__("os").terminal_size((40, 24))
    )
    text = "onnxplain: --method grad-cam-plus-plu: no such method. Did you mean grad-cam-plus-plus?"
    lines = fitted(text, Screen()).splitlines()
    assert len(lines) > 1 and all(len(line) <= 40 for line in lines) and " ".join(lines) == text
    assert fitted(text, io.StringIO()) == text


def test_usage_errors_name_the_command_and_leak_no_words_of_a_library(command) -> None:
    for arguments, expected in (
        (["analyze", "plain.onnx"], "onnxplain analyze --help"),
        (["analyze", "plain.onnx", "batch.npy", "--backend", "tourch"], "onnxplain analyze --help"),
        (["check", "plain.onnx", "batch.npy", "--steps", "0"], "onnxplain check --help"),
        (["analyse"], "'analyze'? Fix: see onnxplain --help"),
    ):
        status, out, err = command(*arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1 and expected in err
        assert "Value error" not in err and "?." not in err
