"""YAML as people write it: duplicate keys are errors, and 1e-6 is a number."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config_errors import MISSING, ConfigError


class _Loader(yaml.SafeLoader):
    """Safe loading with YAML 1.2's floats and without silently lost keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # what `<<` brings in may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no scalar", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("float", "int", "bool")}  # 010 is no octal, `yes` no bool
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever our loader would take for something else than text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
    return mapping_in(content, str(path))


def mapping_in(content: bytes, source: str) -> dict[str, Any]:
    """The mapping that the content of a YAML file is; `source` names the file. Errors as `read_mapping`."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(source, "", MISSING, f"UTF-8 text ({error.reason} at byte {error.start})") from None
    tree = _load(text, source)
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(source, "", MISSING if tree is None else tree, "a mapping with text keys at the top level")
    return tree


def parse_scalar(text: str, source: str) -> Any:
    """One value as it would stand behind a key in a YAML file."""
    return _load(text, source)


def dump(tree: Any) -> str:
    """YAML text with the keys in their own order."""
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _load(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(
            where, "", MISSING, f"YAML ({getattr(error, 'problem', None) or ' '.join(str(error).split())})"
        ) from None
