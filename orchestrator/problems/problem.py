"""A problem: what the policy is asked, and the answer that earns the reward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Example:
        Message(role="user", content="What is 347+285?")
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question and the answer that earns the reward.

    Example:
        Problem(
            prompt=(Message(role="user", content="What is 347+285?"),),
            answer="632",
            source="openai/gsm8k",
            extra={"split": "train", "index": 17},
        )
    """

    prompt: str | tuple[Message, ...]
    answer: str
    source: str = ""  # the data set it comes from; "" where the file does not say
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # whatever else a reward may look at

    @property
    def text(self) -> str:
        """The prompt without roles: the contents of messages are joined by blank lines."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n\n".join(message.content for message in self.prompt)
