"""Find the PyTorch modules that read one sample alone, such as those with `x[0]` in forward.

Reads a TorchCall whose example holds one sample. Two samples that give the first one's output show it.
"""

from __future__ import annotations

from typing import Any

from converters.sources.torch_call import TorchCall, run_call, tensors_of


def reads_one_sample(torch: Any, call: TorchCall) -> bool:
    """Return whether an output for two samples is that of the first, though the second alone gives another."""
    first = tensors_of(torch, call.tree)
    second = [_changed(torch, tensor) for tensor in first]
    both = [torch.cat([a, b]) if _is_sample(a) else a for a, b in zip(first, second, strict=True)]
    try:
        of_first, of_both = run_call(torch, call, first), run_call(torch, call, both)
        same = [_equal(torch, one, two) for one, two in zip(of_first, of_both, strict=True)]
        if not any(same):
            return False
        of_second = run_call(torch, call, second)
    except Exception:  # the original is the user's code, and may refuse two samples
        return False
    return any(
        alike and not _equal(torch, one, other)
        for alike, one, other in zip(same, of_first, of_second, strict=True)
    )


def _is_sample(tensor: Any) -> bool:
    return bool(tensor.ndim > 0 and tensor.shape[0] == 1)


def _changed(torch: Any, tensor: Any) -> Any:
    """Return another sample: other numbers, or the same whole numbers in another order."""
    if not _is_sample(tensor):
        return tensor
    if not tensor.is_floating_point():
        return tensor.roll(1, -1)
    wave = torch.linspace(-1, 1, tensor.numel(), dtype=torch.float32, device=tensor.device).reshape(
        tensor.shape
    )
    spread = tensor.float().std() if tensor.numel() > 1 else torch.ones((), device=tensor.device)
    return tensor + (wave * torch.where(spread > 0, spread, 1.0)).to(tensor.dtype)


def _equal(torch: Any, one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    return bool(torch.allclose(one.double(), other.double(), rtol=1e-5, atol=1e-7, equal_nan=True))
