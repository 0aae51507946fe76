"""A mistake as one line: file, field, value, expectation."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.config_errors import LONGEST_VALUE, MISSING, ConfigError, FieldRule, describe, known_keys, one_of


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cat(Block):
    kind: Literal["cat"]
    lives: int = 9


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
    guests: dict[str, Pet] = {}


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
            "home.zzz: got 2, expected a known key, one of: pet, rooms, garden, guests",
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
        ({"pet": {"lives": 7}}, "home.pet: got {'lives': 7}, expected a mapping with a 'kind'"),
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


def test_a_rule_over_several_fields_names_the_one_to_change() -> None:
    class Ruled(Block):
        home: dict[str, int]

        def model_post_init(self, context: Any) -> None:
            raise FieldRule("home.rooms", "fewer rooms")

    tree = {"home": {"rooms": 9}}
    with pytest.raises(ValidationError) as raised:
        Ruled.model_validate(tree)
    text = str(describe(raised.value, Ruled, tree, "h.yaml", lambda path: "--set " + ".".join(path)))
    assert text == "h.yaml: --set home.rooms: got 9, expected fewer rooms"


def test_known_keys_are_those_of_the_kind_that_the_tree_names() -> None:
    assert known_keys(House, [], {}) == ["name", "home"]
    assert known_keys(House, ["home", "pet"], {"home": {"pet": {"kind": "dog"}}}) == ["kind", "tricks"]
    assert known_keys(House, ["home", "pet"], {"home": {"pet": {"kind": "cow"}}}) == []
    assert known_keys(House, ["garage"], {}) == []


def test_known_keys_are_found_in_a_block_that_may_be_left_out_and_under_names_the_user_chose() -> None:
    assert known_keys(House, ["home", "garden"], {"home": {"garden": {}}}) == ["trees", "pond"]
    guests = {"home": {"guests": {"rex": {"kind": "dog"}, "tom": {"kind": "cat"}}}}
    assert known_keys(House, ["home", "guests", "rex"], guests) == ["kind", "tricks"]
    assert known_keys(House, ["home", "guests", "tom"], guests) == ["kind", "lives"]
    assert known_keys(House, ["home", "guests"], guests) == []


def test_what_exists_is_listed_with_the_likeliest_first() -> None:
    known = ["reward/mean", "gradient/norm"]
    assert one_of("gradient/nrom", known) == "did you mean 'gradient/norm'? one of: reward/mean, gradient/norm"
    assert one_of("zzz", known) == "one of: reward/mean, gradient/norm"
