"""Small ONNX files to run the command line on, made without any framework, and a runner."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from analyzer.cli import main
from converters import Preprocessing, set_metadata

CLASSES = ("ant", "tabby, tabby cat", "<b>owl</b>", "[red]eel", "dog")


def build(nodes, inputs, outputs, weights):
    """A ModelProto of (name, shape) inputs and outputs."""
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(*pair) for pair in inputs],
        [info(*pair) for pair in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def classifier():
    """Conv, Relu, mean, Gemm: images (N, 3, 16, 16) to five classes."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "k", "c"], ["h"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], name="head"),
    ]
    weights = {
        "k": rng.standard_normal((6, 3, 3, 3)),
        "c": rng.standard_normal(6),
        "w": rng.standard_normal((6, 5)),
        "b": rng.standard_normal(5),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return build(nodes, [("image", ["N", 3, 16, 16])], [("logits", ["N", 5])], weights)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with models and inputs that commands read."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(classifier(), folder / "plain.onnx")
    stored = classifier()
    set_metadata(stored, Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3, "NCHW", 20), list(CLASSES))
    onnx.save(stored, folder / "stored.onnx")

    two = build(
        [helper.make_node("Mul", ["a", "b"], ["y"], name="times")],
        [("a", ["N", 4]), ("b", ["N", 4])],
        [("y", ["N", 4])],
        {},
    )
    onnx.save(two, folder / "two.onnx")
    # An op that is nobody's but its author's stands between input and output.
    det = build(
        [helper.make_node("Det", ["x"], ["y"], name="volume", domain="acme.ops")],
        [("x", ["N", 3, 3])],
        [("y", ["N"])],
        {},
    )
    det.opset_import.add(domain="acme.ops", version=1)
    onnx.save(det, folder / "det.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "plain.onnx").read_bytes()[:300])
    (folder / "text.onnx").write_text("this is no model\n" * 20)

    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)).save(folder / "photo.png")
    Image.fromarray(rng.integers(0, 256, (40, 20, 3)).astype(np.uint8)).save(folder / "other.jpg")
    batch = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
    np.save(folder / "batch.npy", batch)
    np.save(folder / "single.npy", batch[0].astype(np.float64))
    np.save(folder / "wrong.npy", batch[:, :, :8])
    bad = batch[:1].copy()
    bad[0, 0, 0, 0] = np.nan
    np.save(folder / "nan.npy", bad)
    np.save(folder / "infinite.npy", np.where(np.isnan(bad), np.inf, bad))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "texts.npy", np.array(["a", "b"]))
    np.save(folder / "empty.npy", batch[:0])
    np.savez(folder / "pair.npz", a=batch[:, 0, 0, :4], b=batch[:, 1, 0, :4])
    np.savez(folder / "half.npz", a=batch[:, 0, 0, :4])
    np.savez(folder / "uneven.npz", a=batch[:, 0, 0, :4], b=batch[:2, 1, 0, :4])
    (folder / "notes.png").write_text("no picture")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    return folder


@pytest.fixture
def command(files, capsys, monkeypatch):
    """Run a command in the folder of the files; returns (status, stdout, stderr)."""
    monkeypatch.chdir(files)

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def json_of(command):
    """Run a command with --json; returns (status, document), after seeing that stdout holds nothing else."""

    def run(*arguments):
        status, out, _ = command(*arguments, "--json")
        return status, json.loads(out)

    return run
