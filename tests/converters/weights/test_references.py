"""Large weights lie outside of protobuf: one array for the graph, the programs and the sessions of a model."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxplain as ox
from analyzer.graph import program
from analyzer.graph.graph import Graph
from converters import model as models
from converters.errors import ConversionError, InvalidModel
from converters.graph import runtime
from converters.sources import files
from converters.weights import references

FLOAT32 = np.dtype(np.float32)
RNG = np.random.default_rng(0)
W, V = (RNG.standard_normal((24, 24)).astype(np.float32) for _ in range(2))
X = RNG.standard_normal((3, 24)).astype(np.float32)


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every matrix for a large weight."""
    for module in (references, files):
        monkeypatch.setattr(module, "LARGE", 1)
        monkeypatch.setattr(module, "SMALLEST", 1024)
    monkeypatch.setattr(files, "MAPPED", 1)
    monkeypatch.setattr(program, "LARGE", 1)
    monkeypatch.setattr(runtime, "FED", 1)


def network(dtype: np.dtype = FLOAT32, *, widened: bool = True) -> onnx.ModelProto:
    """y = tanh(x W) V: weights of any precision, computed in float32."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "v"], ["y"], name="second"),
    ]
    stored = {"w": W.astype(dtype), "v": V.astype(dtype)}
    if dtype != np.float32 and widened:
        stored = {f"{name}_half": array for name, array in stored.items()}
        casts = [
            helper.make_node("Cast", [f"{n}_half"], [n], name=f"cast_{n}", to=TensorProto.FLOAT) for n in "wv"
        ]
        nodes = [*casts, *nodes]
    kind = helper.np_dtype_to_tensor_dtype(dtype) if not widened else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 24])],
        [helper.make_tensor_value_info("y", kind, ["batch", 24])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def truth(w: np.ndarray, v: np.ndarray, target: int) -> np.ndarray:
    """∂y[target]/∂x by the chain rule, in float64."""
    slope = 1 - np.tanh(X.astype(np.float64) @ w) ** 2
    return np.asarray((slope * v.astype(np.float64)[:, target]) @ w.astype(np.float64).T)


def on_disk(folder: Path, proto: onnx.ModelProto, *, outside: bool = True) -> Path:
    path = folder / "model.onnx"
    location = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0} if outside else {}
    onnx.save_model(copy.deepcopy(proto), path, **location)
    return path


@pytest.mark.parametrize("outside", [True, False])
def test_one_array_serves_the_model_its_graph_and_its_sessions(tmp_path: Path, outside: bool) -> None:
    model = ox.load(on_disk(tmp_path, network(), outside=outside))
    fn = ox.differentiate(model)
    weights = references.weights_of(model.light)
    assert weights.keys() == {"w", "v"}
    for name, array in weights.items():
        assert np.shares_memory(array, fn.graph.tensors[name].stored)
    assert model.light.ByteSize() < W.nbytes
    found = fn.gradients(X, 5)
    np.testing.assert_allclose(found.gradients["x"], truth(W, V, 5), rtol=1e-5, atol=1e-5)
    (ready,) = (one for key, one in fn.engine._sessions.items() if "observe" in str(key))
    assert [entry.name for entry in ready.session.get_inputs()] == ["x", "target"]
    places = {value.data_ptr() for value in ready.session._weights.values()}
    assert places == {array.ctypes.data for array in weights.values()}


def test_the_public_proto_holds_all_weights(tmp_path: Path) -> None:
    model = ox.load(on_disk(tmp_path, network()))
    onnx.checker.check_model(model.proto, full_check=True)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}
    np.testing.assert_array_equal(held["w"], W)
    # What is changed in it is changed for all.
    helper.set_model_props(model.proto, {**model.metadata, "mark": "1"})
    assert model.metadata["mark"] == "1" and model.proto is model.light


@pytest.mark.parametrize("most", [2**31, 2**10])
def test_a_saved_model_is_the_same_in_one_file_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    model = ox.load(on_disk(tmp_path, network()))
    monkeypatch.setattr(models, "LARGEST_MESSAGE", most)
    monkeypatch.setattr(references, "LARGEST_MESSAGE", most)
    path = model.save(tmp_path / "saved.onnx")
    assert (tmp_path / "saved.onnx.data").exists() == (most < W.nbytes)
    onnx.checker.check_model(str(path), full_check=True)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    np.testing.assert_array_equal(held["v"], V)
    again = ox.differentiate(ox.load(path)).gradients(X, 5).gradients["x"]
    np.testing.assert_allclose(again, truth(W, V, 5), rtol=1e-5, atol=1e-5)
    # A model may be written over the file that it is mapped from.
    model.save(tmp_path / "model.onnx")
    assert ox.differentiate(model).forward(X)["y"].shape == (3, 24)


def test_a_model_can_be_pickled_and_copied(tmp_path: Path) -> None:
    model = ox.load(on_disk(tmp_path, network()))
    expected, text = ox.differentiate(model).gradients(X, 5).gradients["x"], pickle.dumps(model)
    references._ARRAYS.clear()
    for other in (pickle.loads(text), copy.deepcopy(pickle.loads(text))):
        np.testing.assert_array_equal(ox.differentiate(other).gradients(X, 5).gradients["x"], expected)


def test_a_file_that_changes_while_it_is_in_use_is_an_error(tmp_path: Path) -> None:
    path = on_disk(tmp_path, network())
    fn = ox.differentiate(path)
    assert fn.forward(X)["y"].shape == (3, 24)
    data = tmp_path / "w.bin"
    with data.open("r+b") as file:
        file.write(b"\1\2\3\4")
    os.utime(data, ns=(1, 1))
    with pytest.raises(InvalidModel, match=r"changed while .* Fix: load the model again"):
        fn.forward(X)
    os.truncate(data, 16)
    with pytest.raises(InvalidModel, match="changed while"):
        fn.gradients(X, 5)
    with pytest.raises(InvalidModel, match="ends before the weights"):
        ox.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-1"),
        ("offset", "99999999"),
        ("length", str(2**40)),
        ("length", "8"),
        ("location", "../w.bin"),
    ],
)
def test_a_wrong_place_of_weights_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = on_disk(tmp_path, network())
    proto = onnx.load(path, load_external_data=False)
    entries = {entry.key: entry for entry in proto.graph.initializer[0].external_data}
    entries[key].value = value
    onnx.save(proto, path)
    with pytest.raises(InvalidModel):
        ox.load(path)


def test_a_reference_from_outside_is_refused() -> None:
    proto = network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=f"{references.LOCATION}17")
    with pytest.raises(ConversionError, match="no longer exists"):
        ox.load(proto)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
@pytest.mark.parametrize("widened", [True, False])
def test_half_weights_stay_half_and_count_as_float32(tmp_path: Path, dtype: np.dtype, widened: bool) -> None:
    proto = network(dtype, widened=widened)
    if not widened and dtype != np.float16:
        # ONNX Runtime has no kernels for a whole model in bfloat16; the file is not run.
        model = ox.load(on_disk(tmp_path, proto), verify=False, run=False)
    else:
        model = ox.load(on_disk(tmp_path, proto))
    fn = ox.differentiate(model, verify=False)
    for name in "wv":
        tensor = fn.graph.tensors[name]
        assert tensor.dtype == np.float32 and tensor.stored is not None and tensor.stored.dtype == dtype
        np.testing.assert_array_equal(tensor.constant, tensor.stored.astype(np.float32))
    assert all(array.dtype == dtype for array in references.weights_of(model.light).values())
    found = fn.gradients(X, 5).gradients["x"]
    w, v = (array.astype(dtype).astype(np.float64) for array in (W, V))
    np.testing.assert_allclose(found, truth(w, v, 5), rtol=1e-4, atol=1e-4)
    # The forward and the backward pass widen a weight each for itself.
    casts = [node for node in _program(fn).nodes if node.op_type == "Cast"]
    read = sorted(node.input[0] for node in casts if node.input[0].startswith("half/"))
    assert read == ["half/v", "half/v", "half/w", "half/w"]
    terms = ox.full_grad(fn, X, 5)
    np.testing.assert_allclose(terms.completeness.total, terms.completeness.output, rtol=1e-4, atol=1e-4)


def _program(fn: ox.Differentiable) -> program.Program:
    from analyzer.autodiff.request import observe

    bound = fn.bind(X, 5)
    return fn.engine.program(observe(("x",), ("x",)), bound.seed)._with_casts


def test_a_graph_reads_widened_weights_of_any_proto(tmp_path: Path) -> None:
    """A part of a model keeps the Cast of a weight that its own graph no longer has as a node."""
    model = ox.load(on_disk(tmp_path, network(np.dtype(np.float16))))
    assert "Cast" in {node.op_type for node in model.light.graph.node}
    graph = Graph.from_proto(model.light)
    assert [node.op_type for node in graph.nodes] == ["MatMul", "Tanh", "MatMul"]
    fn = ox.differentiate(model)
    whole = ox.integrated_gradients(fn, X, 5, steps=16, wrt="t")
    slope = np.tanh(X.astype(np.float64) @ W.astype(np.float16).astype(np.float64))
    expected = slope * V.astype(np.float16).astype(np.float64)[:, 5]
    np.testing.assert_allclose(whole.attributions, expected, rtol=1e-3, atol=1e-3)
