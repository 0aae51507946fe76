"""What an experiment file says about the cluster."""

from pydantic import BaseModel, ConfigDict, Field

from cluster.plan import Strategy


class RestartsConfig(BaseModel):
    """The `cluster.restarts:` block: how often in a row a lost worker is replaced before the run gives up.

    In a row means: before a step is done that was not done before.

    Example:
        >>> RestartsConfig(learner=0).rollout
        3
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rollout: int = Field(3, ge=0, le=1_000_000, description="rollout workers")
    learner: int = Field(3, ge=0, le=1_000_000, description="learners, all of them together")
    scheduler: int = Field(3, ge=0, le=1_000_000, description="the scheduler")


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
    strategy: Strategy = Field(
        "PACK", description="workers fill one node after the other; STRICT_PACK: all on one node; SPREAD: over many"
    )
    colocate: bool = Field(
        False, description="rollout worker i and learner rank i share a GPU, and take turns on it (on CPUs: a node)"
    )
    placement_timeout_s: float = Field(60.0, gt=0, le=1e9, description="how long to wait for room before giving up")
    call_timeout_s: float = Field(
        1800.0, gt=0, le=1e9, description="a worker that takes longer than this for a call counts as lost"
    )
    silence_timeout_s: float = Field(
        60.0, gt=0, le=1e9, description="so does one that gives no sign of life for so long while it works"
    )
    restarts: RestartsConfig = RestartsConfig()
