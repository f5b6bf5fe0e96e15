"""PyTorch models: the ways to hand one over, the names that are kept, the module given back untouched."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converters import (
    ConversionError,
    InvalidModel,
    Preprocessing,
    PyTorchSource,
    UnsupportedModel,
    convert,
    load,
)
from tests.converters.helpers import normal, ops, run, shape_of


class Small(nn.Module):
    """Convolution, BatchNorm, in-place ReLU, Dropout, a split, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
                values.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.conv(image)))
        left, right = self.drop(x.mean((2, 3))).chunk(2, dim=1)
        return self.head(torch.cat([right, left], dim=1).view(image.shape[0], -1))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


IMAGE = normal(1, 3, 6, 6)


def outputs_of(module: nn.Module, *arrays: np.ndarray) -> np.ndarray:
    module.eval()
    with torch.no_grad():
        return module(*(torch.from_numpy(array) for array in arrays)).numpy()


def test_a_module_is_converted_with_a_free_batch(small: Small) -> None:
    model = convert(small, IMAGE)
    assert model.verification is not None and model.verification.relative_l2 < 1e-5
    assert model.verification.reference.startswith("PyTorch")
    assert shape_of(model.proto.graph.input[0]) == ["batch", 3, 6, 6]
    assert model.proto.graph.input[0].name == "image"
    assert "BatchNormalization" not in ops(model.proto)
    x = normal(4, 3, 6, 6, seed=1)
    np.testing.assert_allclose(run(model.proto, {"image": x})[0], outputs_of(small, x), rtol=1e-4, atol=1e-5)


def test_batch_norm_stays_apart_on_request(small: Small) -> None:
    model = convert(small, IMAGE, fold_batch_norm=False)
    assert ops(model.proto)["BatchNormalization"] == 1
    assert "norm.weight" in {tensor.name for tensor in model.proto.graph.initializer}


def test_parameters_may_be_named_like_inputs_and_operators() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -4.0]))
            self.mean = nn.Parameter(torch.tensor([2.0, 3.0, 4.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.x).mean(1, keepdim=True) * self.mean

    module, x = Named(), normal(2, 4)
    model = convert(module, x)
    assert [info.name for info in model.proto.graph.input] == ["x"]
    np.testing.assert_allclose(run(model.proto, {"x": x})[0], outputs_of(module, x), rtol=1e-5)


@pytest.mark.parametrize("fold", [True, False])
def test_tensors_have_the_names_of_the_program(small: Small, fold: bool) -> None:
    """The source finds values by name: only an exporter's helper values may be nameless."""
    model = convert(small, IMAGE, fold_batch_norm=fold)
    assert isinstance(model.source, PyTorchSource) and model.source.inputs == ("image",)
    names = {node.name for node in model.source.program.graph.nodes}
    computed = {name for node in model.proto.graph.node for name in node.output}
    assert computed <= names


def test_every_module_gets_its_training_flag_back(small: Small) -> None:
    small.train()
    small.norm.eval()
    before = [part.training for part in small.modules()]
    convert(small, IMAGE)
    assert [part.training for part in small.modules()] == before
    with pytest.raises(UnsupportedModel):
        convert(small, normal(1, 4, 6, 6))
    assert [part.training for part in small.modules()] == before
    assert all(parameter.grad is None for parameter in small.parameters())


def test_nothing_is_printed_or_warned(small: Small, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(small, IMAGE)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_a_program_and_its_file_are_converted(small: Small, tmp_path: Path) -> None:
    shapes = {"image": {0: torch.export.Dim("n")}}
    program = torch.export.export(
        small.eval(), (torch.from_numpy(normal(2, 3, 6, 6)),), dynamic_shapes=shapes
    )
    torch.export.save(program, tmp_path / "small.pt2")
    x = normal(4, 3, 6, 6, seed=1)
    for source in (program, tmp_path / "small.pt2"):
        model = convert(source, trust=source is not program)
        assert shape_of(model.proto.graph.input[0])[0] == "batch"
        np.testing.assert_allclose(
            run(model.proto, {"image": x})[0], outputs_of(small, x), rtol=1e-4, atol=1e-5
        )


def test_a_program_of_one_batch_is_freed_where_samples_are_independent(small: Small) -> None:
    model = convert(torch.export.export(small.eval(), (torch.from_numpy(IMAGE),)))
    assert shape_of(model.proto.graph.input[0])[0] == "batch"
    x = normal(4, 3, 6, 6, seed=1)
    np.testing.assert_allclose(run(model.proto, {"image": x})[0], outputs_of(small, x), rtol=1e-4, atol=1e-5)


class Mixed(nn.Module):
    """Integer and float inputs, a plain number among them, two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"words": self.embed(ids) * mask[..., None] * scale, "total": mask.sum(1)}


MIXED = {"ids": np.array([[1, 9, 0], [3, 3, 2]]), "mask": normal(2, 3)}


@pytest.mark.parametrize(
    "example", [tuple(MIXED.values()), MIXED, MIXED | {"scale": 2.0}], ids=["tuple", "dict", "with a number"]
)
def test_several_inputs_and_outputs(example: Any) -> None:
    model = convert(Mixed(), example)
    assert [info.name for info in model.proto.graph.input] == ["ids", "mask"]
    assert len(model.proto.graph.output) == 2


def test_float64_from_numpy_is_taken_to_the_type_of_the_module(small: Small) -> None:
    model = convert(small, IMAGE.astype(np.float64))
    assert model.proto.graph.input[0].type.tensor_type.elem_type == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)).to(dtype)
    model = convert(module, torch.from_numpy(IMAGE).to(dtype))
    kinds = {tensor.data_type for tensor in model.proto.graph.initializer} - {7}
    assert kinds == {model.proto.graph.input[0].type.tensor_type.elem_type}


class Summed(nn.Module):
    """Takes any number of inputs."""

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return sum(parts[1:], parts[0])


def test_any_number_of_inputs_share_a_free_batch() -> None:
    model = convert(Summed(), (normal(1, 4), normal(1, 4)))
    assert [shape_of(info) for info in model.proto.graph.input] == [["batch", 4], ["batch", 4]]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_module_is_converted_as_itself(wrap: Any) -> None:
    model = convert(wrap(nn.Linear(4, 3)), normal(1, 4))
    assert [info.name for info in model.proto.graph.input] == ["input"]
    assert shape_of(model.proto.graph.input[0]) == ["batch", 4]


class FixedBatch(nn.Module):
    """Works on batches of two alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 12).softmax(0)


def test_a_module_with_a_batch_of_its_own_is_converted_with_a_note() -> None:
    with pytest.warns(UserWarning, match="batch size alone"):
        model = convert(FixedBatch(), normal(2, 3, 4))
    assert shape_of(model.proto.graph.input[0]) == [2, 3, 4]
    assert "batch size alone" in model.metadata["onnxplain.note"]


class Attention(nn.Module):
    """A class token, an LSTM and attention: the batch runs through Expand, zero states and reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recur = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.recur(x)[0][:, -1]


def test_attention_and_recurrence_keep_a_free_batch() -> None:
    torch.manual_seed(0)
    module = Attention()
    model = convert(module, normal(1, 5, 8))
    x = normal(3, 5, 8, seed=2)
    np.testing.assert_allclose(run(model.proto, {"x": x})[0], outputs_of(module, x), rtol=1e-4, atol=1e-5)
    assert "Attention" not in ops(model.proto)


def test_transposed_and_grouped_convolutions_take_up_their_batch_norm() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
    )
    for norm in (module[1], module[3]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    assert ops(convert(module, normal(1, 4, 4, 4)).proto) == {"ConvTranspose": 1, "Conv": 1}


class Undecided(nn.Module):
    """Takes a branch by its data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_traced_is_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedModel, match="cannot trace Undecided") as caught:
        convert(Undecided(), normal(2, 3))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


def test_a_module_without_an_example_is_refused(small: Small) -> None:
    with pytest.raises(ConversionError, match="give an `example`"):
        convert(small)


@pytest.mark.parametrize(
    ("channels", "stated"),
    [
        (3, {"mean": (0.5, 0.4, 0.3), "std": (0.25,) * 3}),
        (3, {"mean": (0.5,), "std": (0.25,)}),
        (1, {}),
        (1, {"mean": (0.5,), "std": (0.25,)}),
    ],
)
def test_a_module_is_traced_from_an_image_of_the_stated_size(channels: int, stated: Any) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 4, 3)).eval()
    model = convert(net, preprocessing=Preprocessing((8, 6), **stated))
    x = np.random.default_rng(0).standard_normal((3, channels, 8, 6)).astype(np.float32)
    (found,) = run(model.proto, {model.proto.graph.input[0].name: x})
    np.testing.assert_allclose(found, outputs_of(net, x), rtol=1e-4, atol=1e-5)


def test_a_module_that_takes_no_such_image_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"stated size 9 x 9 .*return \(net, example\)"):
        convert(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), preprocessing=Preprocessing((9, 9)))


def test_a_tensor_is_no_model() -> None:
    with pytest.raises(ConversionError, match="Tensor is no model"):
        convert(torch.zeros(3))


def test_a_damaged_program_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"not a zip file")
    with pytest.raises(InvalidModel, match=r"bad\.pt2 is not a \.pt2 file"):
        convert(tmp_path / "bad.pt2", trust=True)


def test_no_path_of_this_machine_is_stored(small: Small) -> None:
    assert os.path.dirname(__file__).encode() not in convert(small, IMAGE).proto.SerializeToString()


def test_a_converted_model_is_loaded_as_it_was_saved(small: Small, tmp_path: Path) -> None:
    model = convert(small, IMAGE)
    assert load(model.save(tmp_path / "small.onnx")).proto == model.proto


def test_quantized_modules_are_refused_by_name() -> None:
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 3)).eval()
    packed = torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedModel, match=r"quantized module '1' \(Linear\)"):
        convert(packed, torch.zeros(2, 4))


class Options(nn.Module):
    """Nested and keyword arguments in, a nest of outputs; dropout and batch norm in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))

    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], *, scale: torch.Tensor, add: bool = True
    ) -> Any:
        y = self.body(pair[0]) * scale
        return {"y": y + pair[1] if add else y, "more": (y.sum(1), [y.relu()])}


def test_nested_arguments_and_outputs_of_a_module_in_training() -> None:
    net = Options().train()
    pair, scale = (torch.randn(3, 4), torch.randn(3, 5)), torch.randn(3, 1)
    model = convert(net, {"pair": pair, "scale": scale})
    assert net.training and net.body[2].training
    assert [info.name for info in model.proto.graph.input] == ["pair_0", "pair_1", "scale"]
    net.eval()
    expected = net(pair, scale=scale)
    feeds = {"pair_0": pair[0].numpy(), "pair_1": pair[1].numpy(), "scale": scale.numpy()}
    for found, truth in zip(
        run(model.proto, feeds), [expected["y"], expected["more"][0], expected["more"][1][0]], strict=True
    ):
        np.testing.assert_allclose(found, truth.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_free_axes_take_other_sizes_under_the_symbols_given() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    model = convert(net, torch.randn(2, 2, 9), free_axes={"input": {2: "time"}})
    assert shape_of(model.proto.graph.input[0]) == ["batch", 2, "time"]
    x = torch.randn(1, 2, 5)
    np.testing.assert_allclose(
        run(model.proto, {"input": x.numpy()})[0], net(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_free_axes_of_what_does_not_take_them_are_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ConversionError, match="names 'x'; the example's arguments are input"):
        convert(net, torch.randn(2, 4), free_axes={"x": {1: "features"}})
    with pytest.raises(UnsupportedModel, match="cannot trace"):
        convert(net, torch.randn(2, 4), free_axes={"input": {1: "features"}})
    with pytest.raises(ConversionError, match="states its own"):
        convert(convert(net, torch.randn(2, 4)).proto, free_axes={"input": {1: "features"}})
