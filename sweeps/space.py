"""The space of a sweep: what each trial sets in the experiment, and between which bounds."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, Protocol, Self, TypeVar

from pydantic import Field, PlainValidator, model_validator

from actors.misfit import Misfit
from actors.settings import Settings


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("text, a finite number, true, false or null")
    return value


def _scalars(value: Any) -> list[Any]:
    if value == []:
        raise ValueError("a value or several")
    return [_scalar(item) for item in value] if isinstance(value, list) else [_scalar(value)]


# Plain validators: of a union pydantic complains once for each of its members.
Choice = Annotated[str | int | float | bool | None, PlainValidator(_scalar)]
Number = TypeVar("Number", int, float)
Params = dict[str, Any]  # dotted path -> value


class CircularConditions(ValueError):
    """Dimensions wait for each other; `path` is one of them, or waits for one."""

    def __init__(self, path: str) -> None:
        super().__init__(f"the conditions of {path} cannot be met")
        self.path = path


class Trial(Protocol):
    """What is asked of an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number between two bounds."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number between two bounds."""

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """One of the choices."""


class _Dimension(Settings):
    when: dict[str, Annotated[list[Choice], PlainValidator(_scalars)]] = Field(
        default_factory=dict, description="values, one or several each, that other paths of the space must have"
    )

    def conditions(self) -> str:
        """`when` in words."""
        return " and ".join(f"{path} is {' or '.join(map(str, allowed))}" for path, allowed in self.when.items())


class _Range(_Dimension, Generic[Number]):
    """Both bounds included."""

    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _bounds_go_together(self) -> Self:
        if self.low > self.high:
            raise Misfit("low", self.low, f"at most high, which is {self.high}")
        if self.log and self.low <= 0:
            raise Misfit("low", self.low, "more than 0 on a logarithmic scale")
        if self.log and self.step is not None:
            raise Misfit("step", self.step, "null on a logarithmic scale")
        if not self._on_grid(self.high):
            raise Misfit("high", self.high, f"low and a whole number of steps: {self.low} + n * {self.step}")
        return self

    def edges(self) -> tuple[Number, ...]:
        """The values that must be possible for all others to be."""
        return (self.low, self.high)

    def _within(self, value: float) -> bool:
        return self.low <= value <= self.high and self._on_grid(value)

    def _on_grid(self, value: float) -> bool:
        """Whether it is `low` and a whole number of steps, as decimal numbers."""
        if self.step is None:
            return True
        value_, low, step = (Decimal(repr(number)) for number in (value, self.low, self.step))
        return (value_ - low) % step == 0

    def expected(self) -> str:
        """What is within, in words."""
        return f"from {self.low} to {self.high}" + ("" if self.step is None else f" in steps of {self.step}")


class FloatRange(_Range[float]):
    """`kind: float`, both bounds included.

    Example:
        >>> FloatRange(kind="float", low=1.2, high=3.0).edges()
        (1.2, 3.0)
    """

    kind: Literal["float"]

    def contains(self, value: Any) -> bool:
        """Whether a trial can have it."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self._within(value)

    def suggest(self, path: str, trial: Trial) -> float:
        """The trial's value."""
        return float(trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log))


class IntRange(_Range[int]):
    """`kind: int`, both bounds included.

    Example:
        >>> IntRange(kind="int", low=1, high=5, step=2).contains(4)
        False
    """

    kind: Literal["int"]

    def contains(self, value: Any) -> bool:
        """Whether a trial can have it."""
        return isinstance(value, int) and not isinstance(value, bool) and self._within(value)

    def expected(self) -> str:
        """What is within, in words."""
        return f"a whole number {super().expected()}"

    def suggest(self, path: str, trial: Trial) -> int:
        """The trial's value."""
        return int(trial.suggest_int(path, self.low, self.high, step=self.step or 1, log=self.log))


class Choices(_Dimension):
    """`kind: categorical`.

    Example:
        >>> Choices(kind="categorical", choices=["start", "surge"]).contains("end")
        False
    """

    kind: Literal["categorical"]
    choices: list[Choice] = Field(min_length=1)

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        for i, choice in enumerate(self.choices):
            if choice in self.choices[:i]:
                raise Misfit("choices", self.choices, f"choices that differ from each other: {choice!r} stands twice")
        return self

    def edges(self) -> tuple[Choice, ...]:
        """The values that must be possible: all."""
        return tuple(self.choices)

    def contains(self, value: Any) -> bool:
        """Whether a trial can have it; true is not 1."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    def expected(self) -> str:
        """What is within, in words."""
        return f"one of its choices: {', '.join(map(repr, self.choices))}"

    def suggest(self, path: str, trial: Trial) -> Choice:
        """The trial's value."""
        return trial.suggest_categorical(path, self.choices)


Dimension = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


def ask(space: Mapping[str, Dimension], trial: Trial) -> Params:
    """Have a trial choose; what exists depends on what was chosen before.

    Args:
        space: the `space:` block.
        trial: of Optuna, or anything that suggests like one.
    """
    params: Params = {}
    for path, dimension in in_order(space).items():
        if exists(dimension, params):
            params[path] = dimension.suggest(path, trial)
    return params


def exists(dimension: Dimension, params: Mapping[str, Any]) -> bool:
    """Whether its conditions hold; one on a path without a value does not."""
    return all(path in params and params[path] in allowed for path, allowed in dimension.when.items())


def in_order(space: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Each dimension after those that its conditions are on, otherwise as they stand.

    Raises:
        CircularConditions: there is no such order.
    """
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(space):
        left = {path: dimension for path, dimension in space.items() if path not in ordered}
        ready = next((path for path in left if left[path].when.keys() <= ordered.keys()), None)
        if ready is None:
            raise CircularConditions(next(iter(left)))
        ordered[ready] = left[ready]
    return ordered
