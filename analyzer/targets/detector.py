"""Run a detector and list its candidates, after non-maximum suppression on the host.

From a model and inputs to a Detector: scores and boxes in one form for all layouts, and the names of the classes.
Refuses outputs that do not have the layout, and models that select boxes within, with the tensor before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate, for_inputs
from analyzer.errors import TargetError
from analyzer.images.preprocess import image_layout
from analyzer.target.before import find_activation
from analyzer.target.class_names import find_class, unknown_class
from analyzer.target.suppressed import Proposal, before_suppression
from analyzer.target.target import Target
from analyzer.targets.layouts import AUTO, LAYOUTS, Scores, guess_layout, place_of, read_layout
from analyzer.targets.suppression import suppress
from analyzer.types import Arrays, Inputs

OBJECTNESS = "objectness"
_LAYOUTS = ", ".join(map(repr, LAYOUTS))

Score = int | str | Sequence[int] | Sequence[str] | np.ndarray | None


@dataclass(frozen=True)
class Candidate:
    """A box that a detector found.

    index: its number in its sample, 0 for the highest score. sample: the row of the batch. class_index, class_name: the
    class, counted as in the output; the name is "class 3" where the model stores none. score: its probability; of
    yolov5 objectness times class. box: x1, y1, x2, y2 in pixels of the model's input. anchor: its place in the output.
    output, layout: where its score is found.
    """

    index: int
    sample: int
    class_index: int
    class_name: str
    score: float
    box: tuple[float, float, float, float]
    anchor: int
    output: str
    layout: str

    @property
    def target(self) -> Target:
        """The Target of the class score of this box."""
        return Target(self.output, index=place_of(self.layout, self.anchor, self.class_index))


@dataclass(frozen=True)
class Detector:
    """The outputs of a detector at some inputs, and the names of its classes."""

    scores: Scores
    names: tuple[str, ...] | None

    @classmethod
    def read(
        cls, model: Differentiable | ModelLike, inputs: Inputs, layout: str, output: str | None
    ) -> Detector:
        """Run a detector and read its outputs. Raises TargetError where they do not have the layout."""
        fn = for_inputs(differentiate(model, example=inputs), inputs)
        feeds, names, proposal = fn.check_inputs(inputs), fn.model.class_names, before_suppression(fn.graph)
        wanted = [name for name in fn.graph.outputs if fn.graph.tensors[name].is_float]
        if output is not None and output not in wanted:
            # An inner tensor, and the boxes that belong to it.
            inner = proposal is not None and output in proposal.tensors
            wanted = list(proposal.tensors) if proposal is not None and inner else [output]
        elif output is None and proposal is not None:
            raise TargetError(
                f"expected the outputs of a detector before boxes are selected. {proposal.text}. Fix: give "
                f"output={proposal.output!r} (--detection-output)"
            )
        values = fn.forward(feeds, wanted)
        if layout == AUTO:
            layout = _guessed(fn, values, names, proposal, output)
        stored = len(names) if names and layout != "ssd" else None
        return cls(read_layout(layout, values, _size_of(feeds), output, stored), names)

    @property
    def samples(self) -> int:
        return len(self.scores.scores)

    @property
    def count(self) -> int:
        """The number of classes, as the output counts them."""
        return int(self.scores.scores.shape[2]) + self.scores.first

    def of(self, sample: int, min_score: float, overlap: float) -> list[Candidate]:
        """The candidates of a sample, the highest score first."""
        scores, boxes = self.scores.scores[sample], self.scores.boxes[sample]
        classes = scores.argmax(axis=1)
        best = scores.max(axis=1)
        kept = np.flatnonzero(best >= min_score)
        if self.scores.suppress:
            kept = kept[suppress(boxes[kept], best[kept], classes[kept], overlap)]
        else:
            kept = kept[np.argsort(-best[kept], kind="stable")]
        return [
            Candidate(
                number,
                sample,
                int(classes[anchor]) + self.scores.first,
                self.name(int(classes[anchor]) + self.scores.first),
                float(best[anchor]),
                (
                    float(boxes[anchor, 0]),
                    float(boxes[anchor, 1]),
                    float(boxes[anchor, 2]),
                    float(boxes[anchor, 3]),
                ),
                int(anchor),
                self.scores.output,
                self.scores.layout,
            )
            for number, anchor in enumerate(kept)
        ]

    def candidate(self, sample: int, number: int, min_score: float, overlap: float) -> Candidate:
        """The candidate of a number. Raises TargetError."""
        found = self.of(sample, min_score, overlap)
        if not 0 <= number < len(found):
            best = float(self.scores.scores[sample].max(initial=0))
            raise TargetError(
                f"sample {sample} has {len(found)} candidates with a score of at least {min_score:g} (the highest is "
                f"{best:.3g}), and no number {number}. Fix: give a number that candidates(…) lists (--detection), or "
                "a lower min_score (--min-score)"
            )
        return found[number]

    @property
    def _shift(self) -> int:
        """The class of the first name: names leave the background out where they are one fewer."""
        return 0 if self.names is None or len(self.names) >= self.count else self.scores.first

    def name(self, index: int) -> str:
        """The name of a class."""
        place = index - self._shift
        return self.names[place] if self.names and 0 <= place < len(self.names) else f"class {index}"

    def classes(self, score: Score) -> Score:
        """Classes by index, of classes by name. Raises TargetError for an unknown name."""
        if isinstance(score, str) and score != OBJECTNESS:
            found = find_class(score, self.names)
            if found is None:
                raise TargetError(f"score={score!r}: {unknown_class(score, self.names)}")
            return found if score.strip().isdigit() else found + self._shift
        if isinstance(score, (list, tuple)):
            return [self.classes(one) for one in score]  # type: ignore[return-value]
        return score


def _guessed(
    fn: Differentiable,
    values: Arrays,
    names: Sequence[str] | None,
    proposal: Proposal | None,
    output: str | None,
) -> str:
    """The layout that the outputs have. Raises TargetError where none, or several, fit."""
    if proposal is not None and proposal.output == output and proposal.layout is not None:
        return proposal.layout

    def softmax(name: str) -> bool:
        found = find_activation(fn.graph, name)
        return found is not None and found.kind == "softmax"

    found = guess_layout(values, names, softmax)
    if found is None:
        shapes = ", ".join(f"{name!r} {array.shape}" for name, array in values.items())
        raise TargetError(
            f'layout="auto": the outputs {shapes} fit none of the layouts, or several. Fix: give one of {_LAYOUTS} '
            "(--detection), and output= where the model has several"
        )
    return found


def _size_of(feeds: Arrays) -> tuple[int, int]:
    """(height, width) of the image among the inputs."""
    for array in feeds.values():
        if (layout := image_layout(array.shape)) is not None:
            height, width = array.shape[2:] if layout == "NCHW" else array.shape[1:3]
            return height, width
    shapes = ", ".join(f"{name!r} {array.shape}" for name, array in feeds.items())
    raise TargetError(
        f"expected an input image (N, channels, H, W) or (N, H, W, channels), got {shapes}. Fix: give the anchor and "
        "the class to detection(…) without a model"
    )
