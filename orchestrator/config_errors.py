"""A user's mistake in one line: file, field, value, and what was expected."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from actors.misfit import Misfit

LONGEST_VALUE = 80  # characters of a value that a message shows
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # names become folders
NAME = "a name of up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
BAD_KEY = "[key]"  # what pydantic puts after a key that is itself wrong
# What pydantic's types of error mean to a user; for the others its own words are good enough.
EXPECTED = {
    "missing": "a value: it is missing",
    "union_tag_invalid": "a kind out of {expected_tags}",
    "value_error": "{error}",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of {min_length} or more characters",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
}
Label = Callable[[tuple[str, ...]], str]


class FieldRule(ValueError):
    """A rule over several fields of a whole file was broken; `path` leads to the one to change."""

    def __init__(self, field: str | Sequence[str], expected: str) -> None:
        """Args: field: the keys that lead to it, dotted where none of them has a dot in it."""
        super().__init__(expected)
        self.path = tuple(field.split(".")) if isinstance(field, str) else tuple(field)


MISSING: Any = object()  # where there is no value to show; None is one, and stands as null in a file


class ConfigError(ValueError):
    """Something the user wrote cannot be used.

    Example:
        >>> str(ConfigError("demo.yaml", "rollout.group_size", 1, "at least 2"))
        'demo.yaml: rollout.group_size: got 1, expected at least 2'
    """

    def __init__(self, file: str, field: str, value: Any, expected: str) -> None:
        got = "" if value is MISSING else f"got {_short(value)}, "
        super().__init__(": ".join(part for part in (file, field, f"{got}expected {expected}") if part))
        self.file, self.field, self.value, self.expected = file, field, value, expected


def describe(
    error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any], file: str, label: Label
) -> ConfigError:
    """The first of pydantic's complaints about `tree`, in our words.

    Args:
        error: what validating `tree` against `model` raised.
        model: the schema.
        tree: the mapping that was validated.
        file: its name, for the message.
        label: turns a path of keys into the name the user knows it by.
    """
    details = error.errors()[0]
    path = _field(details, tree)
    more = error.error_count() - 1
    expected = _expected(details, path, model, tree) + (f" (and {more} more)" if more else "")
    return ConfigError(file, label(path), _written(details, path, tree), expected)


def _field(details: ErrorDetails, tree: Any) -> tuple[str, ...]:
    """The keys that lead to the field to change; of a key that is wrong, to the mapping that it stands in."""
    location, cause = details["loc"], _cause(details)
    if isinstance(cause, FieldRule):
        return cause.path
    if location[-1:] == (BAD_KEY,):
        return _path(location[:-2], tree)
    path = _path(location, tree)
    if isinstance(cause, Misfit):
        return (*path, cause.field)
    return (*path, "kind") if details["type"].startswith("union_tag_") else path


def _written(details: ErrorDetails, path: Sequence[str], tree: Any) -> Any:
    """What stands there, or the default that is the trouble."""
    if details["loc"][-1:] == (BAD_KEY,):
        return details["input"]
    value, cause = _value(path, tree), _cause(details)
    return cause.value if value is MISSING and isinstance(cause, Misfit) else value


def _cause(details: ErrorDetails) -> Any:
    """The exception of ours behind a complaint, if any."""
    return details.get("ctx", {}).get("error")


def _path(location: Sequence[int | str], tree: Any) -> tuple[str, ...]:
    """The keys of a pydantic location, without the `kind` tags it puts in for tagged unions."""
    path: list[str] = []
    node = tree
    is_tagged = False  # the tag comes once for each block, before the keys in it; a block may have a key of its name
    for key in location:
        if isinstance(node, Mapping) and node.get("kind") == key and not is_tagged:
            is_tagged = True
            continue
        is_tagged = False
        path.append(str(key))
        if isinstance(node, Mapping):
            node = node.get(key)
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            node = node[key]
    return tuple(path)


def _value(path: Sequence[str], tree: Any) -> Any:
    node = tree
    for key in path:
        if isinstance(node, Mapping):
            node = node.get(key, MISSING)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return MISSING
    return node


def _expected(details: ErrorDetails, path: tuple[str, ...], model: type[BaseModel], tree: Mapping[str, Any]) -> str:
    context, cause = details.get("ctx", {}), _cause(details)
    if isinstance(cause, Misfit):
        return cause.expected
    if context.get("pattern") == NAME_PATTERN:
        return NAME
    if details["type"] in EXPECTED:
        return EXPECTED[details["type"]].format(**context)
    if details["type"] == "union_tag_not_found":
        kinds = [kind for option in _models(_annotation_at(model, path[:-1], tree)[0]) for kind in _kinds(option)]
        return f"a kind out of {', '.join(map(repr, kinds))}: it is missing"
    if details["type"] == "extra_forbidden":
        known = known_keys(model, path[:-1], tree)
        close = get_close_matches(path[-1], known, n=1)
        return "a known key" + (f"; did you mean {close[0]!r}?" if close else f", one of: {', '.join(known)}")
    return details["msg"].removeprefix("Input should be ").partition(", got ")[0]


def known_keys(model: type[BaseModel], path: Sequence[str], tree: Any) -> list[str]:
    """Keys that the schema knows at `path`; where there are several kinds, those of the kind that `tree` names."""
    found = _model_of(*_annotation_at(model, path, tree))
    return list(found.model_fields) if found is not None else []


def _annotation_at(model: type[BaseModel], path: Sequence[str], tree: Any) -> tuple[Any, Any]:
    """What the schema says of the value at `path`, and that value."""
    annotation: Any = model
    node = tree
    for key in path:
        annotation = _annotation_of(annotation, key, node)
        node = node.get(key) if isinstance(node, Mapping) else None
    return annotation, node


def _annotation_of(annotation: Any, key: str, node: Any) -> Any:
    """What the schema says of the value at `key`, of a mapping from free names as of a block."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    found = _model_of(annotation, node)
    field = found.model_fields.get(key) if found is not None else None
    return field.annotation if field else None


def _model_of(annotation: Any, node: Any) -> type[BaseModel] | None:
    """The only model in an annotation, or of several the one of the kind that `node` names."""
    options = _models(annotation)
    if len(options) == 1:
        return options[0]
    kind = node.get("kind") if isinstance(node, Mapping) else None
    of_kind = [option for option in options if kind in _kinds(option)]
    return of_kind[0] if of_kind else None


def _kinds(option: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(option.model_fields["kind"].annotation)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def one_of(written: str, known: Sequence[str]) -> str:
    """What exists instead of what was written, the likeliest first: `did you mean 'a/b'? one of: a/b, a/c`."""
    close = get_close_matches(written, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"one of: {', '.join(known)}"


def _short(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
