"""Return a model whose BatchNorm layers are apart from the layers before them, from the original that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.backends.differentiable import Differentiable
from analyzer.errors import AnalysisError
from converters import Model, PyTorchSource, convert, load
from converters.canonical import keeps_batch_norm

if TYPE_CHECKING:
    from analyzer.backends import ModelLike


def unfolded(
    model: ModelLike | Differentiable, example: Any = None, *, verify: bool = True, trust: bool = False
) -> ModelLike | Differentiable:
    """Return the model with its BatchNorm layers apart.

    A converted Model is converted again, from its source or its file. example, verify, trust: as for
    `converters.load`.
    Raises AnalysisError where BatchNorm is folded and the original is not in memory.
    """
    if isinstance(model, Differentiable):
        if keeps_batch_norm(model.model.proto):
            return model
        raise AnalysisError(
            "fold_batch_norm=False takes a model that is not bound to a backend. Fix: give the model, or bind "
            "convert(model, fold_batch_norm=False)"
        )
    if not isinstance(model, Model):
        return load(model, verify=verify, trust=trust, fold_batch_norm=False, example=example)
    if keeps_batch_norm(model.proto):
        return model
    if model.original is not None:
        return load(model.original, verify=verify, fold_batch_norm=False)
    if model.source is not None:
        source = model.source
        return convert(
            source.program if isinstance(source, PyTorchSource) else source.function,
            fold_batch_norm=False,
            constants=source.constants,
        )
    return load(model.proto, fold_batch_norm=False)
