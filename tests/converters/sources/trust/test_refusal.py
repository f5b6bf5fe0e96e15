"""A program of a stranger runs no code, unless the user says `trust=True`, which shows that the attack works."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from analyzer import check, compare, differentiate
from analyzer.testing import assert_equivalent
from converters import ConversionError, InvalidModel, UntrustedModel, convert, load
from tests.converters.sources.trust.attacks import X, attempt, rewritten


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


class Linear(torch.nn.Module):
    """A linear layer with a constant, so that every part of a .pt2 file is there."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.constant = torch.ones(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.constant


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    shapes = {"x": {0: torch.export.Dim("n")}}
    torch.export.save(torch.export.export(Linear(), (torch.zeros(2, 4),), dynamic_shapes=shapes), path)
    return path


def _pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def _all_pickles(config: bytes) -> bytes:
    parsed = json.loads(config)
    for entry in parsed["config"].values():
        entry["use_pickle"] = True
    return json.dumps(parsed).encode()


@pytest.mark.parametrize("part", ["weights", "constants"])
def test_a_pickle_in_a_program_is_not_loaded(program: Path, tmp_path: Path, part: str) -> None:
    marker = tmp_path / "marker"
    config = json.loads(zipfile.ZipFile(program).read(f"net/data/{part}/model_{part}_config.json"))
    first = next(iter(config["config"].values()))["path_name"]
    rewritten(program, tmp_path / "half.pt2", f"data/{part}/model_{part}_config", _all_pickles)
    rewritten(tmp_path / "half.pt2", tmp_path / "net.pt2", f"data/{part}/{first}", lambda _: _pickled(marker))
    attempt(tmp_path / "net.pt2", marker)


def test_example_inputs_of_a_program_are_not_loaded(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    rewritten(program, tmp_path / "net.pt2", "sample_inputs", lambda _: _pickled(marker))
    attempt(tmp_path / "net.pt2", marker)


def test_an_opaque_constant_of_a_program_is_not_loaded(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def opaque(config: bytes) -> bytes:
        parsed = json.loads(config)
        for entry in parsed["config"].values():
            entry.update(path_name="opaque_obj_0", use_pickle=True, tensor_meta=None)
        return json.dumps(parsed).encode()

    rewritten(program, tmp_path / "half.pt2", "model_constants_config", opaque)
    with zipfile.ZipFile(tmp_path / "half.pt2", "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Touch(marker)))
    os.rename(tmp_path / "half.pt2", tmp_path / "net.pt2")
    attempt(tmp_path / "net.pt2", marker)


def test_a_size_of_a_program_is_not_evaluated(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def hostile(model: bytes) -> bytes:
        parsed = json.loads(model)
        for value in parsed["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        return json.dumps(parsed).encode()

    rewritten(program, tmp_path / "net.pt2", "models/model.json", hostile)
    attempt(tmp_path / "net.pt2", marker)


def test_every_function_that_takes_a_path_takes_trust(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"trusted, but damaged")
    calls: list[Callable[..., Any]] = [
        lambda **trust: convert(path, **trust),
        lambda **trust: load(path, **trust),
        lambda **trust: differentiate(path, **trust),
        lambda **trust: check(path, X, **trust),
        lambda **trust: compare(path, path, X, **trust),
        lambda **trust: assert_equivalent(path, X, **trust),
        lambda **trust: assert_equivalent((path, path), X, **trust),
    ]
    for call in calls:
        with pytest.raises(UntrustedModel):
            call()
        with pytest.raises(InvalidModel, match=r"not a \.pt2 file") as damaged:
            call(trust=True)
        assert not isinstance(damaged.value, UntrustedModel)


def test_an_onnx_file_with_an_op_of_a_foreign_domain_is_refused(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Run", ["x"], ["y"], domain="stranger")], "g", *([i] for i in infos)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("stranger", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "net.onnx")
    with pytest.raises(ConversionError, match="stranger"):
        convert(tmp_path / "net.onnx", trust=True)
