"""Bring a graph to the one opset of the canonical form, and inline its functions.

Reads and rewrites a MutableGraph. Up to opset 18 with ONNX's own converter, from there with onnxscript's, which
knows the later ops; a model whose ops did not change between the opsets is only relabelled. A newer model
is taken down as far as its ops existed, with the same attributes, at the canonical opset; else it is
refused and the ops are named.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import onnx
import onnx.inliner

from converters.budget import current
from converters.errors import InvalidModel, UnsupportedModel, one_line
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard, subgraphs

CANONICAL_OPSET = 23
# ONNX's own converter is complete up to here; onnxscript's begins here.
_HANDOVER = 18
# Pad has its value as an input, and Resize says which coordinates it takes, from here.
_PAD_INPUTS = _RESIZE_MODES = 11
# Hardmax is taken along one axis from here, along all axes from the stated one on before.
_HARDMAX_ALONG_AXIS = 13


# ONNX Runtime has kernels for these up to here; what came later are types alone.
_OLDER_OPSET = 21
# The number of inlined nodes may double with each level of calls.
DEEPEST_CALL = 64
RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
"""Ops that draw at random."""
_OLDER_OPS = frozenset({"GlobalLpPool", "MaxRoiPool", "RoiAlign", *RANDOM})


def runnable_opset(nodes: Iterable[onnx.NodeProto]) -> int:
    """The opset under which ONNX Runtime runs canonical nodes: an older label, of the same meaning, if it must be."""
    kinds = {node.op_type for node in nodes if is_standard(node)}
    older = all(_since(kind, _OLDER_OPSET) is not None for kind in kinds)
    return _OLDER_OPSET if older and kinds & _OLDER_OPS else CANONICAL_OPSET


def refuse_newer(proto: onnx.ModelProto) -> None:
    """Raise UnsupportedModel for a format or opset that the installed onnx does not know."""
    newest = onnx.defs.onnx_opset_version()
    stated = max((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if stated > newest:
        raise UnsupportedModel(
            f"the model is written for opset {stated}; the installed onnx {onnx.__version__} ends at {newest}. "
            "Fix: install a newer onnx, or export the model at an older opset"
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise UnsupportedModel(
            f"the model has IR version {proto.ir_version}; the installed onnx {onnx.__version__} ends at "
            f"{onnx.IR_VERSION}. Fix: install a newer onnx"
        )


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every call of a model-local function by the function's body.

    A model whose functions are written for opsets that ONNX's inliner cannot convert is returned as it is.
    Raises InvalidModel where functions call one another in a circle, LimitExceeded where they stand for too many nodes.
    """
    if not proto.functions:
        return proto
    current().take_nodes(
        max(_nodes_inlined(proto) - len(proto.graph.node), 0), "writing out the functions of the model"
    )
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(proto, convert_version=True)
        return inlined
    except Exception:  # the C++ inliner raises bare RuntimeErrors and its own kinds alike
        return proto


def _nodes_inlined(proto: onnx.ModelProto) -> int:
    """The number of nodes of a model whose calls of its functions are replaced by their bodies."""
    bodies = {(body.domain, body.name, body.overload): list(body.node) for body in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    begun: list[tuple[str, str, str]] = []

    def size(nodes: list[onnx.NodeProto]) -> int:
        return sum(of_call((node.domain, node.op_type, node.overload)) for node in all_nodes(nodes))

    def of_call(key: tuple[str, str, str]) -> int:
        if key not in bodies:
            return 1
        if key in begun or len(begun) > DEEPEST_CALL:
            raise InvalidModel(
                f"the function {key[1]!r} calls itself, or calls are nested more than {DEEPEST_CALL} deep. "
                "Fix: export the model without functions"
            )
        if key not in sizes:
            begun.append(key)
            sizes[key] = size(bodies[key])
            begun.pop()
        return sizes[key]

    return size(list(proto.graph.node))


def set_opset(graph: MutableGraph) -> None:
    """Rewrite a graph, in place, to the canonical opset."""
    version = graph.opsets.get("")
    if version is None:
        if any(is_standard(node) for node in all_nodes(graph.nodes)):
            raise InvalidModel(
                "the model uses ONNX ops and imports no ONNX opset. Fix: add an entry to its opset_import, as in "
                'model.opset_import.add(domain="", version=17)'
            )
        graph.opsets[""] = CANONICAL_OPSET
        return
    _refuse_unknown_ops(graph, version)
    if version == 8 and any(is_standard(node, "Scan") for node in all_nodes(graph.nodes)):
        raise UnsupportedModel(
            "Scan of opset 8 runs over batches of sequences, as no later one does. Fix: export with opset 9 or later"
        )
    _state_sides(graph)
    if version > CANONICAL_OPSET:
        _downgrade(graph, version)
    elif not _unchanged(graph, version):
        if version < _HANDOVER:
            if version < _PAD_INPUTS:
                _drop_unread_pad_values(graph)
            if version < _HARDMAX_ALONG_AXIS:
                graph.nodes = _flattened_hardmaxes(graph, graph.nodes)
            _upgrade_by_onnx(graph, version)
            if version < _RESIZE_MODES:
                _state_resize_modes(graph)
            if version < _PAD_INPUTS:
                _type_pad_values(graph)
        _upgrade_by_onnxscript(graph)
    graph.opsets[""] = runnable_opset(all_nodes(graph.nodes))


def _state_sides(graph: MutableGraph) -> None:
    """Write out the default of STFT's `onesided`, 1, which ONNX's shape inference takes for 0."""
    for node in all_nodes(graph.nodes):
        if is_standard(node, "STFT") and not any(entry.name == "onesided" for entry in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))
            # What the file states may come from that inference.
            graph.types = {}


def all_nodes(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes and, recursively, the nodes of their subgraphs."""
    inner = [inner for node in nodes for body in subgraphs(node) for inner in all_nodes(list(body.node))]
    return [*nodes, *inner]


def _refuse_unknown_ops(graph: MutableGraph, version: int) -> None:
    unknown = {
        n.op_type for n in all_nodes(graph.nodes) if is_standard(n) and _since(n.op_type, version) is None
    }
    if unknown:
        raise InvalidModel(
            f"ONNX opset {version} has no operator {', '.join(sorted(unknown))}. Fix: state the opset that the model "
            "is written for in its opset_import, or export the model again"
        )


def _since(op_type: str, version: int) -> int | None:
    try:
        return onnx.defs.get_schema(op_type, version).since_version
    except onnx.defs.SchemaError:
        return None


def _unchanged(graph: MutableGraph, version: int) -> bool:
    kinds = {node.op_type for node in all_nodes(graph.nodes) if is_standard(node)}
    return all(_since(kind, version) == _since(kind, CANONICAL_OPSET) for kind in kinds)


def _upgrade_by_onnx(graph: MutableGraph, version: int) -> None:
    try:
        graph.adopt(onnx.version_converter.convert_version(graph.light_proto(), _HANDOVER))
    except Exception as error:  # the C++ converter raises bare RuntimeErrors and its own kinds alike
        raise UnsupportedModel(
            f"an op of opset {version} has no form in opset {CANONICAL_OPSET} ({_plain(error)}). Fix: export the "
            f"model again at opset {CANONICAL_OPSET}"
        ) from error


def _plain(error: Exception) -> str:
    """Return the words of ONNX's converter without the place in its C++ source."""
    return one_line(error).rpartition("` failed: ")[2]


def _drop_unread_pad_values(graph: MutableGraph) -> None:
    """Remove the value of every Pad that does not fill with it: ONNX's converter would leave the attribute."""
    for node in all_nodes(graph.nodes):
        if is_standard(node, "Pad") and attribute(node, "mode", None) not in (None, b"constant"):
            for entry in [entry for entry in node.attribute if entry.name == "value"]:
                node.attribute.remove(entry)


def _flattened_hardmaxes(graph: MutableGraph, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes with every Hardmax on a matrix, as its old meaning is: ONNX's converter leaves it as it is."""
    found = []
    for node in nodes:
        for body in subgraphs(node):
            inner = _flattened_hardmaxes(graph, body.node)
            del body.node[:]
            body.node.extend(inner)
        if not is_standard(node, "Hardmax"):
            found.append(node)
            continue
        x, y, axis = node.input[0], node.output[0], int(attribute(node, "axis", 1))
        shape, flat, largest = (graph.fresh(f"{y}.{role}") for role in ("shape", "flat", "largest"))
        found += [
            onnx.helper.make_node("Shape", [x], [shape]),
            onnx.helper.make_node("Flatten", [x], [flat], axis=axis),
            onnx.helper.make_node("Hardmax", [flat], [largest], axis=1),
            onnx.helper.make_node("Reshape", [largest, shape], [y], node.name),
        ]
    return found


def _state_resize_modes(graph: MutableGraph) -> None:
    """Give every Resize the coordinates that it had before it said so: pixel i lies at i / scale.

    ONNX's converter leaves the defaults of later opsets, pixel centres. The nearest pixel is the one before, and the
    one after where the image is reduced, as ONNX Runtime computes these ops.
    """
    for node in all_nodes(graph.nodes):
        if (
            not is_standard(node, "Resize")
            or attribute(node, "coordinate_transformation_mode", None) is not None
        ):
            continue
        scales = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        reduces = scales is not None and bool((scales <= 1).all() and (scales < 1).any())
        stated = {
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "ceil" if reduces else "floor",
        }
        node.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in stated.items())


def _type_pad_values(graph: MutableGraph) -> None:
    """Give the values of Pad, which were attributes, the type of the data: ONNX's converter makes them float32."""
    nodes = []
    for node in graph.nodes:
        if is_standard(node, "Pad") and len(node.input) > 2 and node.input[2]:
            typed = graph.fresh(f"{node.output[0]}.value")
            nodes.append(onnx.helper.make_node("CastLike", [node.input[2], node.input[0]], [typed]))
            node.input[2] = typed
        nodes.append(node)
    graph.nodes = nodes


def _upgrade_by_onnxscript(graph: MutableGraph) -> None:
    if _unchanged(graph, graph.opsets[""]):
        return
    import onnx_ir
    from onnxscript.version_converter import convert_version

    model = onnx_ir.from_proto(graph.light_proto())
    logger = logging.getLogger("onnxscript.version_converter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        convert_version(model, CANONICAL_OPSET)
    except Exception as error:  # the converter documents no exceptions
        raise UnsupportedModel(
            f"an op of the model has no form in opset {CANONICAL_OPSET} ({one_line(error)}). Fix: export the "
            f"model again at opset {CANONICAL_OPSET}"
        ) from error
    finally:
        logger.setLevel(level)
    graph.adopt(onnx_ir.to_proto(model))


def _downgrade(graph: MutableGraph, version: int) -> None:
    """Relabel a newer model whose nodes are all expressible at the canonical opset."""
    newer = sorted(
        {n.op_type for n in all_nodes(graph.nodes) if is_standard(n) and not expressible(n, version)}
    )
    if newer:
        raise UnsupportedModel(
            f"{', '.join(newer)} of opset {version} cannot be expressed in opset {CANONICAL_OPSET}. "
            f"Fix: export the model with opset {CANONICAL_OPSET}"
        )
    for node in all_nodes(graph.nodes):
        if is_standard(node):
            known = onnx.defs.get_schema(node.op_type, CANONICAL_OPSET).attributes
            for entry in [entry for entry in node.attribute if entry.name not in known]:
                node.attribute.remove(entry)


def expressible(node: onnx.NodeProto, version: int) -> bool:
    """Whether a standard node of an opset can be said in the canonical one, new attributes being at their defaults."""
    before = _since(node.op_type, CANONICAL_OPSET)
    if before is None:
        return False
    if version <= CANONICAL_OPSET or before == _since(node.op_type, version):
        return True
    old = onnx.defs.get_schema(node.op_type, CANONICAL_OPSET)
    new = onnx.defs.get_schema(node.op_type, version)
    return (
        all(
            entry.name in old.attributes or entry == new.attributes[entry.name].default_value
            for entry in node.attribute
        )
        and len(node.input) <= old.max_input
        and len(node.output) <= old.max_output
    )
