"""The example for Node gives Python's numbers, and says why a value cannot be fed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import onnxplain as ox
from tests.examples.explainer.programs import copied, run

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory, packages):
    return copied("node", tmp_path_factory.mktemp("copy"), packages)


def by_python(path, **feeds) -> dict[str, np.ndarray]:
    """Every output of a file, from onnxruntime in Python."""
    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize("arguments, target", [([], -1), (["--target", "3"], 3)])
def test_the_maps_are_those_of_python(folder, made, tmp_path, arguments, target):
    path = made.folder / "full-node.onnx"
    told = run(
        "node", "explain.mjs", path, made.folder / "x.npy", "--out", tmp_path, *arguments, folder=folder
    )
    expected = by_python(path, input=made.x, target=np.array([target]))
    for name in ("map", "complete_map"):
        assert_close(np.load(tmp_path / f"{name}.npy"), expected[name])
    explained = zip(expected["explained"], expected["explained_target"], strict=True)
    for line, (output, index) in zip(told.splitlines(), explained, strict=True):
        assert f"class {index} ({made.model.class_names[index]}), output " in line
        words = line.replace(",", "").split()
        assert abs(float(words[words.index("output") + 1]) - output) <= 1e-5
        assert words[-3:-1] == ["completeness", "error"] and float(words[-1]) <= 1e-4


def test_a_baseline_is_fed_with_its_default(folder, made, tmp_path):
    path = made.folder / "steps.onnx"
    told = run("node", "explain.mjs", path, made.folder / "x.npy", "--out", tmp_path, folder=folder)
    start = np.zeros_like(made.x[:1])
    expected = by_python(path, input=made.x, target=np.array([-1]), baseline=start)
    assert_close(np.load(tmp_path / "map.npy"), expected["map"])
    delta, sums = expected["delta"], expected["attribution"].reshape(3, -1).sum(1)
    errors = [float(line.split()[-1]) for line in told.splitlines()]
    np.testing.assert_allclose(errors, np.abs(delta / (sums - delta)), rtol=0.06, atol=1e-5)


def test_a_photograph_is_drawn_under_its_heat_map(folder, made, tmp_path):
    path = made.folder / "photograph-web.onnx"
    run("node", "explain.mjs", path, made.folder / "photograph.png", "--out", tmp_path, folder=folder)
    expected = by_python(path, image=made.photograph[None], target=np.array([-1]))
    assert_close(np.load(tmp_path / "map.npy"), expected["map"])
    bare = Image.fromarray(made.photograph).convert("RGBA")
    wanted = np.asarray(Image.alpha_composite(bare, Image.fromarray(expected["overlay"][0])).convert("RGB"))
    with Image.open(tmp_path / "explained_0.png") as image:
        drawn = np.asarray(image)
    assert drawn.shape == wanted.shape and np.abs(drawn.astype(int) - wanted).max() <= 2


def test_a_text_model_has_a_number_for_each_token(folder, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 7), nn.Tanh(), nn.Flatten(), nn.Linear(35, 3)).eval()
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
    model = ox.convert(net, ids)
    settings = {"wrt": "embedding", "baseline_inputs": 0 * ids[:1], "steps": 6}
    path = tmp_path / "text.onnx"
    ox.export_explainer(model, path, "integrated-gradients", inputs=ids, check_for="node", **settings)
    np.save(tmp_path / "ids.npy", ids)
    run("node", "explain.mjs", path, tmp_path / "ids.npy", "--out", tmp_path, "--target", 2, folder=folder)
    scores = ox.integrated_gradients(model, ids, 2, **settings).token_scores()
    assert_close(np.load(tmp_path / "map.npy"), scores.astype(np.float32))
    assert scores.shape == ids.shape and not scores[ids == 0].any()


@pytest.mark.parametrize(
    "file, arguments, message",
    [
        ("full.onnx", ["x.npy", "--target", "3"], "Fix: export again with --check-for node"),
        ("full-node.onnx", ["photograph.png"], "--with-preprocessing"),
        ("full-node.onnx", ["double.npy"], 'astype("float32")'),
        ("full-node.onnx", ["nothing=x.npy"], "expected the inputs input, target, found 'nothing'"),
        ("full-node.onnx", ["x.npy", "--target", "5"], "expected a target from 0 to 4"),
        ("model.onnx", ["x.npy"], "expected a file of `onnxplain export`"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, made, tmp_path, file, arguments, message):
    made.model.save(tmp_path / "model.onnx")
    np.save(tmp_path / "double.npy", made.x.astype(np.float64))
    for name in ("full.onnx", "full-node.onnx", "x.npy", "photograph.png"):
        (tmp_path / name).symlink_to(made.folder / name)
    told = run("node", folder / "explain.mjs", file, *arguments, folder=tmp_path, code=2)
    lines = [line for line in told.splitlines() if "[W:onnxruntime" not in line]
    assert message in told and len(lines) == 1 and not (tmp_path / "map.npy").exists()


def test_arrays_of_every_type_are_read_and_written_as_numpy_does(folder, tmp_path):
    arrays = {
        str(dtype): (np.arange(6).reshape(1, 2, 3) % 2).astype(dtype)
        for dtype in (
            "float16",
            "float32",
            "float64",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint64",
            "bool",
        )
    } | {"one_axis": np.arange(3.0), "empty": np.zeros((0, 2), np.float32)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    code = (
        "const {readNpy, writeNpy} = await import(process.argv[1]);"
        "for (const name of process.argv.slice(2)) writeNpy(`again_${name}.npy`, readNpy(`${name}.npy`));"
    )
    run("node", "--input-type=module", "-e", code, folder / "npy.mjs", *arrays, folder=tmp_path)
    for name, array in arrays.items():
        again = np.load(tmp_path / f"again_{name}.npy")
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype
    np.save(tmp_path / "wrong.npy", np.asfortranarray(np.ones((2, 3))))
    told = run(
        "node", "--input-type=module", "-e", code, folder / "npy.mjs", "wrong", folder=tmp_path, code=1
    )
    assert "np.ascontiguousarray" in told
