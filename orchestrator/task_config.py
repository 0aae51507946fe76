"""The `task:` block: where problems come from, how their prompts look, and what answers earn."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from actors.settings import Settings
from orchestrator.problems.config import ColumnsConfig
from orchestrator.rewards.config import (
    ArithmeticReward,
    ExactReward,
    FormatConfig,
    LimitsConfig,
    MathReward,
    OverlongConfig,
    PythonReward,
    RegexReward,
    RewardConfig,
)


def _listed(files: Any) -> Any:
    listed = [files] if isinstance(files, str) else files
    if not isinstance(listed, list) or not listed or not all(isinstance(file, str) and file for file in listed):
        raise ValueError("the name of a file, or a list of them")
    return listed


class _Shaped(Settings):
    limits: LimitsConfig = LimitsConfig()
    overlong: OverlongConfig | None = Field(None, description="what a response loses that nears the length limit")
    format: FormatConfig | None = Field(None, description="what a response gains whose form is right")


class ArithmeticTaskConfig(_Shaped):
    """`task: {kind: arithmetic}`: sums of two numbers, made up without end; the task of the embedded model."""

    kind: Literal["arithmetic"]
    digits: Annotated[int, Field(ge=2)] = 3

    def reward(self) -> RewardConfig:
        """What scores its answers."""
        return ArithmeticReward(kind="arithmetic")


class _FileTask(ColumnsConfig, _Shaped):
    train: Annotated[list[str], BeforeValidator(_listed)] = Field(description="files, one after the other; or one")


class ExactTaskConfig(_FileTask, ExactReward):
    """`task: {kind: exact}`: problems from files; the response is the answer."""

    def reward(self) -> RewardConfig:
        """What scores its answers."""
        return ExactReward(kind=self.kind, ignore_case=self.ignore_case)


class RegexTaskConfig(_FileTask, RegexReward):
    """`task: {kind: regex}`: problems from files; a pattern finds the answer in the response."""

    def reward(self) -> RewardConfig:
        """What scores its answers."""
        return RegexReward(kind=self.kind, pattern=self.pattern)


class MathTaskConfig(_FileTask, MathReward):
    """`task: {kind: math}`: problems from files; mathematically equal answers are right.

    Example:
        >>> MathTaskConfig(kind="math", train=["dapo.parquet"]).train
        ['dapo.parquet']
    """

    def reward(self) -> RewardConfig:
        """What scores its answers."""
        return MathReward(kind=self.kind)


class PythonTaskConfig(_FileTask, PythonReward):
    """`task: {kind: python}`: problems from files; a function of the user's scores the response."""

    def reward(self) -> RewardConfig:
        """What scores its answers."""
        return PythonReward(kind=self.kind, function=self.function)


FileTaskConfig = ExactTaskConfig | RegexTaskConfig | MathTaskConfig | PythonTaskConfig
TaskConfig = Annotated[ArithmeticTaskConfig | FileTaskConfig, Field(discriminator="kind")]
