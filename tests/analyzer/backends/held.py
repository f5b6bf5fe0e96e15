"""Count the bytes of a framework's tensors that are alive at once, as it makes them and lets go of them.

PyTorch's storages and TensorFlow's eager tensors are objects of Python: each is counted from the op that made it to its
end. What a kernel takes for itself is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tensorflow.python.framework import op_callbacks
from torch.utils._python_dispatch import TorchDispatchMode

# Their outputs lie where their first input does.
_VIEWS = frozenset({b"Reshape", b"Identity", b"Squeeze", b"ExpandDims"})


class Held:
    """The bytes that are held, and the most that ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._known: set[int] = set()

    def count(self, thing: object, size: int) -> None:
        """Count an object of this size until its end, once."""
        key = id(thing)
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(thing, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def held(backend: str) -> Iterator[Held]:
    """Count what a framework makes while the block runs."""
    found = Held()
    if backend == "torch":
        with _Storages(found):
            yield found
        return

    def counted(op_type, inputs, attributes, outputs, op_name=None, graph=None):
        if op_type not in _VIEWS:
            for tensor in outputs:
                found.count(tensor, tensor.dtype.size * tensor.shape.num_elements())

    op_callbacks.add_op_callback(counted)
    try:
        yield found
    finally:
        op_callbacks.remove_op_callback(counted)


class _Storages(TorchDispatchMode):
    """Every storage that an op returns."""

    def __init__(self, found: Held) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._found.count(storage, storage.nbytes())
        return result
