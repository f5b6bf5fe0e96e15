"""Quantized models on the command line: refused in one line, and explained where the user asks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.converters.quantized_models import images, quantized


@pytest.fixture
def given(tmp_path):
    """A quantized network and an input for it."""
    onnx.save(quantized("qdq"), tmp_path / "quantized.onnx")
    np.save(tmp_path / "x.npy", images(1))
    return str(tmp_path / "quantized.onnx"), str(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["analyze", "check"])
def test_a_quantized_model_is_refused_in_one_line_with_the_option(command, given, name):
    extra = ("--backends", "onnxruntime") if name == "check" else ()
    status, out, err = command(name, *given, *extra)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "x_QuantizeLinear" in err and "--straight-through" in err


def test_with_the_option_it_is_explained_completely(json_of, given):
    status, found = json_of("analyze", *given, "--target", "1", "--straight-through")
    assert status == 0 and found["passed"]


def test_with_the_option_it_is_checked(json_of, given):
    status, found = json_of("check", *given, "--straight-through", "--backends", "onnxruntime,torch")
    assert status == 0 and found["passed"]


def test_a_source_has_no_part_in_it(command, given):
    status, _, err = command("check", *given, "--straight-through", "--source", "m:f")
    assert status == 2 and "--source" in err
    status, _, err = command("analyze", *given, "--straight-through", "--backend", "source")
    assert status == 2 and 'use backend="onnxruntime", "torch" or "tensorflow"' in err


def test_inspect_says_what_rounds_and_the_way_out(json_of, given):
    status, found = json_of("inspect", given[0])
    assert status == 0
    for coverage in found["coverage"].values():
        reasons = {blocker["op"]: blocker["reason"] for blocker in coverage["blocking"]}
        assert set(reasons) == {"QuantizeLinear", "DequantizeLinear"}
        assert all("--straight-through" in reason for reason in reasons.values())
        assert 0 < coverage["covered"] < coverage["path"] == coverage["covered"] + len(coverage["blocking"])
    status, found = json_of("inspect", given[0], "--straight-through")
    assert all(coverage["covered"] == coverage["path"] > 0 for coverage in found["coverage"].values())
