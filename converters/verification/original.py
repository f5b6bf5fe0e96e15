"""A model as it was given, ready to run on ONNX Runtime without optimisations: what an explanation must speak of.

Reads the ModelProto of a file, returns its outputs, or tensors inside it, by name, for any number of samples. Finds the
first node at which a canonical graph computes something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import onnx
from onnx import helper

from converters.errors import InvalidModel
from converters.graph.kernels import exact
from converters.graph.opset import RANDOM, all_nodes
from converters.graph.runtime import ReferenceSession, RuntimeFailure, Session, runtime_version
from converters.graph.tensors import shape_of
from converters.types import NamedArrays
from converters.verification.hard_points import finite_distance

# Below this norm per element a tensor holds rounding alone.
FLOOR = 1e-6


class Original:
    """The model of a file. Raises InvalidModel where neither ONNX Runtime nor ONNX's own evaluator loads it."""

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str] | None = None) -> None:
        """names: the tensors that `run` returns, default the outputs."""
        self.proto = proto
        given = [info.name for info in proto.graph.output]
        shown = proto if names is None or list(names) == given else returning(proto, names)
        try:
            self.session: Session | ReferenceSession = Session(shown, optimise=False)
            self.runtime = f"ONNX Runtime {runtime_version()}"
        except RuntimeFailure as failure:
            try:
                self.session = ReferenceSession(shown)
                self.runtime = f"the reference evaluator of ONNX {onnx.__version__}"
            except RuntimeFailure:
                raise InvalidModel(
                    f"the file is not one that ONNX Runtime loads ({failure}). Fix: export it again until "
                    "onnxruntime.InferenceSession takes it"
                ) from failure
        self.infos = {info.name: info for info in proto.graph.input if info.name in self.session.inputs}
        self.names = list(self.session.outputs)

    @property
    def on_runtime(self) -> bool:
        """Whether ONNX Runtime runs it, and not ONNX's reference evaluator."""
        return isinstance(self.session, Session)

    @property
    def batch(self) -> int | None:
        """The one number of samples that the file takes, None where it leaves it open."""
        return self.samples_of(self.infos)

    def samples_of(self, names: Collection[str]) -> int | None:
        """The size that all these inputs state of their first axis; None where they leave it open, or differ.

        An input such as the two rows of a graph's edges says nothing of the samples of another.
        """
        return first_size(info for name, info in self.infos.items() if name in names)

    def run(self, feeds: NamedArrays) -> dict[str, np.ndarray]:
        """Return the tensors by name. Raises InvalidModel with the runtime's reason."""
        given = {
            name: np.asarray(feeds[name], helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
            for name, info in self.infos.items()
            if name in feeds
        }
        try:
            found = self.session.run(given)
        except RuntimeFailure as failure:
            found = self._without_kernel(given, failure)
        return dict(zip(self.names, found, strict=True))

    def _without_kernel(self, given: NamedArrays, failure: RuntimeFailure) -> list[np.ndarray]:
        """The same by ONNX's own evaluator, where the runtime lacks a kernel for a type only when it runs."""
        reason = InvalidModel(
            f"the model as given does not run on these inputs in {self.runtime} ({failure}). Fix: give an example on "
            "which it runs"
        )
        if "NOT_IMPLEMENTED" not in str(failure) or isinstance(self.session, ReferenceSession):
            raise reason from failure
        try:
            self.session = ReferenceSession(returning(self.proto, self.names))
            return self.session.run(given)
        except RuntimeFailure:
            raise reason from failure


def first_size(infos: Iterable[onnx.ValueInfoProto]) -> int | None:
    """Return the size that all inputs state of their first axis; None where they leave it open, or differ."""
    shapes = [shape_of(info.type) for info in infos]
    sizes = {shape[0] for shape in shapes if shape}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def returning(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of the model whose outputs are these tensors."""
    outputs = {info.name: info for info in proto.graph.output}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    for name in names:
        if name in outputs:
            copy.graph.output.append(outputs[name])
        else:
            copy.graph.output.add(name=name)
    return copy


def draws(proto: onnx.ModelProto) -> str:
    """Return the op of a node that draws at random: two runs differ. Empty where there is none."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    written = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for node in all_nodes(written):
        if node.op_type in RANDOM:
            return node.op_type
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = constants.get(node.input[2])
            if mode is None or bool(onnx.numpy_helper.to_array(mode)):
                return "Dropout in training mode"
    return ""


def computed(proto: onnx.ModelProto) -> list[str]:
    """Return the tensors that the nodes of the main graph compute, in order."""
    return [name for node in proto.graph.node for name in node.output if name]


def left_out(original: onnx.ModelProto, canonical: onnx.ModelProto) -> list[str]:
    """Return the inputs and outputs of a file that the canonical graph lacks, each as a phrase."""
    constants = {tensor.name for tensor in original.graph.initializer}
    return [
        f"{side} {info.name!r}"
        for side, theirs, ours in (
            ("input", original.graph.input, canonical.graph.input),
            ("output", original.graph.output, canonical.graph.output),
        )
        for info in theirs
        if info.name not in constants | {own.name for own in ours}
    ]


@dataclass(frozen=True)
class Difference:
    """The first node whose tensor a canonical graph computes otherwise than the file. relative: relative L2."""

    tensor: str
    node: str
    op_type: str
    relative: float

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the node."""
        return (self.node,)

    def __str__(self) -> str:
        return (
            f"the first node that differs is {self.op_type} {self.node!r}: "
            f"its tensor {self.tensor!r} by {self.relative:.2g} (relative L2)"
        )


def first_difference(
    original: onnx.ModelProto, canonical: onnx.ModelProto, feeds: NamedArrays, tolerance: float
) -> Difference | None:
    """Return the first difference in the order of the canonical graph; None where none is found.

    Tensors are compared that both graphs compute under one name. A folded layer keeps a name for another value: a
    tensor whose next tensors all agree again is passed over.
    """
    shared = set(computed(original))
    names = [name for name in computed(canonical) if name in shared]
    try:
        file = Original(exact(original), names).run(feeds)
        ours = Original(exact(canonical), names).run(feeds)
    except InvalidModel:
        return None
    apart = {name: _apart(ours[name], file[name]) for name in names}
    nodes = {name: node for node in canonical.graph.node for name in node.output if name}
    after = following(canonical, names)
    for name in names:
        beyond = after[name]
        if apart[name] > tolerance and not (beyond and all(apart[other] <= tolerance for other in beyond)):
            return Difference(name, nodes[name].name, nodes[name].op_type, apart[name])
    return None


def with_dropped_axes(array: np.ndarray, shape: Sequence[int | str | None]) -> np.ndarray:
    """Return an array of a file in the rank of the canonical graph.

    A Squeeze without axes drops the axis of the samples where there is one sample alone, and the canonical graph keeps
    it. shape: as the canonical graph has it; only its integers are known. The array is returned as it is where no axes
    of size 1 make this shape of it.
    """
    for axes in combinations(range(len(shape)), max(len(shape) - array.ndim, 0)):
        found = np.expand_dims(array, axes)
        if all(
            size == known for size, known in zip(found.shape, shape, strict=False) if isinstance(known, int)
        ):
            return found
    return array


def _apart(ours: np.ndarray, file: np.ndarray) -> float:
    file = with_dropped_axes(file, ours.shape)
    if ours.shape != file.shape:
        return float("inf")
    if file.dtype.kind in "OSU":
        return 0.0 if np.array_equal(ours, file) else float("inf")
    infinite = ~np.isfinite(file.astype(np.float64))
    if not np.array_equal(ours[infinite], file[infinite], equal_nan=True):
        return float("inf")
    return finite_distance(ours, file, FLOOR)


def following(proto: onnx.ModelProto, names: Collection[str]) -> dict[str, list[str]]:
    """Return for each tensor the next ones of `names` that are computed from it."""
    known = set(names)
    found: dict[str, list[str]] = {}
    # From the last node to the first: what follows a tensor outside of `names` is known by then.
    for node in reversed(proto.graph.node):
        next_ones = [
            one for name in node.output if name for one in ([name] if name in known else found.get(name, []))
        ]
        for name in node.input:
            if name:
                found[name] = list(dict.fromkeys([*next_ones, *found.get(name, [])]))
    return {name: found.get(name, []) for name in names}
