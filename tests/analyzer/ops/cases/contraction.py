"""Cases and draws of Einsum."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.analyzer.ops.drawing import SIDES, Draw, generators, open_axes, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, normal, scalar


def _einsums() -> list[Case]:
    return [
        case("Einsum", normal(2, 3), normal(3, 4), equation="ij,jk->ik", active=(0, 1)),
        case("Einsum", normal(2, 3, 4), normal(2, 5, 4), equation="bij,bkj->bik", active=(0, 1)),
        case("Einsum", normal(2, 3, 4), equation="bij->b", symbolic=(0,)),
        case("Einsum", normal(2, 3), equation="ij->ji"),
        case("Einsum", normal(2, 3, 4), normal(2, 4, 5), equation="...ij,...jk->...ik", active=(0, 1)),
        case("Einsum", normal(3), normal(4), normal(3, 4), equation="i,j,ij", active=(0, 1, 2)),
        case("Einsum", normal(3, 3), equation="ii->i"),
        case("Einsum", normal(2, 3, 3), equation="bii->b", symbolic=(0,)),
        case("Einsum", normal(2, 3, 3), equation="...ii->...i", symbolic=(0, 1, 2)),
        case("Einsum", normal(3, 3, 3), equation="iii"),
        case("Einsum", normal(2, 3, 3), normal(3, 4), equation="bii,ij->bj", active=(0, 1)),
        case("Einsum", normal(2, 1), normal(3, 4), equation="ij,jk->ik", active=(0, 1)),
        case("Einsum", normal(1, 3), normal(2, 3), equation="ij,ij->", active=(0, 1)),
        case("Einsum", normal(1, 3, 4), normal(2, 4, 5), equation="...ij,...jk->...ik", active=(0, 1)),
        case("Einsum", normal(2, 3), normal(3, 4), equation="ij, jk", active=(0, 1)),
        case("Einsum", normal(2, 3), scalar(0.7), equation="ba,", active=(0, 1)),
    ]


@st.composite
def einsums(draw: Draw) -> Case:
    rng, letters = draw(generators()), "ijkl"
    sizes = {letter: draw(SIDES) for letter in letters}
    words = st.text(st.sampled_from(list(letters)), max_size=3)
    terms = draw(st.lists(words, min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    result = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
    equation = ",".join(terms) + "->" + "".join(result)
    dots = draw(st.booleans())
    lead = (draw(SIDES),) if dots else ()
    if dots:
        equation = ",".join(f"...{term}" for term in terms) + "->..." + "".join(result)
    operands = [normal(*lead, *[sizes[c] for c in term], rng=rng) for term in terms]
    active = some_of(draw, range(len(operands)))
    symbolic = open_axes(draw, operands[active[0]].ndim)
    return case("Einsum", *operands, equation=equation, active=active, symbolic=symbolic)


CASES = [*_einsums()]
