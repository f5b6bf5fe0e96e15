"""A check names the place at which the original's backward pass is not the derivative of its forward pass.

The truths are torch.autograd on the module itself, and a float64 central difference of its forward pass.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import Target, check, differentiate
from analyzer.errors import UnsupportedOp
from converters import convert

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + 10 * ctx.saved_tensors[0].abs()) ** 2


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class PassedThrough(torch.autograd.Function):
    """Clip with the gradient of the identity, in the form with setup_context."""

    @staticmethod
    def forward(x, bound):
        return x.clamp(-bound, bound)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g, None


class SavingSwish(torch.autograd.Function):
    """The right derivative, by other ops."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * s * (1 + x * (1 - s))


spike, passed_through = Spike.apply, PassedThrough.apply


def under_no_grad(h):
    with torch.no_grad():
        held = h.tanh()
        with torch.enable_grad():
            free = h.sin()
        held = held.exp()
    return held + free + h


def under_inference_mode(h):
    with torch.inference_mode():
        held = h.tanh()
    return held + h


def loop(h):
    for _ in range(3):
        h = 0.9 * h + h.tanh().detach()
    return h


def hooked(h):
    y = h.tanh()
    if y.requires_grad:
        y.register_hook(lambda g: -g)
    return y + h


# What the report says, and the nodes that it names: those of the graph, else those of the exported program.
WRONG = {
    "surrogate": (lambda h: spike(h) + h, "autograd.Function 'Spike'", {"node_gt", "node__to_copy"}),
    "reversal": (lambda h: Reverse.apply(h.tanh()), "autograd.Function 'Reverse'", {"view"}),
    "clip": (lambda h: passed_through(h, 0.2) + h.sin(), "'PassedThrough'", {"node_clamp"}),
    "detach": (lambda h: h * h.sigmoid().detach(), "'detach' (reads 'sigmoid')", {"detach"}),
    "loop": (loop, "'detach' (reads 'tanh')", {"detach", "detach_1", "detach_2"}),
    "no_grad": (under_no_grad, "torch.no_grad", {"node_tanh", "node_exp"}),
    "inference_mode": (under_inference_mode, "torch.no_grad", {"node_tanh"}),
    "hook": (hooked, "gradient hook 'hooked", set()),
}
RIGHT = {
    "swish": SavingSwish.apply,
    # Softmax does not change where a number is subtracted from all classes.
    "shift detached": lambda h: (h - h.max(-1, keepdim=True).values.detach()).softmax(-1),
}


class Net(nn.Module):
    def __init__(self, inner):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.first, self.last = inner, nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        h = self.inner(h)
        return self.last(h)


def checked(net, x=X, **options):
    return checked_model(convert(net.eval(), x), x, **options)


def checked_model(model, x=X, **options):
    return check(model, x.numpy(), target=1, backends=["onnxruntime", "source"], **options)


def theirs(net, x=X):
    given = x.clone().requires_grad_()
    return torch.autograd.grad(net(given)[:, 1].sum(), given, materialize_grads=True)[0].numpy()


@pytest.mark.parametrize("name", WRONG)
def test_the_place_is_named_and_both_backends_have_the_derivative_of_the_exported_function(name):
    inner, said, nodes = WRONG[name]
    net = Net(inner).eval()
    model = convert(net, X)
    report = checked_model(model)
    assert not report.passed and said in report.at_fault
    assert "the original's backward pass is not the derivative of its forward pass" in report.headline
    assert set(report.suspects["source", "autograd"]) == nodes
    failed = {(row["a"], row["b"], row["quantity"]) for row in report.failures}
    assert failed == {("source", "autograd", "input gradient")}
    exact, x, rng = copy.deepcopy(net).double(), X.double(), np.random.default_rng(0)
    step = torch.tensor(rng.standard_normal(X.shape))
    with torch.no_grad():
        above, below = (exact(x + sign * 1e-6 * step)[:, 1].sum().item() for sign in (1, -1))
    for backend in ("onnxruntime", "source"):
        (g,) = differentiate(model, backend).gradients(X.numpy(), 1).gradients.values()
        np.testing.assert_allclose((g * step.numpy()).sum(), (above - below) / 2e-6, rtol=1e-4)
        assert np.linalg.norm(g - theirs(net)) > 1e-2 * np.linalg.norm(g)


@pytest.mark.parametrize("name", RIGHT)
def test_a_backward_pass_that_is_the_derivative_raises_no_alarm(name):
    net = Net(RIGHT[name]).eval()
    model = convert(net, X)
    report = checked_model(model)
    assert report.passed and "autograd" not in report.skipped
    (g,) = differentiate(model).gradients(X.numpy(), 1).gradients.values()
    np.testing.assert_allclose(g, theirs(net), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("inner", "refused", "said"),
    [
        (spike, r"\(Greater\)", "autograd.Function 'Spike'.*Greater 'node_gt'"),
        (lambda h: h + (h.round() - h).detach(), r"\(Round\).*straight_through=True", "'detach' .reads 'sub"),
    ],
    ids=["spike", "round"],
)
def test_a_gradient_that_is_zero_without_a_custom_backward_pass_is_refused_and_the_pass_is_named(
    inner, refused, said
):
    net = Net(inner).eval()
    assert np.abs(theirs(net)).max() > 0
    model = convert(net, X)
    for backend in ("onnxruntime", "source"):
        with pytest.raises(UnsupportedOp, match=refused):
            differentiate(model, backend).gradients(X.numpy(), 1)
    with pytest.raises(UnsupportedOp, match=f"{refused}.*The original: .*{said}"):
        checked_model(model)
    if "Round" in refused:
        through = differentiate(model, straight_through=True).gradients(X.numpy(), 1).gradients["x"]
        np.testing.assert_allclose(through, theirs(net), rtol=1e-5)


def test_a_head_that_is_not_explained_may_stop_gradients():
    class Heads(Net):
        def forward(self, x):
            h = self.first(x)
            return self.last(h), self.last(h.detach())

    model = convert(Heads(None).eval(), X)
    assert checked_model(model).passed
    second = {model.proto.graph.output[1].name: np.ones((3, 3), np.float32)}
    report = check(model, X.numpy(), target=Target(weights=second), backends=["onnxruntime", "source"])
    assert not report.passed and set(report.suspects["source", "autograd"]) == {"detach"}


def test_a_hook_of_a_module_is_named_by_the_module_and_the_module_is_left_as_it_was():
    act = nn.Tanh()
    act.register_full_backward_hook(lambda module, given, received: (3 * given[0],))
    net = nn.Sequential(nn.Linear(5, 5), act, nn.Linear(5, 3))
    report = checked(net)
    assert not report.passed and "of module '1'" in report.at_fault
    assert report.suspects["source", "autograd"] == ("node_tanh",)
    assert len(act._backward_hooks) == 1 and all(weight.requires_grad for weight in net.parameters())
    assert not torch.autograd.function._SingleLevelFunction.__dict__.get("apply")
    act._backward_hooks.clear()
    act.register_full_backward_hook(lambda module, given, received: None)
    assert checked(net).passed


def test_embedded_tokens_are_checked_where_the_inputs_are_integers():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = nn.Embedding(9, 5), nn.Linear(5, 3)

        def forward(self, ids):
            h = self.table(ids)
            return self.last((h * h.sigmoid().detach()).mean(1))

    ids = torch.randint(0, 9, (3, 4), generator=torch.Generator().manual_seed(0))
    report = checked(Text(), ids, wrt=["embedding"])
    assert not report.passed and "'detach' (reads 'sigmoid')" in report.at_fault


@pytest.mark.parametrize(("inner", "named"), [(loop, "detach"), (under_no_grad, "node_tanh")])
def test_an_exported_program_is_checked_as_it_was_exported(inner, named):
    report = check(
        convert(torch.export.export(Net(inner).eval(), (X,))),
        X.numpy(),
        target=1,
        backends=["onnxruntime", "source"],
    )
    assert not report.passed and named in report.suspects["source", "autograd"]


def test_a_stopped_gradient_of_keras_is_named():
    import keras

    given = keras.Input((5,))
    h = keras.layers.Dense(5)(given)
    h = h * keras.ops.stop_gradient(keras.ops.sigmoid(h))
    report = checked_model(convert(keras.Model(given, keras.layers.Dense(3)(h)), X.numpy()))
    (name,) = report.suspects["source", "autograd"]
    assert not report.passed and name.endswith("StopGradient") and "Sigmoid')" in report.at_fault
    assert {(row["a"], row["b"]) for row in report.failures} == {("source", "autograd")}
