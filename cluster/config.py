"""What an experiment file says about the cluster."""

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """The `cluster:` block of an experiment file.

    Example:
        >>> ClusterConfig(placement_timeout_s=30).address is None
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    address: str | None = Field(
        None, description="Ray address to join; null starts a private Ray on this machine (RAY_ADDRESS is honoured)"
    )
    placement_timeout_s: float = Field(60.0, gt=0, le=1e9, description="how long to wait for room before giving up")
    call_timeout_s: float = Field(
        1800.0, gt=0, le=1e9, description="a worker silent for longer than this counts as lost"
    )
