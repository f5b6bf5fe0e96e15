"""Inner tensors as inputs: a model from a tensor on is what is left of the network behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser, shape_inference
from torch import Tensor, nn

from analyzer import differentiate, gradient, integrated_gradients
from analyzer.backends.inner_tensors import cut
from analyzer.errors import AnalysisError, Note, UnknownTensor
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Graph
from converters import convert, load
from tests.zoo.draw import draw, normal, tokens

BACKENDS = ["onnxruntime", "torch", "tensorflow", "source"]
HEADER = '<ir_version: 10, opset_import: ["": 23]>'
WORDS = 9


class Halves(nn.Module):
    """second(first(x), …): a network whose rest behind `first` is a module that can be run by itself."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.second(self.first(x), *others)


class Outputs(nn.Module):
    """A recurrent layer's outputs without its state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Mean(nn.Module):
    """The mean over a sequence, classified."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class Gated(nn.Module):
    """Features gated by a second input, and an Expand to the number of samples, as class tokens have it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.token, self.head = nn.Linear(3, 6), nn.Parameter(torch.zeros(1, 6)), nn.Linear(12, 5)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        token = self.token.expand(x.shape[0], -1)
        return self.head(torch.cat([x * self.gate(other).sigmoid(), token * x.tanh()], 1))


CNN = nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...], tuple[int, ...]]
CASES: dict[str, Case] = {
    "cnn": (
        lambda: Halves(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), CNN),
        (normal(2, 3, 12, 12),),
        (3, 4, 5, 5),
    ),
    "lstm": (lambda: Halves(Outputs(), Mean(nn.Tanh(), 6)), (normal(2, 5, 4),), (3, 5, 6)),
    "transformer": (
        lambda: Halves(
            nn.Linear(3, 8), Mean(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu"), 8)
        ),
        (normal(2, 5, 3),),
        (3, 5, 8),
    ),
    "text": (
        lambda: Halves(nn.Embedding(WORDS, 6), Mean(nn.Sequential(nn.Linear(6, 8), nn.GELU()), 8)),
        (tokens(2, 5, count=WORDS),),
        (3, 5, 6),
    ),
    "two inputs": (
        lambda: Halves(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), Gated()),
        (normal(2, 4), normal(2, 3, seed=2)),
        (3, 6),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    build, arguments, shape = CASES[request.param]
    net = draw(build())
    return net, arguments, shape, convert(net, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_model_is_the_rest_of_the_network(case, backend):
    """Fed with activations that no input gives, it answers as the module behind them, and so do its gradients."""
    net, arguments, shape, model = case
    fn = differentiate(model, backend)
    names = fn.graph.inputs
    (point,) = fn.roots("first")
    whole = dict(zip(names, (a.numpy() for a in arguments), strict=True))
    own = fn.forward(whole, [point])[point]
    part = cut(fn, [point])
    assert part.graph.inputs == (point, *names[1:])

    others = {name: whole[name] for name in names[1:]}
    (output,) = fn.graph.outputs
    again = part.forward({point: own, **others})[output]
    np.testing.assert_allclose(again, fn.forward(whole)[output], rtol=1e-5, atol=1e-6)

    x = normal(*shape, seed=5).requires_grad_()
    held = [normal(shape[0], *a.shape[1:], seed=7) for a in arguments[1:]]
    logits = net.second(x, *held)
    (expected,) = torch.autograd.grad(logits[:, 2].sum(), x)
    feeds = {point: x.detach().numpy(), **dict(zip(names[1:], (h.numpy() for h in held), strict=True))}
    np.testing.assert_allclose(part.forward(feeds)[output], logits.detach(), rtol=1e-4, atol=1e-5)
    found = part.gradients(feeds, 2, [point])
    np.testing.assert_allclose(found.output, logits[:, 2].detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradients[point], expected, rtol=1e-4, atol=1e-6)


def test_nothing_before_the_points_remains(case):
    net, _, _, model = case
    fn = differentiate(model)
    (point,) = fn.roots("first")
    part = cut(fn, [point])
    assert fn.graph.ancestors([point]).isdisjoint(part.tensors[1:])
    assert cut(fn, [point]) is part
    assert {i.name for i in part.model.proto.graph.input} == set(part.graph.inputs)
    behind = {f"second.{name}" for name, _ in net.second.named_parameters()}
    assert {t.name for t in part.model.proto.graph.initializer if "first" in t.name} <= behind


def test_attributions_of_a_layer_are_those_of_captum(case):
    """At equal steps, with a layer's baseline that of baseline inputs."""
    net, arguments, _, model = case
    starts = tuple(torch.zeros_like(argument) for argument in arguments)
    steps = {"target": 1, "n_steps": 6, "method": "gausslegendre"}
    path = captum.attr.LayerIntegratedGradients(net, net.first)
    expected = path.attribute(arguments, baselines=starts, **steps).detach()
    product = captum.attr.LayerGradientXActivation(net, net.first).attribute(arguments, target=1).detach()

    fn = differentiate(model)
    (point,) = fn.roots("first")
    feeds, zeros = (
        {name: a.numpy() for name, a in zip(fn.graph.inputs, given, strict=True)}
        for given in (arguments, starts)
    )
    found = integrated_gradients(fn, feeds, 1, wrt="first", baseline_inputs=zeros, steps=6)
    assert relative(found.attributions, expected) <= 1e-4
    values = fn.forward(feeds, [point])
    others = {name: array for name, array in feeds.items() if name in cut(fn, [point]).graph.inputs}
    gradients = cut(fn, [point]).gradients({**others, **values}, 1, [point]).gradients[point]
    assert relative(values[point] * gradients, product) <= 1e-4


def relative(found: np.ndarray, expected: Tensor) -> float:
    """Relative L2."""
    truth = expected.numpy()
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def _keras() -> tuple[Any, Any]:
    """A channels-last network, and what stands behind its second layer."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    h = layers.Conv2D(4, 3, activation="relu", name="stem")(image)
    behind = layers.Conv2D(5, 3, strides=2, name="next")(h)
    y = layers.Dense(5, name="head")(layers.Flatten()(layers.Activation("gelu")(behind)))
    net = keras.Model(image, y)
    return net, keras.Model(h, y)


@pytest.fixture(scope="module")
def keras_case():
    net, rest = _keras()
    return convert(net, np.zeros((2, 8, 8, 3), np.float32)), rest


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_keras_model_is_cut_at_a_layer_by_its_name(keras_case, backend):
    import tensorflow as tf

    model, rest = keras_case
    fn = differentiate(model, backend)
    (point,) = fn.roots("stem")
    rng = np.random.default_rng(0)
    value = fn.forward(rng.normal(size=(2, 8, 8, 3)).astype(np.float32), [point])[point]
    channels_first = value.shape == (2, 4, 6, 6)
    x = rng.normal(size=(3, 6, 6, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        variable = tf.Variable(x)
        logits = rest(variable)[:, 1]
    expected = tape.gradient(logits, variable).numpy()
    fed, wanted = (a.transpose(0, 3, 1, 2) if channels_first else a for a in (x, expected))
    found = cut(fn, [point]).gradients(fed, 1)
    np.testing.assert_allclose(found.output, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradients[point], wanted, rtol=1e-4, atol=1e-6)


SPLIT = f"""{HEADER} g (float[n,4] x) => (float[n,2] y) <int64[2] two = {{2, 2}}>
  {{ h = Exp(x)  a, b = Split<axis = 1>(h, two)  c = Mul(a, a)  d = Mul(c, b)  y = Add(d, b) }}"""


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_one_output_of_a_node_may_be_cut_and_the_other_computed(backend):
    fn = differentiate(load(parser.parse_model(SPLIT)), backend)
    x = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    part = cut(fn, ["a"])
    assert part.graph.inputs == ("a", "x")
    b = np.exp(x[:, 2:])
    found = part.gradients({"a": np.array([[3.0, 5.0]]), "x": x}, 1)
    np.testing.assert_allclose(found.output, 25 * b[:, 1] + b[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.gradients["a"], [[0, 10 * b[0, 1]]], rtol=1e-5)
    both = cut(fn, ["b", "c"])
    assert both.graph.inputs == ("b", "c")
    found = both.gradients({"b": [[1.0, 2.0]], "c": [[3.0, 4.0]]}, 1)
    np.testing.assert_allclose(found.gradients["b"], [[0, 5]])
    np.testing.assert_allclose(found.gradients["c"], [[0, 2]])
    np.testing.assert_allclose(
        differentiate(both.model).forward({"b": [[1, 2]], "c": [[3, 4]]})["y"], [[4, 10]]
    )


LOOKUPS = {
    "a lookup before positions": (
        "int64[n,3] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}, float[3,2] places = {1,1,1,1,1,1}",
        "e = Gather(t, ids) y = Add(e, places)",
        ("e",),
    ),
    "numbers that are cast to tokens": (
        "float[n,3] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}",
        "i = Cast<to = 7>(ids) e = Gather(t, i) y = Exp(e)",
        ("e",),
    ),
    "one-hot rows times a table": (
        "int64[n,3] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}, int64 depth = {5}, float[2] values = {0, 1}",
        "hot = OneHot(ids, depth, values) e = MatMul(hot, t) y = Exp(e)",
        ("e",),
    ),
    "compared with every word": (
        "int64[n,3] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}, int64[5] words = {0,1,2,3,4}, int64[1] last = {-1}",
        "u = Unsqueeze(ids, last) eq = Equal(u, words) hot = Cast<to = 1>(eq) e = MatMul(hot, t) y = Exp(e)",
        ("e",),
    ),
    "columns with a table each, one shifted": (
        "int64[n,2] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}, int64[1] first = {0}, int64[1] other = {1}, int64 two = {2}",
        "a = Gather<axis = 1>(ids, first) b = Gather<axis = 1>(ids, other) c = Add(b, two) "
        "e = Gather(t, a) f = Gather(t, c) y = Concat<axis = 1>(e, f)",
        ("e", "f"),
    ),
    "a mask and positions counted from the words are none": (
        "int64[n,3] ids",
        "float[5,2] t = {1,2,3,4,5,6,7,8,9,10}, int64[1] pad = {0}, int64 axis = {1}, int64[1] last = {-1}",
        "hidden = Equal(ids, pad) m = Cast<to = 1>(hidden) w = Unsqueeze(m, last) k = Cast<to = 7>(hidden) "
        "place = CumSum(k, axis) p = Gather(t, place) e = Gather(t, ids) s = Add(e, p) y = Mul(s, w)",
        ("e",),
    ),
    "a table of whole numbers": (
        "int64[n,3] ids",
        "int8[5,2] t = {1,2,3,4,5,6,7,8,9,10}, float scale = {0.5}",
        "rows = Gather(t, ids) e = DequantizeLinear(rows, scale) y = Exp(e)",
        ("e",),
    ),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_the_vectors_of_tokens_are_found(name):
    inputs, constants, nodes, expected = LOOKUPS[name]
    proto = parser.parse_model(f"{HEADER} g ({inputs}) => (float[n,m,2] y) <{constants}> {{ {nodes} }}")
    assert embedded_tokens(Graph.from_proto(shape_inference.infer_shapes(proto))) == expected


class Named(nn.Module):
    """Modules in modules, a folded BatchNorm, a recurrent layer with a state, and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head, self.again = nn.Linear(5, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, (state, _) = self.lstm(self.stem(x).flatten(2).mT)
        return self.again(self.again(self.head(steps[:, -1] + state[0])).relu())


@pytest.fixture(scope="module")
def named():
    return differentiate(convert(draw(Named()), normal(2, 3, 5, 5)))


def test_a_module_means_its_outputs(named):
    assert named.roots("stem") == named.roots("stem.2") == ("relu",)
    head, tensor = named.roots("head")[0], named.graph.tensors
    assert named.graph.producer[head].op_type == "Gemm" and tensor[head].shape[1:] == (3,)
    assert {tensor[name].shape for name in named.roots("lstm")} == {("batch", 9, 5), (1, "batch", 5)}
    assert named.roots([head, "head"]) == (head,)


def test_a_folded_batch_norm_has_the_output_of_its_convolution_too_and_a_note_says_so(named):
    (folded,) = named.roots("stem.1")
    assert named.graph.producer[folded].op_type == "Conv"
    with pytest.warns(Note, match=r"'stem\.0' was folded together with 'stem\.1'"):
        assert named.roots("stem.0") == (folded,)
    x = normal(2, 3, 5, 5).numpy()
    with pytest.warns(Note):
        found = gradient(named, x, 0, wrt="stem.0")
    np.testing.assert_array_equal(
        found.attributions[folded], gradient(named, x, 0, wrt="stem.1").attributions[folded]
    )
    net = draw(Named())
    apart = differentiate(convert(net, normal(2, 3, 5, 5), fold_batch_norm=False))
    x = normal(2, 3, 5, 5)
    for path, module in (("stem.0", net.stem[:1]), ("stem.1", net.stem[:2])):
        (point,) = apart.roots(path)
        value = apart.forward(x.numpy(), [point])[point]
        np.testing.assert_allclose(value, module(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        ("heat", UnknownTensor, "no tensor and no layer 'heat'. Fix: try .*'head'"),
        ("embedding", UnknownTensor, "no input is looked up in a constant table"),
        ("head.weight", UnknownTensor, "is a constant"),
        ([], UnknownTensor, "names no tensor"),
        (3, UnknownTensor, "names of tensors or layers, as text, got 3"),
        (["stem", "head"], AnalysisError, "computed from 'relu'. Fix: attribute one of them"),
        ("again", AnalysisError, "computed from"),
    ],
)
def test_points_that_are_refused(named, at, error, message):
    with pytest.raises(error, match=message):
        named.roots(at)


def test_a_layer_name_that_several_have_is_refused():
    nodes = 'h = Exp(x) "a/dense/Relu:0" = Relu(h) z = Neg("a/dense/Relu:0") "b/dense/Relu:0" = Relu(z)'
    graph = parser.parse_model(
        f'{HEADER} g (float[n,2] x) => (float[n,2] y) {{ {nodes} y = Tanh("b/dense/Relu:0") }}'
    )
    fn = differentiate(graph)
    assert fn.roots("a/dense") == ("a/dense/Relu:0",)
    with pytest.raises(
        AnalysisError, match=r"several layers are called 'dense'\. Fix: name one of a/dense, b/dense"
    ):
        fn.roots("dense")


def test_a_tensor_whose_samples_lie_elsewhere_cannot_be_an_input(named):
    (state,) = (name for name in named.roots("lstm") if named.graph.tensors[name].shape[0] == 1)
    with pytest.raises(AnalysisError, match="does not hold one sample after the other along its first axis"):
        cut(named, [state])
    moved = f"{HEADER} g (float[n,3] x) => (float[n,3] y) {{ h = Exp(x) t = Transpose(h) e = Exp(t) y = Transpose(e) }}"
    fn = differentiate(load(parser.parse_model(moved)))
    with pytest.raises(AnalysisError, match=r"'t' .*: attribute 'h', the same values with the samples first"):
        cut(fn, ["t"])
    table = f"{HEADER} g (float[2,3] x, float[3,5] w) => (float[2,5] y) {{ h = Exp(x) y = MatMul(h, w) }}"
    with pytest.raises(AnalysisError, match="no axis of samples in common"):
        cut(differentiate(parser.parse_model(table)), ["h"])


def test_the_source_is_cut_where_it_is_known_to_have_the_tensor():
    class Silu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(nn.functional.silu(self.first(x)))

    x = normal(2, 4).numpy()
    fn = differentiate(convert(draw(Silu()), normal(2, 4)), "source")
    sigmoid = next(node.outputs[0] for node in fn.graph.nodes if node.op_type == "Sigmoid")
    (first,) = fn.roots("first")
    part, inner = cut(fn, [first]), cut(fn, [sigmoid])
    value = differentiate(fn.model).forward(x, [first])[first]
    with pytest.raises(AnalysisError, match="run the whole model once"):
        part.forward(value)
    (name,) = fn.graph.outputs
    whole = fn.forward(x)[name]
    np.testing.assert_allclose(part.forward(value)[name], whole, rtol=1e-5)
    feeds = {sigmoid: value, **{n: value for n in inner.graph.inputs if n == first}}
    feeds |= {n: x for n in inner.graph.inputs if n not in feeds}
    with pytest.raises(AnalysisError, match="the source has no tensor"):
        inner.forward(feeds)
