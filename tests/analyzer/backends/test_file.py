"""What is explained is the user's file: a wrong graph is refused on the user's own inputs, for one forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import analyzer
from analyzer import Target, check, compare, differentiate
from analyzer.backends.call import key_of
from analyzer.errors import NothingToCompare, VerificationError
from converters import Model, VerificationFailed, conversion, convert, load
from converters.verification import original as originals
from tests.converters.helpers import make_model, normal

NODE = helper.make_node
NODES = [
    NODE("Gemm", ["x", "w", "b"], ["a"], name="first"),
    NODE("Tanh", ["a"], ["t"], name="act"),
    NODE("Mul", ["t", "k"], ["m"], name="scale"),
    NODE("Gemm", ["m", "v", "c"], ["y"], name="last"),
]
SHAPES = {"w": (4, 5), "b": (5,), "k": (1, 5), "v": (5, 3), "c": (3,)}
X = normal(3, 4, seed=9)


def network(batch: int | str = "n") -> onnx.ModelProto:
    constants = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    return make_model(NODES, {"x": (batch, 4)}, ["y"], constants, opset=17)


def spoiled(proto: onnx.ModelProto) -> Model:
    """The model of a file whose canonical graph scales by 5 % too much at the node 'scale'."""
    model = load(proto)
    for tensor in model.proto.graph.initializer:
        if tensor.name == "k":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), "k"))
    return model


METHODS: dict[str, Callable[..., Any]] = {
    "gradient": lambda m, **o: analyzer.gradient(m, X, **o),
    "input x gradient": lambda m, **o: analyzer.input_x_gradient(m, X, 1, **o),
    "full grad": lambda m, **o: analyzer.full_grad(m, X, 0, **o),
    "simple full grad": lambda m, **o: analyzer.simple_full_grad(m, X, 0, **o),
    "smooth full grad": lambda m, **o: analyzer.smooth_full_grad(m, X, 0, samples=2, **o),
    "smooth grad": lambda m, **o: analyzer.smooth_grad(m, X, 0, samples=2, **o),
    "var grad": lambda m, **o: analyzer.var_grad(m, X, 0, samples=2, **o),
    "integrated gradients": lambda m, **o: analyzer.integrated_gradients(m, X, 0, steps=4, **o),
    "from inside": lambda m, **o: analyzer.integrated_gradients(m, X, 0, wrt=["t"], steps=4, **o),
    "conductance": lambda m, **o: analyzer.conductance(m, X, 0, wrt=["t"], steps=4, **o),
    "expected gradients": lambda m, **o: analyzer.expected_gradients(m, X, 0, X, samples=4, **o),
    "guided": lambda m, **o: analyzer.guided_integrated_gradients(m, X, 0, steps=4, **o),
    "weights": lambda m, **o: analyzer.gradient(m, X, Target(weights=np.float32([1, -1, 2])), **o),
    "compare": lambda m, **o: compare(m, m, X, 0, steps=2, **o),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_graph_is_refused_by_every_method_with_its_node(name: str) -> None:
    with pytest.raises(
        VerificationError, match=r"the first node that differs is Mul 'scale': its tensor 'm' by 0\.05"
    ):
        METHODS[name](spoiled(network()))
    METHODS[name](spoiled(network()), verify=False)
    METHODS[name](network())


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_every_backend_is_compared_with_the_file(backend: str) -> None:
    fn = differentiate(spoiled(network()), backend)
    for call in (
        lambda: fn.gradients(X),
        lambda: fn.forward(X),
        lambda: fn.gradients(X, Target("m", index=1)),
    ):
        with pytest.raises(VerificationError, match="'scale'"):
            call()
    fn = differentiate(spoiled(network()), backend, verify=False)
    assert fn.file is None and fn.gradients(X).output.shape == (3,)


def test_loading_a_wrong_graph_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    real = conversion.canonicalise

    def wrong(proto: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
        made = real(proto, **options)
        made.graph.node[1].op_type = "Softsign"
        return made

    onnx.save(network(), tmp_path / "m.onnx")
    monkeypatch.setattr(conversion, "canonicalise", wrong)
    for call in (
        lambda: load(network()),
        lambda: convert(network()),
        lambda: differentiate(tmp_path / "m.onnx"),
        lambda: analyzer.full_grad(str(tmp_path / "m.onnx"), X, 0),
    ):
        with pytest.raises(VerificationFailed, match="the first node that differs is Softsign 'act'"):
            call()
    with pytest.raises(VerificationError, match="Softsign 'act'"):
        analyzer.gradient(load(network(), verify=False), X)


def test_a_batch_is_compared_once_and_the_points_of_a_path_never(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    real = originals.Original.run
    monkeypatch.setattr(
        originals.Original, "run", lambda self, feeds: runs.append(len(feeds["x"])) or real(self, feeds)
    )
    fn = differentiate(load(network(), verify=False))
    analyzer.integrated_gradients(fn, X, 0, steps=16)
    analyzer.full_grad(fn, X, 1)
    analyzer.smooth_grad(fn, X, 0, samples=3)
    fn.gradients(X)
    assert runs == [3]
    analyzer.gradient(fn, X[:2])
    assert runs == [3, 2]
    fn.release()
    analyzer.gradient(fn, X[:1])
    assert runs == [3, 2, 1]


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1]), (2, [2, 2]), (3, [3])])
def test_a_file_of_fixed_batch_is_run_in_its_own_size(
    monkeypatch: pytest.MonkeyPatch, batch: int, sizes: list[int]
) -> None:
    runs: list[int] = []
    real = originals.Original.run
    fn = differentiate(load(network(batch), verify=False))
    monkeypatch.setattr(
        originals.Original, "run", lambda self, feeds: runs.append(len(feeds["x"])) or real(self, feeds)
    )
    fn.gradients(X, 0)
    assert runs == sizes
    with pytest.raises(VerificationError, match="'scale'"):
        differentiate(spoiled(network(batch))).gradients(X, 0)


def test_a_saved_canonical_file_is_the_graph_itself(tmp_path: Any) -> None:
    model = load(network())
    assert model.original is not None
    fn = differentiate(model.save(tmp_path / "m.onnx"))
    assert fn.model.original is None and fn.file is None


def test_a_file_that_draws_is_explained_with_a_warning() -> None:
    nodes = [NODE("RandomNormalLike", ["x"], ["r"]), NODE("Mul", ["x", "r"], ["y"])]
    with pytest.warns(UserWarning, match=r"draws at random \(RandomNormalLike\)"):
        differentiate(make_model(nodes, {"x": ("n", 4)}, ["y"])).gradients(X)


def test_infinities_of_the_file_are_those_that_are_explained() -> None:
    """log(x) of 0 is −∞ on both sides; where the graph has a finite number it is refused."""
    proto = make_model([NODE("Log", ["x"], ["y"])], {"x": ("n", 4)}, ["y"], opset=17)
    x = np.float32([[0, 1, 2, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert differentiate(proto).forward(x)["y"][0, 0] == -np.inf
    model = load(proto)
    node = model.proto.graph.node[0]
    model.proto.graph.initializer.append(numpy_helper.from_array(np.float32([1e-6]), "epsilon"))
    model.proto.graph.node.insert(0, NODE("Add", ["x", "epsilon"], ["moved"], name="moved"))
    model.proto.graph.value_info.append(helper.make_tensor_value_info("moved", TensorProto.FLOAT, ("n", 4)))
    node = model.proto.graph.node[1]
    node.input[0] = "moved"
    with pytest.raises(VerificationError, match="Log"):
        differentiate(model).forward(x)


def test_half_precision_is_allowed_its_rounding_and_no_more() -> None:
    halves = {
        name: normal(*shape, seed=seed, dtype=np.float16) for seed, (name, shape) in enumerate(SHAPES.items())
    }
    proto = make_model(NODES, {"x": ("n", 4)}, ["y"], halves, opset=17)
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    fn = differentiate(proto)
    assert fn.gradients(X, 0).output.dtype == np.float32
    model = load(proto)
    for tensor in model.proto.graph.initializer:
        if tensor.name == "k":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(2), "k"))
    with pytest.raises(VerificationError, match="'scale'"):
        differentiate(model).gradients(X, 0)


def test_a_batch_is_known_by_its_values_names_and_types() -> None:
    keys = [
        {"x": X}, {"x": X + 1}, {"z": X}, {"x": X.astype(np.float64)}, {"x": X.T}, {"x": X, "z": X},
    ]  # fmt: skip
    assert len({key_of(feeds) for feeds in keys}) == len(keys)
    assert key_of({"x": X.copy()}) == key_of({"x": X})


def test_check_compares_every_backend_with_the_file() -> None:
    report = check(network(), X, 0, backends=["onnxruntime", "torch"], steps=2)
    assert report.passed and report.backends == ("onnxruntime", "torch", "file")
    by_file = [row for row in report.rows if row["b"] == "file"]
    assert {row["tensor"] for row in by_file} == {"a", "t", "m", "y"} and {row["a"] for row in by_file} == {
        "onnxruntime",
        "torch",
    }
    assert "onnxruntime against file: agree" in report.to_text() and '"file"' in report.to_json()


def test_check_names_the_node_that_differs_from_the_file(tmp_path: Any) -> None:
    report = check(spoiled(network()), X, 0, backends=["onnxruntime", "torch"], steps=2)
    pairs = {(pair.a, pair.b): pair for pair in report.pairs}
    assert pairs["onnxruntime", "torch"].passed
    for backend in ("onnxruntime", "torch"):
        pair = pairs[backend, "file"]
        assert not pair.passed and pair.suspects == ("scale",) and pair.first_divergence["tensor"] == "m"
    report.to_html(tmp_path / "report.html")
    assert "file" in (tmp_path / "report.html").read_text()


def test_one_backend_alone_has_the_file_to_compare_with_or_is_refused(tmp_path: Any) -> None:
    for given in (network(), load(network()).save(tmp_path / "m.onnx")):
        report = check(given, X, 0, backends=["onnxruntime"], steps=2)
        assert report.passed and report.backends == ("onnxruntime", "file") and report.rows
    model = convert(torch.nn.Linear(4, 3), torch.zeros(2, 4))
    with pytest.raises(
        NothingToCompare, match=r"found onnxruntime alone\. Fix: name two of onnxruntime, torch"
    ):
        check(model, X, 0, backends=["onnxruntime"])


def test_an_input_whose_first_axis_is_no_batch_does_not_cut_the_others():
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[V,4] x, int64[2,E] edges) => (float[V,4] y)'
        " <int64 zero = {0}, int64 one = {1}, int64[1] last = {1}> {"
        " source = Gather(edges, zero) sink = Gather(edges, one) sent = Gather(x, source) none = Sub(x, x)"
        " column = Unsqueeze(sink, last) size = Shape(sent) index = Expand(column, size)"
        ' sum = ScatterElements<axis = 0, reduction = "add">(none, index, sent) y = Tanh(sum) }'
    )
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    feeds = {"x": x, "edges": np.array([[0, 1, 2, 3], [1, 2, 2, 4]])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = analyzer.full_grad(graph, feeds, target=Target("y", index=(2, 1)))
    expected = np.zeros((5, 4))
    expected[[1, 2], 1] = (1 - np.tanh(x[1, 1] + x[2, 1]) ** 2) * x[[1, 2], 1]
    np.testing.assert_allclose(found.input_term["x"], expected, atol=1e-6)
