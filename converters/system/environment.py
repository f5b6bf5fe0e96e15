"""The versions that decide a number: of the packages, of Python, and the system, by what a report calls them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def environment(backend: str = "") -> dict[str, str]:
    """The versions that decide a number, for the foot of a report."""
    packages = ("onnxplain", "onnx", "onnxruntime", "numpy", "torch", "tensorflow", "tensorflow-cpu")
    found = {package: version_of(package) for package in packages}
    system = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    head = {"backend": backend} if backend else {}
    return {**head, **{name: text for name, text in found.items() if text}, **system}


def version_of(package: str) -> str:
    """Return the version of an installed package, "" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
