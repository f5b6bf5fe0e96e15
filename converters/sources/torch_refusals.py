"""Say why PyTorch's exporters refuse a model, and how to fix it.

Reads the exception of torch.export or torch.onnx; returns one line: our reason, the tool's own words in brackets,
and a fix. The reason is found in the message, or in the functions that the traceback went through.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

from converters.errors import one_line

_PACKED = (
    "pack_padded_sequence gives sizes that depend on the lengths' values",
    "run the RNN on the padded batch, and read its output at lengths - 1 with torch.gather",
)
# A pattern of the tool's message, the reason, the fix; the first that fits is taken.
_FAMILIES = (
    (r"pack_padded_sequence|PackedSequence", *_PACKED),
    (
        r"does not require grad|torch\.func|functorch",
        "forward computes a derivative itself",
        "return the output before torch.autograd or torch.func differentiates it, and take its derivative with "
        "onnxplain.differentiate(model).gradients(inputs, target)",
    ),
    (
        r"Constraints violated|as dynamic but",
        "free_axes names an axis that has one size in the model",
        "remove this axis from free_axes",
    ),
    (
        r"data-dependent|Could not guard|GuardOnDataDependent|_local_scalar_dense|\.item\(\)|nonzero|unbacked",
        "a branch or a size depends on the values of the input",
        "write branches with torch.where, and replace .item(), nonzero() and boolean indexing by "
        "a product with a mask",
    ),
    (
        r"ScriptModule|ScriptMethod|ScriptFunction",
        "TorchScript holds no Python code to trace",
        "give the nn.Module that was traced or scripted",
    ),
    (
        r"uninitialized parameter|LazyModule",
        "a lazy module has no weights before its first call",
        "call module(example) once before the conversion",
    ),
    (
        r"meta tensor",
        "weights lie on the meta device, without values",
        "load them first, as in module.load_state_dict(state, assign=True)",
    ),
    (
        r"[Ss]parse",
        "sparse tensors have no ONNX form",
        "call .to_dense() on sparse weights and inputs before the conversion",
    ),
    (
        r"complex|view_as_real|fft",
        "complex numbers reach an op without a form in real numbers",
        "give real and imaginary parts as two real tensors, and write the op in real numbers",
    ),
    (
        r"linalg|slogdet|logdet|matrix_exp|\bdet\b|inverse|cholesky|svd|eig|\bqr\b",
        "a linear-algebra op of the input has no ONNX form",
        "write it with sums and products, as in a * d - b * c for the determinant of a 2 x 2 matrix, or return its "
        "input in place of its result",
    ),
    (
        r"numpy|FakeTensor.*(tolist|__array__)|tolist",
        "forward leaves PyTorch's tensors (NumPy, lists)",
        "write forward with torch functions alone",
    ),
    (
        r"device",
        "tensors lie on different devices",
        "move the module and every tensor that forward makes to one device, as in module.cpu()",
    ),
    (
        r"unsupported dtype|not implemented for|expected .* dtype|dtype",
        "a type of number does not fit an op",
        "convert the module in one precision, as in module.float(), with an example of the same type",
    ),
    (
        r"No ONNX function found|No decompositions registered|custom op|torch\.ops\.",
        "an op has no ONNX form",
        "write it with other PyTorch ops, or return its input in place of its result",
    ),
)
# Where PyTorch keeps jacrev, vmap and grad.
_TRANSFORMS = "_functorch/eager_transforms.py"
_OTHER = (
    "the exporter cannot follow forward",
    "simplify the part that the message names, or export the model to ONNX yourself and give the .onnx file",
)
_MISSING = re.compile(r"OpOverload\(op='([\w.:]+)'")


def refusal(what: str, error: BaseException, limit: int = 220) -> str:
    """Return one line that says what failed, why, in whose words, and how to fix it."""
    cause = innermost(error)
    text = one_line(cause, limit)
    reason, fix = _family(cause, text)
    missing = _MISSING.search(text)
    # The op's name says more than the page around it.
    words = f"no form for {missing[1]}" if missing else f"{type(cause).__name__}: {text}"
    return f"{what}: {reason} ({words}). Fix: {fix}"


def innermost(error: BaseException) -> BaseException:
    """Return the first cause of an exception: the exporter wraps it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _family(error: BaseException, text: str) -> tuple[str, str]:
    """Return the reason and the fix that fit an exception."""
    frames: list[Any] = list(traceback.extract_tb(error.__traceback__))
    packing = any(frame.name in ("pack_padded_sequence", "pad_packed_sequence") for frame in frames)
    # A recurrent layer takes its batch from the data alone where the sequence is packed.
    recurrent = any(frame.filename.endswith("modules/rnn.py") for frame in frames)
    if packing or (recurrent and "got FakeTensor" in text):
        return _PACKED
    transforms = any(_TRANSFORMS in frame.filename for frame in frames)
    text = f"torch.func: {text}" if transforms else text
    return next(((reason, fix) for pattern, reason, fix in _FAMILIES if re.search(pattern, text)), _OTHER)
