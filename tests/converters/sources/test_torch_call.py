"""PyTorch modules as they are written: constants among the arguments, other outputs, one sample, odd ops."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from analyzer import Target, check, differentiate, full_grad
from converters import ConversionError, InvalidModel, convert
from tests.converters.helpers import ops, shape_of

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


class Options(nn.Module):
    """A forward with arguments and outputs of several types."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Any, features: bool = False, scale: float = 1.0, mask: Any = None) -> Any:
        h = self.first(x).relu() * scale
        h = h if mask is None else h * mask
        return (self.second(h), h) if features else self.second(h)


@pytest.mark.parametrize(
    "example",
    [(X, False), (X, True, 0.5), (X, False, 2.0, None), {"x": X, "mask": None}, {"scale": 2.0, "x": X}],
    ids=str,
)
def test_arguments_without_tensors_are_constants_on_every_backend(example: Any) -> None:
    net = Options().eval()
    model = convert(net, example)
    given = {"x": X} if isinstance(example, dict) else {}
    x = X.clone().requires_grad_()
    rest = {k: v for k, v in example.items() if k != "x"} if given else {}
    y = net(x, **rest) if given else net(x, *example[1:])
    (truth,) = torch.autograd.grad((y[0] if isinstance(y, tuple) else y)[:, 1].sum(), x)
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend).gradients(X.numpy(), 1).gradients["x"]
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    loss: Any
    past_key_values: Any
    hidden: torch.Tensor


class DynamicCache:
    """A cache of tensors that is not a tensor."""

    def __init__(self, state: torch.Tensor) -> None:
        self.state = state


class Returns(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.head = kind, nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.head(x)
        return {
            "dataclass": Result(y, None, DynamicCache(x), x.tanh()),
            "None": (y, None),
            "number": (y, 0.5),
            "size": (y, x.shape[0]),
            "text": {"logits": y, "kind": "a"},
        }[self.kind]


@pytest.mark.parametrize("kind", ["dataclass", "None", "number", "size", "text"])
def test_outputs_that_are_not_tensors_are_left_out_with_a_note(kind: str) -> None:
    net = Returns(kind).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = convert(net, X)
    notes = [str(one.message) for one in caught if "left out" in str(one.message)]
    assert len(notes) == (kind != "None")
    assert (kind == "dataclass") == any("past_key_values (DynamicCache)" in note for note in notes)
    assert len(model.proto.graph.output) == (2 if kind == "dataclass" else 1)
    found = differentiate(model).gradients(X.numpy(), 2).gradients["x"]
    np.testing.assert_allclose(found, np.tile(net.head.weight[2].detach().numpy(), (2, 1)), atol=1e-6)


def _slices(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(len(x), 6)
    y[:, :2] = x[:, 2:4] * 3
    y[:, 2:] = x[:, :1]
    y[:, 1] *= 2
    return y


def _diagonal(x: torch.Tensor) -> torch.Tensor:
    y = (x[:, :, None] * x[:, None]).clone()
    y.diagonal(1, 2, 1).mul_(3)
    return y.sum(2)


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.head = function, nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(x))


@pytest.mark.parametrize("function", [_slices, _diagonal, lambda x: torch.empty_like(x).copy_(x[:, :1])])
def test_assignments_in_place_agree_with_autograd(function: Any) -> None:
    net, x = Applied(function).eval(), X.clone().requires_grad_()
    (truth,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    model = convert(net, X)
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend).gradients(X.numpy(), 1).gradients["x"]
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_cdist_agrees_with_autograd_also_at_a_prototype(p: float) -> None:
    prototypes = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    points = X.clone()
    points[0] = prototypes[2]
    net, x = (
        Applied(lambda x: torch.cdist(x, prototypes, p=p) @ torch.ones(4, 6)),
        points.clone().requires_grad_(),
    )
    (truth,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    found = differentiate(convert(net, points)).gradients(points.numpy(), 1).gradients["x"]
    np.testing.assert_allclose(found, truth.numpy(), atol=1e-5)


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.kind = nn.Linear(8, 24), kind

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        steps = x.shape[1]
        see = torch.ones(steps, steps, dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
        options: dict[str, Any] = {}
        if self.kind == "infinity":
            see = torch.zeros_like(see, dtype=x.dtype).masked_fill(~see, float("-inf"))
        if self.kind == "groups":
            k, v, options = k[:, :1], v[:, :1], {"enable_gqa": True}
        if self.kind == "scale":
            options = {"scale": 0.3}
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=see, **options)
        return y.transpose(1, 2).flatten(2).sum(1)


@pytest.mark.parametrize("kind", ["booleans", "infinity", "groups", "scale"])
def test_attention_rows_that_see_nothing_are_zero(kind: str) -> None:
    net = Attention(kind).eval()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
    v = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(net(v, mask)[:, 1].sum(), v)
    model, feeds = convert(net, (x, mask)), {"x": x.numpy(), "mask": mask.numpy()}
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend).gradients(feeds, 1).gradients["x"]
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-5)
    assert full_grad(model, feeds, 1).completeness.error.max() < 1e-4


class Bag(nn.Module):
    def __init__(self, mode: Any, padding: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.head = nn.EmbeddingBag(20, 8, mode=mode, padding_idx=padding), nn.Linear(8, 4)

    def forward(self, text: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(text, offsets))


@pytest.mark.parametrize(("mode", "padding"), [("sum", None), ("mean", 3), ("max", 3), ("max", None)])
def test_bags_of_embeddings_are_converted_without_branches(mode: str, padding: int | None) -> None:
    text, offsets = torch.tensor([3, 3, 1, 3, 2, 9, 4, 5, 19, 7, 3]), torch.tensor([0, 2, 2, 9])
    net = Bag(mode, padding).eval()
    with pytest.warns(UserWarning, match="the original fails on test inputs with other sizes"):
        model = convert(net, {"text": text, "offsets": offsets})
    assert "If" not in ops(model.proto)
    values = differentiate(model).forward({"text": text.numpy(), "offsets": offsets.numpy()})
    np.testing.assert_allclose(
        values[model.proto.graph.output[0].name], net(text, offsets).detach(), atol=1e-6
    )


def test_nested_branches_do_not_kill_the_process(tmp_path: Path) -> None:
    """ONNX Runtime 1.32 crashes when it folds constants into the exporter's own form of an EmbeddingBag."""
    text, offsets = torch.tensor([3, 1, 2, 9]), torch.tensor([0, 2])
    exported = torch.onnx.export(Bag("mean"), (text, offsets), dynamo=True, optimize=False, verbose=False)
    path = tmp_path / "bag.onnx"
    onnx.save(exported.model_proto, path)
    code = f"from converters.graph.runtime import Session; import onnx; Session(onnx.load({str(path)!r}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


class OneSample(nn.Module):
    def __init__(self, kind: str, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.head = kind, nn.Linear(6, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "x[0]":
            return self.head(torch.tanh(x[0]))
        y = self.head(torch.tanh(x))
        return {"squeeze()": y.squeeze, "squeeze(0)": lambda: y.squeeze(0), "y[0]": lambda: y[0]}[self.kind]()


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [("squeeze()", 1), ("squeeze()", 3), ("squeeze(0)", 3), ("y[0]", 3), ("x[0]", 3), ("x[0]", 1)],
)
def test_models_written_for_one_sample_take_any_number(kind: str, outputs: int) -> None:
    net, index = OneSample(kind, outputs).eval(), outputs - 1
    with pytest.warns(UserWarning, match="drops the batch axis|first sample alone"):
        model = convert(net, X[:1])
    one_at_a_time = kind in ("x[0]", "y[0]")
    assert shape_of(model.proto.graph.input[0])[0] == (1 if one_at_a_time else "batch")
    truth = []
    for row in X:
        x = row[None].clone().requires_grad_()
        truth.append(torch.autograd.grad(net(x).reshape(-1)[index], x)[0][0].numpy())
    target = None if outputs == 1 else index
    for backend in ("onnxruntime", "source"):
        found = differentiate(model, backend).gradients(X.numpy(), target).gradients["x"]
        np.testing.assert_allclose(found, np.stack(truth), atol=1e-6)
    assert check(model, X[:1].numpy(), target=target, backends=["onnxruntime", "source"]).passed


@pytest.mark.parametrize("kind", ["needs gradients", "bfloat16", "float16", "int"])
def test_inputs_may_be_tensors_of_any_kind(kind: str) -> None:
    x = {
        "needs gradients": X.clone().requires_grad_(),
        "bfloat16": X.bfloat16(),
        "float16": X.half(),
        "int": X.long(),
    }[kind]
    net = Options().eval()
    found = differentiate(convert(net, X)).forward(x)  # type: ignore[arg-type]
    expected = net(x.detach().float()).detach().numpy()
    np.testing.assert_allclose(next(iter(found.values())), expected, atol=1e-6)


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[1][0][-1]


@pytest.mark.parametrize(
    ("module", "example", "fix"),
    [
        (Branch(), X, "torch.where"),
        (Packed(), (torch.randn(2, 3, 6), torch.tensor([3, 2])), "lengths - 1"),
        (nn.Linear(6, 3), (1, 6), "torch.randn"),
        (nn.Linear(6, 3), {"y": X}, "dict {parameter: tensor}"),
        (nn.Linear(6, 3), X[:, :4], "module.example. runs"),
        (nn.Linear(6, 3), torch.randn(2, 6, dtype=torch.complex64), "torch.view_as_real"),
        (Returns("None"), X.to_sparse(), "to_dense"),
        (Applied(lambda x: x * torch.linalg.slogdet(x.T @ x + 1)[1]), X, "sums and products"),
        (torch.jit.trace(nn.Linear(6, 3), X), X, "nn.Module that it was made from"),
    ],
    ids=["branch", "packed", "shape", "name", "width", "complex", "sparse", "slogdet", "script"],
)
def test_every_refusal_names_a_fix(module: nn.Module, example: Any, fix: str) -> None:
    with pytest.raises(ConversionError, match=rf"Fix: .*{fix}") as caught:
        convert(module, example)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "safetensors", "pkl", "mlmodel", "engine", "gguf"])
def test_files_of_other_kinds_are_refused_with_a_fix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(InvalidModel, match=r"Fix: "):
        convert(str(path))


def test_a_torchscript_file_is_refused_as_what_it_is(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(6, 3), X).save(str(tmp_path / "model.pt"))
    with pytest.raises(InvalidModel, match="TorchScript archive"):
        convert(str(tmp_path / "model.pt"))


def test_a_module_in_place_of_a_model_is_converted_from_the_inputs() -> None:
    net = nn.Linear(6, 3)
    found = full_grad(net, X.numpy(), 1)  # type: ignore[arg-type]
    weight = net.weight[1].detach().numpy()
    np.testing.assert_allclose(found.input_term, X.numpy() * weight, rtol=1e-5, atol=1e-7)


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.head = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 4)

    def forward(self, text: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(text, offsets, weights))


@pytest.mark.filterwarnings("ignore:the original fails")
def test_the_weights_of_a_bag_have_the_gradient_of_autograd() -> None:
    given = {
        "text": torch.tensor([3, 1, 9, 4, 5]),
        "offsets": torch.tensor([0, 2, 2]),
        "weights": torch.tensor([0.5, -1.0, 2.0, 0.1, 1.0]),
    }
    net = Weighted().eval()
    w = given["weights"].clone().requires_grad_()
    (truth,) = torch.autograd.grad(net(given["text"], given["offsets"], w)[:, 1].sum(), w)
    model, feeds = convert(net, given), {name: tensor.numpy() for name, tensor in given.items()}
    for backend in ("onnxruntime", "source"):
        column = Target(weights=np.eye(4, dtype=np.float32)[1] * np.ones((3, 1), np.float32))
        found = differentiate(model, backend).gradients(feeds, column).gradients["weights"]
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)


class Experts(nn.Module):
    """Two experts as transformers computes them: by a form that its configuration names, the default for training."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(_experts_implementation="eager")
        self.gate = nn.Linear(4, 2)
        self.weights = nn.Parameter(torch.randn(2, 4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.gate(x).argmax(-1)
        if self.config._experts_implementation == "batched_mm":
            return torch.bmm(x[:, None], self.weights[chosen])[:, 0]
        found = torch.zeros(len(x), 3)
        for expert in range(2):
            rows = torch.nonzero(chosen == expert)[:, 0]
            if rows.shape[0] > 0:
                found = found.index_copy(0, rows, x[rows] @ self.weights[expert])
        return found


def test_mixtures_of_experts_are_traced_in_batches() -> None:
    """The form that branches on the tokens of each expert has no graph; the module keeps it."""
    torch.manual_seed(0)
    module, x = Experts().eval(), torch.randn(5, 4)
    model = convert(module, x)
    assert model.verification is not None and model.verification.relative_l2 <= 1e-6
    assert module.config._experts_implementation == "eager"
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(
        differentiate(model).forward(x.numpy())[model.proto.graph.output[0].name], expected, rtol=1e-5
    )
