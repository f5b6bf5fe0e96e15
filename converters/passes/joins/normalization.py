"""Normalizations in primitives: LayerNormalization, RMSNormalization, Softmax and LogSoftmax over any axes.

Reads a Region with sums over axes; returns the nodes that replace it. The region's normal form is compared with that of
each op, and its values with the op's, in the precision of the file. Scale, shift and ε are those of the normal form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial, reduce

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import inherit_origin
from converters.graph.mutable import MutableGraph
from converters.passes.joins import formulas
from converters.passes.joins.confirm import agrees, arrays
from converters.passes.joins.elementwise import precision_of
from converters.passes.joins.form import ONE, Form, Opaque, Product
from converters.passes.joins.nodes import REDUCTIONS, Setting, axes_of, compute
from converters.passes.joins.region import Region
from converters.passes.joins.rounded import Array, Precision, Rounded
from converters.passes.joins.unify import unify

_LARGEST = 1 << 16


@dataclass(frozen=True)
class _Sums:
    """A region whose every sum is over the same axes, and how it is evaluated."""

    graph: MutableGraph
    region: Region
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    precision: Precision

    @cached_property
    def setting(self) -> Setting:
        """What the meaning of the nodes depends on."""
        return Setting(self.graph.constants, self.sizes)

    @property
    def count(self) -> int:
        """How many elements lie along the axes."""
        return self.setting.count(self.axes)

    def form(self) -> Form:
        """Return the normal form; constants that are arrays are atoms."""
        result: Form = compute(
            self.region.nodes, self.setting, {self.region.entry: Form.atom("x")}, self._form_of
        )
        return result

    def _form_of(self, name: str) -> Form:
        value = self.graph.constants[name]
        if value.ndim > len(self.sizes):
            raise Opaque
        if value.size == 1:
            return Form.number(float(value.reshape(())))
        return Form.atom("constant", detail=name)

    def values(self, x: Rounded) -> Rounded:
        """Return what the file computes."""
        constants = self.graph.constants
        result: Rounded = compute(
            self.region.nodes, self.setting, {self.region.entry: x}, lambda name: x.constant(constants[name])
        )
        return result

    def agrees(self, op: Callable[[Rounded], Rounded]) -> bool:
        """Whether the file's values are the op's."""
        return agrees(self.values, op, arrays(self.sizes, self.axes, self.precision), self.precision)


def normalization(graph: MutableGraph, region: Region) -> list[onnx.NodeProto] | None:
    """Return the nodes that replace a region, with its result's name; None where it is no op's function."""
    sums = _read(graph, region)
    if sums is None:
        return None
    try:
        form = sums.form()
    except Opaque:
        return None
    return _softmaxes(sums, form) or _norms(sums, form)


def _read(graph: MutableGraph, region: Region) -> _Sums | None:
    shape, precision = graph.shape(region.entry), precision_of(graph, region.entry)
    if not shape or len(region.nodes) == 1 or region.moves or precision is None:
        return None
    found = {
        axes_of(node, len(shape), graph.constants) for node in region.nodes if node.op_type in REDUCTIONS
    }
    axes = found.pop() if len(found) == 1 else None
    if not axes:
        return None
    extents = [shape[axis] for axis in axes]
    if 0 in shape or not all(isinstance(size, int) and size > 1 for size in extents):
        return None
    # Scale and shift lie along the normalised axes: of the others one position is enough.
    sizes = tuple(size if axis in axes and isinstance(size, int) else 1 for axis, size in enumerate(shape))
    if math.prod(sizes) > _LARGEST:
        return None
    return _Sums(graph, region, axes, sizes, precision)


def _softmaxes(sums: _Sums, form: Form) -> list[onnx.NodeProto] | None:
    if len(sums.axes) != 1:
        return None
    for op_type, formula in (("Softmax", formulas.softmax), ("LogSoftmax", formulas.log_softmax)):
        known = formulas.pattern(formula, axes=sums.axes)
        op = partial(formula, axes=sums.axes)
        if unify(form, known, sums.precision) is not None and sums.agrees(op):
            last, entry = sums.region.last, sums.region.entry
            nodes = [helper.make_node(op_type, [entry], list(last.output), last.name, axis=sums.axes[0])]
            inherit_origin(nodes, last)
            return nodes
    return None


@dataclass(frozen=True)
class _Norm:
    """A normalization with its parameters; the shift of an RMSNormalization is None."""

    op_type: str
    epsilon: float
    scale: Array
    shift: Array | None

    def values(self, x: Rounded, sums: _Sums) -> Rounded:
        """Return what the op computes."""
        scale, epsilon = x.constant(self.scale), x.constant(np.asarray(self.epsilon))
        over = (epsilon, sums.axes, sums.count)
        if self.shift is None:
            computed = formulas.rms_normalization(x, scale, *over)
        else:
            computed = formulas.layer_normalization(x, scale, x.constant(self.shift), *over)
        result: Rounded = computed
        return result


def _norms(sums: _Sums, form: Form) -> list[onnx.NodeProto] | None:
    try:
        found = _read_norm(sums, form)
    except Opaque:
        return None
    if found is None or not sums.agrees(lambda x: found.values(x, sums)):
        return None
    return _normalized(sums, found)


def _read_norm(sums: _Sums, form: Form) -> _Norm | None:
    """Return the normalization that a form is: products that share a scale, and a shift that depends on nothing."""
    parts: dict[Product, dict[Product, Product]] = {}
    for product, _ in form.items:
        constant = frozenset(factor for factor in product if factor[0].name == "constant")
        parts.setdefault(product - constant, {})[constant] = product
    terms = form.terms
    shifted = {constant: terms[product] for constant, product in parts.pop(ONE, {}).items()}
    scales = {constant for found in parts.values() for constant in found}
    if len(scales) != 1:
        return None
    (factor,) = scales
    core = Form.of({product: terms[found[factor]] for product, found in parts.items()})
    given = {"axes": sums.axes, "count": sums.count}
    for op_type, formula, fixed in (
        ("LayerNormalization", formulas.layer_normalization, {"shift": 0.0}),
        ("RMSNormalization", formulas.rms_normalization, {}),
    ):
        bound = unify(core, formulas.pattern(formula, **given, **fixed), sums.precision)
        if bound is None or (shifted and op_type == "RMSNormalization"):
            continue
        epsilon = bound["epsilon"]
        # The op holds ε in float32.
        if not epsilon > 0 or float(np.float32(epsilon)) != epsilon:
            return None
        scale = _array(sums, {factor: bound["scale"]})
        shift = _array(sums, {constant: one.value for constant, one in shifted.items()})
        return _Norm(op_type, epsilon, scale, None if op_type == "RMSNormalization" else shift)
    return None


def _array(sums: _Sums, terms: dict[Product, float]) -> Array:
    """Return a sum of products of constants, in the file's precision; raise Opaque where it varies between samples."""
    extents = tuple(size if axis in sums.axes else 1 for axis, size in enumerate(sums.sizes))
    total = np.zeros(extents)
    for product, value in terms.items():
        factors = [
            sums.graph.constants[str(atom.detail)].astype(np.float64) ** float(exponent)
            for atom, exponent in product
        ]
        try:
            term = np.asarray(reduce(np.multiply, factors, np.asarray(value)))
            fits = np.broadcast_shapes(term.shape, extents) == extents
        except ValueError as error:  # a damaged file: the shapes do not go together
            raise Opaque from error
        if not fits:
            raise Opaque
        total = total + term
    return sums.precision.round(total)


def _normalized(sums: _Sums, found: _Norm) -> list[onnx.NodeProto]:
    """Return the op over the last axes; where the region's are others, between two Transposes."""
    graph, last, rank = sums.graph, sums.region.last, len(sums.sizes)
    order = [axis for axis in range(rank) if axis not in sums.axes] + list(sums.axes)
    moved = order != list(range(rank))
    extents = [sums.sizes[axis] for axis in sums.axes]
    stem, inputs = last.output[0], [sums.region.entry]
    nodes = []
    if moved:
        inputs = [graph.fresh(f"{stem}.axes_last")]
        nodes.append(helper.make_node("Transpose", [sums.region.entry], inputs, perm=order))
    for role, array in (("scale", found.scale), ("shift", found.shift)):
        if array is not None and (role == "scale" or array.any()):
            inputs.append(graph.fresh(f"{stem}.{role}"))
            graph.constants[inputs[-1]] = array.reshape(extents).astype(sums.precision.dtype)
    result = graph.fresh(f"{stem}.normalized") if moved else stem
    first = rank - len(sums.axes)
    nodes.append(
        helper.make_node(found.op_type, list(inputs), [result], last.name, axis=first, epsilon=found.epsilon)
    )
    if moved:
        nodes.append(helper.make_node("Transpose", [result], [stem], perm=np.argsort(order).tolist()))
    inherit_origin(nodes, last)
    return nodes
