"""What an experiment file says about files of problems: which columns to read, and how a prompt is made of them."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from actors.settings import Settings

PROMPT_KEYS = ("prompt", "problem", "question")
ANSWER_KEYS = ("reward_model.ground_truth", "answer", "solution", "final_answer")
SOURCE_KEY = "data_source"
EXTRA_KEY = "extra_info"

CHAT, PLAIN = "chat", "plain"
PLACE = "{problem}"  # where a template takes the problem's text
TEMPLATES = f"{CHAT}, {PLAIN}, or a text with {PLACE} in it"

Key = Annotated[str, Field(min_length=1)]


class ColumnsConfig(Settings):
    """The part of a block that names files: their columns, and the template of the prompt.

    A dot in a key leads into a struct or a JSON object, unless a column has the whole key as its name. With nothing but
    defaults, files in the layout that verl reads can be used as they are.

    Example:
        >>> ColumnsConfig(prompt_key="question", answer_key="answer", answer_pattern="#### (.+)").template
        'chat'
    """

    prompt_key: Key | None = Field(None, description=f"null is the first that there is of {', '.join(PROMPT_KEYS)}")
    answer_key: Key | None = Field(None, description=f"null is the first that there is of {', '.join(ANSWER_KEYS)}")
    source_key: Key = Field(SOURCE_KEY, description="text; a file may lack the default, not one that was asked for")
    extra_key: Key = Field(EXTRA_KEY, description="a struct or object, optional like the source")
    answer_pattern: str | None = Field(
        None, description="regular expression; its last match in the column, or group 1 of that, is the answer"
    )
    template: str = Field(CHAT, description=TEMPLATES)

    @field_validator("answer_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return pattern

    @field_validator("template")
    @classmethod
    def _keeps_the_problem(cls, template: str) -> str:
        if not keeps_the_problem(template):
            raise ValueError(TEMPLATES)
        return template


def keeps_the_problem(template: str) -> bool:
    """Whether it is one of the two named templates, or has a place for the problem."""
    return template in (CHAT, PLAIN) or PLACE in template
