"""Sites of small explainers, served, and one browser for all tests of a worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from analyzer.explainer.web import serve, write_site
from converters import Preprocessing
from tests.analyzer.explainer.web.chrome import Chrome
from tests.analyzer.explainer.web.networks import LENGTH, NAMES, SIDE, photo_classifier, text_classifier
from tests.analyzer.explainer.web.standins import photo_explainer, text_explainer

CASES = json.loads((Path(__file__).parent / "tokenizer_cases.json").read_text(encoding="utf-8"))
TEXTS = ("the film was not bad at all", "a dreadful, boring ending")


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a site while it is served."""
    with serve(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with Chrome(tmp_path_factory.mktemp("chrome")) as found:
        yield found


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures without loss, of several sizes; one is transparent, one is no picture."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(7)
    small = rng.integers(0, 256, (6, 8, 3))
    for name, size in (("wide", (120, 40)), ("tall", (33, 90))):
        Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(
            folder / f"{name}.png"
        )
    clear = np.concatenate([rng.integers(0, 256, (20, 30, 3)), np.zeros((20, 30, 1))], axis=2)
    Image.fromarray(clear.astype(np.uint8), "RGBA").save(folder / "clear.png")
    (folder / "notes.png").write_text("this is no picture")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explainer of pictures."""
    path = tmp_path_factory.mktemp("explainer") / "small-net.onnx"
    preprocessing = Preprocessing((SIDE, SIDE), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), fit="stretch")
    onnx.save(photo_explainer(photo_classifier(), preprocessing, NAMES), path)
    return path


@pytest.fixture(scope="session")
def photo_site(photo_file: Path, photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "photos"
    samples = [photos["wide"], photos["tall"]]
    write_site(photo_file, folder, title="A <small> network & its map", samples=samples)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explainer of texts, with its tokenizer in the metadata."""
    path = tmp_path_factory.mktemp("explainer") / "reviews.onnx"
    stored = CASES[0]["tokenizer"]
    vocabulary = 1 + max(stored["model"]["vocab"].values())
    ids = np.zeros((1, LENGTH), np.int64)
    proto = text_explainer(text_classifier(vocabulary), ids, ("bad", "good", "neither"))
    proto.metadata_props.add(key="onnxplain.tokenizer", value=json.dumps(stored))
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="session")
def text_site(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "texts"
    write_site(text_file, folder, title="Reviews", samples=TEXTS)
    return folder
