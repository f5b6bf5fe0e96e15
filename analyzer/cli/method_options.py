"""The settings of methods on the command line: an option each, and which method takes which.

An option that is not given is None, and leaves each method its own default. An option has the name of the setting
that it becomes (analysis/table.py); one that none of the chosen methods takes is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from analyzer.analysis import FULL_GRAD, METHODS
from analyzer.cli.options import split_list
from analyzer.cli.terminal import UserError
from analyzer.methods.paths.baselines import NAMES

FULL_GRAD_PANEL, NOISE_PANEL, INTEGRATED_PANEL = "FullGrad", "Noisy copies", "Integrated Gradients"
PATH_PANEL, ACTIVATION_PANEL = "Other paths", "Class activation maps"


class TermsChoice(StrEnum):
    """Which of FullGrad's bias terms."""

    ALL = "all"
    EXPLICIT = "explicit"


class PostProcessingChoice(StrEnum):
    """Whose saliency map of FullGrad's terms."""

    PAPER = "paper"
    PYTORCH_GRAD_CAM = "pytorch-grad-cam"


class BorderOf(StrEnum):
    """What a blur takes to lie beyond the border of an image."""

    EDGE = "edge"
    ZERO = "zero"


class RuleChoice(StrEnum):
    """The quadrature rules."""

    GAUSS_LEGENDRE = "gauss-legendre"
    TRAPEZOID = "trapezoid"
    MIDPOINT = "midpoint"
    LEFT = "left"
    RIGHT = "right"
    SIMPSON = "simpson"


MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help=f"{', '.join(METHODS)}. Repeat for several. Default: {FULL_GRAD}.",
    ),
]
AttributedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--wrt",
        metavar="NAME",
        help="Of full-grad, gradients and class activation maps: attribute this tensor in place of the inputs: "
        "'embedding', a module's path, a tensor. Repeat for more.",
    ),
]
TermsOption = Annotated[
    TermsChoice | None,
    typer.Option(
        "--terms",
        help="All bias terms, or the published ones: those of layers. Default: all.",
        rich_help_panel=FULL_GRAD_PANEL,
    ),
]
PostProcessingOption = Annotated[
    PostProcessingChoice | None,
    typer.Option(
        "--post-processing",
        help="Whose map: terms rescaled per sample, or per channel. Default: paper.",
        rich_help_panel=FULL_GRAD_PANEL,
    ),
]
AlignCornersOption = Annotated[
    bool | None,
    typer.Option(
        "--align-corners/--no-align-corners",
        help="Of the bilinear resizing of maps. Default: as published, see --post-processing.",
        rich_help_panel=FULL_GRAD_PANEL,
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="Noisy copies of each input, or draws of expected-gradients. Default: 25, or 200.",
        rich_help_panel=NOISE_PANEL,
    ),
]
NoiseOption = Annotated[
    float | None,
    typer.Option(
        "--noise",
        min=0,
        help="Standard deviation, as a share of the input's range. Default: 0.15.",
        rich_help_panel=NOISE_PANEL,
    ),
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="A tensor, module path or Keras layer. Default: the last one that lies over the input.",
        rich_help_panel=ACTIVATION_PANEL,
    ),
]
ReluOption = Annotated[
    bool | None,
    typer.Option(
        "--relu/--no-relu",
        help="Keep what speaks for the class alone, or what speaks against it, too. Default: --relu, as published.",
        rich_help_panel=ACTIVATION_PANEL,
    ),
]
PointsOption = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Points of the path. Default: 50; blur-ig and xrai 100, guided-ig 200.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
RuleOption = Annotated[
    RuleChoice | None,
    typer.Option(
        "--rule",
        help="Quadrature, where no --tolerance is given. Default: gauss-legendre; conductance trapezoid.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help=f"{', '.join(NAMES)}, a number in the model's units, or a .npy; several by commas. Default: 0; xrai "
        "black,white.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
WithinOption = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        help="Refine until the sum is within this share of what it must be, and the map within five times as much.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
MapWithinOption = Annotated[
    float | None,
    typer.Option(
        "--map-tolerance",
        help="With --tolerance: the relative error of the map that is still refined.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
MostEvaluationsOption = Annotated[
    int | None,
    typer.Option(
        "--max-evaluations",
        min=3,
        help="With --tolerance: the most gradients a sample. Default: 1024.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="NAME",
        help="Attribute tensors within the network: 'embedding', a module's path, a tensor; several by commas.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
AlongOption = Annotated[
    str | None,
    typer.Option(
        "--along",
        metavar="NAME",
        help="Of conductance: tensors along which the path runs in place of the inputs, as --at names them.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
BaselineInputsOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline-inputs",
        metavar="FILE",
        help="With --at, of conductance with --along: inputs whose values there are the baseline, such as padding "
        "tokens; a .npy or an .npz.",
        rich_help_panel=INTEGRATED_PANEL,
    ),
]
BackgroundOption = Annotated[
    Path | None,
    typer.Option(
        "--background",
        metavar="FILE|FOLDER",
        help="Baselines of expected-gradients: a .npy, an .npz or a folder of images.",
        rich_help_panel=PATH_PANEL,
    ),
]
MaxSigmaOption = Annotated[
    float | None,
    typer.Option(
        "--max-sigma", help="Widest blur of blur-ig, in pixels. Default: 50.", rich_help_panel=PATH_PANEL
    ),
]
BorderOption = Annotated[
    BorderOf | None,
    typer.Option(
        "--border",
        help="What blur-ig takes to lie beyond the border. Default: edge, which repeats it.",
        rich_help_panel=PATH_PANEL,
    ),
]
MinPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--min-pixels",
        min=1,
        help="Of xrai: a segment that adds fewer is left out. Default: 50.",
        rich_help_panel=PATH_PANEL,
    ),
]
FractionOption = Annotated[
    float | None,
    typer.Option(
        "--fraction",
        help="Share of the features that guided-ig moves at once. Default: 0.25.",
        rich_help_panel=PATH_PANEL,
    ),
]
MaxDistOption = Annotated[
    float | None,
    typer.Option(
        "--max-dist",
        help="How far guided-ig leaves the straight line, as a share of it. Default: 0.02.",
        rich_help_panel=PATH_PANEL,
    ),
]
AnchorsOption = Annotated[
    int | None,
    typer.Option(
        "--anchors",
        min=0,
        help="Points of the straight line that guided-ig passes. Default: 0.",
        rich_help_panel=PATH_PANEL,
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help="Of noise and of the random baseline. Default: 0.")
]


def settings_of(methods: Sequence[str] | None, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{method: its settings}, in the order of the methods. given: {setting: value}, None where it is not given.

    Raises UserError for an unknown method, and for a setting that none of the methods takes.
    """
    chosen = list(dict.fromkeys(methods or [FULL_GRAD]))
    for method in chosen:
        if method not in METHODS:
            raise UserError(f"--method {method}: no such method. Fix: choose from {', '.join(METHODS)}")
    stated = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in given.items()
        if value is not None
    }
    for name in stated:
        if not any(name in METHODS[method].settings for method in chosen):
            takers = [method for method, entry in METHODS.items() if name in entry.settings]
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} is a setting of {', '.join(takers)}; --method names none of them. Fix: omit {option}, or "
                f"give --method {takers[0]}"
            )
    for name in ("at", "along"):
        if name in stated:
            stated[name] = split_list(stated[name])
    if "baseline" in stated:
        stated["baseline"] = read_baseline(stated["baseline"])
    return {
        method: {name: value for name, value in stated.items() if name in METHODS[method].settings}
        for method in chosen
    }


def read_baseline(text: str) -> Any:
    """A baseline as the API takes it: a name, a number or an array, or a list of them."""
    several = [_one_baseline(part, text) for part in split_list(text)]
    return several if len(several) > 1 else _one_baseline(text, text)


def _one_baseline(text: str, whole: str) -> Any:
    from analyzer.cli.models import read_array

    if text in NAMES:
        return text
    if text.lower().endswith(".npy"):
        return read_array(Path(text))
    try:
        return float(text)
    except ValueError as error:
        raise UserError(
            f"--baseline {whole}: no such baseline. Fix: give {', '.join(NAMES)}, a number or a .npy file"
        ) from error
