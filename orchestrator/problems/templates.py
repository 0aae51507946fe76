"""Prompts as the model reads them: a problem in its template, as text and as token ids."""

from typing import Any

from jinja2 import TemplateError

from orchestrator.config_errors import ConfigError
from orchestrator.problems.config import CHAT, PLACE, PLAIN, TEMPLATES, keeps_the_problem
from orchestrator.problems.problem import Message, Problem

INSTEAD = f"{PLAIN}, or a text with {PLACE} in it"


class Template:
    """Writes prompts.

    `chat` is the tokenizer's chat template, with the opening of the answer behind it; a text becomes the message of
    a user. `plain` is the problem as it is, and a text with {problem} in it has it there, letter by letter. Where these
    two are given messages, they take the contents, joined by blank lines.

    Token ids are those of the text and no others: what the tokenizer would put around it, a token for the beginning for
    example, a chat template has written already, and without one the text is the whole prompt.

    template = Template("chat", tokenizer, "gsm8k.yaml")
    template.encode(problem)
    """

    def __init__(self, template: str, tokenizer: Any, file_label: str, field: str = "task.template") -> None:
        """Define the template.

        Args:
            template: chat, plain, or a text.
            tokenizer: of the model, from transformers.
            file_label: the experiment file, for messages.
            field: the key in it that has the template.

        Raises:
            ConfigError: the text has no place for the problem, or the tokenizer has no chat template.
        """
        if not keeps_the_problem(template):
            raise ConfigError(file_label, field, template, TEMPLATES)
        if template == CHAT and not tokenizer.chat_template:
            raise ConfigError(file_label, field, template, f"{INSTEAD}: the model's tokenizer has no chat template")
        self._template = template
        self._tokenizer = tokenizer
        self._file_label = file_label
        self._field = field

    def render(self, problem: Problem) -> str:
        """The text of a prompt.

        Raises:
            ConfigError: the chat template refuses the messages.
        """
        if self._template == PLAIN:
            return problem.text
        return self._chat(problem) if self._template == CHAT else self._template.replace(PLACE, problem.text)

    def encode(self, problem: Problem) -> list[int]:
        """[P] the token ids of a prompt; raises what `render` does."""
        # verbose warns of prompts beyond the model's context; these are passed over, and counted, by who asks
        ids: list[int] = self._tokenizer(self.render(problem), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def check(self, problem: Problem) -> None:
        """Whether the chat template keeps what a problem says, answers of an assistant aside, which many shorten.

        Raises:
            ConfigError: it drops the text of a message, or refuses them.
        """
        text = self.render(problem)
        for message in _messages(problem):
            if message.role != "assistant" and message.content.strip() not in text:
                dropped = f"the tokenizer's chat template drops the text of the {message.role}"
                raise ConfigError(self._file_label, self._field, self._template, f"{INSTEAD}: {dropped}")

    def _chat(self, problem: Problem) -> str:
        messages = [{"role": message.role, "content": message.content} for message in _messages(problem)]
        try:
            text: str = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())
            refused = f"the tokenizer's chat template refuses {problem.text[:40]!r} ({why})"
            raise ConfigError(self._file_label, self._field, self._template, f"{INSTEAD}: {refused}") from None
        return text


def _messages(problem: Problem) -> tuple[Message, ...]:
    return (Message(role="user", content=problem.prompt),) if isinstance(problem.prompt, str) else problem.prompt
