"""Whether two mathematical values are the same: kind by kind, exactly, and False where it cannot be shown."""

from collections.abc import Sequence
from typing import Any

from sympy import And, Eq, Expr, FiniteSet, Interval, MatrixBase, Rational, Set, Tuple, expand, simplify  # type: ignore[import-untyped]
from sympy.core.relational import Relational, Unequality  # type: ignore[import-untyped]

DIGITS = 60  # irrational numbers are worked out to so many,
AGREEING = Rational(1, 10**45)  # and equal when they agree to this share of their size
MOST_ELEMENTS = 30


def same(gold: Any, given: Any) -> bool:
    """Whether two values are of one kind (number or term, set, interval, tuple, matrix, relation) and equal.

    Sets are equal in any order, tuples in theirs. Deterministic; may take long on hard terms.
    """
    for kind, equal in (
        (MatrixBase, _same_matrix),
        (Tuple, lambda a, b: _pairwise(a.args, b.args)),
        (FiniteSet, lambda a, b: _matched(a.args, b.args)),
        (Interval, _same_interval),
        (Set, lambda a, b: bool(a == b)),
        (And, lambda a, b: _matched(a.args, b.args)),
        (Relational, _same_relation),
    ):
        if isinstance(gold, kind) or isinstance(given, kind):
            return isinstance(gold, kind) and isinstance(given, kind) and equal(gold, given)
    return _same_term(gold, given)


def _pairwise(gold: Sequence[Any], given: Sequence[Any]) -> bool:
    return len(gold) == len(given) and all(same(a, b) for a, b in zip(gold, given, strict=True))


def _matched(gold: Sequence[Any], given: Sequence[Any]) -> bool:
    if len(gold) != len(given) or len(gold) > MOST_ELEMENTS:
        return False
    left = list(given)
    for element in gold:
        place = next((i for i, other in enumerate(left) if same(element, other)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def _same_matrix(gold: Any, given: Any) -> bool:
    return bool(gold.shape == given.shape) and _pairwise(gold.flat(), given.flat())


def _same_interval(gold: Any, given: Any) -> bool:
    ends = (gold.left_open, gold.right_open) == (given.left_open, given.right_open)
    return ends and same(gold.start, given.start) and same(gold.end, given.end)


def _same_relation(gold: Any, given: Any) -> bool:
    """Both are `something > 0` (or >=, =, !=) once all is on one side: equal up to a factor, positive for an order."""
    either_sign = isinstance(gold, Eq | Unequality)
    if (either_sign, _order(gold)) != (isinstance(given, Eq | Unequality), _order(given)):
        return False
    above, below = _one_side(gold), _one_side(given)
    if above == 0 or below == 0:
        return bool(above == below)
    ratio = simplify(above / below)
    return bool(ratio.is_number and ratio.is_real and ratio != 0 and (either_sign or ratio.is_positive))


def _order(relation: Any) -> str:
    return str(relation.rel_op.replace("<", ">"))


def _one_side(relation: Any) -> Any:
    difference = relation.lhs - relation.rhs
    return expand(-difference if "<" in relation.rel_op else difference)


def _same_term(gold: Any, given: Any) -> bool:
    if not isinstance(gold, Expr) or not isinstance(given, Expr):  # truth values: 1 = 1 says nothing
        return False
    if gold == given:
        return True
    if (gold.is_Rational and given.is_Rational) or gold.is_infinite or given.is_infinite:
        return False
    if gold.is_number and given.is_number:
        a, b = gold.evalf(DIGITS), given.evalf(DIGITS)
        scale = max(abs(a), abs(b))
        if abs(a - b) > AGREEING * scale and scale > AGREEING:
            return False
        if scale > AGREEING:
            return True
    difference = gold - given
    return bool(expand(difference) == 0 or simplify(difference) == 0)
