"""What a run's folder says of the run that it began with."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.config_errors import MISSING, ConfigError

FORK = "forked_from.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What `forked_from.json` in a run's folder holds; one that began at its beginning has no such file.

    Example:
        Fork(source="baseline", forked_at=40, whole=False)
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    source: str  # arm of the run that did the first steps; the seed is the same
    forked_at: Annotated[int, Field(ge=1)]  # the first step that it does itself, which is how many are shared
    whole: bool  # the source was over and decided every rate alike: nothing was left to do

    def to_json(self) -> str:
        """One JSON object in one line."""
        return json.dumps(asdict(self)) + "\n"


_STORED = TypeAdapter(Fork)


def read_fork(folder: Path) -> Fork | None:
    """What a run began with; None when it began at its beginning, or is not there.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    path = folder / FORK
    try:
        return _STORED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
    except ValidationError as error:
        details = error.errors()[0]
        field = ".".join(str(key) for key in details["loc"])
        raise ConfigError(str(path), field, MISSING, f"what a run was forked from ({details['msg']})") from None
