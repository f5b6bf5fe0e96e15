"""A device or provider that a backend cannot serve is refused; one that it can serve computes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

import onnxplain as ox
from analyzer.errors import AnalysisError
from tests.refusals.setting import DENSE, X, of_class

CPU = "CPUExecutionProvider"


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "cpu"},
        {"device": "CPU:0"},
        {"device": torch.device("cpu")},
        {"providers": [CPU]},
        {"providers": CPU},
        {"providers": [(CPU, {})]},
        {"backend": "torch", "device": "cpu"},
        {"backend": "tensorflow", "device": "cpu"},
    ],
)
def test_a_device_that_is_there_computes(settings):
    found = ox.differentiate(DENSE, **settings).gradients(X, 1)
    np.testing.assert_array_equal(found.gradients["x"], of_class(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "tpu"}, "'tpu'.*choose from 'cpu'"),
        ({"device": "cuda"}, "CUDAExecutionProvider is not in this installation.*onnxruntime-gpu"),
        ({"device": 3}, 'device="cpu"'),
        ({"device": ""}, 'device="cpu"'),
        ({"providers": ["CUDAExecutionProvider"]}, f"unknown provider.*{CPU}"),
        ({"providers": []}, "a list of names"),
        ({"providers": [CPU], "device": "cpu"}, "one of them"),
        ({"backend": "torch", "device": "tpu"}, "PyTorch cannot use the device 'tpu'.*choose from 'cpu'"),
        ({"backend": "torch", "device": "meta"}, "holds no values"),
        ({"backend": "torch", "providers": [CPU]}, "a setting of ONNX Runtime"),
        ({"backend": "torch", "threads": 2}, "a setting of ONNX Runtime"),
        ({"backend": "tensorflow", "device": "tpu"}, "TensorFlow cannot use the device 'tpu'.*'cpu:0'"),
        ({"backend": "source", "device": "cpu"}, "its own weights"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_runs(settings, words, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(AnalysisError, match=words):
        ox.differentiate(DENSE, **settings)


def test_a_provider_is_named_by_its_device_and_number(monkeypatch):
    from analyzer.backends.devices import providers_of

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    assert providers_of("gpu", None) == ["CUDAExecutionProvider"]
    assert providers_of("cuda:1", None) == [("CUDAExecutionProvider", {"device_id": "1"})]


def test_a_provider_that_the_runtime_leaves_out_is_refused(monkeypatch):
    """ONNX Runtime runs on the processor, silently, where the libraries of a provider are missing."""
    both = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.raises(AnalysisError, match=r"CUDAExecutionProvider.* did not start"):
        ox.differentiate(DENSE, device="cuda").forward(X)


def test_checks_pass_settings_to_the_backends_that_have_them():
    backends = ["onnxruntime", "torch"]
    assert ox.check(DENSE, X, 1, backends=backends, device="cpu").passed
    assert ox.check(DENSE, X, 1, backends=backends, providers=[CPU]).passed
    for call in (
        lambda: ox.check(DENSE, X, 1, backends=backends, device="tpu"),
        lambda: ox.compare(DENSE, DENSE, X, 1, device="tpu"),
        lambda: ox.compare(DENSE, DENSE, X, 1, providers=["Foo"]),
    ):
        with pytest.raises(AnalysisError, match=r"tpu|Foo"):
            call()
