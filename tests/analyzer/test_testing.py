"""assert_equivalent: passes and fails like a test, on networks as they are; its message is the table."""

from __future__ import annotations

import copy
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from analyzer import AnalysisError, Report
from analyzer.errors import Disagreement, NotEquivalent
from analyzer.testing import assert_equivalent
from converters import ConversionError, convert

HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 4, 3, 5


class Flattened(keras.Model):
    """Flatten and dense: takes an image in any layout, and does not say which is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(CLASSES)
        self(np.zeros((1, HEIGHT, WIDTH, CHANNELS), np.float32))

    def call(self, x):
        return keras.ops.tanh(self.dense(self.flatten(x)))


@pytest.fixture(scope="module")
def twins():
    torch.manual_seed(0)
    first, second = (
        nn.Sequential(nn.Flatten(), nn.Linear(HEIGHT * WIDTH * CHANNELS, CLASSES), nn.Tanh()),
        Flattened(),
    )
    weight, bias = (parameter.detach().numpy() for parameter in first[1].parameters())
    rows = weight.reshape(CLASSES, CHANNELS, HEIGHT, WIDTH).transpose(0, 2, 3, 1).reshape(CLASSES, -1)
    second.dense.set_weights([rows.T, bias])
    return first, second


@pytest.fixture(scope="module")
def images():
    shape = (3, CHANNELS, HEIGHT, WIDTH)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_networks_of_two_frameworks_are_compared_in_the_layout_that_fits(twins, images):
    report = assert_equivalent(twins, torch.tensor(images, requires_grad=True), target=2)
    assert isinstance(report, Report) and report.backends == ("Sequential", "Flattened")
    assert assert_equivalent(twins[::-1], images.transpose(0, 2, 3, 1), names=("keras", "torch")).passed


def test_a_wrong_bias_fails_with_the_table_as_its_message(twins, images):
    wrong = Flattened()
    kernel, bias = twins[1].dense.get_weights()
    wrong.dense.set_weights([kernel, bias + np.float32(0.1)])
    with pytest.raises(AssertionError) as caught:
        assert_equivalent((twins[0], wrong), images, target=2)
    assert isinstance(caught.value, NotEquivalent) and isinstance(caught.value, Disagreement)
    lines = str(caught.value).splitlines()
    assert "disagree" in lines[0] and lines[2] == "Sequential against Flattened: disagree"
    assert any(line.startswith("node at fault: ") and "Gemm 'node_linear'" in line for line in lines)
    assert any(line.split()[0] == "layer" and line.split()[2] != "0" for line in lines[4:10])


def test_one_network_is_checked_with_its_source(twins, images):
    report = assert_equivalent(twins[0], images, backends=["onnxruntime", "source"])
    assert report.backends == ("onnxruntime", "source")
    with torch.no_grad():
        source = convert(copy.deepcopy(twins[0]), images)
        source.source.program.state_dict["1.weight"] *= 1.01
    with pytest.raises(NotEquivalent, match="onnxruntime against source: disagree"):
        assert_equivalent(source, images, backends=["onnxruntime", "source"])


def test_files_and_several_inputs_by_name(tmp_path):
    class Mix(nn.Module):
        def forward(self, image, table):
            return torch.tanh(image).mean((2, 3)) + 3 * table

    class Swapped(nn.Module):
        def forward(self, row, picture):
            return torch.tanh(picture).mean((2, 3)) + 3 * row

    feeds = {"image": torch.randn(2, 3, 5, 4), "table": torch.randn(2, 3)}
    path = convert(Mix(), {name: value[:1] for name, value in feeds.items()}).save(tmp_path / "mix.onnx")
    pairs = {"image": "picture", "table": "row"}
    report = assert_equivalent((path, Swapped()), feeds, target=0, inputs_of_b=pairs)
    assert report.passed and report.backends == ("mix", "Swapped")
    proto = onnx.load(path)
    assert assert_equivalent((Mix(), proto), feeds, target=0).passed
    assert assert_equivalent(path, feeds, target=0, backends=["onnxruntime", "torch"]).passed


def test_what_is_refused(twins, images):
    with pytest.raises(AnalysisError, match="a pair of models, got 3"):
        assert_equivalent((twins[0], twins[0], twins[1]), images)
    with pytest.raises(AnalysisError, match="`backends` is an option of one model"):
        assert_equivalent(twins, images, backends=["torch"])
    with pytest.raises(AnalysisError, match="`names` is an option of a pair"):
        assert_equivalent(twins[0], images, names=("a", "b"))
    with pytest.raises(ConversionError, match="Conv1d"):
        assert_equivalent((twins[0], nn.Conv1d(9, 2, 9)), images)


def test_pytest_shows_the_table_and_the_line_of_the_test(tmp_path):
    (tmp_path / "test_port.py").write_text(
        "import numpy as np\n"
        "from onnx import parser\n"
        "from analyzer.testing import assert_equivalent\n\n"
        "def model(c):\n"
        "    return parser.parse_model('<ir_version: 10, opset_import: [\"\": 23]> '\n"
        "        'g (float[n,2] x) => (float[n,2] y)'\n"
        "        f' <float[2] c = {{3, {c}}}> {{ h = Tanh(x) y = Mul(h, c) }}')\n\n"
        "def test_same():\n    assert_equivalent((model(4), model(4)), np.ones((2, 2), np.float32), target=0)\n\n"
        "def test_port():\n    assert_equivalent((model(4), model(5)), np.ones((2, 2), np.float32), target=0)\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "-q", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout
    assert "> " in done.stdout and "testing.py" not in done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    assert any("NotEquivalent" in line for line in told)
    assert any("quantity" in line and "relative L2" in line for line in told)
    assert any("node at fault: Mul" in line for line in told)
