"""Decide where a backend runs: devices and ONNX Runtime's execution providers.

From `device` and `providers` as users give them to what the backend takes. Refuses what the backend, or this
installation, does not have: a device that is ignored would be measured as another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from analyzer.errors import AnalysisError, BackendError
from converters.graph.runtime import CPU
from converters.sources.pytorch import is_pytorch

CUDA = "CUDAExecutionProvider"
_PROVIDERS = {"cpu": CPU, "cuda": CUDA, "rocm": "ROCMExecutionProvider", "dml": "DmlExecutionProvider"}
_PROVIDERS |= {"coreml": "CoreMLExecutionProvider", "openvino": "OpenVINOExecutionProvider"}
_NUMBERED = ("cuda", "rocm", "dml")
_DEVICE = re.compile(r"([a-z_]+)(?::(\d+))?")


def as_device(device: Any) -> Any:
    """Return a device as text in small letters; a torch.device is taken, too."""
    device = str(device) if is_pytorch(device) else device
    return device.strip().lower() if isinstance(device, str) else device


def refuse_settings(backend: str, device: object, providers: object, threads: object) -> None:
    """Raise AnalysisError for a setting that the backend does not have, or that contradicts another one."""
    if device is not None and (not isinstance(device, str) or not device):
        raise AnalysisError(f'expected device as text, got {device!r}. Fix: give device="cpu", or omit it')
    if backend != "onnxruntime" and (providers is not None or threads is not None):
        name = "threads" if providers is None else "providers"
        raise AnalysisError(
            f"{name} is a setting of ONNX Runtime, not of backend={backend!r}. Fix: omit {name}, or use "
            'backend="onnxruntime"'
        )
    if backend == "source" and device is not None:
        raise AnalysisError(
            'backend="source" runs on the device of its own weights. Fix: omit device, and move the network before the '
            "conversion, as in network.to(device)"
        )
    if device is not None and providers is not None:
        raise AnalysisError(
            "device and providers both say where ONNX Runtime runs. Fix: give one of them (--device or --providers)"
        )


def providers_of(device: str | None, providers: Any) -> list[Any] | None:
    """Return ONNX Runtime's providers for a device, or those given, checked; None for the default, the processor.

    Raises BackendError for what this installation of ONNX Runtime does not have.
    """
    import onnxruntime

    here = onnxruntime.get_available_providers()
    if device is not None:
        return [_provider(device, here)]
    if providers is None:
        return None
    given = [providers] if isinstance(providers, (str, tuple)) and _is_one(providers) else list(providers)
    # A provider may come with its options, (name, options).
    names = [one[0] if isinstance(one, tuple) and one else one for one in given]
    if not names or not all(isinstance(name, str) for name in names):
        raise BackendError(
            f"expected providers as a list of names, got {providers!r}. Fix: choose from {', '.join(here)}"
        )
    if unknown := [name for name in names if name not in here]:
        raise BackendError(
            f"unknown provider {unknown[0]!r}. Fix: choose from those of this installation, {', '.join(here)}"
        )
    return given


def _is_one(given: Sequence[Any]) -> bool:
    """Whether a text, or a tuple, is one provider: a name, or a name with options."""
    return isinstance(given, str) or (len(given) == 2 and isinstance(given[1], dict))


def _provider(device: str, here: Sequence[str]) -> Any:
    """The provider of a device. Raises BackendError."""
    found = _DEVICE.fullmatch(device)
    name, number = found.groups() if found else (device, None)
    name = "cuda" if name == "gpu" else name
    provider = _PROVIDERS.get(name)
    number = None if name == "cpu" and number == "0" else number
    if provider is None or provider not in here or (number is not None and name not in _NUMBERED):
        known = ", ".join(repr(one) for one, provider in _PROVIDERS.items() if provider in here)
        missing = provider is not None and provider not in here
        hint = f"; {provider} is not in this installation of onnxruntime" if missing else ""
        extra = ", or pip install onnxruntime-gpu" if name == "cuda" else ""
        raise BackendError(
            f"ONNX Runtime cannot use the device {device!r}{hint}. Fix: choose from {known}{extra}, or name "
            f"a provider, providers=[…] (--providers), of {', '.join(here)}"
        )
    return (provider, {"device_id": number}) if number is not None else provider
