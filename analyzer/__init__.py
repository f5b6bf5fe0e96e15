"""Gradients and attributions of canonical ONNX graphs, on several backends, checked against each other.

Importing this package loads no framework; a backend imports its own when it is made.

A public name is imported from its module when it is used first. `__init__.pyi` lists the names and their modules.
"""

from importlib import import_module
from importlib.util import find_spec

import lazy_loader

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Return a public name, or a registered method that has none, such as one in a new file of analyzer/methods.

    `distances` is now `analyzer.checks.distances`; the old name works for one release and warns.
    """
    if name in __all__:
        return _attribute(name)
    if name == "distances":
        import warnings

        from analyzer.checks import distances

        warnings.warn("analyzer.distances is now analyzer.checks.distances", DeprecationWarning, stacklevel=2)
        return distances
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    from analyzer.methods import METHODS

    for one in METHODS.values():
        if one.run.__name__ == name:
            return one.run
    from analyzer.methods.names import unknown_attribute

    raise unknown_attribute(__name__, name, __all__)
