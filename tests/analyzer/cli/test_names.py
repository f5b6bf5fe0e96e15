"""Names in a file never become control sequences, commands, markup, formulas or paths."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
from onnx import helper

from analyzer.cli import main
from analyzer.figures.canvas import new_figure
from converters import set_metadata

NAMES = [
    "\x1b[31mred\x1b[2J",
    "$\\frac{",
    "::error::",
    "[bold]x[/bold]",
    "../../up",
    "<script>",
    "a\nb",
    "\u202ex",
]


@pytest.fixture(params=NAMES, ids=range(len(NAMES)))
def named(request, tmp_path, monkeypatch):
    """A classifier whose input, output, node, tensors and classes have one name each, with inputs of it."""
    name = request.param
    rng = np.random.default_rng(0)
    weights = {f"{name}w": rng.normal(size=(4, 3)), f"{name}b": rng.normal(size=3)}
    nodes = [
        helper.make_node("Gemm", [f"{name}x", f"{name}w", f"{name}b"], [f"{name}h"], name=f"{name}fc"),
        helper.make_node("Relu", [f"{name}h"], [f"{name}y"], name=f"{name}act"),
    ]
    infos = [
        helper.make_tensor_value_info(f"{name}{end}", onnx.TensorProto.FLOAT, ["N", size])
        for end, size in (("x", 4), ("y", 3))
    ]
    tensors = [onnx.numpy_helper.from_array(a.astype(np.float32), key) for key, a in weights.items()]
    graph = helper.make_graph(nodes, name, infos[:1], infos[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], producer_name=name)
    set_metadata(proto, None, [f"{name}{index}" for index in range(3)])
    onnx.save(proto, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_shows_a_name_as_text(named, capsys):
    commands = [
        ["inspect", "model.onnx"],
        ["analyze", "model.onnx", "x.npy", "-o", "out", "--target", "1"],
        ["check", "model.onnx", "x.npy", "--backends", "onnxruntime", "--target", "1", "--html", "page.html"],
        ["analyze", "model.onnx", "x.npy", "--wrt", "\x1b[31m::error::"],
    ]
    for command in commands:
        status = main(command)
        shown = capsys.readouterr()
        assert status == (2 if "--wrt" in command else 0), shown.err
        for line in (shown.out + shown.err).splitlines():
            assert not line.lstrip().startswith("::error::")
            assert all(character.isprintable() for character in line), ascii(line)
        assert "[bold]x" not in shown.out or "[/bold]" in shown.out
    files = [path for path in named.rglob("*") if path.is_file()]
    assert {path.parent for path in files} <= {named, named / "out"}
    assert json.loads((named / "out" / "summary.json").read_text())["command"] == "analyze"
    assert "<script>" not in (named / "page.html").read_text().replace("<script>\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_label_of_a_figure_is_no_formula(name):
    figure = new_figure(2, 1)
    axes = figure.add_subplot(title=name, xlabel=name)
    axes.set_yticks([0.5], [name])
    figure.savefig(io.BytesIO(), format="png")
    assert not any(
        label.get_parse_math() for label in (axes.title, axes.xaxis.label, *axes.get_yticklabels())
    )


def test_a_folded_layer_is_explained_with_a_note(tmp_path, command):
    import torch

    from converters import convert

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(72, 2)
    )
    x = np.zeros((1, 1, 8, 8), np.float32)
    convert(net.eval(), x).save(tmp_path / "folded.onnx")
    np.save(tmp_path / "x.npy", x)
    given = ("analyze", str(tmp_path / "folded.onnx"), str(tmp_path / "x.npy"), "--method", "gradient")
    status, _, errors = command(*given, "--wrt", "0")
    assert status == 0
    (note,) = [line for line in errors.splitlines() if "note" in line]
    assert note.startswith("onnxplain: note: '0' was folded together with '1'")
    status, _, errors = command(*given, "--wrt", "1")
    assert status == 0 and "note" not in errors
