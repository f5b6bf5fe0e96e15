"""`inspect`: what is told of a model before anything is run, whatever the model."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from onnx import parser

from analyzer.cli import main
from converters import load

TEXT = """<ir_version: 9, opset_import: ["": 17], producer_name: "pytorch", producer_version: "2.9">
g (int64[n,t] ids, int64[n,t] mask) => (float[n,2] logits)
<float[3,2] table = {1,2,3,4,5,6}, float[2,2] w = {1,0,0,1}, float[2] b = {1,2}, int64[1] last = {-1}> {
    embedded = Gather(table, ids)
    m = Cast<to=1>(mask)
    column = Unsqueeze(m, last)
    kept = Mul(embedded, column)
    pooled = ReduceMean<axes=[1], keepdims=0>(kept)
    z = MatMul(pooled, w)
    logits = Add(z, b)
}"""
UNKNOWN = """<ir_version: 9, opset_import: ["": 17, "acme.ops": 1]>
g (float[n,3] x) => (float[n,3] y, int64[n] label) {
    h = Relu(x)
    [twist] q = acme.ops.Swizzle(h)
    y = Sum(x, h, q)
    label = ArgMax<axis=1, keepdims=0>(y)
}"""
LABEL = """<ir_version: 9, opset_import: ["": 17]>
g (float[n,3] x) => (int64[n] label) { h = Relu(x) [decide] label = ArgMax<axis=1, keepdims=0>(h) }"""
SHAPE = """<ir_version: 9, opset_import: ["": 17]>
g (float[n,3] x) => (float[2] y) { s = Shape(x) [count] y = Cast<to=1>(s) }"""
FIXED = """<ir_version: 9, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"""
LOOP = """<ir_version: 9, opset_import: ["": 17]>
g (float[n,3] x, int64 trips) => (float[n,3] y) <bool c = {1}> {
    h = Relu(x)
    [turns] y = Loop<body = b (int64 i, bool go, float[n,3] v) => (bool on, float[n,3] w) {
        on = Identity(go) w = Mul(v, h) }>(trips, c, h)
}"""
FUSED = """<ir_version: 9, opset_import: ["": 17, "com.microsoft": 1]>
g (float[n,3] x) => (float[n,3] y) { h = Relu(x) y = com.microsoft.Irfft(h) }"""
BRANCHES = """<ir_version: 9, opset_import: ["": 17]>
g (float[n,3] a, float[n,3] b, int64[n] k) => (float[n,3] s, float[n,3] p, int64[n] k2)
<float[3] c = {1,2,3}> { s = Add(a, c) p = Mul(a, b) k2 = Neg(k) }"""


@pytest.fixture
def inspected(files, json_of):
    """The document of a model given as ONNX text."""

    def run(text):
        onnx.save(parser.parse_model(text), files / "inspected.onnx")
        status, found = json_of("inspect", "inspected.onnx")
        assert status == 0
        return found

    return run


@pytest.fixture
def shown(files, command, monkeypatch):
    """What a terminal of some width shows of a model given as ONNX text."""

    def run(text, width):
        onnx.save(parser.parse_model(text), files / "inspected.onnx")
        monkeypatch.setattr("analyzer.cli.terminal.WIDTH_WITHOUT_TERMINAL", width)
        status, out, err = command("inspect", "inspected.onnx")
        assert status == 0 and err == ""
        return out

    return run


def test_inspect_counts_what_the_graph_has(files, json_of):
    status, found = json_of("inspect", "stored.onnx")
    assert status == 0
    assert found["parameters"] == 6 * 3 * 9 + 6 + 6 * 5 + 5
    assert found["inputs"][0]["shape"][1:] == [3, 16, 16] and found["outputs"][0]["shape"][1:] == [5]
    nodes = load(files / "stored.onnx").proto.graph.node
    assert found["nodes"] == len(nodes) == sum(found["operators"].values())
    assert found["opsets"] == {"ai.onnx": 17} and found["canonical_opset"] == 23
    layers = [(layer["op"], layer["kind"], layer["tensor"], layer["shape"][1:]) for layer in found["layers"]]
    assert layers == [("Conv", "explicit", "h", [6, 16, 16]), ("Gemm", "explicit", "logits", [5])]
    for backend in ("onnxruntime", "torch", "tensorflow"):
        entry = found["coverage"][backend]
        assert entry["covered"] == entry["path"] == found["nodes"] and entry["blocking"] == []
    assert "source" not in found["coverage"]


def test_an_op_nobody_knows_blocks_every_backend(inspected):
    found = inspected(UNKNOWN)
    assert found["path"]["from"] == ["x"] and found["path"]["to"] == ["y"] and found["path"]["nodes"] == 3
    for backend in ("torch", "tensorflow"):
        entry = found["coverage"][backend]
        assert (entry["covered"], entry["path"]) == (2, 3)
        assert [(node["node"], node["op"]) for node in entry["blocking"]] == [("twist", "acme.ops.Swizzle")]
    blocking = found["coverage"]["onnxruntime"]["blocking"]
    assert blocking[0]["node"] == "twist" and "acme.ops is no domain" in blocking[0]["reason"]


def test_integers_alone_have_their_gradient_at_the_embedding(inspected, shown):
    found = inspected(TEXT)
    assert found["path"]["from"] == ["embedded"] and not found["path"]["from_inputs"]
    assert found["producer"] == "pytorch 2.9"
    assert found["coverage"]["onnxruntime"]["covered"] == found["path"]["nodes"] == 4
    assert [layer["op"] for layer in found["layers"]] == ["Add"]
    assert 'wrt=["embedded"]' in shown(TEXT, 80)


def test_a_path_that_ends_is_told_with_its_end(inspected, shown):
    found = inspected(LABEL)
    assert found["path"]["nodes"] == 0 and found["layers"] == []
    assert found["path"]["ends"] == [{"node": "decide", "op": "ArgMax"}]
    assert "derivative of every output is zero: the path ends at decide (ArgMax)" in shown(LABEL, 120)
    assert [end["op"] for end in inspected(SHAPE)["path"]["ends"]] == ["Shape"]


def test_a_loop_of_unknown_length_is_covered(inspected):
    found = inspected(LOOP)
    assert found["operators"]["Loop"] == 1
    assert [found["coverage"][name]["blocking"] for name in ("onnxruntime", "torch")] == [[], []]


def test_a_loop_whose_shapes_change_is_the_reason(inspected):
    growing = LOOP.replace("w = Mul(v, h)", "w = Concat<axis=0>(v, h)").replace(
        "float[n,3] w", "float[m,3] w"
    )
    assert inspected(growing)["coverage"]["onnxruntime"]["blocking"] == []
    flat = LOOP.replace("w = Mul(v, h)", "u = Mul(v, h) w = Unsqueeze(u, a)").replace(
        "{1}>", "{1}, int64[1] a = {0}>"
    )
    (blocking,) = inspected(flat.replace("float[n,3] w", "float w"))["coverage"]["onnxruntime"]["blocking"]
    assert blocking["node"] == "turns"
    assert "trip count 'trips' is computed while running" in blocking["reason"]


def test_a_model_without_a_canonical_form_is_shown_with_the_reason(inspected, shown):
    found = inspected(FUSED)
    assert found["nodes"] == 2 and found["opsets"] == {"ai.onnx": 17, "com.microsoft": 1}
    assert "Irfft" in found["refused"] and found["coverage"] == {}
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["n", 3]}]
    assert "Nothing" in shown(FUSED, 80)


def test_several_inputs_and_outputs(inspected):
    found = inspected(BRANCHES)
    assert found["path"] == {
        "from": ["a", "b"],
        "from_inputs": True,
        "to": ["s", "p"],
        "nodes": 2,
        "ends": [],
    }
    assert {(layer["tensor"], layer["kind"]) for layer in found["layers"]} == {
        ("s", "explicit"),
        ("p", "implicit"),
    }


def test_a_rule_that_refuses_an_attribute_gives_its_reason(monkeypatch, inspected):
    """The rule is tried on the node as it is: having one is not enough."""
    from analyzer.errors import UnsupportedOp
    from analyzer.ops.activation import Relu

    def refuse(op, g, y, x):
        raise UnsupportedOp("Relu on a Tuesday has no VJP rule")

    monkeypatch.setattr(Relu, "vjp", refuse)
    coverage = inspected(UNKNOWN)["coverage"]
    reasons = {node["op"]: node["reason"] for node in coverage["onnxruntime"]["blocking"]}
    assert reasons["Relu"] == "Relu on a Tuesday has no VJP rule"
    assert "Relu" not in {node["op"] for node in coverage["torch"]["blocking"]}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("text", [TEXT, UNKNOWN, LABEL, LOOP, FUSED, BRANCHES])
def test_what_is_shown_fits_the_terminal(shown, text, width):
    out = shown(text, width)
    assert max(len(line) for line in out.splitlines()) <= width
    assert "What can be differentiated" in out


def test_a_converted_network_is_covered_by_its_source(files, json_of):
    (files / "inspected_factory.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()), torch.zeros(2, 3)\n"
    )
    status, found = json_of("inspect", "inspected_factory:make")
    assert status == 0
    entry = found["coverage"]["source"]
    assert entry["framework"] == "pytorch" and entry["covered"] == entry["path"] == 2


def test_a_file_is_read_and_not_run(tmp_path, monkeypatch, capsys):
    """A fixed batch is freed by runs: only --run may make them."""
    path = tmp_path / "fixed.onnx"
    onnx.save(parser.parse_model(FIXED), path)

    def load_session(*arguments, **options):
        raise AssertionError("the model is run")

    monkeypatch.setattr(onnxruntime, "InferenceSession", load_session)
    assert main(["inspect", str(path)]) == 0
    assert "2 × 3" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["inspect", str(path), "--run"]) == 0
    assert "batch × 3" in capsys.readouterr().out


def test_models_that_cannot_be_differentiated_fail_where_that_is_asked(command, json_of, files, tmp_path):
    flat = tmp_path / "flat.onnx"
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { y = Floor(x) }'
    onnx.save(parser.parse_model(text), flat)
    status, found = json_of("inspect", "plain.onnx", flat)
    assert status == 0 and [one["model"] for one in found["models"]] == ["plain.onnx", str(flat)]
    status, _, err = command("inspect", "plain.onnx", flat, "--differentiable")
    assert status == 1 and err.count("\n") == 1 and "flat.onnx" in err and "plain.onnx" not in err
    status, _, err = command("inspect", "plain.onnx", "--differentiable")
    assert (status, err) == (0, "")
