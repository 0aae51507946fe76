"""A mistake as one line: file, field, value, expectation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from actors.misfit import Misfit
from orchestrator.config_errors import (
    LONGEST_VALUE,
    MISSING,
    NAME,
    NAME_PATTERN,
    ConfigError,
    FieldRule,
    describe,
    known_keys,
    one_of,
)


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cat(Block):
    kind: Literal["cat"]
    lives: int = 9
    lost: int = 0

    @model_validator(mode="after")
    def _some_are_left(self) -> Self:
        if self.lost >= self.lives:
            raise Misfit("lives", self.lives, f"more than lost, which is {self.lost}")
        return self


class Dog(Block):
    kind: Literal["dog"]
    tricks: list[int] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Garden(Block):
    trees: int = 0
    pond: bool = False


class Home(Block):
    pet: Pet
    rooms: Annotated[int, Field(ge=1)] = 1
    garden: Garden | None = None
    guests: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Pet] = {}
    motto: Annotated[str, Field(min_length=1)] = "x"
    doors: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    size: Annotated[int, Field(strict=False)] = 1


class House(Block):
    name: str
    home: Home


def message(tree: dict[str, Any]) -> str:
    """What is said about a tree that is no House."""
    with pytest.raises(ValidationError) as raised:
        House.model_validate(tree)
    return str(describe(raised.value, House, tree, "h.yaml", ".".join))


def test_the_parts_of_a_message_stand_in_one_order_and_empty_ones_are_left_out() -> None:
    assert str(ConfigError("h.yaml", "rooms", 0, "at least 1")) == "h.yaml: rooms: got 0, expected at least 1"
    assert str(ConfigError("h.yaml", "", MISSING, "a mapping")) == "h.yaml: expected a mapping"
    assert str(ConfigError("h.yaml", "name", None, "a value")) == "h.yaml: name: got null, expected a value"


def test_the_parts_can_be_read_one_by_one() -> None:
    error = ConfigError("h.yaml", "rooms", 0, "at least 1")
    assert (error.file, error.field, error.value, error.expected) == ("h.yaml", "rooms", 0, "at least 1")
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("value", ["two\nlines", "x" * 1000, {"a": "\n" * 500}])
def test_a_value_is_shown_on_one_line_of_bounded_length(value: Any) -> None:
    text = str(ConfigError("h.yaml", "name", value, "a name"))
    assert "\n" not in text
    assert len(text) <= len("h.yaml: name: got , expected a name") + LONGEST_VALUE


@pytest.mark.parametrize(
    ("home", "said"),
    [
        ({"pet": {"kind": "cat"}, "rooms": 0}, "home.rooms: got 0, expected greater than or equal to 1"),
        ({"pet": {"kind": "cat"}, "rooms": "2"}, "home.rooms: got '2', expected a valid integer"),
        ({"pet": {"kind": "cat"}, "rooms": True}, "home.rooms: got True, expected a valid integer"),
        ({"pet": {"kind": "cat"}, "room": 2}, "home.room: got 2, expected a known key; did you mean 'rooms'?"),
        (
            {"pet": {"kind": "cat"}, "zzz": 2},
            "home.zzz: got 2, expected a known key, one of: pet, rooms, garden, guests, motto, doors, size",
        ),
        (
            {"pet": {"kind": "cat"}, "garden": {"tree": 2}},
            "home.garden.tree: got 2, expected a known key; did you mean 'trees'?",
        ),
        (
            {"pet": {"kind": "cat"}, "garden": {"zzz": 2}},
            "home.garden.zzz: got 2, expected a known key, one of: trees, pond",
        ),
        ({"pet": {"kind": "cat"}, "garden": 7}, "home.garden: got 7, expected a mapping"),
        (
            {"pet": {"kind": "cat"}, "guests": {"rex": {"kind": "dog", "trick": 2}}},
            "home.guests.rex.trick: got 2, expected a known key; did you mean 'tricks'?",
        ),
        (
            {"pet": {"kind": "cat"}, "guests": {"rex": {"kind": "cow"}}},
            "home.guests.rex.kind: got 'cow', expected a kind out of 'cat', 'dog'",
        ),
        ({}, "home.pet: expected a value: it is missing"),
        ({"pet": {"kind": "cow"}}, "home.pet.kind: got 'cow', expected a kind out of 'cat', 'dog'"),
        ({"pet": {"lives": 7}}, "home.pet.kind: expected a kind out of 'cat', 'dog': it is missing"),
        ({"pet": {"kind": None}}, "home.pet.kind: got null, expected a kind out of 'cat', 'dog'"),
        (
            {"pet": {"kind": "cat"}, "guests": {"a.b": {"lives": 2}}},
            "home.guests.a.b.kind: expected a kind out of 'cat', 'dog': it is missing",
        ),
        ({"pet": {"kind": "cat", "lives": 3, "lost": 3}}, "home.pet.lives: got 3, expected more than lost, which is 3"),
        ({"pet": {"kind": "cat", "lost": 10}}, "home.pet.lives: got 9, expected more than lost, which is 10"),
        ({"pet": {"kind": "cat"}, "guests": {"a b": {"kind": "dog"}}}, f"home.guests: got 'a b', expected {NAME}"),
        ({"pet": {"kind": "cat"}, "guests": {7: {"kind": "dog"}}}, "home.guests: got 7, expected a valid string"),
        ({"pet": {"kind": "cat"}, "motto": ""}, "home.motto: got '', expected text of 1 or more characters"),
        ({"pet": {"kind": "cat"}, "guests": [1]}, "home.guests: got [1], expected a mapping"),
        ({"pet": {"kind": "cat"}, "doors": []}, "home.doors: got [], expected a list of 1 or more"),
        ({"pet": {"kind": "cat"}, "doors": [1, 2, 3]}, "home.doors: got [1, 2, 3], expected a list of 2 or fewer"),
        ({"pet": {"kind": "cat"}, "size": 1.5}, "home.size: got 1.5, expected a valid integer"),
        ({"pet": {"kind": "cat", "lives": "7"}}, "home.pet.lives: got '7', expected a valid integer"),
        ({"pet": {"kind": "cat", "live": 7}}, "home.pet.live: got 7, expected a known key; did you mean 'lives'?"),
        ({"pet": {"kind": "dog", "lives": 7}}, "home.pet.lives: got 7, expected a known key, one of: kind, tricks"),
        ({"pet": {"kind": "dog", "tricks": [1, "x"]}}, "home.pet.tricks.1: got 'x', expected a valid integer"),
    ],
)
def test_a_mistake_is_told_with_field_value_and_expectation(home: dict[str, Any], said: str) -> None:
    assert message({"name": "x", "home": home}) == f"h.yaml: {said}"


def test_the_first_of_several_mistakes_is_told_and_the_others_counted() -> None:
    text = message({"name": 3, "home": {"pet": {"kind": "cat", "lives": "7"}, "rooms": 0}})
    assert text == "h.yaml: name: got 3, expected a valid string (and 2 more)"


def test_a_key_that_is_no_text_is_a_mistake_like_any_other() -> None:
    text = message({"name": "x", "home": {"pet": {"kind": "cat"}, 7: 1}})  # type: ignore[dict-item]
    assert text.startswith("h.yaml: home.7: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("field", "name"), [("home.rooms", "rooms"), (("home", "rooms"), "rooms"), (["home", "a.b"], "a.b")]
)
def test_a_rule_over_several_fields_names_the_one_to_change(field: str | Sequence[str], name: str) -> None:
    class Ruled(Block):
        home: dict[str, int]

        def model_post_init(self, context: Any) -> None:
            raise FieldRule(field, "fewer rooms")

    tree = {"home": {name: 9}}
    with pytest.raises(ValidationError) as raised:
        Ruled.model_validate(tree)
    text = str(describe(raised.value, Ruled, tree, "h.yaml", lambda path: "--set " + ".".join(path)))
    assert text == f"h.yaml: --set home.{name}: got 9, expected fewer rooms"


def test_known_keys_are_those_of_the_kind_that_the_tree_names() -> None:
    assert known_keys(House, [], {}) == ["name", "home"]
    assert known_keys(House, ["home", "pet"], {"home": {"pet": {"kind": "dog"}}}) == ["kind", "tricks"]
    assert known_keys(House, ["home", "pet"], {"home": {"pet": {"kind": "cow"}}}) == []
    assert known_keys(House, ["garage"], {}) == []


def test_known_keys_are_found_in_a_block_that_may_be_left_out_and_under_names_the_user_chose() -> None:
    assert known_keys(House, ["home", "garden"], {"home": {"garden": {}}}) == ["trees", "pond"]
    guests = {"home": {"guests": {"rex": {"kind": "dog"}, "tom": {"kind": "cat"}}}}
    assert known_keys(House, ["home", "guests", "rex"], guests) == ["kind", "tricks"]
    assert known_keys(House, ["home", "guests", "tom"], guests) == ["kind", "lives", "lost"]
    assert known_keys(House, ["home", "guests"], guests) == []


def test_what_exists_is_listed_with_the_likeliest_first() -> None:
    known = ["reward/mean", "gradient/norm"]
    assert one_of("gradient/nrom", known) == "did you mean 'gradient/norm'? one of: reward/mean, gradient/norm"
    assert one_of("zzz", known) == "one of: reward/mean, gradient/norm"
