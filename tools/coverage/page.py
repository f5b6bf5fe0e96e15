"""Write the coverage page of the docs from the registry and from a run; nothing on it is written by hand.

A test compares the cells from the registry (`static_cells`) with the page. The counts are those of the run that
wrote the page.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import onnx

from analyzer.ops import registered
from analyzer.ops.registry import Homogeneous, Kind, Op
from converters import CANONICAL_OPSET
from converters.passes.fused import EXPANSIONS, MICROSOFT
from tools.coverage.exclusions import VJP, reason
from tools.coverage.forward import BACKENDS, STOCK
from tools.coverage.refused import DOMAINS, REFUSED, lowered_ops
from tools.coverage.report import Report, Result, counts, place

BIAS = {
    Kind.AFFINE: "the output at 0",
    Kind.ELEMENTWISE: "y − J·u",
    Kind.SYMMETRIC: "y − J·u",
    Kind.MULTILINEAR: "(1 − n)·y",
    Kind.EXPLICIT_RULE: "explicit",
    Kind.CONSTANT: "–",
}
HEAD = ("op", "since", "kind", "torch", "TensorFlow", "VJP", "bias")
COUNTED = ("cases", STOCK, *BACKENDS, "derivatives", "notes")


def page(report: Report) -> str:
    """Return the whole page as Markdown."""
    results: dict[str, list[Result]] = defaultdict(list)
    for result in report.results:
        results[result.op].append(result)
    parts = [_introduction(), _totals(report), _ops(results), _lowered(results), _refused()]
    return "\n\n".join(parts) + "\n"


def static_cells(name: str, rules: type[Op]) -> tuple[str, ...]:
    """Return the cells from the registry: name, opset, kind, forms, VJP and bias rule of an op."""
    since = onnx.defs.get_schema(name, CANONICAL_OPSET, rules.domain).since_version
    bias = BIAS.get(rules.kind)
    if bias is None:
        assert issubclass(rules, Homogeneous)
        bias = "0" if rules.degree == 1 else f"{1 - rules.degree:g}·y"
    forms = ("✓" if form is not None else "" for form in (rules.torch, rules.tensorflow, rules.vjp))
    return (f"`{name}`", str(since), rules.kind.value, *forms, bias)


def row(cells: Iterable[object]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    return "\n".join([row(head), row("---" for _ in head), *map(row, rows)])


def _introduction() -> str:
    packages = ("onnx", "onnxruntime", "torch", "tensorflow-cpu", "numpy")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return f"""# Coverage of the ONNX standard

Written by `python -m tools.coverage --write docs/coverage.md` with {versions}, Python {platform.python_version()}.

The ONNX standard has a test for nearly every op. This page shows the results of all tests with a single node.

- **Forward.** Each test is loaded like a user's file, which converts it to opset {CANONICAL_OPSET}. It runs with
  `differentiate(model, backend).forward(inputs)` on every backend. The outputs are compared with those of the
  standard. *Stock* is ONNX Runtime on the original file.
- **Derivatives.** Three frameworks compute every derivative of a float output with respect to a float input. They
  are the gradient graph on ONNX Runtime, PyTorch and TensorFlow. ONNX Runtime computes it in float32, and in
  float64 if it has the kernels. Each derivative is compared with a directional derivative measured in float64. The
  tolerance is 1e-3 in float32 and 1e-6 in float64."""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _totals(report: Report) -> str:
    rows = []
    for label, float32 in (("float32 in and out", True), ("other types", False)):
        total = report.totals(float32=float32)
        left_out = sum(total["excluded"].values())
        rows.append((label, total["cases"], total[STOCK], *(total[b] for b in BACKENDS), left_out))
    slopes = report.totals(float32=True)["derivatives"]
    ran = ", ".join(f"{count} on {label}" for label, count in slopes["by"].items())
    whole = report.totals(float32=True)["excluded"]
    reasons = "\n".join(f"- {count} {why}" for why, count in sorted(whole.items(), key=lambda item: -item[1]))
    return f"""## Counts

{table(("cases", "number", STOCK, *BACKENDS, "excluded"), rows)}

{slopes["checked"]} derivatives agree ({ran}); {slopes["excluded"]} excluded, {slopes["failed"]} failed.

Excluded float32 cases, with the reasons:

{reasons}"""


def _ops(results: Mapping[str, Sequence[Result]]) -> str:
    rows = [
        (*static_cells(name, rules), *_counted(results.get(name, ())))
        for (domain, name), rules in sorted(registered().items())
        if not domain
    ]
    return f"""## Ops

*Since* is the opset of the definition that canonical graphs use. *Kind* determines the *bias*: the residual that
FullGrad uses for a node, with active inputs u and their number n. The counts are of float32 cases. *Derivatives* counts
pairs of an output and an input.

{table((*HEAD, *COUNTED), rows)}"""


def _counted(results: Sequence[Result]) -> tuple[object, ...]:
    """Return the counts of one op's float32 cases, and the reasons of exclusions."""
    found = [result for result in results if result.is_float32]
    if not found:
        return ("–",) * (len(COUNTED) - 1) + ("",)
    numbers = counts(found)
    return (
        numbers["cases"],
        numbers[STOCK],
        *(numbers[backend] for backend in BACKENDS),
        numbers["derivatives"]["checked"],
        "; ".join(_notes(found)),
    )


def _notes(results: Iterable[Result]) -> list[str]:
    """Return the reasons of exclusions, and other failures, each once."""
    notes: dict[str, None] = {}
    for result in results:
        for backend in BACKENDS:
            if (why := result.excluded(backend)) is not None:
                notes[why] = None
        for one in result.derivatives:
            if one.failure is not None and (why := reason(VJP, place(result.name, one))) is not None:
                notes[why] = None
        for text in result.failures().values():
            notes[f"fails: {text}".replace("|", "\\|")] = None
    return list(notes)


def _lowered(results: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for name in lowered_ops():
        found = results.get(name, ())
        into = sorted({op for result in found for op in result.canonical})
        rows.append((f"`{name}`", ", ".join(into) or "–", *_counted(found)))
    domains = sorted({domain for domain, _ in EXPANSIONS} - {MICROSOFT})
    fused, *others = (
        ", ".join(f"`{name}`" for domain, name in sorted(EXPANSIONS) if domain == wanted)
        for wanted in (MICROSOFT, *domains)
    )
    more = "".join(
        f"\n\nThese ops of `{domain}` are expanded: {names}."
        for domain, names in zip(domains, others, strict=True)
    )
    return f"""## Ops that are expanded when a model is loaded

The standard defines these ops by other ops, or they are newer than opset {CANONICAL_OPSET}. *Into* lists the ops that
result from the test cases.

{table(("op", "into", *COUNTED), rows)}

These fused ops of ONNX Runtime (`com.microsoft`) are expanded: {fused}. Others raise an error.{more}"""


def _refused() -> str:
    grouped: dict[str, list[str]] = defaultdict(list)
    for name, why in sorted(REFUSED.items()):
        grouped[why].append(f"`{name}`")
    rows = [(", ".join(names), why) for why, names in grouped.items()]
    rows += [(f"`{domain}.*`", why) for domain, why in DOMAINS.items()]
    return f"""## Ops without a derivative or a rule

A model may contain these ops outside the differentiable path. `onnxplain inspect` lists those on the path.

{table(("ops", "reason"), rows)}"""
