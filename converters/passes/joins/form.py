"""The normal form of a function that is written in primitives.

A Form is a sum of products: each product is a number times powers of atoms, and an atom is the variable or a function
of forms. Products are expanded, so that the order of operands, the place of a factor and the choice between Mul and
Div make no difference. Nothing is cancelled and no identity between functions is applied: log(1 + eˣ) is not softplus.
`Opaque` is raised for a function without a normal form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

MOST_TERMS = 16
"""Products of one sum: twice as many as any known function has."""


class Opaque(Exception):
    """The function has no normal form."""


@dataclass(frozen=True)
class Coefficient:
    """A number in front of a product.

    roundings: how many constants that are not powers of two it is made of; each is rounded once.
    name: the parameter of a pattern that it is a multiple of.
    """

    value: float
    roundings: int = 0
    name: str = ""

    @staticmethod
    def stored(value: float) -> Coefficient:
        """Return the coefficient for a constant of a file."""
        exact = not math.isfinite(value) or math.frexp(value)[0] in (0.5, -0.5, 0.0)
        return Coefficient(value, 0 if exact else 1)

    def times(self, other: Coefficient) -> Coefficient:
        """Return the product of two coefficients."""
        if self.name and other.name:
            raise Opaque
        return Coefficient(
            self.value * other.value, self.roundings + other.roundings, self.name or other.name
        )

    def plus(self, other: Coefficient) -> Coefficient:
        """Return the sum of two coefficients; one that cancels has no normal form."""
        total = self.value + other.value
        if self.name or other.name or total == 0:
            raise Opaque
        return Coefficient(total, self.roundings + other.roundings)

    def power(self, exponent: Fraction) -> Coefficient:
        """Return a power of the coefficient."""
        if exponent == 1:
            return self
        if self.name or self.value == 0 or (self.value < 0 and exponent.denominator != 1):
            raise Opaque
        count = self.roundings * math.ceil(abs(exponent))
        try:
            return Coefficient(float(self.value ** float(exponent)), count)
        except OverflowError:
            raise Opaque from None


@dataclass(frozen=True)
class Atom:
    """A function of forms; without arguments, the variable or a constant array of the file."""

    name: str
    arguments: tuple[Form, ...] = ()
    detail: tuple[int, ...] | str = ()
    """The axes of a sum; the name of a constant array."""

    @cached_property
    def key(self) -> str:
        """The structure without its numbers."""
        return f"{self.name}{self.detail}({','.join(form.key for form in self.arguments)})"


Product = frozenset[tuple[Atom, Fraction]]
ONE: Product = frozenset()


@dataclass(frozen=True)
class Form:
    """A sum of products with their coefficients. The arithmetic of Python applies to it."""

    items: frozenset[tuple[Product, Coefficient]]

    @staticmethod
    def of(terms: Mapping[Product, Coefficient]) -> Form:
        """Return the form with these terms."""
        if len(terms) > MOST_TERMS:
            raise Opaque
        return Form(frozenset(terms.items()))

    @staticmethod
    def number(value: float) -> Form:
        """Return a constant of a file."""
        return Form.of({ONE: Coefficient.stored(value)} if value else {})

    @staticmethod
    def parameter(name: str) -> Form:
        """Return a number of a pattern that a file may choose."""
        return Form.of({ONE: Coefficient(1.0, name=name)})

    @staticmethod
    def atom(name: str, *arguments: Form, detail: tuple[int, ...] | str = ()) -> Form:
        """Return a function of forms."""
        return Form.of({frozenset({(Atom(name, arguments, detail), Fraction(1))}): Coefficient(1.0)})

    @property
    def terms(self) -> dict[Product, Coefficient]:
        """The coefficient of each product."""
        return dict(self.items)

    @cached_property
    def key(self) -> str:
        """The structure without its numbers."""
        return "+".join(sorted(_product_key(product) for product, _ in self.items))

    @property
    def constant(self) -> Coefficient | None:
        """The number that the form is; None where it depends on something."""
        if not self.items:
            return Coefficient(0.0)
        terms = self.terms
        return terms[ONE] if terms.keys() == {ONE} else None

    @property
    def leads_with_minus(self) -> bool:
        """Whether the first product, in the order of their structure, has a negative coefficient.

        Of several with one structure the largest counts. Of a form and its negative at most one leads with minus.
        """
        products = [(_product_key(product), one.value) for product, one in self.items if product]
        first = min((key for key, _ in products), default="")
        values = [value for key, value in products if key == first]
        return bool(values) and max(values) < -min(values)

    def __add__(self, other: Form | float) -> Form:
        terms = self.terms
        for product, coefficient in _form(other).items:
            terms[product] = terms[product].plus(coefficient) if product in terms else coefficient
        return Form.of(terms)

    def __mul__(self, other: Form | float) -> Form:
        terms: dict[Product, Coefficient] = {}
        for product, coefficient in self.items:
            for factor, number in _form(other).items:
                merged, value = _merged(product, factor), coefficient.times(number)
                terms[merged] = terms[merged].plus(value) if merged in terms else value
        return Form.of(terms)

    def __pow__(self, exponent: float) -> Form:
        if not math.isfinite(exponent):
            raise Opaque
        power = Fraction(exponent)
        if power.denominator == 1 and 0 < power <= 4:
            result = self
            for _ in range(int(power) - 1):
                result = result * self
            return result
        if len(self.items) != 1:
            return Form.of({frozenset({(Atom("sum", (self,)), power)}): Coefficient(1.0)})
        ((product, coefficient),) = self.items
        if power.denominator != 1 and any(inner.numerator % 2 == 0 for _, inner in product):
            raise Opaque  # √(x²) is |x|
        raised = frozenset((atom, inner * power) for atom, inner in product)
        return Form.of({raised: coefficient.power(power)})

    def __neg__(self) -> Form:
        return self * -1.0

    def __sub__(self, other: Form | float) -> Form:
        return self + -_form(other)

    def __truediv__(self, other: Form | float) -> Form:
        return self * _form(other) ** -1

    def __radd__(self, other: float) -> Form:
        return self + other

    def __rmul__(self, other: float) -> Form:
        return self * other

    def __rsub__(self, other: float) -> Form:
        return -self + other

    def __rtruediv__(self, other: float) -> Form:
        return self**-1 * other

    def function(self, name: str) -> Form:
        """Apply a function of one argument."""
        if name in _ODD and self.leads_with_minus:
            return -(-self).function(name)
        return Form.atom(name, -self if name in _EVEN and self.leads_with_minus else self)

    def clip(self, low: Form | float, high: Form | float) -> Form:
        """Bound the form from below and from above, by numbers."""
        bounds = [_form(low), _form(high)]
        numbers = [bound.constant for bound in bounds]
        ((product, coefficient), *more) = self.items or [(ONE, Coefficient(0.0))]
        atom, exponent = next(iter(product), (None, None))
        single = not more and len(product) == 1 and coefficient == Coefficient(1.0) and exponent == 1
        if not single or atom is None or atom.name != "clip" or None in numbers:
            return Form.atom("clip", self, *bounds)
        inner, *before = atom.arguments
        lows, highs = zip(before, bounds, strict=True)
        merged = (max(lows, key=_value), min(highs, key=_value))
        if not _value(merged[0]) <= _value(merged[1]):
            raise Opaque
        return Form.atom("clip", inner, *merged)

    def minimum(self, other: Form | float) -> Form:
        """Return the smaller of two forms."""
        first, second = sorted((self, _form(other)), key=lambda form: form.constant is not None)
        if second.constant is not None:
            return first.clip(-math.inf, second)
        return -(-first).maximum(-second)

    def maximum(self, other: Form | float) -> Form:
        """Return the larger of two forms."""
        first, second = sorted((self, _form(other)), key=lambda form: form.constant is not None)
        if second.constant is not None:
            return first.clip(second, math.inf)
        return Form.atom("maximum", *sorted((self, _form(other)), key=lambda form: form.key))

    def above(self, other: Form | float) -> Form:
        """Return the condition that the form is larger than another."""
        return Form.atom("positive", self - other)

    def at_least(self, other: Form | float) -> Form:
        """Return the condition that the form is not smaller than another."""
        return _form(other).above(self).otherwise()

    def choose(self, yes: Form | float, no: Form | float) -> Form:
        """Return one form where the condition holds and another where it does not.

        Both agree at the boundary in every known function, so that > and ≥ are the same here.
        """
        difference = self._difference()
        if difference.leads_with_minus:
            return Form.atom("choice", -difference, _form(no), _form(yes))
        return Form.atom("choice", difference, _form(yes), _form(no))

    def otherwise(self) -> Form:
        """Return the opposite of a condition."""
        return Form.atom("positive", -self._difference())

    def _difference(self) -> Form:
        """Return the form that is positive where a condition holds."""
        atoms = [atom for product, _ in self.items for atom, _ in product]
        if len(atoms) != 1 or atoms[0].name != "positive":
            raise Opaque
        return atoms[0].arguments[0]

    def total(self, axes: tuple[int, ...]) -> Form:
        """Sum over axes."""
        return Form.atom("total", self, detail=axes)

    def largest(self, axes: tuple[int, ...]) -> Form:
        """Return the maximum over axes."""
        return Form.atom("largest", self, detail=axes)


_ODD = ("erf", "tanh")
_EVEN = ("abs",)


def _form(value: Form | float) -> Form:
    return value if isinstance(value, Form) else Form.of({ONE: Coefficient(value)} if value else {})


def _value(form: Form) -> float:
    found = form.constant
    if found is None or found.name:
        raise Opaque
    return found.value


def _product_key(product: Product) -> str:
    return "*".join(sorted(f"{atom.key}^{exponent}" for atom, exponent in product))


def _merged(first: Product, second: Product) -> Product:
    """Return the product of two; a factor and its inverse do not cancel, since they may be 0 or infinite."""
    powers = dict(first)
    for atom, exponent in second:
        before = powers.get(atom)
        if before is not None and (before * exponent < 0 or atom.name == "sum"):
            raise Opaque
        powers[atom] = exponent if before is None else before + exponent
    return frozenset(powers.items())
