"""Compare the normal form of what a file computes with a pattern, whose parameters the file's numbers decide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import permutations

from converters.passes.joins.form import Atom, Coefficient, Form, Product
from converters.passes.joins.rounded import Precision

_COMMUTATIVE = ("maximum",)
_EXACT = 2.0**-50
"""The relative error of the few float64 operations that a parameter is computed by."""

Decided = Mapping[str, float]


def unify(form: Form, pattern: Form, precision: Precision) -> Decided | None:
    """Return the parameters with which a pattern is a file's form; None where it is another function."""
    return next(_forms(form, pattern, precision, {}), None)


def _forms(form: Form, pattern: Form, precision: Precision, bound: Decided) -> Iterator[Decided]:
    wanted_number = pattern.constant
    if not form.items and wanted_number is not None and wanted_number.name:
        decided = _coefficient(Coefficient(0.0), wanted_number, precision, bound)
        if decided is not None:
            yield decided
    elif len(form.items) == len(pattern.items):
        # What has fewer ways to match comes first.
        wanted = sorted(pattern.terms.items(), key=lambda item: len(item[0]))
        yield from _terms(form.terms, wanted, precision, bound)


def _terms(
    given: Mapping[Product, Coefficient],
    wanted: list[tuple[Product, Coefficient]],
    precision: Precision,
    bound: Decided,
) -> Iterator[Decided]:
    if not wanted:
        yield bound
        return
    (product, coefficient), *others = wanted
    for candidate, value in given.items():
        rest = {key: one for key, one in given.items() if key != candidate}
        for inner in _products(candidate, product, precision, bound):
            decided = _coefficient(value, coefficient, precision, inner)
            if decided is not None:
                yield from _terms(rest, others, precision, decided)


def _products(given: Product, wanted: Product, precision: Precision, bound: Decided) -> Iterator[Decided]:
    if len(given) == len(wanted):
        yield from _factors(list(given), list(wanted), precision, bound)


def _factors(
    given: list[tuple[Atom, Fraction]],
    wanted: list[tuple[Atom, Fraction]],
    precision: Precision,
    bound: Decided,
) -> Iterator[Decided]:
    if not wanted:
        yield bound
        return
    (atom, exponent), *others = wanted
    for index, (candidate, power) in enumerate(given):
        if power == exponent:
            for inner in _atoms(candidate, atom, precision, bound):
                yield from _factors(given[:index] + given[index + 1 :], others, precision, inner)


def _atoms(given: Atom, wanted: Atom, precision: Precision, bound: Decided) -> Iterator[Decided]:
    same = given.name == wanted.name and given.detail == wanted.detail
    if not same or len(given.arguments) != len(wanted.arguments):
        return
    orders = permutations(given.arguments) if given.name in _COMMUTATIVE else (given.arguments,)
    for arguments in orders:
        yield from _arguments(tuple(arguments), wanted.arguments, precision, bound)


def _arguments(
    given: tuple[Form, ...], wanted: tuple[Form, ...], precision: Precision, bound: Decided
) -> Iterator[Decided]:
    if not wanted:
        yield bound
        return
    for inner in _forms(given[0], wanted[0], precision, bound):
        yield from _arguments(given[1:], wanted[1:], precision, inner)


def _coefficient(
    given: Coefficient, wanted: Coefficient, precision: Precision, bound: Decided
) -> Decided | None:
    """Return the parameters with what a coefficient decides; None where it is another one."""
    if not wanted.name:
        return bound if precision.equal(given.value, wanted.value, given.roundings) else None
    value = given.value / wanted.value
    before = bound.get(wanted.name)
    if before is None:
        return {**bound, wanted.name: value}
    several = given.roundings * precision.unit if given.roundings > 1 else 0.0
    same = value == before or math.isclose(value, before, rel_tol=max(_EXACT, several))
    return bound if same else None
