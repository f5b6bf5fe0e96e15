"""Show when an event happened in a signal: `python examples/06_series.py [-o FOLDER]`.

A convolutional network learns in seconds to distinguish heartbeats with a premature, wide beat (a ventricular
extrasystole) from regular ones. The signals are sums of Gaussian waves. The network is converted to ONNX. Integrated
Gradients from a flat line to 1 % are drawn beneath the signals in beats.png. A dark line marks the beat, which the
network never saw as a label. The script needs the `torch` extra.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from onnxplain import IntegratedGradients, convert, integrated_gradients

LENGTH, BEATS, SPACING = 320, 5, 60
# Height, position and width of the waves P, Q, R, S and T, in steps from the middle of the beat.
REGULAR = ((0.12, -16, 3.0), (-0.12, -4, 1.2), (1.0, 0, 1.6), (-0.25, 4, 1.4), (0.28, 19, 4.5))
PREMATURE = ((0.9, 0, 5.0), (-0.55, 13, 5.5))
EARLY, REACH = 16, 24
SHOWN = 3
TOLERANCE = 0.01


@dataclass(frozen=True)
class Signals:
    """Hold values (N, 1, LENGTH), premature (N,) bool, and middles (N,), the middle of the premature beat in steps."""

    values: np.ndarray
    premature: np.ndarray
    middles: np.ndarray

    @property
    def windows(self) -> np.ndarray:
        """Return (N, LENGTH) bool: the steps of the planted beat."""
        near = np.abs(np.arange(LENGTH) - self.middles[:, None]) <= REACH
        return near & self.premature[:, None]


def draw_signals(count: int, seed: int) -> Signals:
    """Draw signals with five regular beats. In every second signal, one beat after the first is early and wide."""
    rng = np.random.default_rng(seed)
    steps = np.arange(LENGTH)
    premature, middles = np.arange(count) % 2 == 1, np.zeros(count)
    values = 0.03 * rng.standard_normal((count, LENGTH))
    for row in range(count):
        values[row] += 0.1 * np.sin(2 * np.pi * (steps / rng.uniform(200, 400) + rng.random()))
        places = 30 + rng.uniform(0, 12) + SPACING * np.arange(BEATS) + rng.normal(0, 1.5, BEATS)
        ectopic = int(rng.integers(1, BEATS))
        for beat, place in enumerate(places):
            planted = premature[row] and beat == ectopic
            if planted:
                place = middles[row] = place - EARLY
            height = rng.uniform(0.9, 1.1)
            for wave, at, width in PREMATURE if planted else REGULAR:
                values[row] += height * wave * np.exp(-0.5 * ((steps - place - at) / width) ** 2)
    return Signals(values[:, None].astype(np.float32), premature, middles)


class BeatNet(nn.Module):
    """Apply three convolutions over time, the maximum of each channel, and a linear head with one logit."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 8, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 16, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 16, 5, padding=2), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 1)

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(signals).amax(dim=2))


def train_beats(steps: int = 80) -> tuple[BeatNet, float]:
    """Return the trained network in evaluation mode, and its accuracy on new signals."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BeatNet()
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    drawn = draw_signals(640, seed=0)
    signals, wanted = torch.from_numpy(drawn.values), torch.from_numpy(drawn.premature[:, None]).float()
    rng = np.random.default_rng(0)
    for _ in range(steps):
        rows = torch.from_numpy(rng.integers(len(signals), size=64))
        loss = nn.functional.binary_cross_entropy_with_logits(net(signals[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval().requires_grad_(False)
    new = draw_signals(200, seed=1)
    right = (net(torch.from_numpy(new.values)).numpy()[:, 0] > 0) == new.premature
    return net, float(right.mean())


def explain(net: BeatNet, signals: np.ndarray) -> IntegratedGradients:
    """Attribute the logit of a premature beat to the steps, with a flat line as the baseline."""
    return integrated_gradients(convert(net, signals[:1]), signals, 0, baseline=0.0, tolerance=TOLERANCE)


def share_within(found: IntegratedGradients, windows: np.ndarray) -> np.ndarray:
    """Return (N,): the share of the absolute attribution on the planted beat."""
    size = np.abs(found.attributions[:, 0])
    return (size * windows).sum(axis=1) / size.sum(axis=1)


def main(arguments: list[str] | None = None) -> int:
    """Train, convert, explain, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("series"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    with console.status("training"):
        net, accuracy = train_beats()
    console.print(f"A convolutional network on generated heartbeats, {accuracy:.0%} correct on new ones.")
    drawn = draw_signals(2 * SHOWN, seed=2)
    signals, windows = drawn.values[drawn.premature], drawn.windows[drawn.premature]
    found = explain(net, signals)
    figure = found.plot(signals)
    figure.suptitle("The premature beat: red supports it, blue opposes it", fontsize=11, x=0.01, ha="left")
    shares = share_within(found, windows)
    for axes, window, share, output in zip(figure.axes, windows, shares, found.output, strict=False):
        first, last = np.flatnonzero(window)[[0, -1]]
        axes.axvspan(first, last, ymin=0, ymax=0.035, color="#374151", linewidth=0)
        axes.set_title(
            f"logit {output:+.2f}; {share:.0%} of the attribution in the planted beat", fontsize=9, loc="left"
        )
        console.print(
            f"logit {output:+.2f}: {share:.0%} of the attribution lies in steps {first} to {last}, "
            f"{window.mean():.0%} of the signal, where the beat was planted"
        )
    error = np.abs(found.delta / found.completeness.output).max()
    console.print(
        f"{found.evaluations} gradients; the steps sum to the logit's difference within {error:.2%}"
    )
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "beats.png")
    console.print(f"wrote {options.output / 'beats.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
