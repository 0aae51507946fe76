"""Statistics that merge field by field, each as the field says."""

import doctest
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

import actors.sums
from actors.sums import MAX, MIN, NESTED, SUM, Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Sums):
    count: int = field(default=0, metadata=SUM)
    largest: int = field(default=-1000, metadata=MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Sums):
    inner: Inner = field(default=Inner(), metadata=NESTED)
    total: int = field(default=0, metadata=SUM)
    smallest: int = field(default=1000, metadata=MIN)


numbers = st.lists(st.integers(-99, 99), max_size=8)


def of(values: list[int]) -> Outer:
    """The statistics of whole numbers, which float rounding cannot blur."""
    if not values:
        return Outer()
    return Outer(inner=Inner(count=len(values), largest=max(values)), total=sum(values), smallest=min(values))


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(actors.sums) == (0, 2)


@given(st.lists(numbers, max_size=9))
def test_any_split_merges_into_the_statistics_of_the_whole(parts: list[list[int]]) -> None:
    whole = of([value for part in parts for value in part])
    assert Outer().merge(*map(of, parts)) == whole
    stepwise = Outer()
    for part in parts:
        stepwise = stepwise.merge(of(part))
    assert stepwise == whole


@given(numbers)
def test_nothing_and_the_statistics_of_nothing_change_nothing(values: list[int]) -> None:
    assert of(values).merge() == of(values).merge(Outer()) == Outer().merge(of(values)) == of(values)


def test_the_parts_are_left_as_they_were_and_the_class_is_kept() -> None:
    one, other = of([3, 5]), of([7])
    merged = one.merge(other)
    assert type(merged) is Outer and type(merged.inner) is Inner
    assert (one, other) == (of([3, 5]), of([7]))
