"""Targets of segmentation, detection and sequences, over several outputs, and k classes over one forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser, shape_inference
from torch import Tensor, nn

from analyzer import Target, differentiate, full_grad, gradient, integrated_gradients
from analyzer.errors import TargetError
from converters import Model, convert
from tests.zoo.draw import draw, normal

BACKENDS = ["onnxruntime", "torch", "tensorflow", "source"]
HEADER = '<ir_version: 10, opset_import: ["": 23]>'
# y[n, c, h, w] = x², and z, its channels last.
SQUARES = parser.parse_model(
    f"{HEADER} g (float[n,3,2,2] x) => (float[n,3,2,2] y, float[n,2,2,3] z)"
    " { y = Mul(x, x) z = Transpose<perm = [0, 2, 3, 1]>(y) }"
)
X = normal(2, 3, 2, 2).numpy()
MASK = np.array([[True, False], [False, True]])


def of_squares(target, backend="onnxruntime", x=X):
    """∂/∂x of what is explained of x², and the explained scalars."""
    found = differentiate(SQUARES, backend).gradients(x, target)
    return found.gradients["x"], found.output


def expected(weights, x=X):
    return 2 * x * weights, (x**2 * weights).reshape(len(x), -1).sum(axis=1)


def weights_of(sample_class, mask):
    weights = np.zeros_like(X)
    for sample, one in enumerate(sample_class):
        weights[sample, one] = mask if np.ndim(mask) == 2 else mask[sample]
    return weights


@pytest.mark.parametrize("backend", BACKENDS[:3])
@pytest.mark.parametrize("output", ["y", "z"])
@pytest.mark.parametrize(
    ("index", "mask", "weights"),
    [
        (1, MASK, weights_of([1, 1], MASK)),
        (-1, MASK, weights_of([2, 2], MASK)),
        (np.array([0, 2]), np.stack([MASK, ~MASK]), weights_of([0, 2], np.stack([MASK, ~MASK]))),
        (1, np.array([[0.5, 0], [2, -1]]), weights_of([1, 1], np.array([[0.5, 0], [2, -1]]))),
    ],
)
def test_a_class_is_summed_over_a_mask(backend, output, index, mask, weights):
    target = Target(output, index=index, mask=mask, axis=1 if output == "y" else -1)
    found, scalar = of_squares(target, backend)
    wanted, sums = expected(weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(scalar, sums, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, -1])
def test_a_class_is_summed_where_it_is_the_highest(axis):
    x = np.zeros((2, 3, 2, 2), np.float32)
    x[:, 0], x[0, 1, 0], x[1, 1, 1, 1] = 1, 2, 3
    weights = np.zeros_like(x)
    weights[0, 1, 0], weights[1, 1, 1, 1] = 1, 1
    found, _ = of_squares(Target("y" if axis == 1 else "z", index=1, mask="predicted", axis=axis), x=x)
    np.testing.assert_allclose(found, expected(weights, x)[0])
    with pytest.raises(TargetError, match="the class 2 is nowhere the highest in sample 0"):
        of_squares(Target("y", index=2, mask="predicted"), x=x)


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_elements_by_their_positions(backend):
    # Detection: the score of class 0 of box 2 of (N, boxes, classes); a sequence: the last step's class 1.
    boxes = parser.parse_model(f"{HEADER} g (float[n,3,2] x) => (float[n,3,2] y) {{ y = Mul(x, x) }}")
    x = normal(2, 3, 2).numpy()
    fn = differentiate(boxes, backend)
    cases = [
        (Target(index=(2, 0)), [(0, 2, 0), (1, 2, 0)]),
        (Target(index=(-1, 1)), [(0, 2, 1), (1, 2, 1)]),
        (Target(position=(-1, 1)), [(0, 2, 1), (1, 2, 1)]),
        (Target(position=np.array([[0, 1], [-1, 0]])), [(0, 0, 1), (1, 2, 0)]),
        # The highest class at a step: at the last one, at the second, at one of its own for each sample.
        (Target(position=-1), [(n, 2, x[n, 2].__pow__(2).argmax()) for n in range(2)]),
        (Target(position=(1,)), [(n, 1, x[n, 1].__pow__(2).argmax()) for n in range(2)]),
        (
            Target(position=np.array([0, 2])),
            [(n, t, x[n, t].__pow__(2).argmax()) for n, t in ((0, 0), (1, 2))],
        ),
    ]
    for target, places in cases:
        found = fn.gradients(x, target)
        wanted = np.zeros_like(x)
        for place in places:
            wanted[place] = 2 * x[place]
        np.testing.assert_allclose(found.gradients["x"], wanted, rtol=1e-6)
        np.testing.assert_allclose(found.output, [x[place] ** 2 for place in places], rtol=1e-6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"index": 1, "mask": np.ones((2, 3))}, r"mask of shape \(2, 3\) does not fit .* shape \(2, 2\)"),
        ({"index": 1, "mask": "here"}, "unknown mask 'here'"),
        ({"index": 1, "mask": np.array([[np.nan, 0], [0, 0]])}, "mask hold NaN"),
        ({"index": 1, "axis": 0}, "no axis 0 of classes"),
        ({"index": 1, "axis": 4}, "no axis 4 of classes"),
        ({"index": (0, 1, 1), "mask": MASK}, "goes with a class, not with the coordinates"),
        ({"index": 3, "mask": MASK}, "3 is out of range"),
        ({"position": (0, 1, 1, 1)}, "has 4 coordinates"),
        ({"position": (0, 5, 1)}, "5 is out of range"),
        ({"position": np.zeros((3, 2), int)}, "for 2 samples"),
        ({"position": 1.5}, "ints, got float64"),
        ({"top": 2}, r"not \(N, classes\)"),
    ],
)
def test_what_is_refused(target, message):
    with pytest.raises(TargetError, match=message):
        of_squares(Target("y", **target))


def test_what_cannot_be_said_together():
    with pytest.raises(TargetError, match="index or top, not both"):
        Target(index=1, top=2)
    with pytest.raises(TargetError, match="goes with a class"):
        Target(mask=MASK)
    with pytest.raises(TargetError, match="omit `output`"):
        Target("y", weights={"y": np.ones(3)})


class Heads(nn.Module):
    """Two outputs, and the probabilities of the first: computed from it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6), nn.Tanh()
        )
        self.classes, self.box = nn.Linear(6, 5), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(x)
        logits = self.classes(h)
        return logits, self.box(h), logits.softmax(1)


@pytest.fixture(scope="module")
def heads() -> tuple[nn.Module, Tensor, Model]:
    net, x = draw(Heads()), normal(3, 3, 4, 4)
    return net, x, convert(net, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_over_several_outputs_sum(heads, backend):
    net, x, model = heads
    fn = differentiate(model, backend)
    logits, box, odds = fn.graph.outputs
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, size)).astype(np.float32) for size in (5, 2, 5)]
    leaf = x.clone().requires_grad_()
    scalars = sum((y * torch.tensor(w)).sum(1) for y, w in zip(net(leaf), weights, strict=True))
    (expected,) = torch.autograd.grad(scalars.sum(), leaf)
    target = Target(weights=dict(zip((odds, box, logits), (weights[2], weights[1], weights[0]), strict=True)))
    found = fn.gradients(x.numpy(), target, [*fn.graph.inputs, logits])
    np.testing.assert_allclose(found.output, scalars.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.gradients[fn.graph.inputs[0]], expected, rtol=1e-4, atol=1e-6)
    # The gradient at the logits holds what reaches them through the probabilities.
    y = net(x)[0].detach().requires_grad_()
    through = (y * torch.tensor(weights[0])).sum() + (y.softmax(1) * torch.tensor(weights[2])).sum()
    np.testing.assert_allclose(
        found.gradients[logits], torch.autograd.grad(through, y)[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_highest_classes_are_explained_over_one_forward_pass(heads, backend):
    """As separate calls explain them, to 1e-6, and as PyTorch ranks and differentiates them."""
    net, x, model = heads
    fn = differentiate(model, backend)
    (image,) = fn.graph.inputs
    hidden = next(node.outputs[0] for node in fn.graph.nodes if node.op_type == "Relu")
    found = fn.gradients(x.numpy(), Target(top=3), [image, hidden])
    ranked = net(x)[0].topk(3, dim=1)
    np.testing.assert_array_equal(found.target, ranked.indices)
    np.testing.assert_allclose(found.output, ranked.values.detach(), rtol=1e-5, atol=1e-6)
    assert found.gradients[image].shape == (3, 3, 3, 4, 4) and found.values[hidden].shape == (3, 4, 4, 4)
    again = fn.gradients(x.numpy(), Target(each=found.target[:, ::-1]), [image])
    for rank in range(3):
        alone = fn.gradients(x.numpy(), found.target[:, rank], [image, hidden])
        for name in (image, hidden):
            scale = np.abs(alone.gradients[name]).max()
            apart = np.abs(found.gradients[name][:, rank] - alone.gradients[name]).max()
            assert apart <= 1e-6 * scale
        reversed_ = again.gradients[image][:, 2 - rank]
        np.testing.assert_allclose(reversed_, found.gradients[image][:, rank], rtol=1e-5, atol=1e-7)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[0].gather(1, ranked.indices[:, 1:2]).sum(), leaf)
    np.testing.assert_allclose(found.gradients[image][:, 1], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(TargetError, match="one scalar of each sample"):
        full_grad(fn, x.numpy(), Target(top=2))


def test_an_attribution_over_several_outputs_is_its_gradient(heads):
    _, x, model = heads
    fn = differentiate(model)
    logits, box, _ = fn.graph.outputs
    target = Target(weights={logits: np.array([1, 0, -1, 0, 2]), box: np.array([0.5, 3])})
    found = fn.gradients(x.numpy(), target)
    (image,) = fn.graph.inputs
    np.testing.assert_array_equal(gradient(fn, x.numpy(), target).attributions, found.gradients[image])


def test_paths_are_integrated_for_a_scalar_over_several_outputs(heads):
    """As Captum integrates the network that returns this scalar."""
    from captum.attr import IntegratedGradients

    net, x, model = heads
    fn = differentiate(model)
    logits, box, odds = fn.graph.outputs
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=size).astype(np.float32) for size in (5, 2, 5)]

    def scalar(image: Tensor) -> Tensor:
        return sum((y * torch.tensor(w)).sum(1) for y, w in zip(net(image), weights, strict=True))

    expected = IntegratedGradients(scalar).attribute(x, n_steps=6, method="gausslegendre").detach().numpy()
    target = Target(weights=dict(zip((logits, box, odds), weights, strict=True)))
    found = integrated_gradients(fn, x.numpy(), target, steps=6)
    assert np.linalg.norm(found.attributions - expected) <= 1e-5 * np.linalg.norm(expected)
    ends = scalar(x) - scalar(torch.zeros_like(x))
    np.testing.assert_allclose(found.completeness.output, ends.detach(), rtol=1e-4, atol=1e-5)


def test_equal_classes_rank_in_their_order_on_every_backend():
    ties = parser.parse_model(f"{HEADER} g (float[n,4] x) => (float[n,4] y) {{ y = Mul(x, x) }}")
    x = np.array([[1, -2, 2, 1]], np.float32)
    for backend in BACKENDS[:3]:
        found = differentiate(ties, backend).gradients(x, Target(top=4))
        np.testing.assert_array_equal(found.target, [[1, 2, 0, 3]])
        np.testing.assert_allclose(found.gradients["x"][0], np.diag(2 * x[0])[[1, 2, 0, 3]])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(top=6), "has 5 classes"),
        (Target(top=0), "at least 1, got 0"),
        (Target(top=True), "got True"),
        (Target(each=np.zeros((2, 2), int)), r"give each an array \(3, k\)"),
        (Target(each=np.full((3, 1), 5)), "5 is out of range"),
    ],
)
def test_ranks_that_are_refused(heads, target, message):
    _, x, model = heads
    with pytest.raises(TargetError, match=message):
        differentiate(model).gradients(x.numpy(), target)


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_several_scalars_of_a_fixed_batch_and_in_pieces(backend):
    fixed = parser.parse_model(
        f"{HEADER} g (float[2,4] x) => (float[2,4] y) {{ h = Transpose(x) s = Mul(h, h) y = Transpose(s) }}"
    )
    fn = differentiate(Model(shape_inference.infer_shapes(fixed)), backend)
    assert fn.engine.batch == 2
    x = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [1, 5, 2, 3]], np.float32)
    found = fn.gradients(x, Target(top=2), ["x", "s"])
    np.testing.assert_array_equal(found.target, [[3, 2], [0, 1], [1, 3]])
    for sample, classes in enumerate(found.target):
        for rank, one in enumerate(classes):
            np.testing.assert_allclose(found.gradients["x"][sample, rank], 2 * x[sample] * np.eye(4)[one])
