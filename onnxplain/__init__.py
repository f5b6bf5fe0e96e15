"""Attribution of neural networks that is framework-neutral, exact and everywhere.

`import onnxplain as ox` gives the public names of two packages: `converters`, which makes one canonical ONNX graph of a
PyTorch, Keras, TensorFlow or ONNX model, and `analyzer`, which computes gradients and attributions and checks them.
Importing it loads no framework: each name is imported from its module when it is used first.
"""

from importlib import import_module

import analyzer as _analyzer
import converters as _converters

__all__ = sorted({*_analyzer.__all__, *_converters.__all__, "__version__", "ray"})


def __getattr__(name: str) -> object:
    """Return a public name of a package, `onnxplain.ray`, or a registered method that `analyzer` does not list."""
    if name == "__version__":
        return _version()
    if name == "ray":
        return import_module("onnxplain.ray")
    if name in _converters.__all__:
        return getattr(_converters, name)
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_analyzer, name)
    except AttributeError:
        from analyzer.methods.names import unknown_attribute

        raise unknown_attribute(__name__, name, __all__) from None


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxplain")
    except PackageNotFoundError:  # A source tree that is not installed.
        return "unknown"
