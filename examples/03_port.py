"""Port a PyTorch network to Keras and prove the port: outputs, layers, gradients and attributions agree.

    python examples/03_port.py                   a correct port: exit status 0
    python examples/03_port.py --bug gates       a port with a bug: its first divergence, exit status 1
    python examples/03_port.py -o out            the report as a page, out/port.html
    python examples/03_port.py --picture all.png attributions side by side, with their relative L2 to the original

The network reads two drawn glyphs. It has convolutions with a BatchNorm, an LSTM along the image, and a head.
`porting.copy_weights` copies its weights. The bugs are those of real ports: Keras' default epsilon, "same" instead of
padding on both sides, gates in another order, and a missing bias.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from porting import copy_weights
from torch import nn

from analyzer.checks import Report
from analyzer.figures import heat_map, panel
from onnxplain import Model, compare, convert, integrated_gradients

HEIGHT, WIDTH, GLYPHS = 12, 20, 3
FEATURES, STATE = 8, 16
BUGS = {
    "epsilon": "the BatchNorm keeps Keras' epsilon, 1e-3, and PyTorch has 1e-5",
    "padding": 'the strided convolution is padded by "same", which pads only at the end',
    "gates": "the LSTM's input and forget gates are exchanged",
    "bias": "the head has no bias",
}


class Reader(nn.Module):
    """Read (N, 1, 12, 20), two glyphs side by side; return (N, 9) logits, one for each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, FEATURES, 3, stride=2, padding=1)
        self.lstm = nn.LSTM(FEATURES * HEIGHT // 2, STATE, batch_first=True)
        self.head = nn.Linear(STATE, GLYPHS**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv2(x))
        # A column of the image is a step of the sequence.
        steps, _ = self.lstm(x.permute(0, 3, 1, 2).flatten(2))
        return self.head(steps[:, -1])


def port(source: Reader, bug: str = "") -> keras.Model:
    """Return the same network in Keras, channels last, with the weights of `source` and one of the BUGS."""
    conv1 = keras.layers.Conv2D(6, 3, padding="same")
    bn1 = keras.layers.BatchNormalization(epsilon=1e-3 if bug == "epsilon" else 1e-5)
    same = bug == "padding"
    conv2 = keras.layers.Conv2D(FEATURES, 3, strides=2, padding="same" if same else "valid")
    lstm, head = keras.layers.LSTM(STATE), keras.layers.Dense(GLYPHS**2)
    x = image = keras.Input((HEIGHT, WIDTH, 1))
    x = keras.ops.relu(bn1(conv1(x)))
    x = keras.ops.relu(conv2(x if same else keras.layers.ZeroPadding2D(1)(x)))
    x = keras.layers.Permute((2, 3, 1))(x)
    x = keras.layers.Reshape((WIDTH // 2, FEATURES * HEIGHT // 2))(x)
    copy = keras.Model(image, head(lstm(x)))
    copy_weights(
        [
            (source.conv1, conv1),
            (source.bn1, bn1),
            (source.conv2, conv2),
            (source.lstm, lstm),
            (source.head, head),
        ]
    )
    if bug == "gates":
        lstm.set_weights([_exchanged(weights) for weights in lstm.get_weights()])
    elif bug == "bias":
        head.bias.assign(np.zeros(GLYPHS**2))
    return copy


def _exchanged(weights: np.ndarray) -> np.ndarray:
    """Swap the first two gates of a cell, (…, 4 · STATE)."""
    first, second, *others = np.split(weights, 4, axis=-1)
    return np.concatenate([second, first, *others], axis=-1)


def drawings(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n images (n, 1, 12, 20) of two glyphs (cross, square, bar) with noise, and their classes (n,)."""
    glyphs = np.zeros((GLYPHS, 7, 7), np.float32)
    diagonal = np.arange(7)
    glyphs[0, diagonal, diagonal] = glyphs[0, diagonal, diagonal[::-1]] = 1
    glyphs[1, [0, -1], :] = glyphs[1][:, [0, -1]] = 1
    glyphs[2, 3, :] = 1
    kinds = rng.integers(GLYPHS, size=(n, 2))
    images = 0.15 * rng.standard_normal((n, 1, HEIGHT, WIDTH)).astype(np.float32)
    for image, pair in zip(images[:, 0], kinds, strict=True):
        for place, kind in enumerate(pair):
            top, left = rng.integers(0, HEIGHT - 7 + 1), 10 * place + rng.integers(0, 4)
            image[top : top + 7, left : left + 7] += glyphs[kind]
    return images, kinds @ np.array([GLYPHS, 1])


def trained(steps: int, seed: int = 0) -> Reader:
    """Return a network trained on `steps` batches of drawings."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), Reader()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(steps):
        images, classes = drawings(64, rng)
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images)), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def prove(original: Model, source: Reader, bug: str, images: np.ndarray) -> Report:
    """Compare the converted port with the original."""
    copy = convert(port(source, bug), np.moveaxis(images[:1], 1, -1))
    return compare(original, copy, images, names=("pytorch", "keras"))


def picture(original: Model, source: Reader, images: np.ndarray, path: Path) -> None:
    """Draw Integrated Gradients of a few images by the original, by its port, and by every port with a bug."""
    pixels = np.moveaxis(images, 1, -1)
    maps = {"PyTorch": integrated_gradients(original, images).attributions[:, 0]}
    for bug in ("", *BUGS):
        found = integrated_gradients(
            convert(port(source, bug), pixels[:1]), pixels, target=_classes(original, images)
        )
        maps[f"wrong {bug}" if bug else "Keras"] = found.attributions[..., 0]
    truth = maps["PyTorch"]
    rows: list[list[Any]] = []
    for index, image in enumerate(images[:, 0]):
        grey = np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=-1)
        row: list[Any] = [("image", grey)]
        for name, drawn in maps.items():
            apart = np.linalg.norm(drawn[index] - truth[index]) / np.linalg.norm(truth[index])
            caption = (
                name
                if name == "PyTorch"
                else f"{name}: {apart:.0e}"
                if apart < 0.01
                else f"{name}: {apart:.0%}"
            )
            row.append((caption, heat_map(drawn[index], signed=True)))
        rows.append(row)
    panel(rows, width=1.8).savefig(path, dpi=100)


def _classes(model: Model, images: np.ndarray) -> np.ndarray:
    classes = integrated_gradients(model, images, steps=1).target
    assert classes is not None
    return classes


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove the port and print the report. Return 1 if the two are not the same function."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bug", choices=BUGS, default="", help="plant a bug in the port")
    parser.add_argument("-o", "--output", type=Path, help="folder for the report page")
    parser.add_argument("--picture", type=Path, help="PNG of all attributions side by side")
    parser.add_argument("--steps", type=int, default=150, help="number of training batches")
    options = parser.parse_args(arguments)
    source = trained(options.steps)
    images, classes = drawings(4, np.random.default_rng(1))
    with torch.no_grad():
        right = int((source(torch.from_numpy(images)).argmax(1).numpy() == classes).sum())
    print(f"PyTorch reads {right} of {len(images)} drawings correctly.")
    original = convert(source, torch.from_numpy(images[:1]))
    report = prove(original, source, options.bug, images)
    if options.bug:
        print(f"Planted: {BUGS[options.bug]}.")
    print(report.to_text())
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        report.to_html(options.output / "port.html")
        print(f"wrote {options.output / 'port.html'}")
    if options.picture:
        picture(original, source, images[:2], options.picture)
        print(f"wrote {options.picture}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
