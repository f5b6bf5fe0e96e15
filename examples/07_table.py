"""Show which features decide a prediction: `python examples/07_table.py [-o FOLDER]`.

A linear model and a small perceptron learn the progression of diabetes from scikit-learn's 442 patients, in measured
units. Both are converted to ONNX. Two methods explain the prediction for three new patients: Integrated Gradients from
the mean patient, and Expected Gradients over the training patients. The pictures features_linear.png and
features_perceptron.png have a bar for each feature, with its standard error. The script needs the `demo` extra.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from onnxplain import (
    ExpectedGradients,
    IntegratedGradients,
    convert,
    differentiate,
    expected_gradients,
    integrated_gradients,
)

FEATURES = (
    "age", "sex", "body mass index", "blood pressure", "total cholesterol", "LDL cholesterol", "HDL cholesterol",
    "cholesterol / HDL", "log triglycerides", "blood sugar",
)  # fmt: skip
EXPLAINED, TEST = 3, 60
DRAWS = 200


@dataclass(frozen=True)
class Patients:
    """Hold rows (N, 10) and progression (N, 1) of the training patients and of new patients."""

    rows: np.ndarray
    progression: np.ndarray
    new_rows: np.ndarray
    new_progression: np.ndarray


def load_patients() -> Patients:
    """Return scikit-learn's diabetes data in measured units, split at random."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    order = np.random.default_rng(0).permutation(len(data.data))
    rows, progression = data.data[order].astype(np.float32), data.target[order, None].astype(np.float32)
    return Patients(rows[TEST:], progression[TEST:], rows[:TEST], progression[:TEST])


class Scaled(nn.Module):
    """Standardize measured features, apply a model, and return its output in the units of the data."""

    def __init__(self, patients: Patients, model: nn.Module) -> None:
        super().__init__()
        for name, data in (("rows", patients.rows), ("progression", patients.progression)):
            self.register_buffer(f"{name}_mean", torch.from_numpy(data.mean(axis=0)))
            self.register_buffer(f"{name}_deviation", torch.from_numpy(data.std(axis=0)))
        self.model = model

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scaled = (rows - self.rows_mean) / self.rows_deviation
        return self.model(scaled) * self.progression_deviation + self.progression_mean


def train(patients: Patients) -> dict[str, Scaled]:
    """Train a linear model and a perceptron with 16 GELU units by the same loss."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = len(FEATURES)
        models: dict[str, nn.Module] = {
            "linear": nn.Linear(width, 1),
            "perceptron": nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, 1)),
        }
    rows, progression = torch.from_numpy(patients.rows), torch.from_numpy(patients.progression)
    found = {}
    for name, model in models.items():
        net = found[name] = Scaled(patients, model)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=3.0)
        for _ in range(200):
            loss = ((net(rows) - progression) / net.progression_deviation).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval().requires_grad_(False)
    return found


def explained_variance(net: nn.Module, patients: Patients) -> float:
    """Return the share of the variance among new patients that a model explains."""
    missed = net(torch.from_numpy(patients.new_rows)).numpy() - patients.new_progression
    return float(1 - (missed**2).mean() / patients.new_progression.var())


def explain(net: nn.Module, patients: Patients) -> tuple[IntegratedGradients, ExpectedGradients]:
    """Attribute the predictions for the first new patients, from the mean patient and from all training patients."""
    rows = patients.new_rows[:EXPLAINED]
    fn = differentiate(convert(net, rows))
    mean = patients.rows.mean(axis=0, keepdims=True)
    return (
        integrated_gradients(fn, rows, 0, baseline=mean, tolerance=1e-4),
        expected_gradients(fn, rows, 0, patients.rows, samples=DRAWS, rng=0, batch_size=256),
    )


def main(arguments: list[str] | None = None) -> int:
    """Train, convert, explain, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("table"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    options.output.mkdir(parents=True, exist_ok=True)
    patients = load_patients()
    for name, net in train(patients).items():
        by_mean, by_patients = explain(net, patients)
        console.print(
            f"\n[b]{name}[/b]: {explained_variance(net, patients):.0%} of the variance of new patients"
        )
        table = Table("feature", "measured", "from the mean", "from all patients", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for k in np.argsort(-np.abs(by_patients.attributions[0])):
            error = by_patients.standard_error[0, k]
            table.add_row(
                FEATURES[k],
                f"{patients.new_rows[0, k]:.4g}",
                f"{by_mean.attributions[0, k]:+.2f}",
                f"{by_patients.attributions[0, k]:+.2f} ± {error:.2f}",
            )
        console.print(table)
        for found, start in ((by_mean, "the mean patient's"), (by_patients, "the patients' mean")):
            total, wanted = found.completeness.total[0], found.completeness.output[0]
            console.print(
                f"prediction {found.output[0]:.1f}, {wanted:+.2f} from {start}; the features sum to {total:+.2f}"
            )
        figure = by_patients.plot(features=FEATURES)
        figure.suptitle(
            f"Three patients: attributions of the {name} model's prediction", fontsize=11, x=0.01, ha="left"
        )
        figure.supxlabel(f"progression of diabetes; lines: standard errors of {DRAWS} draws", fontsize=8)
        figure.savefig(options.output / f"features_{name}.png")
    console.print(f"\nwrote {options.output}/features_linear.png and features_perceptron.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
