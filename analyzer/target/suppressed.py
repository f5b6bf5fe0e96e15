"""Find the scores of a detector before it suppresses boxes within, where they have a gradient.

From a Graph with a NonMaxSuppression, or a TopK of scores, to a Proposal: the tensor to explain, and its layout where
the shapes tell it.
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.graph.graph import Graph, Node, Tensor

# Ops between the scores of a detector and the TopK that ranks them.
_RANKING = frozenset(
    {
        "ReduceMax",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Sigmoid",
        "Identity",
        "Cast",
        "Gather",
    }
)


@dataclass(frozen=True)
class Proposal:
    """node: suppresses or ranks boxes. output: the tensor to explain. layout: None where the shapes do not tell it.

    tensors: output, and the boxes where they are another tensor.
    """

    node: Node
    output: str
    layout: str | None
    shape: tuple[int | str | None, ...]
    tensors: tuple[str, ...]

    @property
    def text(self) -> str:
        """A sentence with what to explain."""
        axes = ", ".join("?" if size is None else str(size) for size in self.shape)
        how = f"with layout={self.layout!r}" if self.layout else f"by coordinates, as its axes are ({axes})"
        return f"Boxes are selected within the model, at {self.node}: explain output={self.output!r} {how}"

    @property
    def fix(self) -> str:
        """What to write to explain a box."""
        if self.layout is None:
            return f"explain a score before boxes are selected, Target({self.output!r}, index=(…))"
        return (
            f"explain a score before boxes are selected, onnxplain.targets.detection({self.output!r}, "
            f"{self.layout!r}, box=…, score=…) (--detection {self.layout} --detection-output {self.output})"
        )


def before_suppression(graph: Graph) -> Proposal | None:
    """Return the tensor to explain of a model that selects boxes itself; None where no node does."""
    for node in graph.nodes:
        if node.op_type == "NonMaxSuppression" and not node.domain:
            return _before_nms(graph, node)
    leading = graph.ancestors(graph.outputs)
    rankings = (n for n in graph.nodes if n.op_type == "TopK" and leading.intersection(n.outputs))
    found = (_before_ranking(graph, node) for node in rankings)
    return next((proposal for proposal in found if proposal is not None), None)


def _before_nms(graph: Graph, node: Node) -> Proposal | None:
    """Of one tensor with boxes and scores this one, else the scores themselves."""
    boxes, scores = node.inputs[:2]
    classes = _size(graph.tensors[scores], 1)
    leading = graph.ancestors([scores])
    # What a Softmax reads holds no probabilities: the layouts of one tensor take each score by itself.
    read = [
        other.inputs[0]
        for other in graph.nodes
        if other.op_type == "Softmax" and leading.intersection(other.outputs)
    ]
    shared = (graph.ancestors([boxes]) & leading) - graph.ancestors(read)
    for other in reversed(graph.nodes):
        for name in other.outputs:
            if name in shared and (layout := _layout(graph.tensors[name], classes)) is not None:
                return Proposal(node, name, layout, graph.tensors[name].shape or (), (name,))
    found = _untransposed(graph, scores)
    named = _untransposed(graph, boxes) if _size(graph.tensors[boxes], 2) != 4 else boxes
    softmax = (producer := graph.producer.get(found)) is not None and producer.op_type == "Softmax"
    layout = "ssd" if softmax and found != scores else None
    return Proposal(node, found, layout, graph.tensors[found].shape or (), (found, named))


def _before_ranking(graph: Graph, node: Node) -> Proposal | None:
    """The tensor of three axes whose scores a TopK ranks."""
    name = node.inputs[0]
    while (producer := graph.producer.get(name)) is not None:
        tensor = graph.tensors[name]
        inner = producer.op_type in _RANKING or (producer.op_type == "Transpose" and tensor.shape is not None)
        if tensor.is_float and tensor.shape is not None and len(tensor.shape) == 3 and not inner:
            break
        if not inner:
            return None
        name = producer.inputs[0]
    tensor = graph.tensors[name]
    if producer is None or tensor.shape is None or len(tensor.shape) != 3:
        return None
    few, many = tensor.shape[1:]
    whole = producer.op_type == "Concat" and isinstance(few, int) and isinstance(many, int) and 4 < few < many
    return Proposal(node, name, "yolov8" if whole else None, tensor.shape, (name,))


def _layout(tensor: Tensor, classes: int | None) -> str | None:
    """The layout of one tensor that holds boxes and the scores of so many classes."""
    if not tensor.is_float or tensor.shape is None or len(tensor.shape) != 3 or classes is None:
        return None
    if tensor.shape[1] == 4 + classes:
        return "yolov8"
    return "yolov5" if tensor.shape[2] == 5 + classes else None


def _untransposed(graph: Graph, name: str) -> str:
    """The tensor whose last two axes were exchanged, where they were."""
    node = graph.producer.get(name)
    if node is not None and node.op_type == "Transpose" and list(node.attributes["perm"] or ()) == [0, 2, 1]:
        return node.inputs[0]
    return name


def _size(tensor: Tensor, axis: int) -> int | None:
    shape = tensor.shape
    size = shape[axis] if shape is not None and len(shape) > axis else None
    return size if isinstance(size, int) else None
