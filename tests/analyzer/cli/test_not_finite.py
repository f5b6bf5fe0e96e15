"""NaN and infinities are said, with the node that computes the first, and end a command with status 1."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from analyzer import differentiate, gradient, input_x_gradient
from analyzer.cli import main
from analyzer.methods import METHODS
from converters import load

NAN, INFINITE = np.float32(np.nan), np.float32(np.inf)
RNG = np.random.default_rng(0)
X = np.abs(RNG.standard_normal((2, 3, 8, 8))).astype(np.float32)
WEIGHT = (RNG.standard_normal((4, 3, 3, 3)) / 5).astype(np.float32)
HEAD = RNG.standard_normal((4, 3)).astype(np.float32)


def _with(array, value, place=0):
    changed = array.copy()
    changed.flat[place] = value
    return changed


def _network(first="r = Identity(x)", last="z = Identity(p)", weight=WEIGHT, head=HEAD):
    text = f"""<ir_version: 10, opset_import: ["": 20]> g (float[n,3,8,8] x) => (float[n,3] y) {{
        {first} c = Conv<pads = [1,1,1,1]>(r, w) a = Relu(c) m = GlobalAveragePool(a) p = Flatten(m)
        {last} y = MatMul(z, v) }}"""
    proto = parser.parse_model(text)
    proto.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(head, "v")])
    return proto


# The network that is not finite, and the words of the message.
NETWORKS = {
    "a weight is NaN": (_network(weight=_with(WEIGHT, NAN)), "(Conv) is the first"),
    # In the middle of the kernel: what a border of zeros times an infinity gives depends on the runtime's kernel.
    "a weight is infinite": (_network(weight=_with(WEIGHT, INFINITE, 4)), "(Conv) is the first"),
    "a weight is minus infinity": (_network(head=_with(HEAD, -INFINITE)), "(MatMul) is the first"),
    "the logarithm of 0": (_network(last="o = Sub(p, p) z = Log(o)"), "(Log) is the first"),
    "a gradient of the root of 0": (
        _network(last="o = Sub(p, p) z = Sqrt(o)"),
        "(Sqrt) has no finite derivative",
    ),
}
NEEDS = {"conductance": ["--wrt", "c"], "expected-gradients": ["--background", "x.npy"]}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The status of a command in a folder with the input, and the last line of its errors."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)

    def call(*arguments):
        status = main([*arguments])
        return status, capsys.readouterr().err.strip().splitlines()[-1]

    return call


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["a weight is NaN", "a gradient of the root of 0"])
def test_every_method_says_so(run, name, method):
    proto, told = NETWORKS[name]
    onnx.save(proto, "m.onnx")
    status, line = run(
        "analyze", "m.onnx", "x.npy", "--method", method, "--target", "0", "-o", "out", *NEEDS.get(method, [])
    )
    assert status == 1 and told in line, line


@pytest.mark.parametrize("name", NETWORKS)
def test_every_command_says_so(run, name, tmp_path):
    proto, told = NETWORKS[name]
    onnx.save(proto, "m.onnx")
    onnx.save(_network(), "plain.onnx")
    for command in (
        ["analyze", "m.onnx", "x.npy"],
        ["check", "m.onnx", "x.npy", "--backends", "onnxruntime", "--html", "c.html", "--junit", "c.xml"],
        ["compare", "m.onnx", "plain.onnx", "x.npy", "--html", "d.html"],
    ):
        status, line = run(*command, "--target", "0")
        assert status == 1 and told in line, (command, line)
    assert all((tmp_path / page).read_text().rstrip().endswith("</html>") for page in ("c.html", "d.html"))


def test_convert_says_so(run, capsys):
    onnx.save(NETWORKS["a weight is NaN"][0], "m.onnx")
    status, line = run("convert", "m.onnx", "-o", "c.onnx")
    assert status == 1 and "(Conv) is the first" in line
    onnx.save(NETWORKS["a weight is minus infinity"][0], "m.onnx")
    assert main(["convert", "m.onnx", "-o", "c.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "'MatMul_y' (MatMul) is the first" in json.dumps(document)


def test_an_input_that_is_not_finite_is_bad_usage(run):
    onnx.save(_network(), "m.onnx")
    np.save("x.npy", _with(X, NAN))
    for command in (["analyze", "m.onnx"], ["check", "m.onnx"], ["compare", "m.onnx", "m.onnx"]):
        status, line = run(*command, "x.npy")
        assert status == 2 and "NaN or infinity (1 of 384 values)" in line


def test_an_infinite_bias_that_a_relu_cuts_off_changes_nothing(run):
    """The path then leads from the inputs on, and not from an infinite tensor."""
    bias = np.zeros(4, np.float32)
    bias[2] = -np.inf
    proto = _network()
    proto.graph.node[1].input.append("b")
    proto.graph.initializer.append(numpy_helper.from_array(bias, "b"))
    onnx.save(proto, "m.onnx")
    assert main(["analyze", "m.onnx", "x.npy", "--method", "integrated-gradients", "--target", "0"]) == 0


@pytest.mark.parametrize("method", [gradient, input_x_gradient])
def test_a_picture_of_an_infinite_gradient_says_so(method):
    x = X.copy()
    x[0, 0, 2:4, 2:4] = 0
    fn = differentiate(load(_network(first="r = Sqrt(x)")))
    found = method(fn, x, 0)
    assert not np.isfinite(found.map).all()
    for inputs in (None, x):
        figure = found.plot(inputs)
        figure.canvas.draw()
        assert "values are NaN or infinite, drawn as 0" in figure.get_suptitle()
