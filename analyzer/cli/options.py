"""Options that several commands share, and the small parsers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.cli.terminal import UserError

if TYPE_CHECKING:
    from converters.passes.fixed_inputs import Literal


class Layout(StrEnum):
    """Where the channels of an image stand."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class BackendChoice(StrEnum):
    """What computes values and gradients."""

    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    SOURCE = "source"


PREPROCESSING = "How images are read"

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model: .onnx, .pt2, .keras, a SavedModel or Hugging Face folder, hf://ORG/NAME, or "
        "package.module:factory.",
    ),
]
InputsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Images, .npy arrays, or one .npz with an array per model input; folders and patterns of them, such as "
        "'photos/*.jpg'.",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size", help="Size of the model's input: 224, or HEIGHTxWIDTH.", rich_help_panel=PREPROCESSING
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="Mean per channel, of pixels in [0, 1]: 0.485,0.456,0.406 or 127/255.",
        rich_help_panel=PREPROCESSING,
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option("--std", help="Divisor per channel, of pixels in [0, 1].", rich_help_panel=PREPROCESSING),
]
LayoutOption = Annotated[
    Layout | None,
    typer.Option("--layout", help="Axis order of the model's input.", rich_help_panel=PREPROCESSING),
]
ResizeOption = Annotated[
    int | None,
    typer.Option(
        "--resize",
        min=1,
        help="Resize the short side to this before cropping.",
        rich_help_panel=PREPROCESSING,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="What to explain: a class by index or name, or a comma list, one per sample; CLASS@mask.npy or "
        "CLASS@predicted, a class summed over pixels (@last: channels last); 2:17, an element by its coordinates; -1:, "
        "the highest at a position; weights.npy; OUTPUT=…, of another output; weights.npz, of several by name; "
        "'tabby - tiger cat', '3+0.5*box=0:', a sum of these; of analyze, top3 or each:tabby,lynx: several classes, "
        "each by itself. Default: the highest class.",
    ),
]
LogitOption = Annotated[
    bool,
    typer.Option(
        "--logit",
        help="Explain the logit: the input of the last Softmax or Sigmoid, where one computes the explained output.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load files that can run code (.pt2, Keras and TensorFlow files with code). Only for files whose origin "
        "you trust.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Fix an input of the model to a value, such as sr=16000, training=false or size=[224, 224], so that "
        "branches on it fold. Repeat for more.",
    ),
]
StraightThroughOption = Annotated[
    bool,
    typer.Option(
        "--straight-through",
        help="Differentiate a quantized model straight through its rounding; it is refused otherwise.",
    ),
]
NoVerifyOption = Annotated[
    bool,
    typer.Option(
        "--no-verify",
        help="Do not compare the output of the .onnx file with what is explained.",
    ),
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="The memory that a call may take, such as 2GiB; larger batches are split. "
        "Default: half of the free memory.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Compute this many samples at once. Default: as many as fit into the memory.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="Where the backend runs: cpu, cuda, cuda:1. Default: the processor."
    ),
]
ProvidersOption = Annotated[
    str | None,
    typer.Option(
        "--providers",
        metavar="NAMES",
        help="Execution providers of ONNX Runtime, by a comma, in place of --device.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to stdout, and nothing else there.")
]
WrtOption = Annotated[
    list[str] | None,
    typer.Option(
        "--wrt",
        metavar="NAME",
        help="Attribute this tensor in place of the inputs: 'embedding', a module's path, a tensor. Repeat for more.",
    ),
]
ToleranceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tolerance",
        metavar="NUMBER",
        help="Of relative L2, for every quantity, or QUANTITY=NUMBER, such as layer=1e-5. Repeat for more. "
        "Default: as pyproject.toml says, else 1e-4.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Points of the path of Integrated Gradients. Default: 8."),
]
RefereeOption = Annotated[
    bool | None,
    typer.Option(
        "--referee/--no-referee",
        help="Let float64 runs on torch say what of a difference is rounding. Default: where something is in excess.",
    ),
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write the report as a page.")]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", help="Write the report as JUnit XML, for a CI server.")
]
ExampleOption = Annotated[
    Path | None,
    typer.Option("--example", help="Example input as .npy, where the model does not say its input's shape."),
]


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "224" or "224x320"."""
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) not in (1, 2) or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UserError(
            f"--size {text}: expected a number, or HEIGHTxWIDTH. Fix: give a size such as 224 or 224x320"
        )
    return int(parts[0]), int(parts[-1])


def parse_channels(option: str, text: str) -> tuple[float, ...]:
    """One number per channel of "0.485,0.456,0.406", fractions allowed."""
    try:
        values = tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{option} {text}: expected numbers. Fix: separate them by commas, as in 0.485,0.456,0.406"
        ) from error
    if len(values) not in (1, 3, 4):
        raise UserError(
            f"{option} {text}: got {len(values)} numbers. Fix: give one number, or one for each of 3 or 4 channels"
        )
    if any(abs(value) > 1 for value in values):
        raise UserError(f"{option} {text}: pixels are in [0, 1] here. Fix: divide by 255, as in 127/255")
    if option == "--std" and any(value <= 0 for value in values):
        raise UserError(
            f"--std {text}: a divisor must be above 0. Fix: give positive numbers, as in 0.229,0.224,0.225"
        )
    return values


def parse_constants(texts: Sequence[str] | None) -> dict[str, Literal]:
    """The text of each value of --set NAME=VALUE, by input; its meaning depends on the type of the input."""
    from converters.passes.fixed_inputs import Literal

    found: dict[str, Literal] = {}
    for text in texts or ():
        # A value may hold an =, and so may the name of a tensor; the first one parts them.
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UserError(
                f"--set {text}: expected NAME=VALUE. Fix: give an input and its value, as in sr=16000"
            )
        if name in found:
            raise UserError(f"--set {text}: {name!r} is given twice. Fix: give one value for each input")
        found[name] = Literal(value)
    return found


def parse_providers(text: str | None) -> list[str] | None:
    """The names of --providers; None where it is not given."""
    if text is None:
        return None
    if not (names := split_list(text)):
        raise UserError("--providers is empty. Fix: give names, as in CUDAExecutionProvider")
    return names


def split_list(text: str) -> list[str]:
    """The parts of a comma list, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]
