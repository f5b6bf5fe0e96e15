"""Read --detection, --box and --segmentation of `onnxplain analyze`, and list the boxes of a detector.

From a model and a batch to candidates in a table, and to the Target of one candidate of each sample. Refuses --target
together with them, and numbers that no candidate has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.options import split_list
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.cli.inputs import Batch
    from analyzer.figures.ground import Box
    from analyzer.images.letterbox import Letterbox
    from analyzer.target.target import Target
    from analyzer.targets import Candidate

DETECTION = "Detection"
# Of each sample; --json has all.
MOST_SHOWN = 20


class DetectionChoice(StrEnum):
    """The layout of a detector's outputs."""

    AUTO = "auto"
    YOLOV8 = "yolov8"
    YOLOV5 = "yolov5"
    SSD = "ssd"
    DETR = "detr"


DetectionOption = Annotated[
    DetectionChoice | None,
    typer.Option(
        "--detection",
        help="List the boxes that a detector finds, after non-maximum suppression: the layout of its outputs, or auto.",
        rich_help_panel=DETECTION,
    ),
]
BoxOption = Annotated[
    str | None,
    typer.Option(
        "--box",
        metavar="NUMBER",
        help="Explain the class score of this box of the list; a comma list, one per sample.",
        rich_help_panel=DETECTION,
    ),
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        min=0,
        max=1,
        help="Least score of a box in the list. Default: 0.25.",
        rich_help_panel=DETECTION,
    ),
]
DetectionOutputOption = Annotated[
    str | None,
    typer.Option(
        "--detection-output",
        metavar="TENSOR",
        help="Tensor with the class scores, such as the one before a model selects boxes itself. Default: the output "
        "of the layout.",
        rich_help_panel=DETECTION,
    ),
]
SegmentationOption = Annotated[
    str | None,
    typer.Option(
        "--segmentation",
        metavar="CLASS",
        help="Explain a class of a segmentation where it is predicted: the same as --target CLASS@predicted.",
        rich_help_panel=DETECTION,
    ),
]


@dataclass(frozen=True)
class DetectionOptions:
    """The options as given."""

    layout: DetectionChoice | None
    box: str | None
    min_score: float | None
    output: str | None

    def refuse_others(self, target: str | None, logit: bool) -> None:
        """Raise UserError for options that do not go together."""
        given = [
            name
            for name, value in (
                ("--box", self.box),
                ("--min-score", self.min_score),
                ("--detection-output", self.output),
            )
            if value is not None
        ]
        if self.layout is None:
            if given:
                raise UserError(f"{given[0]} goes with --detection. Fix: add --detection auto, or a layout")
            return
        if target is not None or logit:
            raise UserError(
                f"--detection explains a box, and {'--target' if target is not None else '--logit'} another number. "
                "Fix: give one of them"
            )

    @property
    def fit(self) -> str | None:
        """How a photograph is fitted into the input, where the model does not say: as the authors of the layout do."""
        if self.layout is None:
            return None
        return "stretch" if self.layout in (DetectionChoice.SSD, DetectionChoice.DETR) else "pad"


@dataclass(frozen=True)
class Detected:
    """The candidates of a batch, and how their boxes are shown in the photographs."""

    found: Sequence[Candidate]
    least: float
    names: Sequence[str]
    boxes: Sequence[Box]

    @classmethod
    def of(cls, fn: Differentiable, batch: Batch, options: DetectionOptions) -> Detected:
        """Run the detector and list its candidates."""
        from analyzer.targets import candidates
        from analyzer.targets.detection import MIN_SCORE

        assert options.layout is not None
        least = MIN_SCORE if options.min_score is None else options.min_score
        found = candidates(fn, batch.inputs, options.layout.value, output=options.output, min_score=least)
        samples = dict.fromkeys(one.sample for one in found)
        places = {sample: _letterbox(batch, sample) for sample in samples}
        boxes = [one.box if (at := places[one.sample]) is None else at.back(one.box) for one in found]
        return cls(found, least, batch.names, boxes)

    def show(self, terminal: Terminal) -> None:
        """Write the table of candidates; boxes in pixels of the photograph where one was read."""
        terminal.heading("Boxes")
        rows = []
        for sample, name in enumerate(self.names):
            own = [
                (one, box) for one, box in zip(self.found, self.boxes, strict=True) if one.sample == sample
            ]
            rows += [
                (
                    "" if place else name,
                    str(one.index),
                    one.class_name,
                    f"{one.score:.3f}",
                    ", ".join(f"{edge:.0f}" for edge in box),
                )
                for place, (one, box) in enumerate(own[:MOST_SHOWN])
            ]
            if not own:
                rows.append((name, "–", f"no box with a score of at least {self.least:g}", "", ""))
        terminal.table(("input", "box", "class", "score", "x1, y1, x2, y2"), rows, right=(1, 3))
        if self.found:
            terminal.remark(
                f"layout {self.found[0].layout}, output {self.found[0].output!r}; --box 0 explains a box"
            )
        else:
            terminal.remark("a lower --min-score lists more")

    def document(self) -> dict[str, Any]:
        """The candidates as plain data."""
        return {
            "detections": [
                {
                    "name": self.names[one.sample],
                    **{key: value for key, value in vars(one).items() if key != "box"},
                    "box": list(one.box),
                    "box_in_photograph": list(box),
                }
                for one, box in zip(self.found, self.boxes, strict=True)
            ]
        }

    def chosen(self, text: str) -> list[Candidate]:
        """The candidate of each sample that --box names. Raises UserError."""
        parts = split_list(text)
        if not parts or not all(part.isdigit() for part in parts) or len(parts) not in (1, len(self.names)):
            raise UserError(
                f"--box {text}: expected a number of the list, or one for each of {len(self.names)} samples. Fix: give "
                "numbers, as in --box 2"
            )
        numbers = parts * len(self.names) if len(parts) == 1 else parts
        return [self._candidate(sample, int(number)) for sample, number in enumerate(numbers)]

    def _candidate(self, sample: int, number: int) -> Candidate:
        own = [one for one in self.found if one.sample == sample]
        if number >= len(own):
            count = f"{len(own)} box{'es' * (len(own) != 1)}"
            raise UserError(
                f"--box {number}: {self.names[sample]} has {count} with a score of at least {self.least:g}. Fix: omit "
                "--box to list them, or give a lower --min-score"
            )
        return own[number]


def hint(fn: Differentiable) -> str | None:
    """A note for a detector whose highest number is explained, which is a side of a box; None for other models."""
    import numpy as np

    from analyzer.targets.layouts import guess_layout

    names = fn.model.class_names
    if not names:
        # Sequences and features of pixels have three axes, too.
        return None
    shapes = {name: fn.graph.tensors[name].shape for name in fn.graph.outputs}
    sizes = {
        name: tuple(size if isinstance(size, int) else 1 for size in shape)
        for name, shape in shapes.items()
        if shape is not None and len(shape) == 3 and all(isinstance(size, int) for size in shape[1:])
    }
    values = {name: np.broadcast_to(np.float32(0), size) for name, size in sizes.items()}
    layout = guess_layout(values, names, lambda name: False) if len(values) == len(shapes) else None
    if layout not in ("yolov8", "yolov5"):
        return None
    return (
        f"Note: the output looks like that of a detector ({layout}). The highest number is explained, which may be "
        "a side of a box: --detection auto lists the boxes, and --box 0 explains the score of the first."
    )


def target_of(chosen: Sequence[Candidate]) -> Target:
    """The Target of the class scores of one candidate for each sample."""
    from analyzer.targets import detection

    first = chosen[0]
    return detection(
        first.output,
        first.layout,
        box=[one.anchor for one in chosen],
        score=[one.class_index for one in chosen],
    )


def said_of(chosen: Sequence[Candidate]) -> tuple[str, ...]:
    """The target of each sample in words."""
    return tuple(f"{one.class_name} {one.score:.2f}, box {one.index}" for one in chosen)


def segmentation_text(asked: str, target: str | None) -> str:
    """The --target that --segmentation is short for. Raises UserError where both are given."""
    if target is not None:
        raise UserError(
            "--segmentation explains a class where it is predicted, and --target another number. Fix: give one of them"
        )
    return f"{asked}@predicted"


def _letterbox(batch: Batch, sample: int) -> Letterbox | None:
    """Where the photograph of a sample lies in its input; None where the input was not padded."""
    from analyzer.images.files import read_pixels
    from analyzer.images.letterbox import Letterbox

    path = batch.images[sample] if sample < len(batch.images) else None
    if path is None or batch.preprocessing is None or batch.preprocessing.fit != "pad":
        return None
    return Letterbox.of(read_pixels(path).shape[:2], batch.preprocessing.size)
