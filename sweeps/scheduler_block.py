"""A learning-rate policy that stands in a file of its own: the block below `scheduler` of an experiment file."""

from typing import Any

from pydantic import ValidationError

from actors.lr_policies import SchedulerConfig
from actors.settings import Settings
from orchestrator.config_errors import describe


class _Around(Settings):
    scheduler: SchedulerConfig


def scheduler_block(block: Any, file: str, name: str | None = None) -> SchedulerConfig:
    """Check a block.

    Args:
        block: as it was read from the file.
        file: where it stands, for messages.
        name: the key it stands under; None when it is the whole file.

    Raises:
        ConfigError: with file, field, value and what was expected.
    """
    tree = {"scheduler": block}
    above = () if name is None else (name,)
    try:
        return _Around.model_validate(tree).scheduler
    except ValidationError as error:
        raise describe(error, _Around, tree, file, lambda path: ".".join((*above, *path[1:]))) from None
