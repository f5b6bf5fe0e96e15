"""An exported explainer gives what the method gives in Python, on any batch and for any class, from one plain file."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import onnxplain as ox
from analyzer.explainer.description import read
from analyzer.methods import METHODS
from analyzer.methods.paths.noise import Noise
from converters.straight_through import straight_through
from tests.analyzer.explainer.networks import NAMES, cnn, network

SETTINGS = {
    "gradient": {},
    "input-x-gradient": {},
    "full-grad": {},
    "simple-full-grad": {},
    "smooth-full-grad": {"samples": 3},
    "smooth-grad": {"samples": 3},
    "smooth-grad-squared": {"samples": 3},
    "var-grad": {"samples": 3},
    "integrated-gradients": {"steps": 5},
    "expected-gradients": {"samples": 6},
    "grad-cam": {},
    "grad-cam-plus-plus": {},
    "layer-cam": {},
}
# These draw other noise for every row of a batch; the file has that of the first.
DRAWN = ("smooth-full-grad", "smooth-grad", "smooth-grad-squared", "var-grad", "expected-gradients")
PATHS = ("integrated-gradients", "expected-gradients")


def run(path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options)
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def settings_of(method: str, name: str, inputs: np.ndarray) -> dict:
    own = dict(SETTINGS[method])
    if method == "expected-gradients":
        own["background"] = (
            np.random.default_rng(0).standard_normal((4, *inputs.shape[1:])).astype(np.float32)
        )
    if name == "text":
        own["wrt"] = "embedding"
    return own


def assert_same(found: Mapping[str, np.ndarray], api: ox.Attribution, rows: slice) -> None:
    wanted = {"attribution": api.attributions, "map": api.map, "explained": api.output}
    if isinstance(api, ox.FullGrad):
        wanted["complete_map"] = api.complete_map
    for name, value in wanted.items():
        one = next(iter(value.values())) if isinstance(value, Mapping) else np.asarray(value)
        assert distance(found[name][rows], one[rows]) <= 1e-5, name
    if "completeness_error" in found:
        np.testing.assert_allclose(found["completeness_error"], api.completeness.error, rtol=1e-4, atol=1e-6)
    if "delta" in found:
        np.testing.assert_allclose(found["delta"][rows], api.delta[rows], atol=2e-5)


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_what_the_method_gives_in_python(tmp_path, name, method):
    model, inputs = network(name)
    settings = settings_of(method, name, inputs)
    if name == "text" and "wrt" not in METHODS[method].parameters:
        with pytest.raises(ox.AnalysisError, match="no floating input"):
            ox.export_explainer(model, tmp_path / "e.onnx", method, **SETTINGS[method])
        return
    target = ox.Target(index=1, axis=1) if name == "U-Net" else None
    path = tmp_path / "e.onnx"
    written = ox.export_explainer(model, path, method, inputs=inputs, target=target, **settings)
    assert written.error < 1e-5
    onnx.checker.check_model(str(path), full_check=True)
    feed = next(port.name for port in written.description.inputs if port.role == "model")
    rows = slice(0, 1) if method in DRAWN else slice(None)
    classes = [None] if name == "U-Net" else [None, np.array([2, 0, 1])]
    for batch in (inputs[:1], inputs):
        for each in classes:
            feeds = {feed: batch}
            if each is not None:
                feeds["target"] = each[: len(batch)]
            found = run(path, feeds)
            api = METHODS[method].run(
                model, batch, target if each is None else each[: len(batch)], **settings
            )
            assert_same(found, api, rows)


@pytest.mark.parametrize("at_once", [1, 2, None])
@pytest.mark.parametrize("rule", ["trapezoid", "gauss-legendre"])
def test_points_run_in_a_loop_or_together(tmp_path, rule, at_once):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    # The trapezoid begins at the baseline; the other rule has one point more, for the output there.
    steps = 6 if rule == "trapezoid" else 5
    ox.export_explainer(model, path, "integrated-gradients", steps=steps, rule=rule, at_once=at_once)
    loops = [node for node in onnx.load(path).graph.node if node.op_type == "Loop"]
    assert len(loops) == (at_once is not None)
    found = run(path, {"input": inputs})
    assert_same(found, ox.integrated_gradients(model, inputs, steps=steps, rule=rule), slice(None))


@pytest.mark.parametrize("method", ["smooth-grad", "var-grad", "smooth-full-grad"])
def test_noise_that_is_fed_is_the_noise_of_the_copies(tmp_path, method):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path, method, samples=3, rng=5)
    rows, copies = (one.reshape(-1) for one in np.meshgrid(range(3), range(3)))
    draws = Noise(0.15, 5).draws({"input": inputs.shape[1:]}, rows, copies)["input"]
    noise = draws.reshape(3, 3, *inputs.shape[1:]).astype(np.float32)
    api = METHODS[method].run(model, inputs, samples=3, rng=5)
    assert_same(run(path, {"input": inputs, "noise": noise}), api, slice(None))


def test_noise_drawn_inside_has_the_mean_of_the_gradient_of_a_quadratic_function(tmp_path):
    class Square(nn.Module):
        def forward(self, x):
            return (x * x).sum(1, keepdim=True)

    x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    model = ox.convert(Square(), torch.from_numpy(np.repeat(x, 2, 0)))
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path, "smooth-grad", samples=400, draw="inside", noise=0.1)
    found = run(path, {"x": x})
    # ∂/∂x Σ x² is 2x; the noise has a standard deviation of 0.2, and the mean of 400 of 2 · 0.2 / 20.
    off = np.abs(found["attribution"] - 2 * x)
    assert 1e-4 < off.max() < 4 * 0.02
    assert [one.name for one in onnx.load(path).graph.input] == ["x", "target"]


def test_the_baseline_is_an_input(tmp_path):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path, "integrated-gradients", steps=5, baseline=0.25)
    api = ox.integrated_gradients(model, inputs, steps=5, baseline=0.25)
    assert_same(run(path, {"input": inputs}), api, slice(None))
    for baseline in (np.full((1, 1, 1, 1), -1, np.float32), inputs[::-1].copy()):
        api = ox.integrated_gradients(model, inputs, steps=5, baseline=baseline)
        assert_same(run(path, {"input": inputs, "baseline": baseline}), api, slice(None))
    several = [0.0, inputs[0]]
    ox.export_explainer(model, path, "integrated-gradients", steps=5, baseline=several)
    api = ox.integrated_gradients(model, inputs, steps=5, baseline=several)
    assert_same(run(path, {"input": inputs}), api, slice(None))


def test_the_completeness_error_is_that_of_the_sum(tmp_path):
    model, inputs = network("ViT")
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path)
    found = run(path, {"x": inputs})
    total = found["complete_map"].sum((1, 2), dtype=np.float64)
    assert (found["completeness_error"] < 1e-5).all()
    # Terms without a position, such as those of the class token, are not in the map.
    assert total.shape == found["explained"].shape
    ox.export_explainer(model, path, "integrated-gradients", steps=3)
    found = run(path, {"x": inputs})
    zero = ox.differentiate(model).forward(np.zeros_like(inputs))
    logits = next(iter(zero.values()))
    before = np.take_along_axis(logits, found["explained_target"][:, None], 1)[:, 0]
    sums = found["attribution"].sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(found["delta"], sums - (found["explained"] - before), atol=1e-5)


@pytest.mark.parametrize("target", [10, -2, 2**40])
def test_a_class_that_there_is_not_makes_a_run_fail(tmp_path, target):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path, "gradient")
    with pytest.raises(Exception, match="out of data bounds"):
        run(path, {"input": inputs, "target": np.array([target])})


def test_a_quantized_network_passes_gradients_straight_through(tmp_path):
    model, inputs = network("CNN")
    name = model.proto.graph.input[0].name
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for key, value in (("scale", np.float32(0.05)), ("zero", np.int8(0))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), key))
    nodes = [
        onnx.helper.make_node("QuantizeLinear", [name, "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
    ]
    for node in proto.graph.node:
        node.input[:] = ["dq" if one == name else one for one in node.input]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    passed = straight_through(ox.convert(proto))
    for method in ("full-grad", "integrated-gradients"):
        written = ox.export_explainer(passed, tmp_path / "e.onnx", method, **SETTINGS[method])
        assert written.error < 1e-5
        found = run(tmp_path / "e.onnx", {name: inputs})
        assert_same(found, METHODS[method].run(passed, inputs, **SETTINGS[method]), slice(None))


class Pair(nn.Module):
    """Two inputs and an output with the names of an explainer's own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, target, map):
        return self.c(torch.relu(self.a(target) + self.b(map)))


def test_several_inputs_have_results_of_their_own_and_names_do_not_clash(tmp_path):
    rng = np.random.default_rng(0)
    feeds = {
        "target": rng.standard_normal((2, 4), np.float32),
        "map": rng.standard_normal((2, 3), np.float32),
    }
    model = ox.convert(Pair().eval(), {name: torch.from_numpy(one) for name, one in feeds.items()})
    assert {one.name for one in model.proto.graph.input} == feeds.keys()
    for method in ("gradient", "full-grad", "integrated-gradients", "smooth-grad"):
        path = tmp_path / "e.onnx"
        ox.export_explainer(model, path, method, **SETTINGS[method])
        found = run(path, {**{name: one[:1] for name, one in feeds.items()}, "_target": np.array([2])})
        first = {name: one[:1] for name, one in feeds.items()}
        api = METHODS[method].run(model, first, 2, **SETTINGS[method])
        for name in feeds:
            assert distance(found[f"attribution/{name}"], api.attributions[name]) < 1e-5
            assert distance(found[f"map/{name}"], api.map(name)) < 1e-5


def test_free_sizes_stay_free_where_the_method_allows_it(tmp_path):
    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def forward(self, x):
            return self.net(x)

    height, width = (torch.export.Dim(name, min=8, max=64) for name in "hw")
    program = torch.export.export(
        Convolutions().eval(),
        (torch.randn(2, 3, 16, 20),),
        dynamic_shapes={"x": {0: torch.export.Dim("n"), 2: height, 3: width}},
    )
    model = ox.convert(program, torch.randn(2, 3, 16, 20))
    small, other = (
        np.random.default_rng(0).standard_normal((1, 3, *size), np.float32) for size in ((16, 20), (24, 12))
    )
    path = tmp_path / "e.onnx"
    with pytest.raises(ox.AnalysisError, match="sizes are free"):
        ox.export_explainer(model, path, "gradient")
    for method in ("gradient", "integrated-gradients"):
        ox.export_explainer(model, path, method, inputs=small, **SETTINGS[method])
        for x in (small, other):
            assert_same(run(path, {"x": x}), METHODS[method].run(model, x, **SETTINGS[method]), slice(None))
    written = ox.export_explainer(model, path, "full-grad", inputs=small)
    assert written.description.inputs[0].shape[1:] == (3, 16, 20)
    assert_same(run(path, {"x": small}), ox.full_grad(model, small), slice(None))
    with pytest.raises(Exception, match="invalid dimensions"):
        run(path, {"x": other})


@pytest.mark.parametrize("method", ["gradient", "full-grad", "integrated-gradients", "smooth-grad"])
def test_a_model_with_its_samples_along_another_axis_keeps_its_axes(tmp_path, method):
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((6, 3, 5), np.float32)
    axes = {"x": {1: torch.export.Dim("n", min=1, max=9)}}
    program = torch.export.export(TimeFirst().eval(), (torch.from_numpy(x),), dynamic_shapes=axes)
    model = ox.convert(program, torch.from_numpy(x))
    target = ox.Target(position=(-1, 2))
    settings = {**SETTINGS[method], **({"baseline": x[:, :1]} if method == "integrated-gradients" else {})}
    path = tmp_path / "e.onnx"
    ox.export_explainer(model, path, method, inputs=x, target=target, **settings)
    onnx.checker.check_model(str(path), full_check=True)
    found = run(path, {"x": x})
    api = METHODS[method].run(model, x, target, **settings)
    rows = slice(0, 1) if method in DRAWN else slice(None)
    assert distance(found["attribution"][:, rows], api.attributions[:, rows]) < 1e-5
    assert distance(found["map"][rows], np.asarray(api.map)[rows]) < 1e-5
    assert distance(found["explained"], api.output) < 1e-6
    logits = next(iter(ox.differentiate(model).forward(x).values()))
    output = next(port.name for port in read(onnx.load(path)).outputs if port.role == "output")
    np.testing.assert_allclose(found[output], logits, rtol=1e-5, atol=1e-6)


def test_a_target_of_weights_is_fixed_in_the_file(tmp_path):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    target = ox.Target(index=1) - ox.Target(index=4)
    written = ox.export_explainer(model, path, "full-grad", target=target)
    assert [port.role for port in written.description.inputs] == ["model"]
    assert_same(run(path, {"input": inputs}), ox.full_grad(model, inputs, target), slice(None))


def test_the_file_says_what_it_is(tmp_path):
    model, _ = network("CNN")
    path = tmp_path / "e.onnx"
    written = ox.export_explainer(model, path, "integrated-gradients", target=3, steps=4)
    proto = onnx.load(path)
    assert read(proto) == written.description
    ports = {port.name: port for port in (*written.description.inputs, *written.description.outputs)}
    for info in (*proto.graph.input, *proto.graph.output):
        assert info.doc_string == ports[info.name].meaning
    assert ports["target"].default == [3] and ports["target"].optional
    assert written.description.settings["steps"] == 4
    assert {node.domain for node in proto.graph.node} == {""}
    assert proto.opset_import[0].version == 21
    stored = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(stored["onnxplain.explainer"])["sum_of"] == "difference"


def test_weights_are_stored_once(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    model = ox.convert(net, torch.randn(2, 3, 16, 16))
    bare = len(model.proto.SerializeToString())
    for method in ("gradient", "full-grad", "integrated-gradients"):
        written = ox.export_explainer(model, tmp_path / "e.onnx", method, **SETTINGS[method])
        assert written.size < 1.2 * bare


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("xrai", {}, "integrated-gradients"),
        ("guided-ig", {}, "integrated-gradients"),
        ("blur-ig", {}, "integrated-gradients"),
        ("conductance", {}, "integrated-gradients"),
        ("fullgrad", {}, "did you mean 'full-grad'"),
        ("integrated-gradients", {"tolerance": 0.01}, "needs the host"),
        ("integrated-gradients", {"baseline": "blurred"}, "feed others to the file"),
        ("integrated-gradients", {"baseline": np.zeros((1, 2, 16, 16))}, "does not broadcast"),
        ("integrated-gradients", {"steps": 0}, "at least 1 step"),
        ("integrated-gradients", {"rule": "best"}, "choose from"),
        ("gradient", {"steps": 3}, "no setting 'steps'"),
        ("gradient", {"target": 10}, "out of range"),
        ("gradient", {"target": [0, 1]}, "one class as the default"),
        ("gradient", {"overlay": True}, "with_preprocessing"),
        ("gradient", {"with_preprocessing": True}, "does not state its preprocessing"),
        ("expected-gradients", {}, "background"),
        ("smooth-grad", {"samples": 0}, "samples"),
    ],
)
def test_what_cannot_be_a_file_is_refused_and_nothing_is_written(tmp_path, method, settings, words):
    model, _ = network("CNN")
    with pytest.raises(ox.AnalysisError) as caught:
        ox.export_explainer(model, tmp_path / "e.onnx", method, **settings)
    assert words in str(caught.value) and "Fix: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["CNN", "ViT", "LSTM"])
@pytest.mark.parametrize(
    ("form", "opset", "most"),
    [
        ({"opset": 17}, 17, 1e-5),
        ({"opset": 23}, 23, 1e-5),
        ({"fp16": True}, 21, 1e-2),
        ({"check_for": "webgpu", "fp16": True, "opset": 18}, 18, 1e-2),
        ({"check_for": "node"}, 21, 1e-5),
    ],
)
def test_forms_of_the_file(tmp_path, name, form, opset, most):
    model, inputs = network(name)
    path = tmp_path / "e.onnx"
    written = ox.export_explainer(model, path, "full-grad", inputs=inputs, **form)
    assert written.error <= most
    proto = onnx.load(path)
    assert proto.opset_import[0].version == written.description.opset == opset
    onnx.checker.check_model(proto, full_check=True)
    required = [one.name for one in ort.InferenceSession(str(path)).get_inputs()]
    assert ("target" in required) == ("check_for" in form)
    feeds = {required[0]: inputs, "target": np.array([1])}
    assert distance(run(path, feeds)["map"], ox.full_grad(model, inputs, 1).map) <= most


def test_half_precision_halves_the_file(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    model = ox.convert(net, torch.randn(2, 3, 16, 16))
    sizes = [ox.export_explainer(model, tmp_path / "e.onnx", "gradient", fp16=half).size for half in (0, 1)]
    assert sizes[1] < 0.52 * sizes[0]


@pytest.mark.parametrize(
    ("form", "words"),
    [({"opset": 16}, "opset from 17"), ({"check_for": "abacus"}, "web"), ({"opset": 99}, "opset from 17")],
)
def test_a_form_that_there_is_not_is_refused(tmp_path, form, words):
    model, _ = network("CNN")
    with pytest.raises(ox.AnalysisError, match=words):
        ox.export_explainer(model, tmp_path / "e.onnx", "gradient", **form)
    assert list(tmp_path.iterdir()) == []


def test_all_inputs_can_be_required(tmp_path):
    model, inputs = network("CNN")
    path = tmp_path / "e.onnx"
    written = ox.export_explainer(model, path, "integrated-gradients", steps=4, required_inputs=True)
    assert [one.name for one in ort.InferenceSession(str(path)).get_inputs()] == [
        "input",
        "baseline",
        "target",
    ]
    feeds = {port.name: np.array(port.default) for port in written.description.inputs if port.role != "model"}
    found = run(path, {"input": inputs, "baseline": feeds["baseline"].astype("f"), "target": feeds["target"]})
    assert_same(found, ox.integrated_gradients(model, inputs, steps=4), slice(None))
