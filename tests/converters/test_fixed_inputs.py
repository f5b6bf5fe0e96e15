"""Inputs that are fixed to a value: branches on them fold, the original is fed the value, wrong values are refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from analyzer import check, compare, differentiate, full_grad, gradient
from analyzer.cli.app import main
from converters import ConversionError, Model, convert, load

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w16": RNG.normal(size=(8, 5)).astype("f"),
    "w8": RNG.normal(size=(8, 5)).astype("f"),
    "rate": np.asarray(16000),
    "first": np.asarray([0]),
    "tanh": np.asarray("tanh", object),
}
INPUTS = {"input": RNG.normal(size=(3, 8)).astype("f"), "state": RNG.normal(size=(2, 3, 5)).astype("f")}


def _info(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _branch(name: str, *nodes: tuple[str, list[str]]) -> onnx.GraphProto:
    """A branch of a chain of nodes; "." is the result of the node before."""
    made = []
    for index, (op, inputs) in enumerate(nodes):
        read = [f"{name}{index - 1}" if one == "." else one for one in inputs]
        made.append(helper.make_node(op, read, [f"{name}{index}"]))
    return helper.make_graph(made, name, [], [_info(made[-1].output[0], TensorProto.FLOAT, "batch", 5)])


def voice() -> onnx.ModelProto:
    """A detector of voice in the style of Silero VAD: samples, a state, and a sampling rate that it branches on."""
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["is16"]),
        helper.make_node(
            "If",
            ["is16"],
            ["h"],
            then_branch=_branch("fast", ("MatMul", ["input", "w16"]), ("Tanh", ["."])),
            else_branch=_branch("slow", ("MatMul", ["input", "w8"]), ("Sigmoid", ["."])),
        ),
        helper.make_node("ReduceSum", ["state", "first"], ["s"], keepdims=0),
        helper.make_node("Add", ["h", "s"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voice",
        [
            _info("input", TensorProto.FLOAT, "batch", 8),
            _info("state", TensorProto.FLOAT, 2, "batch", 5),
            _info("sr", TensorProto.INT64),
        ],
        [_info("output", TensorProto.FLOAT, "batch", 5)],
        [numpy_helper.from_array(WEIGHTS[name], name) for name in ("w16", "w8", "rate", "first")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def modes() -> onnx.ModelProto:
    """Inputs of all kinds that a branch may hang on: a text, a flag, factors, and a shape."""
    nodes = [
        helper.make_node("Equal", ["mode", "tanh"], ["is_tanh"]),
        helper.make_node(
            "If",
            ["is_tanh"],
            ["h"],
            then_branch=_branch("a", ("Tanh", ["x"])),
            else_branch=_branch("b", ("Exp", ["x"])),
        ),
        helper.make_node(
            "If",
            ["flag"],
            ["scaled"],
            then_branch=_branch("c", ("Mul", ["h", "scale"])),
            else_branch=_branch("d", ("Identity", ["h"])),
        ),
        helper.make_node("Reshape", ["scaled", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "modes",
        [
            _info("x", TensorProto.FLOAT, "batch", 5),
            _info("mode", TensorProto.STRING),
            _info("flag", TensorProto.BOOL, 1),
            _info("scale", TensorProto.FLOAT, 5),
            _info("shape", TensorProto.INT64, 2),
        ],
        [_info("y", TensorProto.FLOAT, "batch", 5)],
        [numpy_helper.from_array(WEIGHTS["tanh"], "tanh")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _truth(inputs: dict[str, np.ndarray], sr: int) -> np.ndarray:
    x, state = inputs["input"].astype(np.float64), inputs["state"].astype(np.float64)
    h = np.tanh(x @ WEIGHTS["w16"]) if sr == 16000 else 1 / (1 + np.exp(-(x @ WEIGHTS["w8"])))
    return 1 / (1 + np.exp(-(h + state.sum(0))))


def _operators(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


@pytest.mark.parametrize("sr", [16000, 8000])
def test_a_branch_on_a_sampling_rate_folds_and_has_the_gradient_of_float64_differences(sr: int):
    model = convert(voice(), constants={"sr": sr})
    assert "If" not in _operators(model)
    assert [info.name for info in model.proto.graph.input] == ["input", "state"]
    assert model.constants["sr"] == sr

    explained = full_grad(differentiate(model), INPUTS, target=2)
    original = onnxruntime.InferenceSession(voice().SerializeToString())
    stated = original.run(None, {**INPUTS, "sr": np.asarray(sr)})[0]
    np.testing.assert_allclose(explained.output, stated[:, 2], rtol=1e-5)
    assert np.abs(explained.completeness.error).max() < 1e-6

    found = differentiate(model).gradients(INPUTS, target=2)
    for name in INPUTS:
        direction = RNG.normal(size=INPUTS[name].shape)
        ends = [{**INPUTS, name: INPUTS[name] + step * direction} for step in (1e-6, -1e-6)]
        above, below = (_truth(end, sr)[:, 2].sum() for end in ends)
        assert (found.gradients[name] * direction).sum() == pytest.approx((above - below) / 2e-6, rel=1e-4)


def test_the_fixed_values_are_kept_in_the_file_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = convert(voice(), constants={"sr": 8000, "state": np.zeros((2, 1, 5))})
    model.save(tmp_path / "fixed.onnx")
    again = load(tmp_path / "fixed.onnx")
    assert again.constants["sr"] == 8000
    np.testing.assert_array_equal(again.constants["state"], np.zeros((2, 1, 5), "f"))
    assert "sr = 8000" in repr(again)

    assert main(["inspect", str(tmp_path / "fixed.onnx"), "--json"]) == 0
    stated = json.loads(capsys.readouterr().out)["constants"]
    assert stated["sr"]["value"] == 8000
    assert stated["state"]["shape"] == [2, 1, 5]
    # The same value may be given again, another one not.
    assert load(again, constants={"sr": 8000}).constants["sr"] == 8000
    with pytest.raises(ConversionError, match="already fixed to 8000"):
        load(tmp_path / "fixed.onnx", constants={"sr": 16000})


@pytest.mark.parametrize("mode", ["tanh", "exp"])
def test_values_of_every_type_are_fixed(mode: str):
    constants = {"mode": mode, "flag": True, "scale": 2, "shape": [-1, 5]}
    model = convert(modes(), constants=constants)
    assert _operators(model) == [mode.capitalize(), "Mul"]
    x = RNG.normal(size=(2, 5)).astype("f")
    expected = 2 * getattr(np, mode)(x.astype(np.float64))[:, 1]
    np.testing.assert_allclose(gradient(differentiate(model), x, target=1).output, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("constants", "told"),
    [
        ({"rate": 1, "sr": 16000}, None),
        ({"rs": 16000}, "name of an input to fix, got 'rs'. Fix: give one of input, state, sr"),
        ({"sr": "16000"}, "type int64 for 'sr', got another type: '16000'"),
        ({"sr": 16000.5}, "type int64 for 'sr', got another type: 16000.5"),
        ({"sr": True}, "type int64 for 'sr', got another type: True"),
        ({"sr": 2**70}, "out of range"),
        ({"sr": [1, 2]}, "expected one value for 'sr', got an array of shape (2,)"),
        ({"sr": [[1], [2, 3]]}, "nested lists of one length"),
        ({"state": 0}, "with a size for each free axis"),
        (
            {"state": np.zeros((2, 3, 4))},
            "expected a value of shape (2, batch, 5) for 'state', got (2, 3, 4)",
        ),
        ({"input": np.full((1, 8), 1e39)}, "out of range, at most 3.40282e+38"),
        ({"state": np.zeros((2, 3, 5)), "input": np.zeros((2, 8))}, "two sizes to the axis 'batch': 3 and 2"),
        ({"input": np.zeros((3, 8)), "state": np.zeros((2, 3, 5)), "sr": 1}, "fix every input"),
        (16000, "expected constants as {input name: value}, got 16000"),
    ],
)
def test_what_no_input_takes_is_refused_on_one_line(constants: Any, told: str | None):
    with pytest.raises(ConversionError) as error:
        convert(voice(), constants=constants)
    assert "\n" not in str(error.value)
    assert "Fix: " in str(error.value)
    assert (told or "got 'rate'") in str(error.value)


class _Rate(torch.nn.Module):
    """Branches on its sampling rate in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = torch.nn.Linear(8, 5), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, sr: Any) -> torch.Tensor:
        h = self.fast(x) if sr == 16000 else self.slow(x)
        return torch.tanh(h * (sr / 16000))


class _Tensor(_Rate):
    """Needs its sampling rate as a tensor."""

    def forward(self, x: torch.Tensor, sr: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.fast(x) * (sr.to(torch.float32) / 16000)) + torch.where(
            sr == 16000, self.slow(x), 0
        )


@pytest.mark.parametrize("network", [_Rate, _Tensor])
@pytest.mark.parametrize("stated", [True, False])
def test_a_module_is_fixed_with_and_without_the_rate_in_its_example(network: type[_Rate], stated: bool):
    torch.manual_seed(0)
    net, x = network(), torch.randn(3, 8)
    example = (x, torch.tensor(8000)) if stated else x
    model = convert(net, example, constants={"sr": 16000})
    assert [info.name for info in model.proto.graph.input] == ["x"]
    assert model.constants["sr"] == 16000

    wanted = x.clone().requires_grad_()
    net(wanted, torch.tensor(16000))[:, 1].sum().backward()
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend=backend).gradients(x.numpy(), target=1)
        np.testing.assert_allclose(found.gradients["x"], wanted.grad, rtol=1e-4, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert check(model, x.numpy(), target=1, backends=["onnxruntime", "source"], steps=1).passed
        assert compare(model, model, x.numpy(), target=1, fold_batch_norm=False, steps=1).passed


def test_every_command_that_converts_fixes_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    onnx.save(modes(), tmp_path / "modes.onnx")
    np.save(tmp_path / "x.npy", RNG.normal(size=(1, 5)).astype("f"))
    given = [
        "--set",
        "mode=exp",
        "--set",
        "flag=False",
        "--set",
        "scale=[1, 2, 3, 4, 5.5]",
        "--set",
        "shape=[-1, 5]",
    ]
    path, array, fixed = (str(tmp_path / name) for name in ("modes.onnx", "x.npy", "fixed.onnx"))
    for command in (
        ["convert", path, "-o", fixed],
        ["inspect", path],
        ["analyze", path, array, "--method", "gradient"],
        ["export", path, "-o", str(tmp_path / "explainer.onnx"), "--method", "gradient"],
        ["check", path, array, "--backends", "onnxruntime", "--steps", "1"],
        ["compare", path, fixed, array, "--steps", "1"],
    ):
        assert main([*command, *given]) == 0, command
    assert load(fixed).constants["mode"] == "exp"
    capsys.readouterr()
    for wrong, told in (
        ("flag", "expected NAME=VALUE"),
        ("flag=maybe", "type bool for 'flag', got another type: 'maybe'"),
        ("speed=1", "give one of x, mode, flag, scale, shape"),
    ):
        assert main(["inspect", path, "--set", wrong]) == 2
        assert told in capsys.readouterr().err
