"""The example in Python runs without onnxplain, and gives the numbers of the Python API."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import onnxplain as ox
from tests.examples.explainer.programs import copied, run

# What a machine without onnxplain does not have.
WITHOUT = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
REFUSED = ("onnxplain", "analyzer", "converters", "onnx", "onnx_ir", "onnxscript", "torch", "tensorflow")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return copied("python", tmp_path_factory.mktemp("copy")) / "explain.py"


def explained(program: Path, folder: Path, *arguments: object, code: int = 0) -> str:
    hidden = WITHOUT.format(refused=set(REFUSED))
    return run(sys.executable, "-I", "-c", hidden, program, *map(str, arguments), folder=folder, code=code)


def test_onnxplain_is_out_of_reach(tmp_path):
    (tmp_path / "imports.py").write_text("import onnxplain")
    assert "ModuleNotFoundError: onnxplain" in explained(tmp_path / "imports.py", tmp_path, code=1)


def test_the_map_and_the_class_are_those_of_the_api(program, made, tmp_path):
    told = explained(program, tmp_path, made.folder / "full.onnx", made.folder / "x.npy").splitlines()
    full = ox.full_grad(made.model, made.x)
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), full.map, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        np.load(tmp_path / "complete_map.npy"), full.complete_map, rtol=1e-3, atol=1e-6
    )
    for line, index, output in zip(told, full.target, full.completeness.output, strict=True):
        found = re.search(r"class (\d) \((\w+)\), output (\S+), completeness error (\S+)$", line)
        assert found and (int(found[1]), found[2]) == (index, made.model.class_names[index])
        assert abs(float(found[3]) - output) <= 1e-4 and float(found[4]) <= 1e-4


@pytest.mark.parametrize("name", ["full.onnx", "full-node.onnx"])
def test_a_class_can_be_chosen(program, made, tmp_path, name):
    told = explained(program, tmp_path, made.folder / name, made.folder / "x.npy", "--target", 3, "-o", "out")
    assert told.count("class 3 (dog)") == 3
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "map.npy"), ox.full_grad(made.model, made.x, 3).map, rtol=1e-4, atol=1e-6
    )


def test_a_required_baseline_has_its_default_and_takes_another(program, made, tmp_path):
    own = ox.integrated_gradients(made.model, made.x, steps=8, baseline=0.0)
    told = explained(program, tmp_path, made.folder / "steps.onnx", made.folder / "x.npy")
    errors = [float(line.rsplit(" ", 1)[1]) for line in told.splitlines()]
    assert own.completeness is not None
    np.testing.assert_allclose(errors, own.completeness.error, rtol=0.05, atol=1e-5)
    np.save(tmp_path / "start.npy", np.full_like(made.x[:1], 0.5))
    files = (f"baseline={tmp_path / 'start.npy'}", made.folder / "x.npy")
    other = explained(program, tmp_path, made.folder / "steps.onnx", *files)
    assert other != told


def test_a_photograph_is_drawn_under_its_heat_map(program, made, tmp_path):
    path = made.folder / "photograph.onnx"
    explained(program, tmp_path, path, made.folder / "photograph.png")
    session = onnxruntime.InferenceSession(path)
    found = dict(
        zip(
            [one.name for one in session.get_outputs()],
            session.run(None, {"image": made.photograph[None]}),
            strict=True,
        )
    )
    with Image.open(tmp_path / "explained_0.png") as image:
        drawn = np.asarray(image)
    bare = Image.fromarray(made.photograph).convert("RGBA")
    wanted = np.asarray(Image.alpha_composite(bare, Image.fromarray(found["overlay"][0])).convert("RGB"))
    assert np.abs(drawn.astype(int) - wanted).max() <= 1 and np.any(drawn != made.photograph)
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), found["map"])


@pytest.mark.parametrize(
    "file, arguments, message",
    [
        ("full.onnx", ["photograph.png"], "--with-preprocessing"),
        ("full.onnx", ["nothing=x.npy"], "expected the inputs"),
        ("full.onnx", ["x.npy", "target=x.npy"], "expected 'target' of shape"),
        ("photograph.onnx", ["x.npy"], "expected 'image'"),
        ("full.onnx", ["x.npy", "--target", 5], "expected targets from 0 to 4"),
    ],
)
def test_what_does_not_fit_is_one_line(program, made, tmp_path, file, arguments, message):
    told = explained(program, made.folder, made.folder / file, *arguments, "-o", tmp_path, code=1)
    assert message in told and told.count("\n") == 1


def test_a_file_that_is_no_explainer_is_refused(program, made, tmp_path):
    made.model.save(tmp_path / "model.onnx")
    told = explained(program, tmp_path, "model.onnx", made.folder / "x.npy", code=1)
    assert "expected a file of `onnxplain export`" in told
