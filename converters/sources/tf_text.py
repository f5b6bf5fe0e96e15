"""Refuse TensorFlow models that read text, and say from which layer on they can be converted."""

from __future__ import annotations

from typing import Any

from converters.errors import UnsupportedModel


def refuse_text(tf: Any, source: Any, function: Any) -> None:
    """Raise UnsupportedModel where an input of a concrete function takes text."""
    text = [tensor.op.name for tensor in function.inputs if tensor.dtype == tf.string]
    if not text:
        return
    what = f"the input {text[0]!r} takes text, which has no gradient"
    layer = _first_of_numbers(source)
    if layer is None:
        raise UnsupportedModel(
            f"{what}. Fix: convert the part of the model that reads token ids, and apply the part before it yourself"
        )
    names = ", ".join(f"model.get_layer({one.name!r}).output" for one in layer)
    others = [f"model.inputs[{k}]" for k, one in enumerate(source.inputs) if one.dtype != "string"]
    starts = names if len(layer) == 1 and not others else f"[{', '.join((names, *others))}]"
    kind = type(layer[0]).__name__
    raise UnsupportedModel(
        f"{what}; the layer {layer[0].name!r} ({kind}) makes token ids of it. Fix: convert the model that follows, "
        f"keras.Model({starts}, model.outputs), and give it model.get_layer({layer[0].name!r})(texts)"
    )


def _first_of_numbers(source: Any) -> list[Any] | None:
    """The layers of a Keras model that read text and give numbers; None where the model does not list its layers."""
    found = []
    # A subclassed model has layers, and no tensors between them.
    for layer in getattr(source, "layers", ()) if getattr(source, "inputs", None) else ():
        try:
            given, made = layer.input, layer.output
        except (AttributeError, ValueError, RuntimeError):
            continue
        kinds = {getattr(one, "dtype", None) for one in (given if isinstance(given, list) else [given])}
        if "string" in kinds and getattr(made, "dtype", "string") != "string":
            found.append(layer)
    return found or None
